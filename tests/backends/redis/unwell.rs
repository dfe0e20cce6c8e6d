//! A Redis that cuts connections, is away, full, or silent.

use super::*;

#[tokio::test]
async fn the_store_goes_on_after_all_its_connections_were_killed() {
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let instance = instance("a");
    let mut now = running(&store, &instance).await;
    let mut watch = store.watch(&instance).await.unwrap();
    let mut beside = Beside::open(&server.url()).await;
    for _ in 0..3 {
        for kind in ["normal", "pubsub"] {
            let _: i64 = beside.ask(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
        }
        tokio::time::timeout(PATIENCE, watch.changed())
            .await
            .expect("an interruption wakes the watcher");
        // Whether each attempt ran is unknown, and sending it again is right.
        let commit = turn(&instance, now.guard());
        commit_until_applied(&store, &commit).await;
        now = eventually(|| async { store.record(&instance).await.ok().flatten() }).await;
        assert_eq!(now.commit, Some(commit.id));
    }
    // The subscription is back too: wait for the wake-up that says so, then for the end.
    let mut second = eventually(|| async { store.watch(&instance).await.ok() }).await;
    end(&store, &instance).await;
    tokio::time::timeout(PATIENCE, second.changed())
        .await
        .expect("the end wakes a new watcher");
    tokio::time::timeout(PATIENCE, watch.changed())
        .await
        .expect("the end wakes the old watcher");
    store.readiness().unwrap();
}

#[tokio::test]
async fn the_store_waits_for_a_redis_that_is_away() {
    let mut server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let instance = instance("a");
    let before = running(&store, &instance).await;
    server.stop();
    let why = eventually(|| async {
        // The first to find the connection broken cannot know whether it ran.
        let error = store.record(&instance).await.expect_err("Redis is away");
        assert!(!error.is_permanent(), "{error}");
        (error.retryable() == Retryable::Transient).then_some(())?;
        store.readiness().err()
    })
    .await;
    assert!(why.contains(&server.port.to_string()), "{why}");
    let error = connect(&server.url()).await.expect_err("Redis is away");
    assert_eq!(error.retryable(), Retryable::Transient, "{error}");

    server.start_again().await;
    // Nothing asks for anything: the store heals by itself. Its scripts went with the old process.
    eventually(|| async { store.readiness().ok() }).await;
    assert_eq!(record(&store, &instance).await, before);
    apply(&store, &turn(&instance, before.guard())).await;
    eventually(|| async { store.watch(&instance).await.ok() }).await;
}

#[tokio::test]
async fn a_full_redis_refuses_whole_changes_and_takes_them_later() {
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let instance = instance("a");
    let before = running(&store, &instance).await;
    let mut beside = Beside::open(&server.url()).await;
    let _: () = beside.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let commit = turn(&instance, before.guard());
    let error = store.commit(&commit).await.expect_err("Redis is full");
    assert_eq!(error.retryable(), Retryable::Transient, "{error}");
    assert!(error.to_string().contains("maxmemory"), "{error}");
    let create = request(&crate::store_suite::fixture::instance("b"));
    let error = store.create(&create).await.expect_err("Redis is full");
    assert_eq!(error.retryable(), Retryable::Transient, "{error}");
    assert_eq!(record(&store, &instance).await, before);
    let _: () = beside.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    apply(&store, &commit).await;
    assert!(matches!(store.create(&create).await.unwrap(), Created::Created(_)));
}

/// Redis refuses whatever is to be queued for a transaction then, also what would make room.
#[tokio::test]
async fn what_a_full_redis_cannot_do_all_at_once_may_be_tried_again() {
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let instance = instance("a");
    running(&store, &instance).await;
    let app = &instance.app;
    let keys = [due_key(DueKind::Check, "a")];
    let mut beside = Beside::open(&server.url()).await;
    let _: () = beside.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    store.unindex(&instance).await.unwrap();
    let refused = [
        store.unschedule(app, &keys).await.map(drop),
        store.leave(app, leveret::WorkerId::generate()).await,
        store.adopt_app(app, 1).await.map(drop),
    ];
    for refused in refused {
        let error = refused.expect_err("Redis is full");
        assert_eq!(error.retryable(), Retryable::Transient, "{error}");
        assert!(error.to_string().contains("maxmemory"), "{error}");
    }
    let _: () = beside.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    store.unschedule(app, &keys).await.unwrap();
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_on() {
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let mut config = RedisConfig::new(format!("redis://127.0.0.1:{port}"), fresh_namespace());
    config.connect_timeout = Duration::from_millis(200);
    let error = RedisStore::connect(config).await.expect_err("no answer");
    assert_eq!(error.retryable(), Retryable::Transient, "{error}");
}
