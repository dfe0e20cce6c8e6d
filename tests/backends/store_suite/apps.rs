//! Apps, workers and the store itself.

use leveret::backend::{App, WorkerInfo};
use leveret::{AppId, BuildId, Timestamp, WorkerId};

use super::fixture::*;

fn worker(app: &AppId) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId::generate(),
        app: app.clone(),
        build: BuildId::new("1.2.3 (abc)").unwrap(),
        workflows: vec!["checkout".into()],
        activities: vec!["charge".into(), "refund".into()],
        lanes: vec![0, 7],
        started_at: Timestamp::from_millis(5),
        beat_at: Timestamp::from_millis(6),
        is_draining: false,
        host: "node-1".into(),
        holds: None,
    }
}

pub(crate) async fn an_app_keeps_the_lanes_it_began_with(store: Fresh) {
    let (orders, billing) = (app("orders"), app("billing"));
    assert_eq!(store.app(&orders).await.unwrap(), None);
    assert_eq!(store.apps().await.unwrap(), []);
    for lanes in [8, 8, 16] {
        assert_eq!(store.adopt_app(&orders, lanes).await.unwrap(), 8);
    }
    assert_eq!(store.adopt_app(&billing, 2).await.unwrap(), 2);
    let seen = |app: Option<App>| app.map(|app| (app.id, app.lanes));
    assert_eq!(seen(store.app(&orders).await.unwrap()), Some((orders.clone(), 8)));
    let all = store.apps().await.unwrap();
    assert_eq!(
        all.iter().map(|app| app.id.as_str()).collect::<Vec<_>>(),
        ["billing", "orders"],
        "in order"
    );

    let before = store.now().await.unwrap();
    store.beat(&worker(&orders), KEEP).await.unwrap();
    let last_seen = store.app(&orders).await.unwrap().unwrap().last_seen;
    assert!(last_seen.expect("a sign of life") >= before);
}

pub(crate) async fn a_removed_app_is_unknown(store: Fresh) {
    let orders = app("orders");
    store.adopt_app(&orders, 8).await.unwrap();
    store.beat(&worker(&orders), KEEP).await.unwrap();
    running(&store, &instance("a")).await;
    for _ in 0..2 {
        store.remove_app(&orders).await.unwrap();
        assert_eq!(store.app(&orders).await.unwrap(), None);
        assert_eq!(store.apps().await.unwrap(), []);
        assert_eq!(store.workers(&orders).await.unwrap(), []);
    }
    record(&store, &instance("a")).await;
    assert_eq!(store.adopt_app(&orders, 16).await.unwrap(), 16, "a new beginning");
    assert_eq!(store.app(&orders).await.unwrap().unwrap().last_seen, None);
}

pub(crate) async fn a_worker_lives_as_long_as_it_beats(store: Fresh) {
    let (orders, billing) = (app("orders"), app("billing"));
    assert_eq!(store.workers(&orders).await.unwrap(), []);
    let mut some = vec![worker(&orders), worker(&orders), worker(&orders)];
    for worker in &some {
        for _ in 0..2 {
            store.beat(worker, KEEP).await.unwrap();
        }
    }
    store.beat(&worker(&billing), KEEP).await.unwrap();
    some.sort_by_key(|worker| worker.id);
    assert_eq!(store.workers(&orders).await.unwrap(), some);

    some[1].lanes.clear();
    store.beat(&some[1], KEEP).await.unwrap();
    assert_eq!(store.workers(&orders).await.unwrap(), some, "the latest word counts");

    for _ in 0..2 {
        store.leave(&orders, some[0].id).await.unwrap();
    }
    assert_eq!(store.workers(&orders).await.unwrap(), some[1..]);

    store.beat(&some[1], ms(100)).await.unwrap();
    let (store, expected) = (&store, &some[2..]);
    let orders = &orders;
    eventually(|| async move { (store.workers(orders).await.unwrap() == expected).then_some(()) }).await;
}

pub(crate) async fn the_stores_clock_goes_forward(store: Fresh) {
    let first = store.now().await.unwrap();
    passes(&store, first).await;
    store.warnings().await.unwrap();
    store.readiness().unwrap();
}
