//! What Leveret keeps of a workflow, by hand: its own scripts, with what they get from it, in as few pipelines as there can be.
//!
//! Each start has its record, each turn its guarded commit, each end its place in the index and its day of removal, and what nobody has finished is found.
//! Nothing else is done here: no replay, no code of a workflow, no waiting for a result.

use std::sync::LazyLock;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, Pipeline, Script, Value};
use uuid::Uuid;

use crate::floor::Item;

static CREATE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../src/backend/redis/scripts/create.lua")));
static COMMIT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../src/backend/redis/scripts/commit.lua")));
static INDEX: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../src/backend/redis/scripts/index.lua")));

/// The scripts that it calls. Each is hashed once: a hash takes as long as the call.
pub(crate) fn scripts() -> [&'static Script; 3] {
    [&CREATE, &COMMIT, &INDEX].map(|script| &**script)
}

/// Bytes that a turn, a view and an origin have beside payloads: about what Leveret's have.
const TURN: usize = 300;
const VIEW: usize = 60;
const ORIGIN: usize = 40;

/// The sets of the due-set and of the index.
const DUE: [&str; 2] = ["kept:{due}:set", "kept:{due}:payloads"];
const SETS: [&str; 7] = [
    "kept:{index}:noted",
    "kept:{index}:running",
    "kept:{index}:suspended",
    "kept:{index}:stalled",
    "kept:{index}:completed",
    "kept:{index}:failed",
    "kept:{index}:terminated",
];

/// Of the index's sets, from 1.
const RUNNING: u8 = 1;
const COMPLETED: u8 = 4;

/// One of the item's instance's keys.
fn key(item: &Item, name: &str) -> String {
    format!("kept:{{{}}}:{name}", item.workflow)
}

/// An ID that is the same whenever it is asked for.
fn id(item: &Item, what: &str) -> String {
    let namespace = Uuid::parse_str(&item.workflow).unwrap_or_default();
    Uuid::new_v5(&namespace, what.as_bytes()).simple().to_string()
}

/// A name in the due-set, of about the length that Leveret's have.
fn entry(item: &Item, what: &str) -> String {
    format!("{}:{}", id(item, what), item.workflow)
}

/// The guard of the commit after so many.
fn guard(item: &Item, version: u32) -> String {
    let commit = match version {
        0 => "-".to_owned(),
        _ => id(item, &version.to_string()),
    };
    format!("{} {version} {commit}", id(item, "execution"))
}

fn filled(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}

/// Adds a call of a script.
fn call<'a>(pipeline: &'a mut Pipeline, script: &Script, keys: &[String]) -> &'a mut Pipeline {
    let call = pipeline.cmd("EVALSHA").arg(script.get_hash()).arg(keys.len());
    keys.iter().fold(call, |call, key| call.arg(key))
}

async fn send(redis: &mut MultiplexedConnection, pipeline: &Pipeline, refused: &[&str]) -> Result<(), String> {
    let replies: Vec<Value> = pipeline.query_async(redis).await.map_err(|error| error.to_string())?;
    for reply in replies {
        let word = match reply {
            Value::Array(parts) => parts.into_iter().next(),
            other => Some(other),
        };
        if let Some(Value::BulkString(word)) = word
            && refused.iter().any(|refused| refused.as_bytes() == word)
        {
            return Err(format!("refused: {}", String::from_utf8_lossy(&word)));
        }
    }
    Ok(())
}

/// The record of each instance, its check, and its place in the index.
pub(crate) async fn create(redis: &mut MultiplexedConnection, started: &[&Item]) -> Result<(), String> {
    let mut pipeline = redis::pipe();
    for item in started {
        let request = id(item, "request");
        let keys = ["meta", "inbox", "claims"].map(|name| key(item, name));
        let keys: Vec<_> = keys.into_iter().chain([key(item, &request)]).collect();
        call(&mut pipeline, &CREATE, &keys)
            .arg(id(item, "execution"))
            .arg(id(item, "run"))
            .arg(request)
            .arg(filled(ORIGIN))
            .arg(&item.payload)
            .arg(0)
            .arg("")
            .arg(3_600_000)
            .arg(3_600_000);
    }
    note(&mut pipeline, started, RUNNING, "check", 5);
    send(redis, &pipeline, &["exists", "refused", "repeated", "replace"]).await
}

/// One commit a turn; and all that comes with an end.
pub(crate) async fn commit(redis: &mut MultiplexedConnection, items: &[Item], steps: u32) -> Result<(), String> {
    let mut pipeline = redis::pipe();
    for item in items {
        let keys = ["meta", "inbox", "claims"].map(|name| key(item, name));
        let ends = item.step == steps;
        let cleared = if item.step == 0 {
            "start".to_owned()
        } else {
            item.step.to_string()
        };
        let payloads = if ends { 2 } else { 1 };
        let call = call(&mut pipeline, &COMMIT, &keys)
            .arg(guard(item, item.step))
            .arg(guard(item, item.step + 1))
            .arg(if ends { "Completed 0" } else { "Running 0" })
            .arg(filled(TURN + payloads * item.payload.len()))
            .arg(filled(VIEW))
            .arg(cleared)
            .arg(if ends {
                "-".to_owned()
            } else {
                (item.step + 1).to_string()
            });
        if ends {
            let told = format!("Completed {}", item.payload);
            call.arg("1 0 1 0 0 0 0")
                .arg(&item.payload)
                .arg(key(item, "ended"))
                .arg(told);
        } else {
            call.arg("");
        }
    }
    send(redis, &pipeline, &["conflict", "absent"]).await?;
    let ended: Vec<&Item> = items.iter().filter(|item| item.step == steps).collect();
    if ended.is_empty() {
        return Ok(());
    }
    let mut pipeline = redis::pipe();
    let checks: Vec<String> = ended.iter().map(|item| entry(item, "check")).collect();
    pipeline.cmd("ZMSCORE").arg(DUE[0]).arg(&checks);
    pipeline.cmd("ZREM").arg(DUE[0]).arg(&checks);
    pipeline.cmd("HDEL").arg(DUE[1]).arg(&checks);
    note(&mut pipeline, &ended, COMPLETED, "retention", 7 * 24 * 3600);
    send(redis, &pipeline, &[]).await
}

/// Notes all of them in the index, and what is to become of them after so many seconds in the due-set.
fn note(pipeline: &mut Pipeline, items: &[&Item], group: u8, what: &str, seconds: u64) {
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_millis() as u64;
    let due = pipeline.cmd("ZADD").arg(DUE[0]).arg("LT");
    for item in items {
        due.arg(now + 1000 * seconds).arg(entry(item, what));
    }
    let index = call(pipeline, &INDEX, &SETS.map(str::to_owned));
    for item in items {
        index
            .arg(&item.workflow)
            .arg(now)
            .arg(now)
            .arg(group)
            .arg(if group == RUNNING { "first" } else { "later" });
    }
}
