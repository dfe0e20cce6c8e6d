//! Random workflow programs against random orders of arrival, cut into random turns, with random evictions.

use std::sync::Arc;

use futures_util::future::{BoxFuture, Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::kit::*;
use crate::model::{Activity, Event, Failure, Result, Retry, Sequence, Timestamp, Workflow};
use crate::replay::history::HistoryEvent;
use crate::replay::{self, Code, WorkflowContext};

const ADD: Activity<u64, u64> = Activity::new("sums", "add");
const SUB: Workflow<u64, u64> = Workflow::new("other", "sub");
const NAMES: [Event<u64>; 3] = [Event::new("red"), Event::new("Green"), Event::new("blue")];

/// A workflow program. Its value depends on every result and on the order in which they were seen.
#[derive(Clone, Debug)]
enum Step {
    Call,
    Retried(u32),
    Limited,
    Child,
    Detached,
    Refused,
    Timer(u64),
    Event(usize),
    EventWithin(usize, u64),
    /// Waits without awaiting, then lets go: what came in between goes back.
    HeldEvent(usize, Box<Step>),
    Raise,
    Draw,
    Patch,
    All(u64),
    First(u64),
    Race(u64),
    /// Started, and dropped after another step.
    Dropped(Box<Step>),
    Sequence(Vec<Step>),
    Parallel(Vec<Step>),
    Unordered(Vec<Step>),
    /// The loser is dropped wherever it stands.
    Select(Box<Step>, Box<Step>),
}

fn steps() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        3 => Just(Step::Call),
        2 => (1_u32..4).prop_map(Step::Retried),
        1 => Just(Step::Limited),
        1 => Just(Step::Child),
        1 => Just(Step::Detached),
        1 => Just(Step::Refused),
        2 => (0_u64..50).prop_map(Step::Timer),
        2 => (0..NAMES.len()).prop_map(Step::Event),
        3 => (0..NAMES.len(), 0_u64..50).prop_map(|(name, wait)| Step::EventWithin(name, wait)),
        1 => Just(Step::Raise),
        1 => Just(Step::Draw),
        1 => Just(Step::Patch),
        1 => (0_u64..4).prop_map(Step::All),
        1 => (0_u64..4).prop_map(Step::First),
        1 => (0_u64..50).prop_map(Step::Race),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let list = || prop::collection::vec(inner.clone(), 1..4);
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            2 => list().prop_map(Step::Sequence),
            2 => list().prop_map(Step::Parallel),
            1 => list().prop_map(Step::Unordered),
            2 => (boxed(), boxed()).prop_map(|(left, right)| Step::Select(left, right)),
            1 => boxed().prop_map(Step::Dropped),
            1 => (0..NAMES.len(), boxed()).prop_map(|(name, step)| Step::HeldEvent(name, step)),
        ]
    })
}

fn value(result: Result<u64>) -> u64 {
    result.unwrap_or_else(|failure| failure.message.len() as u64 + 1_000)
}

fn mix(values: impl IntoIterator<Item = u64>) -> u64 {
    values
        .into_iter()
        .fold(17, |mixed: u64, value| mixed.wrapping_mul(31).wrapping_add(value))
}

