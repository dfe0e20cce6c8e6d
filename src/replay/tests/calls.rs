//! Calls: attempts, children, refusals, undo steps.

use super::kit::*;
use crate::model::{Activity, Failure, InstanceRef, Limits, Result, Retry, Workflow, kinds};
use crate::replay::history::HistoryEvent;
use crate::replay::{Code, Compensations, WorkflowContext};
use std::sync::Arc;

const ADD: Activity<u32, u32> = Activity::new("sums", "add");
const SUB: Workflow<u32, u32> = Workflow::new("other", "sub");

fn retrying(retry: Retry) -> Arc<dyn Code> {
    code(move |ctx: WorkflowContext, n: u32| {
        let retry = retry.clone();
        async move { ctx.call(ADD, n).retry(retry).await }
    })
}

#[test]
fn each_attempt_has_a_number_of_its_own_and_a_timer_before_it() {
    let mut run = Run::of(retrying(Retry::times(3).first(ms(100)).factor(3.0)));
    assert_eq!(run.start(1), ["task 0 add#1"]);
    assert_eq!(run.fail(0, "Flaky"), ["timer 1 in 100"]);
    assert_eq!(run.fire(1), ["task 2 add#2"]);
    assert_eq!(run.fail(2, "Flaky"), ["timer 3 in 300"]);
    assert_eq!(run.fire(3), ["task 4 add#3"]);
    assert_eq!(run.fail(4, "Flaky"), ["failed Flaky"]);
}

#[test]
fn all_attempts_of_a_call_carry_its_input_and_one_task_execution_id() {
    let mut run = Run::of(retrying(Retry::times(2)));
    run.start(5);
    run.fail(0, "Flaky");
    run.fire(1);
    assert_eq!(run.complete(2, 6), ["done 6"]);
    let attempts: Vec<_> = run
        .events()
        .filter_map(|event| match event {
            HistoryEvent::TaskScheduled {
                task_execution_id,
                input,
                retried,
                ..
            } => Some((*task_execution_id, input.clone(), *retried)),
            _ => None,
        })
        .collect();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0], attempts[1]);
    assert_eq!((attempts[0].1.preview(), attempts[0].2), ("5".into(), true));
}

#[test]
fn two_calls_have_two_task_execution_ids() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let (first, second) = (ctx.call(ADD, 1).start(), ctx.call(ADD, 1).start());
        Ok(first.await? + second.await?)
    }));
    run.start(());
    let ids: std::collections::HashSet<_> = run
        .events()
        .filter_map(|event| match event {
            HistoryEvent::TaskScheduled { task_execution_id, .. } => Some(*task_execution_id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_fatal_failure_is_not_retried() {
    let mut run = Run::of(retrying(Retry::times(3)));
    run.start(1);
    let failure = Failure::new("Flaky", "no use").fatal();
    assert_eq!(
        run.turn([HistoryEvent::TaskFailed { sequence: 0, failure }]),
        ["failed Flaky"]
    );
}

#[test]
fn a_kind_that_the_policy_excludes_is_not_retried() {
    let mut run = Run::of(retrying(Retry::times(3).not_on("Declined")));
    run.start(1);
    run.fail(0, "Flaky");
    run.fire(1);
    assert_eq!(run.fail(2, "Declined"), ["failed Declined"]);
}

#[test]
fn the_total_time_counts_from_the_first_attempt() {
    let mut run = Run::of(retrying(Retry::forever().first(ms(100)).factor(1.0).total(ms(1000))));
    run.start(1);
    run.now = START + ms(900);
    assert_eq!(run.fail(0, "Flaky"), ["timer 1 in 100"]);
    assert_eq!(run.fire(1), ["task 2 add#2"]);
    run.now = run.now + ms(1);
    assert_eq!(run.fail(2, "Flaky"), ["failed Flaky"]);
}

#[test]
fn jitter_is_the_same_on_every_replay() {
    let mut run = Run::of(retrying(Retry::times(9).first(ms(10_000)).jitter(1.0)));
    run.start(1);
    let timer = run.fail(0, "Flaky");
    assert!(!timer[0].ends_with("10000"), "{timer:?}");
    run.evict();
    run.fire(1);
    run.fail(2, "Flaky");
}

#[test]
fn a_call_without_a_policy_is_made_once() {
    let mut run = Run::of(code(
        |ctx: WorkflowContext, n: u32| async move { ctx.call(ADD, n).await },
    ));
    run.start(1);
    assert_eq!(run.fail(0, "Flaky"), ["failed Flaky"]);
}

#[test]
fn retries_go_on_while_the_code_looks_elsewhere() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let call = ctx.call(ADD, n).retry(Retry::times(2)).start();
        ctx.event_named::<()>("go").await?;
        call.await
    }));
    run.start(1);
    assert_eq!(run.fail(0, "Flaky"), ["timer 1 in 1000"]);
    assert_eq!(run.fire(1), ["task 2 add#2"]);
    assert!(run.complete(2, 2).is_empty());
    assert_eq!(run.raise("go", ()), ["done 2"]);
}

