//! The Redis store: what every store must do, and what only this one can get wrong.
//!
//! Most tests share the server that `LEVERET_TEST_REDIS_URL` names, each in a namespace of its own; those that break their server start one.
#![cfg(feature = "redis")]

mod at_once;
mod layout;
mod told;
mod unwell;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{self, AsyncConnectionConfig, Client, FromRedisValue, cmd};
use leveret::backend::{
    Commit, Committed, Create, Created, DueEntry, DueKind, DueOutcome, Mark, RedisConfig, RedisStore, Result,
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