fn interpret(ctx: WorkflowContext, step: Step) -> BoxFuture<'static, u64> {
    async move {
        let part = |step: Step| interpret(ctx.clone(), step);
        match step {
            Step::Call => value(ctx.call(ADD, 1).await),
            Step::Retried(times) => value(ctx.call(ADD, 2).retry(Retry::times(times).jitter(0.5)).await),
            Step::Limited => value(ctx.call(ADD, 3).timeout(ms(10)).await),
            Step::Child => value(ctx.child(SUB, 4).await),
            Step::Detached => ctx
                .child(SUB, 5)
                .detach()
                .map_or(1, |child| child.id.as_str().len() as u64),
            Step::Refused => value(ctx.call(ADD, 6).app_id("").await),
            Step::Timer(wait) => ctx.timer(ms(wait)).await.map_or(1, |()| 0),
            Step::Event(name) => value(ctx.event(NAMES[name]).await),
            Step::EventWithin(name, wait) => value(
                ctx.event(NAMES[name])
                    .within(ms(wait))
                    .await
                    .map(Option::unwrap_or_default),
            ),
            Step::HeldEvent(name, step) => {
                let held = ctx.event(NAMES[name]).start();
                let seen = part(*step).await;
                drop(held);
                seen
            }
            Step::Raise => ctx.raise(&instance(), NAMES[0], 7).map_or(1, |()| 0),
            Step::Draw => mix([ctx.random().to_bits(), ctx.uuid().as_u64_pair().0]),
            Step::Patch => u64::from(ctx.patched("patch")),
            Step::All(count) => {
                let calls = (0..count).map(|n| ctx.call(ADD, n));
                mix(replay::all(calls).await.into_iter().map(value))
            }
            Step::First(count) => match replay::first((0..count).map(|n| ctx.call(ADD, n))).await {
                Some(winner) => mix([winner.index as u64, value(winner.result)]),
                None => 0,
            },
            Step::Race(wait) => match replay::race(ctx.call(ADD, 8), ctx.timer(ms(wait))).await {
                replay::Either::Left(result) => value(result),
                replay::Either::Right(_) => 1,
            },
            Step::Dropped(step) => {
                let call = ctx.call(ADD, 9).retry(Retry::times(2)).start();
                let seen = part(*step).await;
                drop(call);
                seen
            }
            Step::Sequence(steps) => {
                let mut values = Vec::new();
                for step in steps {
                    values.push(part(step).await);
                }
                mix(values)
            }
            Step::Parallel(steps) => mix(join_all(steps.into_iter().map(part)).await),
            Step::Unordered(steps) => {
                let running: FuturesUnordered<_> = steps.into_iter().map(part).collect();
                mix(running.collect::<Vec<_>>().await)
            }
            Step::Select(left, right) => match select(part(*left), part(*right)).await {
                Either::Left((seen, _)) => mix([1, seen]),
                Either::Right((seen, _)) => mix([2, seen]),
            },
        }
    }
    .boxed()
}

fn program(step: Step) -> Arc<dyn Code> {
    code(move |ctx: WorkflowContext, _: ()| {
        let step = step.clone();
        async move { Ok(interpret(ctx, step).await) }
    })
}

/// Something that can still arrive.
#[derive(Clone, Copy)]
enum Open {
    Task(Sequence),
    Child(Sequence),
    Timer(Sequence),
}

/// What is scheduled and not over, in the order of scheduling.
fn open(run: &Run) -> Vec<Open> {
    let mut open: Vec<(Sequence, Open)> = Vec::new();
    for event in run.events() {
        match event {
            HistoryEvent::TaskScheduled { sequence, .. } => open.push((*sequence, Open::Task(*sequence))),
            HistoryEvent::ChildScheduled {
                sequence,
                detached: false,
                ..
            } => open.push((*sequence, Open::Child(*sequence))),
            HistoryEvent::TimerCreated { sequence, .. } => open.push((*sequence, Open::Timer(*sequence))),
            HistoryEvent::TaskCompleted { sequence, .. }
            | HistoryEvent::TaskFailed { sequence, .. }
            | HistoryEvent::ChildCompleted { sequence, .. }
            | HistoryEvent::ChildFailed { sequence, .. }
            | HistoryEvent::TimerFired { sequence }
            | HistoryEvent::TimerCancelled { sequence } => open.retain(|(other, _)| other != sequence),
            _ => {}
        }
    }
    open.into_iter().map(|(_, open)| open).collect()
}

fn arrival(open: Open, succeeds: bool) -> HistoryEvent {
    let failure = Failure::new("Flaky", "it failed");
    match (open, succeeds) {
        (Open::Task(sequence), true) => completed(sequence, sequence * 7),
        (Open::Task(sequence), false) => HistoryEvent::TaskFailed { sequence, failure },
        (Open::Child(sequence), true) => HistoryEvent::ChildCompleted {
            sequence,
            output: json(sequence * 11),
        },
        (Open::Child(sequence), false) => HistoryEvent::ChildFailed {
            sequence,
            failure,
            terminate: None,
        },
        (Open::Timer(sequence), _) => fired(sequence),
    }
}