#[test]
fn a_call_that_nobody_waits_for_any_more_is_not_retried_and_its_result_is_recorded() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        drop(ctx.call(ADD, n).retry(Retry::times(5)).start());
        ctx.event_named::<u32>("go").await
    }));
    assert_eq!(run.start(1), ["task 0 add#1"]);
    assert!(run.fail(0, "Flaky").is_empty());
    assert_eq!(run.raise("go", 3), ["done 3"]);
}

#[test]
fn a_call_dropped_between_attempts_cancels_its_timer() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let call = ctx.call(ADD, n).retry(Retry::times(5)).start();
        ctx.event_named::<()>("stop").await?;
        drop(call);
        ctx.event_named::<u32>("go").await
    }));
    run.start(1);
    run.fail(0, "Flaky");
    assert_eq!(run.raise("stop", ()), ["cancel 1"]);
    assert_eq!(run.raise("go", 3), ["done 3"]);
}

#[test]
fn a_completion_takes_the_time_limit_of_its_call_away() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        ctx.call(ADD, n).timeout(ms(50)).await
    }));
    run.start(1);
    assert_eq!(run.complete(0, 1), ["cancel 0", "done 1"]);
}

#[test]
fn a_default_child_id_follows_the_number_of_its_attempt() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        ctx.call(ADD, n).await?;
        ctx.child(SUB, n).retry(Retry::times(2)).await
    }));
    run.start(1);
    assert_eq!(run.complete(0, 1), ["child 1 other/i:0001#1"]);
    let failure = Failure::new("Flaky", "again");
    assert_eq!(
        run.turn([HistoryEvent::ChildFailed {
            sequence: 1,
            failure,
            terminate: None
        }]),
        ["timer 2 in 1000"]
    );
    assert_eq!(run.fire(2), ["child 3 other/i:0003#2"]);
    assert_eq!(
        run.turn([HistoryEvent::ChildCompleted {
            sequence: 3,
            output: json(9)
        }]),
        ["done 9"]
    );
}

#[test]
fn a_chosen_child_id_stays_for_every_attempt() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        ctx.child(SUB, n).id("mine").app_id("twin").retry(Retry::times(2)).await
    }));
    assert_eq!(run.start(1), ["child 0 twin/mine#1"]);
    let failure = Failure::new("Flaky", "again");
    run.turn([HistoryEvent::ChildFailed {
        sequence: 0,
        failure,
        terminate: None,
    }]);
    assert_eq!(run.fire(1), ["child 2 twin/mine#2"]);
}

#[test]
fn a_detached_child_is_scheduled_and_forgotten() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let child: InstanceRef = ctx.child(SUB, n).detach()?;
        let named = ctx.child(SUB, n).id("named").detach()?;
        Ok(format!("{child} {named}"))
    }));
    assert_eq!(
        run.start(1),
        [
            "child 0 other/i:0000#1",
            "child 1 other/named#1",
            r#"done "other/i:0000 other/named""#
        ]
    );
    assert!(
        run.events()
            .any(|event| matches!(event, HistoryEvent::ChildScheduled { detached: true, .. }))
    );
}

#[test]
fn a_detached_child_with_an_option_that_nobody_would_heed_is_refused() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let second = std::time::Duration::from_secs(1);
        let refused = [
            ctx.child(SUB, n).retry(Retry::times(3)).detach().unwrap_err(),
            ctx.child(SUB, n).timeout(second).detach().unwrap_err(),
            ctx.child(SUB, n).schedule_to_start(second).detach().unwrap_err(),
        ];
        for (failure, option) in refused.iter().zip(["`retry`", "`timeout`", "`schedule_to_start`"]) {
            assert!(failure.is(kinds::INVALID_CALL) && failure.fatal, "{failure}");
            assert!(failure.message.contains(option), "{failure}");
        }
        Ok(ctx.child(SUB, n).id("named").detach()?.to_string())
    }));
    // The refused ones are in nobody's history.
    assert_eq!(run.start(1), ["child 0 other/named#1", r#"done "other/named""#]);
}

#[test]
fn a_call_that_is_not_valid_takes_its_number_and_fails() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let bad_app = ctx.call(ADD, n).app_id("no.dots").await.unwrap_err();
        let bad_id = ctx.child(SUB, n).id("").await.unwrap_err();
        let bad_name = ctx.call_named::<()>("", n).await.unwrap_err();
        assert!(
            [&bad_app, &bad_id, &bad_name]
                .iter()
                .all(|failure| failure.is(kinds::INVALID_CALL))
        );
        ctx.call(ADD, n).await
    }));
    assert_eq!(
        run.start(1),
        [
            "refused 0 InvalidCall",
            "refused 1 InvalidCall",
            "refused 2 InvalidCall",
            "task 3 add#1"
        ]
    );
}

