//! Drives one execution turn by turn, keeps its history, and replays it from every prefix when it goes away.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{
    AppId, BuildId, CommitId, ExecutionId, Failure, InstanceId, InstanceRef, Limits, MessageId, Payload, Result, RunId,
    Sequence, Timestamp,
};
use crate::replay::history::{CarriedEvent, HistoryEvent, Turn};
use crate::replay::{Code, CodeFuture, Execution, Stuck, WorkflowContext};

pub(super) const START: Timestamp = Timestamp::from_millis(1_000_000);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn app(name: &str) -> AppId {
    AppId::new(name).expect("valid")
}

pub(super) fn instance() -> InstanceRef {
    InstanceRef::new(app("app"), InstanceId::new("i").expect("valid"))
}

/// Ids are fixed, so that a test's history is the same on every run.
pub(super) fn execution_id() -> ExecutionId {
    uuid::Uuid::from_u128(7).into()
}

pub(super) fn json(value: impl Serialize) -> Payload {
    Payload::encode(&value).expect("it has a JSON form")
}

pub(super) fn started(input: impl Serialize) -> HistoryEvent {
    started_with(json(input), Vec::new(), Vec::new())
}

pub(super) fn started_with(
    input: Payload,
    carried: Vec<CarriedEvent>,
    seen: Vec<(MessageId, Timestamp)>,
) -> HistoryEvent {
    HistoryEvent::ExecutionStarted {
        workflow: "w".into(),
        input,
        run: RunId::from(uuid::Uuid::from_u128(8)),
        generation: 0,
        parent: None,
        tags: Default::default(),
        carried,
        seen,
    }
}

pub(super) fn completed(sequence: Sequence, output: impl Serialize) -> HistoryEvent {
    HistoryEvent::TaskCompleted {
        sequence,
        output: json(output),
    }
}

pub(super) fn failed(sequence: Sequence, kind: &str) -> HistoryEvent {
    HistoryEvent::TaskFailed {
        sequence,
        failure: Failure::new(kind, "it failed"),
    }
}

pub(super) fn fired(sequence: Sequence) -> HistoryEvent {
    HistoryEvent::TimerFired { sequence }
}

/// An event whose message ID is its name and payload.
pub(super) fn raised(name: &str, payload: impl Serialize) -> HistoryEvent {
    let payload = json(payload);
    HistoryEvent::EventRaised {
        name: name.into(),
        message_id: MessageId::new(format!("{name} {}", payload.preview())).expect("printable"),
        payload,
    }
}

