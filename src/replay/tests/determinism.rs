//! What replays the same, what changes with `patched`, and what is said when code no longer fits its history.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::kit::*;
use crate::model::{Result, StallReason, Timestamp, WaitingFor};
use crate::replay::{Code, Stuck, WorkflowContext};

/// Runs `old` until it has seen the answer to its first call, then replays what is stored into `new`.
fn swapped(old: Arc<dyn Code>, new: Arc<dyn Code>) -> Stuck {
    let mut run = Run::of(old);
    run.start(());
    run.complete(0, 1);
    match replay(&new, &run.limits, &run.turns) {
        Err(stuck) => stuck,
        Ok(_) => panic!("the new code does not fit the history"),
    }
}

/// Calls these activities one after the other.
fn calling(names: &'static [&'static str]) -> Arc<dyn Code> {
    code(move |ctx: WorkflowContext, _: ()| async move {
        for name in names {
            ctx.call_named::<u32>(name, ()).await?;
        }
        ctx.event_named::<()>("end").await
    })
}

#[test]
fn swapped_activities_are_named_on_both_sides() {
    let stuck = swapped(calling(&["charge", "ship"]), calling(&["ship", "charge"]));
    assert_eq!(stuck.reason, StallReason::Nondeterminism);
    assert_eq!(
        stuck.message,
        "in turn 1 the history has call 0 to activity `charge` on app `app` (attempt 1), the code asked for call 0 to activity `ship` on app `app` \
         (attempt 1); did the workflow change? Run the code that wrote the history, or guard the change with `ctx.patched(..)`"
    );
}

#[test]
fn a_call_that_the_code_no_longer_makes_is_named() {
    let stuck = swapped(calling(&["charge", "ship"]), calling(&["charge"]));
    assert!(
        stuck
            .message
            .contains("in turn 2 the history has call 1 to activity `ship`")
            && stuck.message.contains("the code asked for nothing"),
        "{stuck}"
    );
}

#[test]
fn a_call_that_the_history_does_not_have_is_named() {
    let stuck = swapped(calling(&["charge"]), calling(&["charge", "ship"]));
    assert!(
        stuck
            .message
            .contains("in turn 2 the history has nothing more, the code asked for call 1 to activity `ship`"),
        "{stuck}"
    );
}

#[test]
fn a_call_made_earlier_than_the_history_has_it_is_named_even_within_one_turn() {
    let together = code(|ctx: WorkflowContext, _: ()| async move {
        let (a, b) = (
            ctx.call_named::<u32>("charge", ()).start(),
            ctx.call_named::<u32>("ship", ()).start(),
        );
        a.await?;
        b.await
    });
    let mut run = Run::of(calling(&["charge", "ship"]));
    run.turn([started(()), completed(0, 1)]);
    let stuck = replay(&together, &run.limits, &run.turns)
        .err()
        .expect("it does not fit");
    assert!(
        stuck
            .message
            .contains("the history has the completion of call 0, the code asked for call 1 to activity `ship`"),
        "{stuck}"
    );
}

#[test]
fn a_timer_in_place_of_a_call_is_named() {
    let timer = code(|ctx: WorkflowContext, _: ()| async move { ctx.timer(ms(1)).await });
    let stuck = swapped(calling(&["charge"]), timer);
    assert!(stuck.message.contains("call 0 to activity `charge`") && stuck.message.contains("asked for timer 0"));
}

#[test]
fn another_input_or_wait_is_not_another_decision() {
    let build = |n: u32| {
        code(move |ctx: WorkflowContext, _: ()| async move {
            ctx.call_named::<u32>("charge", n).await?;
            ctx.timer(ms(u64::from(n))).await
        })
    };
    let mut run = Run::of(build(1)).unverified();
    run.start(());
    run.complete(0, 1);
    run.code = build(2);
    run.live = run.replayed().expect("what is in history counts");
    let timer = WaitingFor::Timer {
        sequence: 1,
        due: START + ms(1),
    };
    assert_eq!(run.live.waiting().shown, [timer], "the timer is due as it was set");
    assert_eq!(run.fire(1), ["done null"]);
}

/// The old and the new code of a workflow that was changed under `patched`.
fn before() -> Arc<dyn Code> {
    code(|ctx: WorkflowContext, _: ()| async move {
        ctx.event_named::<()>("go").await?;
        ctx.call_named::<u32>("old", ()).await
    })
}

fn after() -> Arc<dyn Code> {
    code(|ctx: WorkflowContext, _: ()| async move {
        ctx.event_named::<()>("go").await?;
        let name = if ctx.patched("better") { "new" } else { "old" };
        let value = ctx.call_named::<u32>(name, ()).await?;
        Ok((value, ctx.patched("better")))
    })
}

