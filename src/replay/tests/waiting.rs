//! Waiting for several things: order, cost, wakers.

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::kit::*;
use crate::model::{Result, Retry, WaitingFor};
use crate::replay::history::HistoryEvent;
use crate::replay::{Either, WorkflowContext, all, first, race};

fn number(ctx: &WorkflowContext, n: u32) -> crate::replay::Call<u32> {
    ctx.call_named("n", n)
}

#[test]
fn all_gives_results_in_the_order_of_the_calls() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let results: Result<Vec<u32>> = all((0..3).map(|n| number(&ctx, n))).await.into_iter().collect();
        results
    }));
    assert_eq!(run.start(()).len(), 3);
    run.complete(2, 12);
    run.complete(0, 10);
    assert_eq!(run.complete(1, 11), ["done [10,11,12]"]);
}

#[test]
fn all_of_nothing_is_over_at_once() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        Ok(all((0..0).map(|n| number(&ctx, n))).await.len())
    }));
    assert_eq!(run.start(()), ["done 0"]);
}

#[test]
fn all_keeps_failures_apart_and_retries_each_by_its_own_policy() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let calls = (0..2).map(|n| number(&ctx, n).retry(Retry::times(2)));
        Ok(all(calls).await.iter().filter(|result| result.is_ok()).count())
    }));
    run.start(());
    assert_eq!(
        run.turn([failed(0, "A"), failed(1, "B")]),
        ["timer 2 in 1000", "timer 3 in 1000"]
    );
    run.now = run.now + ms(1000);
    assert_eq!(run.turn([fired(3), fired(2)]), ["task 4 n#2", "task 5 n#2"]);
    assert_eq!(run.turn([completed(4, 1), failed(5, "A")]), ["done 1"]);
}

#[test]
fn ten_thousand_calls_cost_a_constant_number_of_looks_each() {
    const CALLS: u64 = 10_000;
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        Ok(all((0..CALLS as u32).map(|n| number(&ctx, n))).await.len())
    }))
    .unverified();
    run.start(());
    let mut last = Vec::new();
    for sequence in (0..CALLS).rev() {
        last = run.turn([completed(sequence, 0)]);
    }
    assert_eq!(last, ["done 10000"]);
    assert!(run.live.looks() <= 3 * CALLS, "{} looks", run.live.looks());
    let replayed = run.replayed().expect("it replays");
    assert!(replayed.looks() <= 3 * CALLS, "{} looks", replayed.looks());
    assert!(replayed.is_over());
}

#[test]
fn all_tells_the_waker_that_asked_last() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let mut both = all((0..2).map(|n| number(&ctx, n)));
        assert!(futures_util::poll!(&mut both).is_pending());
        // From here on another waker than the workflow's own is to be woken.
        let mut moved: FuturesUnordered<_> = [both].into_iter().collect();
        Ok(moved.next().await.map(|results| results.len()))
    }));
    run.start(());
    run.complete(0, 0);
    assert_eq!(run.complete(1, 0), ["done 2"]);
}

#[test]
fn first_takes_what_was_over_first_in_the_history() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let winner = first((0..3).map(|n| number(&ctx, n))).await.expect("three");
        Ok((winner.index, winner.result?))
    }));
    run.start(());
    assert_eq!(run.turn([completed(2, 12), completed(0, 10)]), ["done [2,12]"]);
}

#[test]
fn first_goes_by_the_history_for_results_that_came_before_the_wait() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let calls: Vec<_> = (0..3).map(|n| number(&ctx, n).start()).collect();
        ctx.event_named::<()>("go").await?;
        let winner = first(calls).await.expect("three");
        Ok((winner.index, winner.result?))
    }));
    run.start(());
    run.complete(1, 11);
    run.complete(0, 10);
    assert_eq!(run.raise("go", ()), ["done [1,11]"]);
}

#[test]
fn first_of_nothing_is_nothing() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        Ok(first((0..0).map(|n| number(&ctx, n))).await.is_none())
    }));
    assert_eq!(run.start(()), ["done true"]);
}

#[test]
fn a_race_is_won_by_what_came_before_the_wait_and_first_in_the_history() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let (left, right) = (number(&ctx, 0).start(), number(&ctx, 1).start());
        ctx.event_named::<()>("go").await?;
        Ok(match race(left, right).await {
            Either::Left(_) => "left",
            Either::Right(_) => "right",
        })
    }));
    run.start(());
    run.turn([completed(1, 0), completed(0, 0)]);
    assert_eq!(run.raise("go", ()), [r#"done "right""#]);
}

#[test]
fn a_timer_that_loses_is_cancelled() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let winner = race(number(&ctx, 0), ctx.timer(ms(500))).await;
        let after = ctx.timer(ms(7));
        after.await?;
        Ok(matches!(winner, Either::Left(Ok(1))))
    }));
    assert_eq!(run.start(()), ["task 0 n#1", "timer 1 in 500"]);
    assert_eq!(run.complete(0, 1), ["cancel 1", "timer 2 in 7"]);
    assert_eq!(run.fire(2), ["done true"]);
    assert_eq!(run.live_timers(), 0);
}

