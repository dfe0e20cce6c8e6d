//! What an item that arrives means: news, a duplicate, ahead of this state, or a stray.

use super::kit::*;
use crate::model::{Activity, Failure, MessageId, Retry, TaskExecutionId, Workflow, kinds};
use crate::replay::history::HistoryEvent;
use crate::replay::{Intake, WorkflowContext};
use crate::wire::{
    Command, CommandItem, CompletionItem, EventItem, Item, Outcome, ParentLink, TaskRef, TimerItem, WakeItem,
};

const ADD: Activity<u32, u32> = Activity::new("sums", "add");
const SUB: Workflow<u32, u32> = Workflow::new("other", "sub");

/// Call 0 is an activity on `sums`, 1 the same with retries, 2 a child on `other`, 3 the same with retries, 4 a timer, 5 a child with a time limit.
fn waiting() -> Run {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let _call = ctx.call(ADD, n).timeout(ms(100)).start();
        let _retried = ctx.call(ADD, n).retry(Retry::times(2)).start();
        let _child = ctx.child(SUB, n).start();
        let _retried_child = ctx.child(SUB, n).retry(Retry::times(2)).start();
        let _timer = ctx.timer(ms(50)).start();
        let _limited_child = ctx.child(SUB, n).schedule_to_start(ms(70)).start();
        ctx.event_named::<u32>("e").await
    }));
    run.start(1);
    run
}

fn task(sequence: u64) -> TaskRef {
    TaskRef {
        instance: instance(),
        execution: execution_id(),
        sequence,
    }
}

fn scheduled_id(run: &Run, wanted: u64) -> Option<TaskExecutionId> {
    run.events().find_map(|event| match event {
        HistoryEvent::TaskScheduled {
            sequence,
            task_execution_id,
            ..
        } if *sequence == wanted => Some(*task_execution_id),
        _ => None,
    })
}

fn completion(run: &Run, sequence: u64, from: &str, outcome: Outcome) -> CompletionItem {
    CompletionItem {
        task: task(sequence),
        task_execution_id: scheduled_id(run, sequence),
        from: app(from),
        outcome,
        progressed: false,
        ran: None,
    }
}

fn ok() -> Outcome {
    Outcome::Completed(json(2))
}

fn err(kind: &str) -> Outcome {
    Outcome::Failed(Failure::new(kind, "it failed"))
}

fn answer(run: &Run, sequence: u64, from: &str, outcome: Outcome) -> Intake {
    run.live
        .examine(&Item::Completion(completion(run, sequence, from, outcome)))
}

#[test]
fn a_completion_is_news_once() {
    let mut run = waiting();
    let Intake::Accept(event) = answer(&run, 0, "sums", ok()) else {
        panic!("it is news");
    };
    assert_eq!(event, completed(0, 2));
    let item = Item::Completion(completion(&run, 0, "sums", ok()));
    run.turn([event]);
    assert_eq!(run.live.examine(&item), Intake::Seen);
    run.evict();
    assert_eq!(run.live.examine(&item), Intake::Seen, "after a replay too");
}

#[test]
fn a_completion_of_a_call_that_this_state_does_not_know_is_ahead() {
    let run = waiting();
    assert_eq!(answer(&run, 6, "sums", ok()), Intake::Ahead);
}

#[test]
fn a_completion_counts_only_from_the_app_it_was_sent_to_with_its_id_for_this_execution() {
    let run = waiting();
    assert!(matches!(answer(&run, 0, "elsewhere", ok()), Intake::Stray(_)));
    assert!(matches!(answer(&run, 2, "elsewhere", ok()), Intake::Stray(_)));
    assert!(
        matches!(answer(&run, 4, "sums", ok()), Intake::Stray(_)),
        "a timer completes by firing"
    );
    for other in [None, Some(uuid::Uuid::from_u128(1).into())] {
        let mut item = completion(&run, 0, "sums", ok());
        item.task_execution_id = other;
        assert!(matches!(run.live.examine(&Item::Completion(item)), Intake::Stray(_)));
    }
    let mut item = completion(&run, 0, "sums", ok());
    item.task.execution = execution_id().next();
    assert!(matches!(run.live.examine(&Item::Completion(item)), Intake::Stray(_)));
}

#[test]
fn app_not_found_counts_from_any_app_but_only_for_an_activity_with_a_retry_policy() {
    let run = waiting();
    let not_found = || err(kinds::APP_NOT_FOUND);
    // A child that cannot start ends in the store, and its end is in its own app's name.
    for (sequence, counts) in [(0, false), (1, true), (2, false), (3, false)] {
        let intake = answer(&run, sequence, "anyone", not_found());
        assert_eq!(
            matches!(intake, Intake::Accept(_)),
            counts,
            "call {sequence}: {intake:?}"
        );
    }
    assert!(matches!(answer(&run, 1, "anyone", err("Other")), Intake::Stray(_)));
}