fn limit(payload_bytes: usize) -> Limits {
    Limits {
        payload_bytes,
        ..Limits::default()
    }
}

/// Asks for everything that can be refused for its size, then tells what was.
fn refusals() -> Arc<dyn Code> {
    code(|ctx: WorkflowContext, size: usize| async move {
        let big = "x".repeat(size);
        let sorts = [
            ctx.set_custom_status(&big).is_err(),
            ctx.call_named::<()>("echo", &big).start().refused_at_once().await,
            ctx.raise(&instance(), crate::model::Event::new("e"), big.clone())
                .is_err(),
            ctx.child_named::<()>("w", &big).detach().is_err(),
        ];
        ctx.event_named::<()>("go").await?;
        Ok(sorts)
    })
}

trait RefusedAtOnce {
    async fn refused_at_once(self) -> bool;
}

impl RefusedAtOnce for crate::replay::Handle<()> {
    /// True if it failed at once; never waits.
    async fn refused_at_once(mut self) -> bool {
        matches!(futures_util::poll!(&mut self), std::task::Poll::Ready(Err(_)))
    }
}

#[test]
fn what_was_refused_for_its_size_refused_at_once_on_replay_under_a_higher_limit() {
    let mut run = Run::limited(refusals(), limit(25));
    assert_eq!(run.start(50).len(), 4);
    run.limits = limit(1000);
    run.evict();
    assert_eq!(run.raise("go", ()), ["done [true,true,true,true]"]);
    run.limits = limit(25);
}

#[test]
fn what_was_granted_is_granted_on_replay_under_a_lower_limit() {
    let mut run = Run::limited(refusals(), limit(1000)).unverified();
    run.start(50);
    run.limits = limit(10);
    run.live = run.replayed().expect("the limit does not matter");
    let decided = run.turn([raised("go", ())]);
    assert_eq!(
        decided,
        ["refused 3 PayloadTooLarge", "failed PayloadTooLarge"],
        "the output is new"
    );
    run.limits = limit(1000);
    assert!(run.replayed().expect("the limit does not matter").is_over());
}

#[test]
fn a_refused_next_input_refused_at_once_on_replay_under_a_higher_limit() {
    let mut run = Run::limited(
        code(|ctx: WorkflowContext, n: usize| async move {
            match ctx.continue_as_new::<usize>("x".repeat(n)) {
                Err(failure) if failure.is(kinds::PAYLOAD_TOO_LARGE) => ctx.event_named("go").await,
                other => other,
            }
        }),
        limit(10),
    );
    assert_eq!(run.start(50), ["refused 0 PayloadTooLarge"]);
    run.limits = limit(1000);
    run.evict();
    assert_eq!(run.raise("go", 1), ["done 1"]);
    run.limits = limit(10);
}

#[test]
fn an_oversize_output_fails_the_workflow() {
    let mut run = Run::limited(
        code(|_: WorkflowContext, n: usize| async move { Ok("x".repeat(n)) }),
        limit(10),
    );
    assert_eq!(run.start(50), ["refused 0 PayloadTooLarge", "failed PayloadTooLarge"]);
}

#[test]
fn undo_steps_run_the_last_first_and_their_failures_are_told() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let mut undo = Compensations::new();
        for step in ["one", "two", "three"] {
            undo.push(ctx.call_named::<u32>(step, ()));
        }
        let failure = Failure::new("Declined", "no").caused_by(Failure::new("Deep", "down"));
        Err::<(), _>(undo.run(failure).await)
    }));
    assert_eq!(run.start(()), ["task 0 three#1"]);
    assert_eq!(run.fail(0, "Stubborn"), ["task 1 two#1"]);
    assert_eq!(run.complete(1, 1), ["task 2 one#1"]);
    assert_eq!(run.complete(2, 1), ["failed Declined"]);
    let Some(HistoryEvent::ExecutionFailed { failure }) = run.events().last() else {
        panic!("it failed");
    };
    assert!(failure.message.contains("1 undo step(s) failed"), "{failure}");
    assert!(failure.is("Deep") && failure.is("Stubborn"));
}

#[test]
fn eager_and_lazy_calls_replay_in_the_order_in_which_they_were_made() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let lazy = ctx.call_named::<u32>("lazy", ());
        let eager = ctx.call_named::<u32>("eager", ()).start();
        let never = ctx.call_named::<u32>("never", ());
        let sum: Result<u32> = async { Ok(lazy.await? + eager.await?) }.await;
        drop(never);
        sum
    }));
    assert_eq!(run.start(()), ["task 0 eager#1", "task 1 lazy#1"]);
    assert!(run.complete(0, 1).is_empty());
    assert_eq!(run.complete(1, 2), ["done 3"]);
}