/// Workflow code as a closure.
pub(super) fn code<I, O, F, Fut>(run: F) -> Arc<dyn Code>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    F: Fn(WorkflowContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O>> + Send + 'static,
{
    struct Native<I, F> {
        run: F,
        input: PhantomData<fn(I)>,
    }
    impl<I, O, F, Fut> Code for Native<I, F>
    where
        I: DeserializeOwned,
        O: Serialize,
        F: Fn(WorkflowContext, I) -> Fut + Send + Sync,
        Fut: Future<Output = Result<O>> + Send + 'static,
    {
        fn begin(&self, ctx: WorkflowContext, input: Payload) -> CodeFuture {
            let future = (self.run)(ctx, input.decode().expect("the test's input fits"));
            Box::pin(async move { Payload::encode(&future.await?) })
        }
    }
    Arc::new(Native {
        run,
        input: PhantomData,
    })
}

/// What an execution shows of itself: equal for the one that lived and the one that was replayed.
type Shown = (bool, Option<Payload>, crate::model::WaitingView, usize);

pub(super) fn shown(execution: &Execution) -> Shown {
    (
        execution.is_over(),
        execution.custom_status(),
        execution.waiting(),
        execution.weight(),
    )
}

/// One execution and its stored turns.
pub(super) struct Run {
    pub(super) code: Arc<dyn Code>,
    pub(super) limits: Limits,
    pub(super) live: Execution,
    pub(super) turns: Vec<Turn>,
    pub(super) now: Timestamp,
    verified: bool,
}

impl Run {
    /// Begins an execution; nothing has happened yet.
    pub(super) fn of(code: Arc<dyn Code>) -> Self {
        Self::limited(code, Limits::default())
    }

    pub(super) fn limited(code: Arc<dyn Code>, limits: Limits) -> Self {
        Self {
            live: fresh(&code, &limits),
            code,
            limits,
            turns: Vec::new(),
            now: START,
            verified: true,
        }
    }

    /// Leaves out the replays at the end, because the test changes the code between turns or is large.
    pub(super) fn unverified(mut self) -> Self {
        self.verified = false;
        self
    }

    /// Applies the events in one turn, stores it, and gives what the code decided, in short form.
    pub(super) fn turn(&mut self, arrived: impl IntoIterator<Item = HistoryEvent>) -> Vec<String> {
        self.try_turn(arrived).expect("the code goes on")
    }

    pub(super) fn try_turn(&mut self, arrived: impl IntoIterator<Item = HistoryEvent>) -> Result<Vec<String>, Stuck> {
        self.live.begin_turn(self.now)?;
        let mut events = Vec::new();
        for event in arrived {
            self.live.advance(event, &mut events)?;
        }
        let decided = self.short(&events);
        let version = self.turns.len() as u64 + 1;
        self.turns.push(Turn {
            version,
            commit: CommitId::from(uuid::Uuid::from_u128(u128::from(version))),
            at: self.now,
            build: Some(BuildId::new("tests").expect("printable")),
            events,
        });
        Ok(decided)
    }

    /// The first turn.
    pub(super) fn start(&mut self, input: impl Serialize) -> Vec<String> {
        self.turn([started(input)])
    }

    pub(super) fn complete(&mut self, sequence: Sequence, output: impl Serialize) -> Vec<String> {
        self.turn([completed(sequence, output)])
    }

    pub(super) fn fail(&mut self, sequence: Sequence, kind: &str) -> Vec<String> {
        self.turn([failed(sequence, kind)])
    }

    pub(super) fn raise(&mut self, name: &str, payload: impl Serialize) -> Vec<String> {
        self.turn([raised(name, payload)])
    }

    /// Lets the timer fire when it is due.
    pub(super) fn fire(&mut self, sequence: Sequence) -> Vec<String> {
        let due = self.events().find_map(|event| match event {
            HistoryEvent::TimerCreated {
                sequence: other, due, ..
            } if *other == sequence => Some(*due),
            _ => None,
        });
        self.now = self.now.max(due.expect("the timer was created"));
        self.turn([fired(sequence)])
    }

    /// Throws the live execution away and goes on with a replayed one.
    pub(super) fn evict(&mut self) {
        let before = shown(&self.live);
        self.live = self.replayed().expect("the same code replays");
        assert_eq!(shown(&self.live), before, "the replayed execution differs");
    }

    /// A fresh execution that has replayed all stored turns.
    pub(super) fn replayed(&self) -> Result<Execution, Stuck> {
        replay(&self.code, &self.limits, &self.turns)
    }

    /// Every stored event.
    pub(super) fn events(&self) -> impl Iterator<Item = &HistoryEvent> {
        self.turns.iter().flat_map(|turn| &turn.events)
    }

    /// How many timers are set and neither fired nor cancelled.
    pub(super) fn live_timers(&self) -> usize {
        self.events()
            .map(|event| match event {
                HistoryEvent::TimerCreated { .. } => 1,
                HistoryEvent::TimerCancelled { .. } | HistoryEvent::TimerFired { .. } => -1,
                _ => 0,
            })
            .sum::<i32>()
            .try_into()
            .expect("no timer ends twice")
    }

    fn short(&self, events: &[HistoryEvent]) -> Vec<String> {
        events
            .iter()
            .filter(|event| !event.is_arrived())
            .map(|event| short(event, self.now))
            .collect()
    }

    /// Replays every prefix into a fresh execution and lets what is left happen to it: the history must come out the same.
    pub(super) fn verify(&self) {
        for kept in 0..=self.turns.len() {
            let (old, new) = self.turns.split_at(kept);
            let mut execution = replay(&self.code, &self.limits, old)
                .unwrap_or_else(|stuck| panic!("turns 1 to {kept} do not replay: {stuck}"));
            for turn in new {
                execution.begin_turn(turn.at).expect("the code goes on");
                let mut events = Vec::new();
                for event in turn.events.iter().filter(|event| event.is_arrived()) {
                    execution.advance(event.clone(), &mut events).expect("the code goes on");
                }
                assert_eq!(events, turn.events, "turn {} after a replay of {kept}", turn.version);
            }
            assert_eq!(shown(&execution), shown(&self.live), "after a replay of {kept} turns");
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.verified && !std::thread::panicking() {
            self.verify();
        }
    }
}

pub(super) fn fresh(code: &Arc<dyn Code>, limits: &Limits) -> Execution {
    Execution::new(instance(), execution_id(), code.clone(), limits)
}

/// Replays turns as they come out of the store.
pub(super) fn replay(code: &Arc<dyn Code>, limits: &Limits, turns: &[Turn]) -> Result<Execution, Stuck> {
    let mut execution = fresh(code, limits);
    for turn in turns {
        let stored = Turn::decode(&turn.encode()).expect("a turn can be read back");
        assert_eq!(stored, *turn);
        execution.replay(&stored)?;
    }
    Ok(execution)
}

/// A decision in a few words; due times are relative to the turn.
fn short(event: &HistoryEvent, now: Timestamp) -> String {
    use HistoryEvent::*;
    match event {
        TaskScheduled {
            sequence,
            name,
            attempt,
            ..
        } => format!("task {sequence} {name}#{attempt}"),
        ChildScheduled {
            sequence,
            instance,
            attempt,
            ..
        } => format!("child {sequence} {instance}#{attempt}"),
        TimerCreated { sequence, due, .. } => format!("timer {sequence} in {}", due.since(now).as_millis()),
        TimerCancelled { sequence } => format!("cancel {sequence}"),
        EventSent {
            sequence,
            instance,
            name,
            ..
        } => format!("send {sequence} {name} to {instance}"),
        CallRefused { sequence, failure, .. } => format!("refused {sequence} {}", failure.kind),
        PatchMarked { name } => format!("patch {name}"),
        ExecutionCompleted { output } => format!("done {}", output.preview()),
        ExecutionFailed { failure } => format!("failed {}", failure.kind),
        ContinuedAsNew { input, .. } => format!("again {}", input.preview()),
        arrived => arrived.describe(),
    }
}

/// A value that one branch or thread hands over to another: what gives it, and what waits for it.
pub(super) fn handed_over<T: Send + 'static>() -> (impl FnOnce(T) + Send, impl Future<Output = T> + Send) {
    let place: Arc<Mutex<(Option<T>, Option<Waker>)>> = Arc::new(Mutex::new((None, None)));
    let gives = place.clone();
    let give = move |value| {
        let mut place = gives.lock().unwrap();
        place.0 = Some(value);
        if let Some(waker) = place.1.take() {
            waker.wake();
        }
    };
    let wait = std::future::poll_fn(move |context| {
        let mut place = place.lock().unwrap();
        match place.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                place.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    (give, wait)
}