#[test]
fn a_childs_end_is_a_child_event_and_a_refused_start_may_come_from_the_caller() {
    let run = waiting();
    assert_eq!(
        answer(&run, 2, "other", ok()),
        Intake::Accept(HistoryEvent::ChildCompleted {
            sequence: 2,
            output: json(2)
        })
    );
    assert!(matches!(
        answer(&run, 2, "app", err(kinds::INSTANCE_ALREADY_EXISTS)),
        Intake::Accept(HistoryEvent::ChildFailed {
            sequence: 2,
            terminate: None,
            ..
        })
    ));
    for (app, kind) in [
        ("anyone", kinds::INSTANCE_ALREADY_EXISTS),
        ("anyone", kinds::APP_NOT_FOUND),
        ("anyone", kinds::TERMINATED),
        ("app", kinds::TARGET_UNAVAILABLE),
    ] {
        assert!(
            matches!(answer(&run, 2, app, err(kind)), Intake::Stray(_)),
            "{kind} from {app}"
        );
    }
}

#[test]
fn a_timer_fires_once_and_a_deadline_is_for_the_claim_to_settle() {
    let mut run = waiting();
    let timer = |sequence, deadline| {
        Item::Timer(TimerItem {
            task: task(sequence),
            deadline,
        })
    };
    assert_eq!(run.live.examine(&timer(0, true)), Intake::Deadline(0));
    assert!(matches!(run.live.examine(&timer(0, false)), Intake::Stray(_)));
    assert!(matches!(
        run.live.examine(&timer(5, true)),
        Intake::ChildDeadline { sequence: 5, limits, since: START, .. } if limits.schedule_to_start == Some(ms(70))
    ));
    assert_eq!(run.live.examine(&timer(4, false)), Intake::Accept(fired(4)));
    assert_eq!(run.live.examine(&timer(9, false)), Intake::Ahead);
    run.fire(4);
    assert_eq!(run.live.examine(&timer(4, false)), Intake::Seen);
    run.complete(0, 1);
    assert_eq!(run.live.examine(&timer(0, true)), Intake::Seen);
}

#[test]
fn an_event_counts_once_by_its_message_id() {
    let mut run = waiting();
    let event = |id: &str| {
        Item::Event(EventItem {
            instance: instance(),
            name: "other".into(),
            payload: json(1),
            message_id: MessageId::new(id).unwrap(),
        })
    };
    let Intake::Accept(news) = run.live.examine(&event("m")) else {
        panic!("it is news");
    };
    run.turn([news]);
    assert_eq!(run.live.examine(&event("m")), Intake::Seen);
    assert!(matches!(run.live.examine(&event("n")), Intake::Accept(_)));
}

#[test]
fn a_command_for_another_run_or_another_parents_child_is_a_stray() {
    let run = waiting();
    let command = |run, parent| {
        Item::Command(CommandItem {
            instance: instance(),
            command: Command::Suspend { reason: "r".into() },
            issued_at: START,
            run,
            parent,
        })
    };
    let own_run = uuid::Uuid::from_u128(8).into();
    assert!(matches!(
        run.live.examine(&command(Some(own_run), None)),
        Intake::Accept(_)
    ));
    let other_run = uuid::Uuid::from_u128(9).into();
    assert!(matches!(
        run.live.examine(&command(Some(other_run), None)),
        Intake::Stray(_)
    ));
    assert!(matches!(
        run.live.examine(&command(None, Some(task(0)))),
        Intake::Stray(_)
    ));
}

#[test]
fn a_command_of_the_parent_counts_for_its_own_child() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.event_named::<u32>("e").await
    }));
    let mut start = started(());
    if let HistoryEvent::ExecutionStarted { parent, .. } = &mut start {
        *parent = Some(ParentLink {
            task: task(3),
            lane: 0,
            detached: false,
            retried: false,
        });
    }
    run.turn([start]);
    let terminate = |parent| {
        Item::Command(CommandItem {
            instance: instance(),
            command: Command::Terminate {
                reason: "r".into(),
                recursive: true,
            },
            issued_at: START,
            run: None,
            parent: Some(parent),
        })
    };
    assert!(matches!(
        run.live.examine(&terminate(task(3))),
        Intake::Accept(HistoryEvent::ExecutionTerminated { recursive: true, .. })
    ));
    assert!(matches!(run.live.examine(&terminate(task(4))), Intake::Stray(_)));
}

#[test]
fn what_carries_no_event_changes_nothing() {
    let run = waiting();
    assert_eq!(
        run.live.examine(&Item::Wake(WakeItem { instance: instance() })),
        Intake::Seen
    );
}
