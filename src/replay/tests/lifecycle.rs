//! Suspension, termination, panics, and code that waits for what no event can bring.

use std::sync::mpsc;
use std::time::Duration;

use super::kit::*;
use crate::model::{Activity, CommitId, Failure, Limits, StallReason, Workflow, kinds};
use crate::replay::WorkflowContext;
use crate::replay::history::{HistoryEvent, Turn};

const ADD: Activity<u32, u32> = Activity::new("sums", "add");
const SUB: Workflow<u32, u32> = Workflow::new("other", "sub");

fn terminated(recursive: bool) -> HistoryEvent {
    HistoryEvent::ExecutionTerminated {
        reason: "enough".into(),
        recursive,
        children: Vec::new(),
    }
}

#[test]
fn suspension_and_resumption_are_kept_in_order_and_change_nothing_for_the_code() {
    let mut run = Run::of(code(
        |ctx: WorkflowContext, n: u32| async move { ctx.call(ADD, n).await },
    ));
    run.start(1);
    let reason = || "maintenance".to_owned();
    assert!(
        run.turn([HistoryEvent::ExecutionSuspended { reason: reason() }])
            .is_empty()
    );
    assert_eq!(
        run.turn([HistoryEvent::ExecutionResumed { reason: reason() }, completed(0, 2)]),
        ["done 2"]
    );
}

#[test]
fn a_termination_cancels_what_is_due_and_names_the_open_children_if_they_end_too() {
    let workflow = || {
        code(|ctx: WorkflowContext, n: u32| async move {
            let _timer = ctx.timer(ms(10)).start();
            let _limited = ctx.call(ADD, n).timeout(ms(5)).start();
            let _unlimited = ctx.call(ADD, n).start();
            let _detached = ctx.child(SUB, n).detach()?;
            let _retrying = ctx.child(SUB, n).start();
            ctx.event_named::<()>("never").await
        })
    };
    for (recursive, children) in [(true, 1), (false, 0)] {
        let mut run = Run::of(workflow());
        run.start(1);
        assert_eq!(run.turn([terminated(recursive)]), ["cancel 0", "cancel 1"]);
        assert!(run.live.is_over());
        assert!(matches!(
            &run.turns[1].events[0],
            HistoryEvent::ExecutionTerminated { children: named, .. } if named.len() == children
        ));
        assert!(run.replayed().expect("a terminated history replays").is_over());
    }
}

#[test]
fn a_history_that_was_ended_without_its_code_replays() {
    let code = code(|ctx: WorkflowContext, n: u32| async move {
        let _timer = ctx.timer(ms(10)).start();
        ctx.call(ADD, n).await
    });
    // Ended while pending: the code never ran, so nothing that it asks for is there.
    let failed = HistoryEvent::ExecutionFailed {
        failure: Failure::new(kinds::APP_NOT_FOUND, "nobody is there"),
    };
    for end in [terminated(true), failed] {
        let turn = Turn {
            version: 1,
            commit: CommitId::generate(),
            at: START,
            build: None,
            events: vec![started(1), end],
        };
        let run = replay(&code, &Limits::default(), &[turn]).expect("it replays");
        assert!(run.is_over());
    }
}

#[test]
fn nothing_happens_to_an_execution_that_is_over() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.event_named::<u32>("e").await
    }));
    run.start(());
    assert_eq!(run.turn([raised("e", 1), raised("e", 2), terminated(true)]), ["done 1"]);
    assert_eq!(run.turns[1].events.len(), 2);
    assert_eq!(run.live.waiting().total, 0);
}

#[test]
fn a_panic_fails_the_workflow_with_its_message() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let n = ctx.call(ADD, n).await?;
        assert!(n > 10, "{n} is too small");
        Ok(n)
    }));
    run.start(1);
    assert_eq!(run.complete(0, 2), ["failed Panic"]);
    let Some(HistoryEvent::ExecutionFailed { failure }) = run.events().last() else {
        panic!("it failed");
    };
    assert!(failure.message.contains("2 is too small") && failure.fatal);
    assert_eq!(failure.app, Some(app("app")));
}