/// What arrives next: by the choice while there are choices, then whatever brings the program to its end.
fn next_arrival(run: &Run, choice: Option<u16>, count: usize) -> HistoryEvent {
    let open = open(run);
    let raised = |which: usize| raised(["RED", "green", "Blue"][which % 3], count as u64);
    match choice {
        Some(choice) if choice % 17 == 0 => HistoryEvent::ExecutionSuspended {
            reason: "a pause".into(),
        },
        Some(choice) if open.is_empty() || choice % 4 == 0 => raised(usize::from(choice / 17)),
        Some(choice) => arrival(open[usize::from(choice / 4) % open.len()], choice % 3 != 0),
        None => open.first().map_or_else(|| raised(count), |open| arrival(*open, true)),
    }
}

/// Lets the program run to its end, one arrival a turn.
fn live(code: &Arc<dyn Code>, choices: &[u16]) -> Run {
    const MOST_ARRIVALS: usize = 400;
    let mut run = Run::of(code.clone());
    run.start(());
    let mut choices = choices.iter().copied();
    for count in 0..MOST_ARRIVALS {
        if run.live.is_over() {
            return run;
        }
        run.now = run.now + ms(3);
        let event = next_arrival(&run, choices.next(), count);
        run.turn([event]);
    }
    panic!(
        "the program does not end though all that it waits for has come: {:?}",
        run.live.waiting()
    );
}

/// The same arrivals cut into other turns, with evictions: how many arrivals a turn takes, and whether an eviction follows.
fn cut(code: &Arc<dyn Code>, arrivals: &[HistoryEvent], cuts: &[(usize, bool)]) -> Run {
    let mut run = Run::of(code.clone());
    let mut left = arrivals;
    let mut cuts = cuts.iter().cycle();
    while !left.is_empty() {
        let (most, evicted) = cuts.next().copied().unwrap_or((1, true));
        let (turn, rest) = left.split_at(most.min(left.len()));
        left = rest;
        run.turn(turn.to_vec());
        run.now = run.now + ms(3);
        if evicted {
            run.evict();
        }
    }
    run
}

/// The events without what depends on when a turn ran.
fn timeless(run: &Run) -> Vec<HistoryEvent> {
    let mut events: Vec<_> = run.events().cloned().collect();
    for event in &mut events {
        if let HistoryEvent::TimerCreated { due, .. } = event {
            *due = Timestamp::default();
        }
    }
    events
}

fn sequence_of(event: &HistoryEvent) -> Option<Sequence> {
    match event {
        HistoryEvent::TaskScheduled { sequence, .. }
        | HistoryEvent::ChildScheduled { sequence, .. }
        | HistoryEvent::TimerCreated { sequence, .. }
        | HistoryEvent::EventSent { sequence, .. }
        | HistoryEvent::CallRefused { sequence, .. } => Some(*sequence),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_arrivals_give_the_same_history_however_they_are_cut_into_turns(
        step in steps(),
        choices in prop::collection::vec(any::<u16>(), 0..25),
        cuts in prop::collection::vec((1_usize..5, any::<bool>()), 1..8),
    ) {
        let code = program(step);
        let one_by_one = live(&code, &choices);
        let arrivals: Vec<_> = one_by_one.events().filter(|event| event.is_arrived()).cloned().collect();
        let cut = cut(&code, &arrivals, &cuts);
        prop_assert_eq!(timeless(&one_by_one), timeless(&cut));
        // Both are replayed from every prefix when they are dropped. What else must hold of any history:
        let numbers: Vec<_> = one_by_one.events().filter_map(sequence_of).collect();
        prop_assert!(numbers.iter().copied().eq(0..numbers.len() as Sequence), "{:?}", numbers);
        let timers = open(&one_by_one).into_iter().filter(|open| matches!(open, Open::Timer(_))).count();
        prop_assert_eq!(timers, 0, "no timer is left");
    }

    #[test]
    fn a_termination_at_any_time_ends_the_execution_and_replays(
        step in steps(),
        choices in prop::collection::vec(any::<u16>(), 0..10),
    ) {
        let mut run = Run::of(program(step));
        run.start(());
        for (count, choice) in choices.into_iter().enumerate() {
            let event = next_arrival(&run, Some(choice), count);
            run.turn([event]);
        }
        run.turn([HistoryEvent::ExecutionTerminated { reason: "enough".into(), recursive: true, children: Vec::new() }]);
        prop_assert!(run.live.is_over());
        let timers = open(&run).into_iter().filter(|open| matches!(open, Open::Timer(_))).count();
        prop_assert_eq!(timers, 0, "no timer is left");
    }
}
