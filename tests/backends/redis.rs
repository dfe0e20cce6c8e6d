//! The Redis store: what every store must do, and what only this one can get wrong.
//!
//! Most tests share the server that `LEVERET_TEST_REDIS_URL` names, each in a namespace of its own; those that break their server start one.
#![cfg(feature = "redis")]

mod at_once;
mod told;
mod unwell;

use std::collections::HashMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{self, AsyncConnectionConfig, Client, FromRedisValue, cmd};
use leveret::backend::{
    Commit, Committed, Create, Created, Deliver, DueEntry, DueKind, DueOutcome, Mark, RedisConfig, RedisStore, Result,
    Retryable, Store, When,
};
use leveret::{InstanceId, InstanceRef, Namespace, RunToken, Timestamp};

use crate::store_suite::fixture::*;

fn shared_url() -> String {
    std::env::var("LEVERET_TEST_REDIS_URL")
        .expect("LEVERET_TEST_REDIS_URL is not set: run the tests with `tests/run`, which starts the servers they need")
}

fn fresh_namespace() -> Namespace {
    Namespace::new(format!("test-{}", uuid::Uuid::new_v4().simple())).expect("a valid namespace")
}

async fn connect(url: &str) -> Result<Arc<RedisStore>> {
    RedisStore::connect(RedisConfig::new(url, fresh_namespace())).await
}

async fn fresh() -> (Fresh, ()) {
    (connect(&shared_url()).await.expect("the shared Redis is there"), ())
}

crate::store_suite::store_suite!(fresh());

/// A connection beside the store's, to look behind its back.
struct Beside(redis::aio::MultiplexedConnection);

impl Beside {
    async fn open(url: &str) -> Self {
        let client = Client::open(url).expect("a Redis URL");
        let settings = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let connection = client.get_multiplexed_async_connection_with_config(&settings).await;
        Self(connection.expect("Redis is there"))
    }

    async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut self.0).await.expect("Redis answers")
    }

    async fn keys_of(&mut self, namespace: &Namespace) -> Vec<String> {
        self.ask(&["KEYS", &format!("lv:{{{namespace}*")]).await
    }
}

/// A Redis of the test's own, which ends with it.
struct Server {
    process: Child,
    port: u16,
    directory: std::path::PathBuf,
}

impl Server {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a free port").port();
        let directory = std::env::temp_dir().join(format!("leveret-redis-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).expect("a temporary directory");
        let process = Self::spawn(port, &directory);
        let server = Self {
            process,
            port,
            directory,
        };
        server.answers().await;
        server
    }

    fn spawn(port: u16, directory: &std::path::Path) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.arg("--dir").arg(directory).stdout(Stdio::null());
        command
            .spawn()
            .expect("`redis-server` starts: install Redis, as `tests/run` does")
    }

