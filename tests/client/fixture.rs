//! A client, and the hand that plays the worker.

use std::time::Duration;

use leveret::backend::{Backend, Commit, Committed, Queue, Record, View};
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::wire::Outcome;
use leveret::{
    AppId, Client, CommitId, Failure, InstanceId, InstanceRef, Namespace, Payload, Status, Timestamp, WaitingView,
    Workflow,
};

pub(crate) const CHECKOUT: Workflow<u64, String> = Workflow::new("orders", "checkout");

/// For waits that are to run out, and for nothing else.
pub(crate) const SOON: Duration = Duration::from_millis(30);

/// For waits that are to succeed: long enough for a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn backend() -> Backend {
    Backend::memory(Namespace::new("shop").unwrap())
}

pub(crate) fn client() -> (Client, Backend) {
    let backend = backend();
    (Client::new(backend.clone()), backend)
}

pub(crate) fn app(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

pub(crate) fn instance(app_id: &str, id: &str) -> InstanceRef {
    InstanceRef::new(app(app_id), InstanceId::new(id).unwrap())
}

pub(crate) fn payload(value: impl serde::Serialize) -> Payload {
    Payload::encode(&value).unwrap()
}

pub(crate) async fn record(backend: &Backend, instance: &InstanceRef) -> Record {
    backend.store().record(instance).await.unwrap().unwrap()
}

/// Messages in the app's queue for starts.
pub(crate) async fn starts(backend: &Backend, app_id: &str) -> u64 {
    let depth = backend.broker().depth(&Queue::Workflows(app(app_id))).await.unwrap();
    depth.unwrap().messages
}

/// What a worker's turn comes to.
pub(crate) struct Played {
    pub(crate) events: Vec<HistoryEvent>,
    pub(crate) status: Status,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) waiting: WaitingView,
}

impl Played {
    pub(crate) fn running(events: Vec<HistoryEvent>) -> Self {
        Self {
            events,
            status: Status::Running,
            outcome: None,
            waiting: WaitingView::default(),
        }
    }

    pub(crate) fn completed(output: &str) -> Self {
        let output = payload(output);
        Self {
            events: vec![HistoryEvent::ExecutionCompleted { output: output.clone() }],
            status: Status::Completed,
            outcome: Some(Outcome::Completed(output)),
            waiting: WaitingView::default(),
        }
    }

    pub(crate) fn failed(failure: Failure) -> Self {
        Self {
            events: vec![HistoryEvent::ExecutionFailed {
                failure: failure.clone(),
            }],
            status: Status::Failed,
            outcome: Some(Outcome::Failed(failure)),
            waiting: WaitingView::default(),
        }
    }

    pub(crate) fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn waiting(mut self, waiting: WaitingView) -> Self {
        self.waiting = waiting;
        self
    }
}

/// Commits a turn as a worker does that has made all effects, and puts the instance in lane 0.
pub(crate) async fn play(backend: &Backend, instance: &InstanceRef, played: Played) -> Record {
    let now = record(backend, instance).await;
    let mut events = Vec::new();
    if let Some(input) = &now.input {
        events.push(HistoryEvent::ExecutionStarted {
            workflow: now.origin.workflow.clone(),
            input: input.clone(),
            run: now.run,
            generation: 0,
            parent: now.origin.parent.clone(),
            tags: now.origin.tags.clone(),
            carried: Vec::new(),
            seen: Vec::new(),
        });
    }
    events.extend(played.events);
    let turn = Turn {
        version: now.version + 1,
        commit: CommitId::generate(),
        at: Timestamp::from_millis(1_790_000_000_000),
        build: None,
        events,
    };
    let commit = Commit {
        instance: instance.clone(),
        guard: now.guard(),
        id: turn.commit,
        turn: turn.encode(),
        next_execution: None,
        status: played.status,
        lane: Some(0),
        view: View {
            started_at: Some(turn.at),
            waiting: played.waiting,
            ..now.view
        },
        outcome: played.outcome,
        drop_input: true,
        inbox_taken: 0,
        inbox_kept: Vec::new(),
        marks: Vec::new(),
        cleared: now.marks,
        claims_opened: Vec::new(),
        claims_closed: Vec::new(),
    };
    let committed = backend.store().commit(&commit).await.unwrap();
    assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
    record(backend, instance).await
}
