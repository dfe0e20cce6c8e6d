//! Scenario 15: a process dies between a commit, what it publishes and what it acknowledges, at every one of these gaps; what was begun goes on.
//!
//! Each test names the process that dies and the fault points at which it does, one death after the other.

use leveret::backend::{Backend, DueKey, DueKind};

use super::apps::{TOUR_CALLS, TOUR_RESULT};
use super::effects;
use super::inspect::{assert_histories, instances, messages_left, untidy};
use super::soon::{PATIENCE, soon};
use super::world::World;

/// All apps, and whoever waits for the result. The subject is started by a `starter` or a `raw-starter`.
const APPS: &str = "orders payments shipping watcher";

/// The process with the role dies at each of the points in turn; then everything comes out as if nothing had happened.
fn survives(mut world: World, starter: &str, role: &str, points: &[&str]) {
    world.start_with_fault(&format!("{APPS} {starter}"), Some((role, points[0])));
    for next in points[1..].iter().map(Some).chain([None]) {
        let roles = world.wait_for_death(role);
        world.start_with_fault(&roles, next.map(|next| (role, *next)));
    }
    all_is_well(&mut world, points.len());
}

/// The right result; each completion in history once; no body run more often than deaths can account for; nothing left over.
fn all_is_well(world: &mut World, deaths: usize) {
    assert_eq!(world.result(), TOUR_RESULT);
    world.stop();
    let calls = effects::read(world.directory());
    assert_eq!(calls.len(), TOUR_CALLS, "{calls:?}");
    // A death before a mark is cleared costs one more copy of a task's message, and what is not acknowledged runs again in the next process: one copy
    // in the first, at most two in the second, three in the third.
    let most = (deaths + 1) * (deaths + 2) / 2;
    for (task, runs) in &calls {
        let is_right = runs.ended >= 1 && runs.begun <= most;
        assert!(is_right, "{task} after {deaths} deaths: {runs:?}");
    }
    world.with_backend(async |backend| {
        assert_histories(backend).await;
        assert_eq!(messages_left(backend).await, [""; 0]);
    });
}

/// A start that any AMQP client publishes: its taker creates the instance, publishes its start and dies.
#[test]
fn a_raw_start_whose_taker_died_runs_once() {
    survives(
        World::on_servers("tour 0"),
        "raw-starter",
        "orders",
        &["raw-start-taken"; 2],
    );
}

#[test]
fn a_raw_start_in_an_embedded_process_that_died_runs_once() {
    survives(
        World::on_file("tour 0"),
        "raw-starter",
        "orders",
        &["raw-start-taken"; 2],
    );
}

/// Instances that nobody deletes one day, a line each.
async fn kept_for_ever(backend: &Backend) -> Vec<String> {
    let mut kept = Vec::new();
    for instance in instances(backend).await {
        let record = backend.store().record(&instance).await.expect("answered");
        let execution = record.expect("it is in the index").execution;
        let name = [&execution.as_uuid().as_bytes()[..], instance.id.as_str().as_bytes()].concat();
        let retention = DueKey {
            kind: DueKind::Retention,
            subject: name.into(),
        };
        let entry = backend.store().due_entry(&instance.app, &retention).await;
        if entry.expect("answered").is_none() {
            kept.push(format!("{instance} is kept for ever"));
        }
    }
    kept
}

/// The end leaves no mark, and whoever was to note it dies twice over it.
#[test]
fn an_end_that_nobody_has_noted_is_noted_with_the_check() {
    let mut world = World::on_servers("tour 0");
    world.start_with_fault(&format!("{APPS} starter"), Some(("orders", "end-kept")));
    let roles = world.wait_for_death("orders");
    world.start_with_fault(&roles, Some(("orders", "end-noted")));
    let roles = world.wait_for_death("orders");
    world.start(&roles);
    assert_eq!(world.result(), TOUR_RESULT);
    soon("all to be settled", PATIENCE, || {
        let left = world.with_backend(async |backend| [untidy(backend).await, kept_for_ever(backend).await].concat());
        left.is_empty().then_some(())
    });
    world.stop();
}

/// The same deaths on the servers, where each role is a process, and on the file, where one process is all of them.
macro_rules! deaths {
    ($($(#[$docs:meta])* $name:ident: $role:literal at $($point:literal),+;)+) => {
        mod on_rabbitmq_and_redis {
            $($(#[$docs])* #[test] fn $name() { super::survives(super::World::on_servers("tour 0"), "starter", $role, &[$($point),+]); })+
        }
        mod on_a_file {
            $($(#[$docs])* #[test] fn $name() { super::survives(super::World::on_file("tour 0"), "starter", $role, &[$($point),+]); })+
        }
    };
}

deaths! {
    a_turn_that_was_not_committed_is_run_again: "orders" at "turn-drawn-up", "turn-drawn-up:3";
    /// The first turn, the one that continues as new, and later ones.
    a_turn_that_was_committed_has_its_effects_made_later: "orders" at "turn-committed", "turn-committed:2", "turn-committed:3";
    effects_half_made_are_made_to_the_end: "orders" at "effects-scheduled", "effects-scheduled:2";
    effects_made_and_still_marked_are_made_again_for_nothing: "orders" at "turn-effects-made", "turn-effects-made:2", "turn-effects-made:4";
    a_turn_that_is_done_and_not_acknowledged_is_known_when_it_comes_again: "orders" at "turn-confirmed", "turn-unacknowledged", "turn-unacknowledged:3";
    a_mark_that_was_left_to_later_is_driven_by_whoever_comes_next: "shipping" at "mark-kept";
    whoever_has_cleared_the_last_mark_may_die_of_it_too: "shipping" at "mark-cleared";
    whoever_drives_a_mark_may_die_of_it_too: "orders" at "turn-committed", "mark-driven", "mark-driven";
    a_body_that_was_to_begin_begins_again: "payments" at "activity-claimed", "activity-claimed:2";
    a_body_whose_result_was_not_sent_runs_again: "payments" at "activity-ended", "activity-ended";
    a_result_that_was_sent_twice_counts_once: "payments" at "activity-answered", "activity-answered";
    a_timer_that_was_sent_twice_fires_once: "orders" at "due-handled";
    /// The parent makes the child as an effect of its turn.
    a_child_that_was_announced_is_created: "orders" at "start-checked";
    a_child_that_was_created_is_started: "orders" at "start-created";
    a_child_that_was_started_twice_runs_once: "orders" at "start-published";
    a_child_answers_although_its_worker_died_at_its_end: "shipping" at "turn-committed:2";
    a_child_that_answered_and_died_answers_once: "shipping" at "turn-effects-made:2";
    a_child_that_cannot_run_answers_although_its_worker_died: "shipping" at "ending-committed";
    a_child_that_cannot_run_and_answered_answers_once: "shipping" at "ending-effects-made";
    a_client_that_died_on_the_way_asks_again: "starter" at "start-checked", "start-created", "start-published";
}
