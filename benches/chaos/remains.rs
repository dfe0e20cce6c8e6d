//! What may be left when everything is over: nothing but what lapses by itself.

use std::time::Duration;

use deadpool_redis::redis;
use leveret::backend::{Backend, DueKind};
use leveret::client::Filter;
use leveret::{Client, Namespace};
use tokio::time::Instant;

use crate::apps::APPS;
use crate::inspect;
use crate::load::insist;
use crate::servers::Servers;

/// A check that a crash has left comes after some seconds, and again after twice as many.
const TIDY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until nothing is due, marked or on its way. Says what still is when the time is over.
pub(crate) async fn untidy(backend: &Backend) -> Vec<String> {
    nothing_from(async || inspect::untidy(backend).await).await
}

/// Waits until no instance is to be deleted any more, once all are purged: those that had ended only just leave an entry that sweeps up behind them.
pub(crate) async fn unswept(backend: &Backend) -> Vec<String> {
    nothing_from(async || {
        let mut left = Vec::new();
        for app in APPS {
            let app = app.parse().expect("an app of ours");
            let entries = backend.store().due_entries(&app, DueKind::Retention, 10).await;
            left.extend(
                entries
                    .expect("answered")
                    .iter()
                    .map(|entry| format!("{app}: due entry {entry:?}")),
            );
        }
        left
    })
    .await
}

async fn nothing_from(look: impl AsyncFn() -> Vec<String>) -> Vec<String> {
    let began = Instant::now();
    loop {
        let left = look().await;
        if left.is_empty() || began.elapsed() > TIDY_WITHIN {
            return left;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Deletes every instance. Says how many, or what does not let itself be deleted.
pub(crate) async fn purge_all(client: &Client) -> Result<u64, String> {
    let purge = || std::future::IntoFuture::into_future(client.purge(Filter::all_apps()));
    insist(purge).await.map_err(|error| error.to_string())
}

/// What of the namespace is in Redis though nothing else is.
#[derive(Default)]
pub(crate) struct Keys {
    /// Those that neither lapse by themselves nor belong to the apps.
    pub(crate) left: Vec<String>,
    /// Run tokens of processes that were killed in a try of what others are done with. They lapse within a day.
    pub(crate) run_tokens: usize,
}

pub(crate) async fn keys(servers: &Servers, namespace: &Namespace) -> redis::RedisResult<Keys> {
    let mut connection = servers.redis().await?;
    let mut found = Keys::default();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("lv:{{{namespace}*"))
            .arg("COUNT")
            .arg(1000);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        for key in keys {
            let lapses: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await?;
            let key = String::from_utf8_lossy(&key).into_owned();
            match part(&key) {
                "tokens" if lapses >= 0 => found.run_tokens += 1,
                part if may_stay(part, lapses >= 0) => {}
                _ => found.left.push(key),
            }
        }
        if next == 0 {
            return Ok(found);
        }
        cursor = next;
    }
}

/// What the key is of its owner's.
fn part(key: &str) -> &str {
    key.rsplit_once("}:").map_or("", |(_, part)| part)
}

/// Receipts and past outcomes until they lapse, and events whose copy came when their instance was purged: they wait for another of that ID. Which apps
/// there are stays for ever.
fn may_stay(part: &str, lapses: bool) -> bool {
    match part {
        "apps" | "seen" => true,
        _ => lapses && (part == "inbox" || part.starts_with("receipt:") || part.starts_with("run:")),
    }
}
