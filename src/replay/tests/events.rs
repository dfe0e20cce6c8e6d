//! External events and continue-as-new.

use super::kit::*;
use crate::model::{MessageId, Result};
use crate::replay::history::{CarriedEvent, HistoryEvent};
use crate::replay::{Either, WorkflowContext, race};

#[test]
fn an_event_comes_to_the_one_who_waits() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.event_named::<u32>("go").await
    }));
    assert!(run.start(()).is_empty());
    assert!(run.raise("other", 1).is_empty());
    assert_eq!(run.raise("go", 2), ["done 2"]);
}

#[test]
fn events_match_without_case_first_in_first_out_and_are_kept_until_somebody_waits() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.timer(ms(1)).await?;
        let mut seen = Vec::new();
        for name in ["Approved", "approved", "APPROVED"] {
            seen.push(ctx.event_named::<u32>(name).await?);
        }
        Ok(seen)
    }));
    run.start(());
    run.raise("APPROVED", 1);
    run.raise("approved", 2);
    run.raise("unrelated", 9);
    assert!(run.fire(0).is_empty());
    assert_eq!(run.raise("aPProved", 3), ["done [1,2,3]"]);
}

#[test]
fn the_first_to_wait_gets_the_first_to_come() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let (a, b) = (ctx.event_named::<u32>("e").start(), ctx.event_named::<u32>("e").start());
        Ok((b.await?, a.await?))
    }));
    run.start(());
    run.raise("e", 1);
    assert_eq!(run.raise("e", 2), ["done [2,1]"]);
}

#[test]
fn three_waits_in_a_row_have_one_live_timer_each_time() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(ctx.event_named::<u32>("e").within(ms(100)).await?);
        }
        Ok(seen)
    }));
    assert_eq!(run.start(()), ["timer 0 in 100"]);
    assert_eq!(run.live_timers(), 1);
    assert_eq!(run.raise("e", 1), ["cancel 0", "timer 1 in 100"]);
    assert_eq!(run.live_timers(), 1);
    assert_eq!(run.fire(1), ["timer 2 in 100"]);
    assert_eq!(run.live_timers(), 1);
    assert_eq!(run.raise("E", 3), ["cancel 2", "done [1,null,3]"]);
    assert_eq!(run.live_timers(), 0);
}

#[test]
fn three_waits_on_one_name_at_once_are_served_in_order_and_leave_no_timer() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let wait = || ctx.event_named::<u32>("e").within(ms(100)).start();
        let (a, b, c) = (wait(), wait(), wait());
        Ok((a.await?, b.await?, c.await?))
    }));
    assert_eq!(run.start(()).len(), 3);
    assert_eq!(run.raise("e", 1), ["cancel 0"]);
    assert!(run.fire(1).is_empty());
    assert_eq!(run.raise("e", 3), ["cancel 2", "done [1,null,3]"]);
    assert_eq!(run.live_timers(), 0);
}

#[test]
fn an_event_that_is_there_already_needs_no_timer() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.timer(ms(1)).await?;
        ctx.event_named::<u32>("e").within(ms(100)).await
    }));
    run.start(());
    run.raise("e", 1);
    assert_eq!(run.fire(0), ["done 1"]);
}

#[test]
fn an_event_that_beats_its_timeout_in_the_same_turn_wins() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let event = ctx.event_named::<u32>("e").within(ms(100)).await?;
        ctx.timer(ms(1)).await?;
        Ok(event)
    }));
    run.start(());
    run.now = run.now + ms(100);
    assert_eq!(run.turn([raised("e", 1), fired(0)]), ["cancel 0", "timer 1 in 1"]);
    assert_eq!(run.fire(1), ["done 1"]);
}

#[test]
fn an_event_after_the_timeout_is_kept_for_the_next_wait() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let first = ctx.event_named::<u32>("e").within(ms(100)).await?;
        ctx.timer(ms(1)).await?;
        Ok((first, ctx.event_named::<u32>("e").await?))
    }));
    run.start(());
    run.fire(0);
    assert!(run.raise("e", 1).is_empty());
    assert_eq!(run.fire(1), ["done [null,1]"]);
}

#[test]
fn a_dropped_wait_leaves_its_timer_cancelled_and_the_event_to_the_next() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let winner = race(ctx.timer(ms(1)), ctx.event_named::<u32>("e").within(ms(100))).await;
        assert!(matches!(winner, Either::Left(_)));
        ctx.event_named::<u32>("e").await
    }));
    run.start(());
    assert_eq!(run.fire(0), ["cancel 1"]);
    assert_eq!(run.raise("e", 4), ["done 4"]);
}

#[test]
fn an_event_taken_by_a_wait_that_is_dropped_goes_back_to_its_place() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let taken = ctx.event_named::<u32>("e").start();
        ctx.event_named::<()>("drop").await?;
        drop(taken);
        Ok((ctx.event_named::<u32>("e").await?, ctx.event_named::<u32>("e").await?))
    }));
    run.start(());
    run.raise("e", 1);
    run.raise("e", 2);
    assert_eq!(run.raise("drop", ()), ["done [1,2]"]);
}