#[test]
fn a_panic_before_the_first_await_fails_the_workflow_too() {
    let mut run = Run::of(code(|_: WorkflowContext, n: u32| {
        assert!(n > 10, "too small");
        async move { Ok(n) }
    }));
    assert_eq!(run.start(1), ["failed Panic"]);
}

#[test]
fn a_panic_is_not_hidden_by_continue_as_new() {
    let mut run = Run::of(code(|ctx: WorkflowContext, n: u32| async move {
        let again = ctx.continue_as_new::<u32>(n);
        assert!(n > 10, "too small");
        again
    }));
    assert_eq!(run.start(1), ["failed Panic"]);
}

#[test]
fn a_panic_in_a_destructor_does_not_get_out() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let _bomb = Bomb;
        ctx.event_named::<()>("never").await
    }));
    run.start(());
    run.turn([terminated(false)]);
}

#[test]
fn an_error_of_the_workflow_carries_its_app() {
    let mut run = Run::of(code(|_: WorkflowContext, text: String| async move {
        Ok(text.parse::<u32>()?)
    }));
    assert_eq!(run.start("x"), ["failed ParseIntError"]);
}

#[test]
fn code_that_waits_for_nothing_of_ours_is_told_so() {
    let mut run = Run::of(code(|_: WorkflowContext, _: ()| async move {
        std::future::pending::<()>().await;
        Ok(())
    }))
    .unverified();
    let stuck = run.try_turn([started(())]).unwrap_err();
    assert_eq!(stuck.reason, StallReason::ForeignFuture);
    assert!(stuck.message.contains("ctx.timer"), "{stuck}");
}

/// A future that is ready once another thread says so.
fn foreign(told: mpsc::Receiver<()>) -> (impl Future<Output = ()> + Send, std::thread::JoinHandle<()>) {
    let (done, ready) = handed_over();
    let thread = std::thread::spawn(move || {
        if told.recv().is_ok() {
            done(());
        }
    });
    (ready, thread)
}

#[test]
fn a_wake_from_another_thread_between_turns_is_caught_at_the_next() {
    let (tell, told) = mpsc::channel();
    let (wait, thread) = foreign(told);
    let wait = std::sync::Mutex::new(Some(wait));
    let mut run = Run::of(code(move |ctx: WorkflowContext, _: ()| {
        let wait = wait.lock().unwrap().take().expect("it runs once");
        async move {
            let (_, event) = futures_util::join!(wait, ctx.event_named::<()>("go").into_future());
            event
        }
    }))
    .unverified();
    run.start(());
    tell.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(
        run.try_turn([raised("go", ())]).unwrap_err().reason,
        StallReason::ForeignFuture
    );
}

#[test]
fn a_wake_from_another_thread_during_a_turn_is_caught_before_the_turn_is_stored() {
    let mut run = Run::of(code(move |ctx: WorkflowContext, _: ()| async move {
        let (tell, told) = mpsc::channel();
        let (wait, thread) = foreign(told);
        let mut wait = std::pin::pin!(wait);
        assert!(futures_util::poll!(&mut wait).is_pending());
        tell.send(()).unwrap();
        thread.join().unwrap();
        wait.await;
        ctx.event_named::<()>("go").await
    }))
    .unverified();
    assert_eq!(
        run.try_turn([started(())]).unwrap_err().reason,
        StallReason::ForeignFuture
    );
}

#[test]
fn code_that_wakes_itself_for_ever_is_stopped() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        std::future::poll_fn::<(), _>(|context| {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        ctx.event_named::<()>("go").await
    }))
    .unverified();
    assert_eq!(
        run.try_turn([started(())]).unwrap_err().reason,
        StallReason::ForeignFuture
    );
}

#[test]
fn a_call_refused_by_its_own_code_is_an_ordinary_failure() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let failure = ctx.call(ADD, 1).timeout(Duration::from_secs(1)).await.unwrap_err();
        Ok(failure.is(kinds::TIMED_OUT))
    }));
    run.start(());
    assert_eq!(run.fail(0, kinds::TIMED_OUT), ["cancel 0", "done true"]);
}
