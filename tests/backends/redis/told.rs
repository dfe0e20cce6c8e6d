//! What those who wait for an instance are told along with its end.

use leveret::backend::{Backend, Ending, SystemClock};
use leveret::wire::Outcome;
use leveret::{Client, Namespace, Payload, Run, RunId, Status, Workflow};

use super::*;

const WORKFLOW: Workflow<(), String> = Workflow::new("app", "workflow");

/// Ends the instance with this output.
async fn end_with(store: &Fresh, instance: &InstanceRef, output: &str) {
    let last = Commit {
        status: Status::Completed,
        outcome: Some(Outcome::Completed(Payload::encode(&output).unwrap())),
        ..turn(instance, record(store, instance).await.guard())
    };
    apply(store, &last).await;
}

/// What a watcher of an instance is told of its end with this output, and what the record says.
async fn told_of(output: &str) -> (Option<Ending>, Option<Ending>) {
    let (store, ()) = fresh().await;
    let instance = instance("order 17, 2nd");
    running(&store, &instance).await;
    let mut watch = store.watch(&instance).await.unwrap();
    end_with(&store, &instance, output).await;
    let told = tokio::time::timeout(PATIENCE, watch.changed()).await;
    (told.expect("it wakes"), store.ending(&instance).await.unwrap())
}

#[tokio::test]
async fn a_short_outcome_is_told() {
    let (told, is) = told_of("short").await;
    assert!(is.is_some());
    assert_eq!(told, is);
}

#[tokio::test]
async fn who_waits_for_a_long_outcome_has_to_read_it() {
    let (told, is) = told_of(&"long".repeat(1000)).await;
    assert!(is.is_some_and(|ending| ending.outcome.is_some()));
    assert_eq!(told, None);
}

