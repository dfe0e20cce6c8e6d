//! Values to work with, and short words for what most behaviours begin with.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use leveret::backend::{
    Commit, Committed, ConflictPolicy, Create, Created, Deliver, Delivered, DueKey, DueKind, Guard, IndexFilter, Mark,
    Origin, Record, Store, View,
};
use leveret::wire::Outcome;
use leveret::{AppId, CommitId, ExecutionId, InstanceId, InstanceRef, MessageId, Payload, RunId, Status, Timestamp};

/// What a behaviour is given.
pub(crate) type Fresh = Arc<dyn Store>;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long receipts are kept where a test does not look at it.
pub(crate) const KEEP: Duration = Duration::from_secs(3600);

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn app(name: &str) -> AppId {
    AppId::new(name).expect("a valid app ID")
}

pub(crate) fn instance(id: &str) -> InstanceRef {
    InstanceRef::new(app("orders"), InstanceId::new(id).expect("a valid instance ID"))
}

pub(crate) fn payload(text: &str) -> Payload {
    Payload::encode(text).expect("text has a JSON form")
}

/// A request of its own for a new run of the instance.
pub(crate) fn request(instance: &InstanceRef) -> Create {
    Create {
        instance: instance.clone(),
        execution: ExecutionId::generate(),
        run: RunId::generate(),
        origin: Origin {
            workflow: "checkout".into(),
            parent: None,
            created_at: Timestamp::from_millis(1_790_000_000_000),
            start_at: None,
            tags: Default::default(),
            request: MessageId::generate(),
        },
        input: payload("input"),
        policy: ConflictPolicy::RejectActive,
        keep: KEEP,
    }
}

/// A commit of one turn that leaves the instance running in lane 3.
pub(crate) fn turn(instance: &InstanceRef, guard: Guard) -> Commit {
    let id = CommitId::generate();
    Commit {
        instance: instance.clone(),
        guard,
        id,
        turn: Bytes::from(format!("turn {} of {}: {id}", guard.version + 1, guard.execution)),
        next_execution: None,
        status: Status::Running,
        lane: Some(3),
        view: View::default(),
        outcome: None,
        drop_input: false,
        inbox_taken: 0,
        inbox_kept: Vec::new(),
        marks: Vec::new(),
        cleared: Vec::new(),
        claims_opened: Vec::new(),
        claims_closed: Vec::new(),
    }
}

/// The outcome of every run that the suite ends.
pub(crate) fn outcome() -> Outcome {
    Outcome::Completed(payload("output"))
}

pub(crate) async fn record(store: &Fresh, instance: &InstanceRef) -> Record {
    let record = store.record(instance).await.expect("the store answers");
    let record = record.expect("the instance has a record");
    let ending = store.ending(instance).await.expect("the store answers");
    let ending = ending.expect("the instance has a record");
    assert_eq!(
        (ending.run, ending.status, &ending.outcome),
        (record.run, record.status, &record.outcome)
    );
    record
}

/// Creates the instance, and returns its record.
pub(crate) async fn pending(store: &Fresh, instance: &InstanceRef) -> Record {
    let created = store.create(&request(instance)).await.expect("the store answers");
    assert!(matches!(created, Created::Created(_)));
    record(store, instance).await
}

/// Applies the commit, and returns the record and how many items are left in the inbox.
pub(crate) async fn apply(store: &Fresh, commit: &Commit) -> (Record, usize) {
    match store.commit(commit).await.expect("the store answers") {
        Committed::Applied { inbox_left, .. } => (record(store, &commit.instance).await, inbox_left),
        other => panic!("the commit was not applied: {other:?}"),
    }
}

/// Creates the instance and commits its first turn: `Running` in lane 3, unmarked.
pub(crate) async fn running(store: &Fresh, instance: &InstanceRef) -> Record {
    let record = pending(store, instance).await;
    let first = Commit {
        cleared: vec![Mark::Start],
        ..turn(instance, record.guard())
    };
    apply(store, &first).await.0
}

/// Ends the instance, unmarked.
pub(crate) async fn end(store: &Fresh, instance: &InstanceRef) -> Record {
    let now = record(store, instance).await;
    let last = Commit {
        status: Status::Completed,
        outcome: Some(outcome()),
        cleared: now.marks.clone(),
        ..turn(instance, now.guard())
    };
    apply(store, &last).await.0
}

/// An item for the instance, kept nowhere if it is absent.
pub(crate) fn item(instance: &InstanceRef, text: &str) -> Deliver {
    Deliver {
        instance: instance.clone(),
        item: Bytes::copy_from_slice(text.as_bytes()),
        bound: None,
        park: false,
        keep_absent: None,
    }
}

/// Parks an item in the inbox.
pub(crate) async fn park(store: &Fresh, instance: &InstanceRef, text: &str) {
    let parked = Deliver {
        park: true,
        ..item(instance, text)
    };
    let delivered = store.deliver(&parked).await.expect("the store answers");
    assert!(matches!(delivered, Delivered::Kept { .. }), "{delivered:?}");
}

pub(crate) async fn inbox(store: &Fresh, instance: &InstanceRef) -> Vec<Bytes> {
    let loaded = store.load(instance, 0, 1000).await.expect("the store answers");
    loaded.map(|loaded| loaded.inbox).unwrap_or_default()
}

pub(crate) fn due_key(kind: DueKind, subject: &str) -> DueKey {
    DueKey {
        kind,
        subject: Bytes::copy_from_slice(subject.as_bytes()),
    }
}

/// All instances of `orders`.
pub(crate) fn everything() -> IndexFilter {
    IndexFilter {
        app: app("orders"),
        statuses: Vec::new(),
        created_from: None,
        created_before: None,
    }
}

/// Polls until the answer is there.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(ms(5)).await;
        }
    });
    waited.await.expect("what the test waits for happens in time")
}

/// Returns when the store's clock is past this time.
pub(crate) async fn passes(store: &Fresh, time: Timestamp) {
    eventually(|| async move { (store.now().await.unwrap() > time).then_some(()) }).await;
}