    async fn answers(&self) {
        eventually(|| async {
            let client = Client::open(self.url()).expect("a Redis URL");
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            cmd("PING").query_async::<()>(&mut connection).await.ok()
        })
        .await;
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn stop(&mut self) {
        self.process.kill().expect("the process was ours");
        self.process.wait().expect("it has ended");
    }

    async fn start_again(&mut self) {
        self.process = Self::spawn(self.port, &self.directory);
        self.answers().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Redis Cluster's rule: between the first `{` and the first `}` after it.
fn tag(key: &str) -> &str {
    let (_, rest) = key.split_once('{').expect("a tag begins");
    rest.split_once('}').expect("a tag ends").0
}

#[tokio::test]
async fn all_keys_of_an_instance_share_one_hash_tag() {
    let config = RedisConfig::new(shared_url(), fresh_namespace());
    let namespace = config.namespace.clone();
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    let ids = ["plain", "{", "}", "a{b}c", "a:b/c%d", "a b", "ünïcödé", "%7B", "}:meta"];
    for id in ids {
        let instance = InstanceRef::new(app("orders"), InstanceId::new(id).unwrap());
        // A replaced run, a live one with all that it can have, and a refused request.
        running(&store, &instance).await;
        end(&store, &instance).await;
        let before = running(&store, &instance).await;
        park(&store, &instance, "item").await;
        apply(&store, &turn(&instance, before.guard())).await;
        store
            .progress(&instance, before.execution, 1, false, None)
            .await
            .unwrap();
        let refused = request(&instance).origin.request;
        store.refuse(&instance, &refused, KEEP).await.unwrap();
    }
    let mut by_tag: HashMap<String, usize> = HashMap::new();
    for key in Beside::open(&shared_url()).await.keys_of(&namespace).await {
        *by_tag.entry(tag(&key).to_owned()).or_default() += 1;
    }
    assert_eq!(by_tag.len(), ids.len(), "{by_tag:?}");
    // Record and history, inbox, claims, the receipts of the replaced and of the refused, and a past outcome.
    assert!(by_tag.values().all(|keys| *keys == 6), "{by_tag:?}");
}

#[tokio::test]
async fn an_instance_is_in_one_set_of_the_index() {
    let config = RedisConfig::new(shared_url(), fresh_namespace());
    let namespace = config.namespace.clone();
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    let mut beside = Beside::open(&shared_url()).await;
    let instance = instance("a");
    let first = running(&store, &instance).await;
    let over = end(&store, &instance).await;
    // (what is noted, what there is afterwards)
    let ended = ["completed", "noted"];
    let notes = [
        (&first, &["running"][..]),
        (&over, &ended),
        (&first, &ended),
        (&over, &ended),
    ];
    for (note, parts) in notes {
        store.index(&instance, note).await.unwrap();
        let mut keys = beside.keys_of(&namespace).await;
        keys.retain(|key| key.contains("/index}:"));
        keys.sort();
        let index = format!("lv:{{{namespace}/{}/index}}:", instance.app);
        let parts: Vec<_> = parts.iter().map(|part| format!("{index}{part}")).collect();
        assert_eq!(keys, parts);
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_read_keeps_no_other_from_being_noted() {
    let config = RedisConfig::new(shared_url(), fresh_namespace());
    let namespace = config.namespace.clone();
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    let mut beside = Beside::open(&shared_url()).await;
    let (damaged, other) = (instance("a"), instance("b"));
    let mut note = pending(&store, &damaged).await;
    store.index(&damaged, &note).await.unwrap();
    // One that had the ID before is noted late, and what there is now is to be asked.
    note.origin.created_at = Timestamp::from_millis(7);
    let prefix = format!("lv:{{{namespace}/{}", damaged.app);
    let _: () = beside.ask(&["SET", &format!("{prefix}/a}}:meta"), "no hash"]).await;
    let beside_it = pending(&store, &other).await;
    let (first, second) = tokio::join!(store.index(&damaged, &note), store.index(&other, &beside_it));
    first.and(second).unwrap();
    let running: Vec<String> = beside
        .ask(&["ZRANGE", &format!("{prefix}/index}}:running"), "0", "-1"])
        .await;
    assert_eq!(running, ["a", "b"]);
}

#[tokio::test]
async fn turns_are_read_up_to_one_that_is_missing_and_go_with_their_execution() {
    let config = RedisConfig::new(shared_url(), fresh_namespace());
    let namespace = config.namespace.clone();
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    let mut beside = Beside::open(&shared_url()).await;
    let instance = instance("a");
    let mut now = running(&store, &instance).await;
    for _ in 0..3 {
        now = apply(&store, &turn(&instance, now.guard())).await.0;
    }
    let all = store.load(&instance, 0, 0).await.unwrap().unwrap().turns;
    assert_eq!(all.len(), 4);
    let meta = format!("lv:{{{namespace}/{}/a}}:meta", instance.app);
    let _: u64 = beside.ask(&["HDEL", &meta, "3"]).await;
    let loaded = store.load(&instance, 0, 0).await.unwrap().unwrap();
    assert_eq!(loaded.turns, all[..2]);
    assert_eq!(store.turns(&instance, now.execution, 1, 9).await.unwrap(), all[1..2]);
    assert!(store.turns(&instance, now.execution, 2, 9).await.unwrap().is_empty());

    let renewed = Commit {
        next_execution: Some(now.execution.next()),
        cleared: now.marks.clone(),
        ..turn(&instance, now.guard())
    };
    let (after, _) = apply(&store, &renewed).await;
    assert_eq!((after.input, after.origin, after.run), (now.input, now.origin, now.run));
    let mut fields: Vec<String> = beside.ask(&["HKEYS", &meta]).await;
    fields.sort();
    assert_eq!(fields, ["1", "input", "origin", "run", "state", "view"]);
}

#[tokio::test]
async fn a_deleted_instance_leaves_nothing_that_stays() {
    let config = RedisConfig::new(shared_url(), fresh_namespace());
    let namespace = config.namespace.clone();
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    let (here, absent) = (instance("a"), instance("b"));
    let early = Deliver {
        keep_absent: Some(KEEP),
        ..item(&absent, "early")
    };
    store.deliver(&early).await.unwrap();
    running(&store, &here).await;
    end(&store, &here).await;
    let before = running(&store, &here).await;
    store.index(&here, &before).await.unwrap();
    park(&store, &here, "unread").await;
    store.progress(&here, before.execution, 1, false, None).await.unwrap();
    store.refuse(&here, &request(&here).origin.request, KEEP).await.unwrap();
    let over = end(&store, &here).await;
    store.delete(&here, over.execution, KEEP).await.unwrap();
    store.unindex(&here).await.unwrap();

    let mut beside = Beside::open(&shared_url()).await;
    let keys = beside.keys_of(&namespace).await;
    // Three receipts, two outcomes, and the inbox of the one that has not come.
    assert_eq!(keys.len(), 6, "{keys:?}");
    for key in keys {
        let ttl: i64 = beside.ask(&["PTTL", &key]).await;
        assert!(ttl > 0 && ttl <= KEEP.as_millis() as i64, "{key} stays for {ttl} ms");
        // That of the run that was replaced as long as that of the one that was deleted: as long as their receipts.
        let least = KEEP.as_millis() as i64 / 2;
        assert!(ttl > least || !key.contains(":run:"), "{key} stays for {ttl} ms");
        assert!(
            [":receipt:", ":run:", ":inbox"].iter().any(|part| key.contains(part)),
            "{key}"
        );
    }
}

/// Repeats what has failed in a way that may pass.
async fn commit_until_applied(store: &Fresh, commit: &Commit) {
    eventually(|| async {
        match store.commit(commit).await {
            Ok(Committed::Applied { .. }) => Some(()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(!error.is_permanent(), "{error}");
                None
            }
        }
    })
    .await;
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again() {
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let before = running(&store, &instance("a")).await;
    let mut beside = Beside::open(&server.url()).await;
    let _: () = beside.ask(&["SCRIPT", "FLUSH"]).await;
    apply(&store, &turn(&instance("a"), before.guard())).await;
}

#[tokio::test]
async fn a_record_without_a_state_is_refused_and_not_taken_for_none() {
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let instance = instance("a");
    let before = running(&store, &instance).await;
    let mut beside = Beside::open(&server.url()).await;
    let meta: Vec<String> = beside.ask(&["KEYS", "*/a}:meta"]).await;
    let _: u64 = beside.ask(&["HDEL", &meta[0], "state"]).await;
    let refused = [
        store.commit(&turn(&instance, before.guard())).await.map(drop),
        store.create(&request(&instance)).await.map(drop),
        store
            .clear_mark(&instance, before.execution, Mark::Start)
            .await
            .map(drop),
        store.deliver(&item(&instance, "late")).await.map(drop),
        store.record(&instance).await.map(drop),
        store.load(&instance, 0, 1).await.map(drop),
    ];
    for (n, refused) in refused.into_iter().enumerate() {
        let error = refused.expect_err("a record that cannot be read");
        assert!(
            error.is_permanent() && error.to_string().contains("`state`"),
            "{n}: {error}"
        );
    }
}

#[tokio::test]
async fn wrong_credentials_are_named_and_never_shown() {
    let server = Server::start().await;
    let mut beside = Beside::open(&server.url()).await;
    let _: () = beside
        .ask(&["ACL", "SETUSER", "worker", "on", ">sesame1", "~*", "&*", "+@all"])
        .await;
    let at = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", server.port);
    let store: Fresh = connect(&at("worker:sesame1@")).await.expect("the right password");
    running(&store, &instance("a")).await;
    store.watch(&instance("a")).await.expect("the subscription logs in too");

    // (credentials, what the message names)
    let refused = [
        ("worker:sesame2@", "user name or password"),
        ("nobody:sesame2@", "user name or password"),
        (":sesame2@", "none configured"),
    ];
    for (credentials, named) in refused {
        let error = connect(&at(credentials)).await.expect_err(credentials);
        assert!(error.is_permanent(), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
    }
    let _: () = beside.ask(&["CONFIG", "SET", "requirepass", "sesame3"]).await;
    let error = connect(&at("")).await.expect_err("no password");
    assert!(error.is_permanent() && error.to_string().contains("NOAUTH"), "{error}");

    let error = connect("amqp://:sesame4@localhost").await.expect_err("not a Redis URL");
    assert!(
        error.is_permanent() && !format!("{error:?}").contains("sesame"),
        "{error:?}"
    );
    let config = RedisConfig::new(at(":sesame5@"), fresh_namespace());
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(!format!("{:?}", connect(&at("worker:sesame1@")).await.unwrap()).contains("sesame"));
}

#[tokio::test]
async fn settings_that_put_data_at_risk_are_warned_of() {
    let server = Server::start().await;
    let store = connect(&server.url()).await.unwrap();
    assert_eq!(store.warnings().await.unwrap(), Vec::<String>::new());
    let mut beside = Beside::open(&server.url()).await;
    let _: () = beside.ask(&["CONFIG", "SET", "appendonly", "no"]).await;
    let _: () = beside.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let warnings = store.warnings().await.unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("append-only file"), "{warnings:?}");
    assert!(warnings[1].contains("allkeys-lru"), "{warnings:?}");
}

#[tokio::test]
async fn watchers_that_are_gone_leave_no_subscription() {
    let server = Server::start().await;
    let store = connect(&server.url()).await.unwrap();
    let mut beside = Beside::open(&server.url()).await;
    let watches = futures_util::future::try_join_all((0..100).map(|n| {
        let store = store.clone();
        async move { store.watch(&instance(&format!("{n}"))).await }
    }));
    let watches = watches.await.unwrap();
    let channels: Vec<String> = beside.ask(&["PUBSUB", "CHANNELS", "lv:*"]).await;
    assert!(!channels.is_empty() && channels.len() <= 64, "{channels:?}");
    drop(watches);
    let mut left = channels;
    let waited = tokio::time::timeout(PATIENCE, async {
        while !left.is_empty() {
            tokio::time::sleep(ms(50)).await;
            left = beside.ask(&["PUBSUB", "CHANNELS", "lv:*"]).await;
        }
    });
    waited.await.expect("no channel is left");
}

#[tokio::test]
async fn who_waits_for_one_instance_after_the_other_subscribes_once() {
    let server = Server::start().await;
    let store = connect(&server.url()).await.unwrap();
    let mut beside = Beside::open(&server.url()).await;
    for _ in 0..20 {
        drop(store.watch(&instance("a")).await.unwrap());
    }
    let stats: String = beside.ask(&["INFO", "commandstats"]).await;
    let calls = |command: &str| {
        let line = stats.lines().find(|line| line.starts_with(command));
        line.map(|line| line.split(',').next().unwrap().to_owned())
    };
    assert_eq!(
        calls("cmdstat_subscribe:").as_deref(),
        Some("cmdstat_subscribe:calls=1")
    );
    assert_eq!(calls("cmdstat_unsubscribe:"), None);
}

#[tokio::test]
async fn a_due_set_of_many_batches_is_handled_whole() {
    let (store, ()) = fresh().await;
    let orders = app("orders");
    let entries: Vec<_> = (0..4200)
        .map(|n| DueEntry {
            key: due_key(
                if n % 2 == 0 { DueKind::Timer } else { DueKind::Check },
                &format!("{n:05}"),
            ),
            due: Timestamp::from_millis(1000 + n),
            payload: format!("payload {n}").into(),
        })
        .collect();
    store.schedule(&orders, &entries, When::Set).await.unwrap();
    let checks = store.due_entries(&orders, DueKind::Check, 10_000).await.unwrap();
    assert!(checks == entries.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
    let claimed = store.claim_due(&orders, 10_000, KEEP).await.unwrap();
    assert_eq!(claimed.len(), entries.len());
    let settled: Vec<_> = claimed.into_iter().map(|entry| (entry, DueOutcome::Remove)).collect();
    store.settle_due(&orders, &settled[..2100]).await.unwrap();
    let rest: Vec<_> = settled[2100..].iter().map(|(entry, _)| entry.key.clone()).collect();
    store.unschedule(&orders, &rest).await.unwrap();
    for kind in DueKind::ALL {
        assert!(store.due_entries(&orders, kind, 10).await.unwrap().is_empty());
    }
}

/// Workers ask many times a second.
#[tokio::test]
async fn a_due_set_with_nothing_due_has_no_script_called() {
    // Of its own: others call scripts.
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let mut beside = Beside::open(&server.url()).await;
    let orders = app("orders");
    let later = Timestamp::from_millis(store.now().await.unwrap().as_millis() + 3_600_000);
    let entry = |due| DueEntry {
        key: due_key(DueKind::Timer, "a"),
        due,
        payload: "payload".into(),
    };
    store.schedule(&orders, &[entry(later)], When::Set).await.unwrap();
    let _: () = beside.ask(&["CONFIG", "RESETSTAT"]).await;
    for _ in 0..10 {
        assert_eq!(store.claim_due(&orders, 10, KEEP).await.unwrap(), []);
    }
    let calls: String = beside.ask(&["INFO", "commandstats"]).await;
    assert!(!calls.contains("cmdstat_eval"), "{calls}");
    let past = Timestamp::from_millis(1000);
    store.schedule(&orders, &[entry(past)], When::Set).await.unwrap();
    assert_eq!(store.claim_due(&orders, 10, KEEP).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_namespaces_on_one_redis_do_not_see_each_other() {
    let (one, two): (Fresh, Fresh) = (fresh().await.0, fresh().await.0);
    let create: Create = request(&instance("a"));
    assert!(matches!(one.create(&create).await.unwrap(), Created::Created(_)));
    assert!(matches!(two.create(&create).await.unwrap(), Created::Created(_)));
    end(&one, &instance("a")).await;
    assert_eq!(record(&two, &instance("a")).await.version, 0);
    one.adopt_app(&app("orders"), 4).await.unwrap();
    assert_eq!(two.apps().await.unwrap(), []);
    let item = create.origin.request;
    for store in [&one, &two] {
        let run = RunToken::generate();
        assert_eq!(store.begin_run(&app("orders"), &item, run).await.unwrap(), 1);
    }
}