#[tokio::test]
async fn who_waits_for_a_run_takes_the_message_of_its_end_and_no_other() {
    let namespace = fresh_namespace();
    let config = RedisConfig::new(shared_url(), namespace.clone());
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    let broker = Backend::memory(namespace.clone()).broker().clone();
    let clock = Arc::new(SystemClock);
    let client = Client::new(Backend::new(namespace.clone(), broker, store.clone(), clock, "Redis"));
    let run = client.start(WORKFLOW, ()).id("a").await.unwrap();
    let mut result = std::pin::pin!(run.result().into_future());
    let waited = tokio::time::timeout(ms(1), &mut result).await;
    assert!(waited.is_err(), "{waited:?}");
    let mut beside = Beside::open(&shared_url()).await;
    let pattern = format!("lv:{{{namespace}/*");
    let channel = eventually(|| async {
        let channels: Vec<String> = Beside::open(&shared_url())
            .await
            .ask(&["PUBSUB", "CHANNELS", &pattern])
            .await;
        channels.into_iter().next()
    })
    .await;
    let mut say = async |message: Vec<u8>| {
        let mut publish = cmd("PUBLISH");
        publish.arg(&channel).arg(message);
        let heard: u64 = publish.query_async(&mut beside.0).await.unwrap();
        assert_eq!(heard, 1);
    };
    let message = |run: RunId, id: &str, output: &str| {
        let outcome = Outcome::Completed(Payload::encode(output).unwrap());
        let outcome = rmp_serde::to_vec_named(&outcome).unwrap();
        [format!("{run} Completed 1 {id}").as_bytes(), &outcome].concat()
    };
    let of_another_run = message(RunId::generate(), "a", "wrong");
    let of_another_instance = message(run.run_id(), "b", "wrong");
    for message in [b"a".to_vec(), of_another_run, of_another_instance] {
        say(message).await;
        let waited = tokio::time::timeout(ms(50), &mut result).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    // It is not read again: the record says that the run has not even begun.
    say(message(run.run_id(), "a", "right")).await;
    let result = tokio::time::timeout(PATIENCE, result).await;
    assert_eq!(result.expect("it is over").unwrap(), "right");
}

#[tokio::test]
async fn listening_to_what_nobody_has_waited_for_costs_nothing() {
    let server = Server::start().await;
    let store = connect(&server.url()).await.unwrap();
    assert!(store.listen(&instance("a")).is_none());
    let mut beside = Beside::open(&server.url()).await;
    let channels: Vec<String> = beside.ask(&["PUBSUB", "CHANNELS", "lv:*"]).await;
    assert_eq!(channels, Vec::<String>::new());
}

/// A run that was started while its channel was heard, at a server of its own.
struct Heard {
    server: Server,
    beside: Beside,
    namespace: Namespace,
    store: Fresh,
    instance: InstanceRef,
    run: Run<String>,
}

impl Heard {
    async fn start() -> Self {
        let server = Server::start().await;
        let beside = Beside::open(&server.url()).await;
        let namespace = fresh_namespace();
        let config = RedisConfig::new(server.url(), namespace.clone());
        let store: Fresh = RedisStore::connect(config).await.unwrap();
        let instance = InstanceRef::new("app".parse().unwrap(), "a".parse().unwrap());
        // It is heard as long as somebody waits for an instance of that channel, or has just waited.
        drop(store.watch(&instance).await.unwrap());
        let broker = Backend::memory(namespace.clone()).broker().clone();
        let clock = Arc::new(SystemClock);
        let client = Client::new(Backend::new(namespace.clone(), broker, store.clone(), clock, "Redis"));
        let run = client.start(WORKFLOW, ()).id("a").await.unwrap();
        Self {
            server,
            beside,
            namespace,
            store,
            instance,
            run,
        }
    }

    /// How often a record was looked at.
    async fn looks(&mut self) -> Option<String> {
        let stats: String = self.beside.ask(&["INFO", "commandstats"]).await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_hmget:"));
        line.map(str::to_owned)
    }

    async fn result(&self) -> String {
        let result = tokio::time::timeout(PATIENCE, self.run.result().into_future()).await;
        result.expect("it is over").expect("it has completed")
    }
}

#[tokio::test]
async fn the_end_of_what_was_started_while_its_channel_was_heard_is_not_looked_for() {
    let mut heard = Heard::start().await;
    end_with(&heard.store, &heard.instance, "right").await;
    let before = heard.looks().await;
    assert_eq!(heard.result().await, "right");
    assert_eq!(heard.looks().await, before);
    // A second one who waits has missed the end, and reads it.
    assert_eq!(heard.result().await, "right");
    assert_ne!(heard.looks().await, before);
}

#[tokio::test]
async fn an_end_of_which_nothing_is_told_is_found_all_the_same() {
    let mut heard = Heard::start().await;
    let _: () = heard
        .beside
        .ask(&[
            "ACL", "SETUSER", "quiet", "on", ">sesame1", "~*", "&*", "+@all", "-publish",
        ])
        .await;
    let url = format!("redis://quiet:sesame1@127.0.0.1:{}", heard.server.port);
    let config = RedisConfig::new(url, heard.namespace.clone());
    let quiet: Fresh = RedisStore::connect(config).await.unwrap();
    end_with(&quiet, &heard.instance, "right").await;
    // Well before the record is read again in any case.
    assert_eq!(heard.result().await, "right");
}

#[tokio::test]
async fn an_end_that_was_told_while_the_connection_was_broken_is_found() {
    let mut heard = Heard::start().await;
    let _: i64 = heard.beside.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    end_with(&heard.store, &heard.instance, "right").await;
    assert_eq!(heard.result().await, "right");
}

#[tokio::test]
async fn who_starts_many_and_waits_for_none_hears_of_none_in_the_end() {
    let mut heard = Heard::start().await;
    drop(heard.run);
    let heard_of = async {
        loop {
            drop(heard.store.listen(&heard.instance));
            let channels: Vec<String> = heard.beside.ask(&["PUBSUB", "CHANNELS", "lv:*"]).await;
            if channels.is_empty() {
                break;
            }
            tokio::time::sleep(ms(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard_of)
        .await
        .expect("the channel is let go");
}
