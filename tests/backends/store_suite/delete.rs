//! Deleting instances, and waiting for their end.

use leveret::backend::{Commit, Created, Deleted, Mark};
use leveret::{ExecutionId, RunId, Status};

use super::fixture::*;

pub(crate) async fn only_a_terminal_unmarked_record_is_deleted(store: Fresh) {
    let instance = instance("a");
    let before = running(&store, &instance).await;
    let execution = before.execution;
    assert_eq!(store.delete(&instance, execution, KEEP).await.unwrap(), Deleted::Active);
    let last = Commit {
        status: Status::Completed,
        outcome: Some(outcome()),
        marks: vec![Mark::Turn(2)],
        ..turn(&instance, before.guard())
    };
    let (over, _) = apply(&store, &last).await;
    assert_eq!(store.delete(&instance, execution, KEEP).await.unwrap(), Deleted::Marked);
    assert_eq!(record(&store, &instance).await, over);
    store.clear_mark(&instance, execution, Mark::Turn(2)).await.unwrap();
    assert_eq!(
        store.delete(&instance, execution, KEEP).await.unwrap(),
        Deleted::Deleted
    );
    assert_eq!(store.delete(&instance, execution, KEEP).await.unwrap(), Deleted::Absent);
    assert_eq!(store.record(&instance).await.unwrap(), None);
}

pub(crate) async fn a_deleted_instance_leaves_its_receipt_and_outcome(store: Fresh) {
    let instance = instance("a");
    let create = request(&instance);
    store.create(&create).await.unwrap();
    park(&store, &instance, "unread").await;
    let over = end(&store, &instance).await;
    // Even a receipt that is not kept at all does not take the outcome with it: somebody may be about to read it.
    store.delete(&instance, over.execution, KEEP).await.unwrap();
    assert_eq!(store.ending(&instance).await.unwrap(), None);
    assert_eq!(store.past_outcome(&instance, over.run).await.unwrap(), over.outcome);
    assert_eq!(store.past_outcome(&instance, RunId::generate()).await.unwrap(), None);
    let repeated = Created::Repeated {
        execution: create.execution,
        run: create.run,
    };
    for _ in 0..2 {
        assert_eq!(store.create(&create).await.unwrap(), repeated);
        assert!(!store.refuse(&instance, &create.origin.request, KEEP).await.unwrap());
    }
    assert!(store.load(&instance, 0, 10).await.unwrap().is_none());
    assert!(store.turns(&instance, over.execution, 0, 10).await.unwrap().is_empty());

    pending(&store, &instance).await;
    let anew = store.load(&instance, 0, 10).await.unwrap().unwrap();
    assert!(anew.turns.is_empty() && anew.inbox.is_empty(), "{anew:?}");
    assert_eq!(store.past_outcome(&instance, over.run).await.unwrap(), over.outcome);
}

pub(crate) async fn a_receipt_of_a_deleted_instance_lapses(store: Fresh) {
    let instance = instance("a");
    let create = request(&instance);
    store.create(&create).await.unwrap();
    let over = end(&store, &instance).await;
    store.delete(&instance, over.execution, ms(100)).await.unwrap();
    let (store, create) = (&store, &create);
    eventually(|| async move { matches!(store.create(create).await.unwrap(), Created::Created(_)).then_some(()) })
        .await;
    let outcome = store.past_outcome(&instance, over.run).await.unwrap();
    assert_eq!(outcome, over.outcome, "an outcome is kept for at least 60 s");
}

pub(crate) async fn another_execution_is_not_deleted(store: Fresh) {
    let instance = instance("a");
    pending(&store, &instance).await;
    let over = end(&store, &instance).await;
    let other = ExecutionId::generate();
    assert_eq!(store.delete(&instance, other, KEEP).await.unwrap(), Deleted::Absent);
    assert_eq!(record(&store, &instance).await, over);
}

pub(crate) async fn a_watcher_wakes_when_the_instance_ends(store: Fresh) {
    let instance = instance("a");
    running(&store, &instance).await;
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(store.watch(&instance).await.unwrap());
    }
    // Dropping one leaves the others.
    watches.pop();
    end(&store, &instance).await;
    let ending = store.ending(&instance).await.unwrap();
    for mut watch in watches {
        let told = tokio::time::timeout(PATIENCE, watch.changed()).await.expect("it wakes");
        assert!(told.is_none() || told == ending, "{told:?}");
    }
}

pub(crate) async fn who_listens_before_an_instance_is_there_is_woken_by_its_end(store: Fresh) {
    let instance = instance("a");
    // Some stores hear of an instance only while somebody waits for it, or for its neighbours.
    let _neighbour = store.watch(&instance).await.unwrap();
    let mut watch = store.listen(&instance).expect("it costs nothing now");
    running(&store, &instance).await;
    end(&store, &instance).await;
    let ending = store.ending(&instance).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, watch.changed()).await.expect("it wakes");
    assert!(told.is_none() || told == ending, "{told:?}");
}

pub(crate) async fn a_watch_that_was_interrupted_still_wakes(store: Fresh) {
    let instance = instance("a");
    running(&store, &instance).await;
    let mut watch = store.watch(&instance).await.unwrap();
    // Spurious returns are allowed, so both answers are right.
    let _ = tokio::time::timeout(ms(20), watch.changed()).await;
    end(&store, &instance).await;
    let ended = async {
        while !record(&store, &instance).await.status.is_terminal() {
            watch.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it wakes");
}