#[test]
fn an_event_given_back_goes_to_the_one_who_waits_in_the_same_turn() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let taken = ctx.event_named::<u32>("e").start();
        // Polled before the branch that drops the event: it has to be told.
        let next = ctx.event_named::<u32>("e").within(ms(100));
        let drops = async {
            ctx.event_named::<()>("drop").await?;
            drop(taken);
            Ok(())
        };
        let (next, dropped): (_, Result<()>) = futures_util::join!(next, drops);
        dropped?;
        next
    }));
    run.start(());
    run.raise("e", 1);
    assert_eq!(run.raise("drop", ()), ["cancel 0", "done 1"]);
}

#[test]
fn an_event_of_another_type_is_a_failure_that_names_both() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.event_named::<u32>("e").await
    }));
    run.start(());
    assert_eq!(run.raise("e", "text"), ["failed InvalidPayload"]);
}

/// Takes one event `e` and begins anew with what is left.
fn taking_one() -> std::sync::Arc<dyn crate::replay::Code> {
    code(|ctx: WorkflowContext, taken: Vec<u32>| async move {
        let mut taken = taken;
        taken.push(ctx.event_named("e").await?);
        if taken.len() == 3 {
            return Ok(taken);
        }
        ctx.continue_as_new(taken)
    })
}

fn next_generation(run: &Run) -> HistoryEvent {
    let Some(HistoryEvent::ContinuedAsNew { input, carried, seen }) = run.events().last() else {
        panic!("it continued as new");
    };
    started_with(input.clone(), carried.clone(), seen.clone())
}

#[test]
fn continue_as_new_carries_unread_events_in_order_and_the_ids_of_those_seen() {
    let mut first = Run::of(taking_one());
    first.turn([started(Vec::<u32>::new())]);
    let events = [raised("other", 7), raised("E", 1), raised("e", 2)];
    // The second and third arrive in the turn that ends the execution; the engine hands them to the next.
    assert_eq!(first.turn(events[..2].to_vec()), ["again [1]"]);
    let HistoryEvent::ContinuedAsNew { carried, seen, .. } = first.events().last().expect("an end") else {
        panic!("it continued as new");
    };
    let other = CarriedEvent {
        name: "other".into(),
        payload: json(7),
    };
    assert_eq!(*carried, [other]);
    let ids: Vec<_> = seen.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["E 1", "other 7"]);

    let mut second = Run::of(taking_one());
    second.turn([next_generation(&first)]);
    second.evict();
    assert_eq!(second.turn([events[2].clone()]), ["again [1,2]"]);
    let HistoryEvent::ContinuedAsNew { carried, seen, .. } = second.events().last().expect("an end") else {
        panic!("it continued as new");
    };
    assert_eq!((carried.len(), seen.len()), (1, 3));
}

#[test]
fn carried_events_are_taken_by_the_next_execution_in_their_order() {
    let carry = |n: u32| CarriedEvent {
        name: "E".into(),
        payload: json(n),
    };
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        Ok((ctx.event_named::<u32>("e").await?, ctx.event_named::<u32>("e").await?))
    }));
    assert_eq!(
        run.turn([started_with(json(()), vec![carry(2), carry(1)], Vec::new())]),
        ["done [2,1]"]
    );
}

#[test]
fn an_event_given_back_is_carried_under_the_name_it_was_sent_with() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let taken = ctx.event_named::<u32>("mixed").start();
        ctx.event_named::<()>("go").await?;
        drop(taken);
        ctx.continue_as_new::<()>(())
    }));
    run.start(());
    run.raise("Mixed", 1);
    run.raise("go", ());
    let HistoryEvent::ContinuedAsNew { carried, .. } = run.events().last().expect("an end") else {
        panic!("it continued as new");
    };
    assert_eq!(carried[0].name, "Mixed");
}

#[test]
fn an_event_that_is_held_unread_by_the_code_is_carried_too() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        let _held = ctx.event_named::<u32>("e").start();
        ctx.event_named::<()>("go").await?;
        ctx.continue_as_new::<()>(())
    }));
    run.start(());
    run.raise("e", 1);
    run.raise("go", ());
    let HistoryEvent::ContinuedAsNew { carried, .. } = run.events().last().expect("an end") else {
        panic!("it continued as new");
    };
    assert_eq!(carried.len(), 1, "an event that nobody has read is not lost");
}

#[test]
fn the_ids_of_events_are_forgotten_after_the_window() {
    let old = MessageId::new("old").unwrap();
    let recent = MessageId::new("recent").unwrap();
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.continue_as_new::<()>(())
    }));
    run.now = START + run.limits.dedup_window;
    run.turn([started_with(
        json(()),
        Vec::new(),
        vec![(old, START), (recent.clone(), START + ms(1))],
    )]);
    let HistoryEvent::ContinuedAsNew { seen, .. } = run.events().last().expect("an end") else {
        panic!("it continued as new");
    };
    assert_eq!(*seen, [(recent, START + ms(1))]);
}

#[test]
fn events_can_be_raised_on_other_instances() {
    let mut run = Run::of(code(|ctx: WorkflowContext, _: ()| async move {
        ctx.raise(&instance(), crate::model::Event::new("ping"), 1)
    }));
    assert_eq!(run.start(()), ["send 0 ping to app/i", "done null"]);
}