#[test]
fn an_execution_that_passed_the_patch_with_old_code_stays_on_the_old_way() {
    let mut run = Run::of(before()).unverified();
    run.start(());
    assert_eq!(run.raise("go", ()), ["task 0 old#1"]);
    run.code = after();
    run.live = run.replayed().expect("the patch guards the change");
    assert_eq!(
        run.complete(0, 1),
        ["done [1,false]"],
        "the answer stays the same for the execution"
    );
    assert!(run.replayed().expect("it replays").is_over());
}

#[test]
fn an_execution_that_reaches_the_patch_later_takes_the_new_way_and_records_it() {
    let mut run = Run::of(before()).unverified();
    run.start(());
    run.code = after();
    run.live = run.replayed().expect("nothing has changed yet");
    assert_eq!(run.raise("go", ()), ["patch better", "task 0 new#1"]);
    run.evict();
    assert_eq!(run.complete(0, 1), ["done [1,true]"]);
}

#[test]
fn a_new_execution_takes_the_new_way_and_replays_it() {
    let mut run = Run::of(after());
    run.turn([started(()), raised("go", ())]);
    assert_eq!(run.complete(0, 1), ["done [1,true]"]);
}

#[test]
fn old_code_does_not_run_a_history_that_has_the_patch() {
    let mut run = Run::of(after());
    run.start(());
    run.raise("go", ());
    let stuck = replay(&before(), &run.limits, &run.turns)
        .err()
        .expect("it does not fit");
    assert!(stuck.message.contains("the history has the patch `better`"), "{stuck}");
}

#[test]
fn time_uuids_and_random_numbers_are_the_same_on_replay() {
    let seen: Arc<Mutex<Vec<(Timestamp, uuid::Uuid, u64)>>> = Arc::default();
    let record = seen.clone();
    let mut run = Run::of(code(move |ctx: WorkflowContext, _: ()| {
        let record = record.clone();
        async move {
            for _ in 0..3 {
                let drawn = (ctx.now(), ctx.uuid(), ctx.random().to_bits());
                record.lock().unwrap().push(drawn);
                ctx.event_named::<()>("tick").await?;
            }
            Ok(())
        }
    }))
    .unverified();
    run.start(());
    for tick in 0..3 {
        run.now = run.now + ms(10);
        run.raise("tick", ());
        assert_eq!(run.turns.len(), tick + 2);
    }
    let live = std::mem::take(&mut *seen.lock().unwrap());
    run.replayed().expect("it replays");
    assert_eq!(live, *seen.lock().unwrap());
    assert_eq!(live[1].0, START + ms(10));
    let distinct: std::collections::HashSet<_> =
        live.iter().flat_map(|draw| [draw.1.as_u128(), draw.2.into()]).collect();
    assert_eq!(distinct.len(), 6);
    assert!(live.iter().all(|draw| (0.0..1.0).contains(&f64::from_bits(draw.2))));
}

/// Counts the events of its own target.
struct Counting(AtomicUsize);

impl tracing::Subscriber for Counting {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "workflow-log"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn log_lines_of_workflow_code_appear_once_and_it_knows_when_it_replays() {
    let counting = Arc::new(Counting(AtomicUsize::new(0)));
    let lines = || counting.0.load(Ordering::Relaxed);
    tracing::subscriber::with_default(counting.clone(), || {
        let replayed: Arc<Mutex<Vec<bool>>> = Arc::default();
        let record = replayed.clone();
        let mut run = Run::of(code(move |ctx: WorkflowContext, _: ()| {
            tracing::info!(target: "workflow-log", "begun");
            let record = record.clone();
            async move {
                for _ in 0..2 {
                    record.lock().unwrap().push(ctx.is_replaying());
                    tracing::info!(target: "workflow-log", "a line");
                    ctx.event_named::<()>("tick").await?;
                }
                Ok(())
            }
        }))
        .unverified();
        run.start(());
        assert_eq!(lines(), 2);
        run.evict();
        assert_eq!(lines(), 2, "a replayed line appears again");
        run.raise("tick", ());
        assert_eq!(lines(), 3);
        run.evict();
        run.raise("tick", ());
        assert_eq!(lines(), 3);
        assert_eq!(*replayed.lock().unwrap(), [false, true, false, true, true]);
    });
}

#[test]
fn the_context_tells_who_and_where_it_is() -> Result<()> {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        assert!(ctx.parent().is_none() && ctx.tags().is_empty());
        ctx.set_custom_status("half way")?;
        Ok((
            ctx.instance().to_string(),
            ctx.workflow(),
            ctx.generation(),
            ctx.execution_id(),
        ))
    }));
    run.start(());
    assert_eq!(run.live.custom_status(), Some(json("half way")));
    Ok(())
}