#[test]
fn a_call_that_loses_goes_on_and_its_result_is_ignored() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let winner = race(number(&ctx, 0).retry(Retry::times(3)), ctx.timer(ms(500))).await;
        ctx.event_named::<()>("go").await?;
        Ok(matches!(winner, Either::Right(_)))
    }));
    run.start(());
    assert!(run.fire(1).is_empty());
    assert!(run.fail(0, "Late").is_empty());
    assert_eq!(run.raise("go", ()), ["done true"]);
}

#[test]
fn open_timers_are_cancelled_when_the_workflow_ends() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let _timer = ctx.timer(ms(1)).start();
        ctx.event_named::<u32>("go").await
    }));
    run.start(());
    assert_eq!(run.raise("go", 1), ["cancel 0", "done 1"]);
}

#[test]
fn a_timer_until_a_time_is_due_then() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.timer_until(START + ms(1234)).await?;
        Ok(ctx.now() == START + ms(1234))
    }));
    assert_eq!(run.start(()), ["timer 0 in 1234"]);
    assert_eq!(run.fire(0), ["done true"]);
}

#[test]
fn join_waits_for_handles_of_different_types() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let timer = ctx.timer(ms(5)).start();
        let (number, text, timer) = futures_util::join!(
            number(&ctx, 0).into_future(),
            ctx.event_named::<String>("text").into_future(),
            timer
        );
        timer?;
        Ok((number?, text?))
    }));
    assert_eq!(run.start(()), ["timer 0 in 5", "task 1 n#1"]);
    run.raise("text", "hello");
    run.fire(0);
    assert_eq!(run.complete(1, 4), [r#"done [4,"hello"]"#]);
}

#[test]
fn join_all_works_over_many_handles() {
    const CALLS: u64 = 200;
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let handles = (0..CALLS as u32).map(|n| number(&ctx, n).start());
        let sum: Result<Vec<u32>> = join_all(handles).await.into_iter().collect();
        Ok(sum?.into_iter().sum::<u32>())
    }))
    .unverified();
    assert_eq!(run.start(()).len() as u64, CALLS);
    run.turn((0..CALLS / 2).map(|sequence| completed(sequence, 1)));
    run.evict();
    assert_eq!(
        run.turn((CALLS / 2..CALLS).map(|sequence| completed(sequence, 1))),
        ["done 200"]
    );
}

#[test]
fn futures_unordered_gives_results_as_they_come() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let mut running: FuturesUnordered<_> = (0..5).map(|n| number(&ctx, n).start()).collect();
        let mut seen = Vec::new();
        while let Some(result) = running.next().await {
            seen.push(result?);
            if seen.len() == 2 {
                running.push(number(&ctx, 9).start());
            }
        }
        Ok(seen)
    }));
    run.start(());
    run.complete(3, 3);
    assert_eq!(run.turn([completed(4, 4), completed(0, 0)]), ["task 5 n#1"]);
    assert_eq!(
        run.turn([completed(5, 9), completed(2, 2), completed(1, 1)]),
        ["done [3,4,0,9,2,1]"]
    );
}

#[test]
fn code_that_yields_to_itself_is_polled_again_in_the_same_turn() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        for _ in 0..3 {
            yield_now().await;
        }
        number(&ctx, 0).await
    }));
    assert_eq!(run.start(()), ["task 0 n#1"]);
    assert_eq!(run.complete(0, 1), ["done 1"]);
}

/// Wakes itself once, as schedulers within one task do.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn branches_may_talk_to_each_other_over_a_channel() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let (sender, waits) = handed_over();
        let sends = async {
            let n = number(&ctx, 0).await?;
            sender(n);
            Ok(())
        };
        let (received, sent): (u32, Result<()>) = futures_util::join!(waits, sends);
        sent.map(|()| received)
    }));
    run.start(());
    assert_eq!(run.complete(0, 6), ["done 6"]);
}

#[test]
fn what_is_waited_for_is_shown_and_counted() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        all((0..30).map(|n| number(&ctx, n))).await;
        Ok(())
    }));
    run.start(());
    let view = run.live.waiting();
    assert_eq!((view.total, view.shown.len()), (30, crate::model::WaitingView::SHOWN));
    assert!(
        run.events()
            .all(|event| !matches!(event, HistoryEvent::TimerCreated { .. }))
    );
}

#[test]
fn a_bounded_wait_for_an_event_is_one_thing_and_says_until_when() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let long = ctx.event_named::<()>("Go").within(ms(500)).start();
        let short = ctx.event_named::<()>("go").within(ms(300)).start();
        ctx.event_named::<()>("stop").await?;
        drop((long, short));
        Ok(())
    }));
    run.start(());
    let wait = |name: &str, until: Option<u64>| WaitingFor::Event {
        name: name.into(),
        since: START,
        until: until.map(|after| START + ms(after)),
    };
    let view = run.live.waiting();
    assert_eq!(view.shown, [wait("Go", Some(500)), wait("stop", None)]);
    assert_eq!((view.total, view.given_up), (3, 0));
}

#[test]
fn a_call_that_was_given_up_is_told_apart_from_what_is_waited_for() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        drop(number(&ctx, 0).start());
        number(&ctx, 1).await
    }));
    run.start(());
    let view = run.live.waiting();
    assert!(matches!(view.shown[..], [WaitingFor::Activity { sequence: 1, .. }]));
    assert_eq!((view.total, view.given_up), (2, 1));
    run.complete(0, 0);
    let view = run.live.waiting();
    assert_eq!((view.total, view.given_up), (1, 0));
}
