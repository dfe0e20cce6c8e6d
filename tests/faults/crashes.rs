//! Processes that are killed at a moment that the test chooses: scenarios 6, 7, 17 and 19.

use leveret::{InstanceId, InstanceRef, kinds};

use super::apps::{TOUR_RESULT, VISIT_RESULT, VOYAGE_RESULT};
use super::effects::{self, Runs};
use super::inspect::{assert_histories, messages_left};
use super::soon::{LOOK_EVERY, PATIENCE, soon};
use super::world::{Place, World};

const APPS: &str = "orders payments shipping";

impl World {
    /// Waits until the activity has been begun and ended so often.
    fn wait_for_runs(&self, activity: &str, begun: usize, ended: usize) {
        soon("the activity's runs", PATIENCE, || {
            let calls = effects::read(self.directory());
            let of_activity = || calls.values().filter(|runs| runs.activity == activity);
            let counts: (usize, usize) = (
                of_activity().map(|runs| runs.begun).sum(),
                of_activity().map(|runs| runs.ended).sum(),
            );
            (counts == (begun, ended)).then_some(())
        });
    }

    /// Waits until the activity at the gate has begun, and its caller's turn is done with: then no second message is on its way. (What a file holds
    /// only its process can see.)
    fn wait_at_the_gate(&self, caller: &str) {
        self.wait_for_runs("pass", 1, 0);
        if let Place::File(_) = self.place {
            return;
        }
        let (app, id) = caller.split_once('/').expect("two parts");
        let caller = InstanceRef::new(app.parse().expect("valid"), InstanceId::new(id).expect("valid"));
        self.with_backend(async |backend| {
            let began = std::time::Instant::now();
            loop {
                let record = backend
                    .store()
                    .record(&caller)
                    .await
                    .expect("answered")
                    .expect("it is there");
                if record.marks.is_empty() {
                    return;
                }
                assert!(began.elapsed() < PATIENCE, "{caller} is marked: {:?}", record.marks);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// The body at the gate has begun so often, with one ID. On a file it may have begun once more: its caller's turn may have been killed with it.
    fn assert_begun_at_the_gate(&self, times: usize) {
        let begun = self.begun("pass");
        let spare = usize::from(matches!(self.place, Place::File(_)));
        assert!(
            begun.len() == 1 && (times..=times + spare).contains(&begun[0]),
            "{begun:?}, not {times}"
        );
    }

    /// How often the bodies have begun, call by call.
    fn begun(&self, activity: &str) -> Vec<usize> {
        let calls = effects::read(self.directory());
        let of_activity = |runs: &Runs| (runs.activity == activity).then_some(runs.begun);
        calls.values().filter_map(of_activity).collect()
    }

    /// Stops the workers; histories and queues must be as they should.
    fn close(mut self) {
        self.stop();
        self.with_backend(async |backend| {
            assert_histories(backend).await;
            assert_eq!(messages_left(backend).await, [""; 0]);
        });
    }
}

/// Scenario 6; on a file, 7 as well: there the caller dies with the activity.
fn killed_while_it_runs_an_activity(mut world: World) {
    world.start(&format!("{APPS} watcher starter"));
    world.wait_at_the_gate("orders/subject");
    let roles = world.kill("payments");
    world.open_gate("here");
    world.start(&roles);
    assert_eq!(world.result(), VISIT_RESULT);
    world.assert_begun_at_the_gate(2);
    world.close();
}

#[test]
fn an_activity_whose_worker_is_killed_runs_again_and_counts_once() {
    killed_while_it_runs_an_activity(World::on_servers(r#"visit "here""#));
}

#[test]
fn an_activity_in_an_embedded_process_that_is_killed_runs_again_and_counts_once() {
    killed_while_it_runs_an_activity(World::on_file(r#"visit "here""#));
}

/// Scenario 6 for a child. On a file the gated activity dies as well and runs again.
fn killed_while_it_runs_a_child(mut world: World, runs_at_the_gate: usize) {
    world.start(&format!("{APPS} watcher starter"));
    world.wait_at_the_gate("shipping/subject:0000");
    let roles = world.kill("shipping");
    world.open_gate("here");
    world.start(&roles);
    assert_eq!(world.result(), VOYAGE_RESULT);
    world.assert_begun_at_the_gate(runs_at_the_gate);
    assert_eq!(
        world.begun("pack"),
        [1, 1],
        "what the child had done it does not do again"
    );
    world.close();
}

#[test]
fn a_child_whose_worker_is_killed_goes_on_from_its_history() {
    killed_while_it_runs_a_child(World::on_servers(r#"voyage "here""#), 1);
}

#[test]
fn a_child_in_an_embedded_process_that_is_killed_goes_on_from_its_history() {
    killed_while_it_runs_a_child(World::on_file(r#"voyage "here""#), 2);
}

/// Scenario 7.
#[test]
fn a_result_waits_for_its_caller_and_the_body_does_not_run_again() {
    let mut world = World::on_servers(r#"visit "here""#);
    world.start(&format!("{APPS} watcher starter"));
    world.wait_at_the_gate("orders/subject");
    let roles = world.kill("orders");
    world.open_gate("here");
    world.wait_for_runs("pass", 1, 1);
    // The caller stays away until the result is in its lane.
    world.wait_for_message_in_a_lane("orders");
    world.start(&roles);
    assert_eq!(world.result(), VISIT_RESULT);
    world.assert_begun_at_the_gate(1);
    world.close();
}

impl World {
    /// Waits until a message waits in one of the app's lanes.
    fn wait_for_message_in_a_lane(&self, app: &str) {
        use leveret::backend::Queue;
        self.with_backend(async |backend| {
            let began = std::time::Instant::now();
            loop {
                for lane in 0..super::apps::LANES {
                    let queue = Queue::Events(app.parse().expect("valid"), lane);
                    let depth = backend.broker().depth(&queue).await.expect("answered");
                    if depth.is_some_and(|depth| depth.messages > 0) {
                        return;
                    }
                }
                assert!(began.elapsed() < PATIENCE, "no message came");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
}

/// Scenario 17: the start is confirmed, and the worker that takes it dies before its first turn is committed.
fn killed_before_its_first_turn(mut world: World) {
    world.start_with_fault(&format!("{APPS} watcher starter"), Some(("orders", "turn-drawn-up")));
    let roles = world.wait_for_death("orders");
    world.wait_for_start();
    // Nobody starts it a second time.
    world.start(&roles.replace(" starter", ""));
    assert_eq!(world.result(), TOUR_RESULT);
    world.close();
}

#[test]
fn a_start_whose_worker_died_before_the_first_turn_runs() {
    killed_before_its_first_turn(World::on_servers("tour 0"));
}

/// On a file the client is in the same process: it has its confirmation, or it would ask again.
#[test]
fn a_start_in_an_embedded_process_that_died_before_the_first_turn_runs() {
    let mut world = World::on_file("tour 0");
    world.start("payments shipping starter");
    world.wait_for_start();
    world.kill("starter");
    killed_before_its_first_turn_alone(world);
}

fn killed_before_its_first_turn_alone(mut world: World) {
    world.start_with_fault(&format!("{APPS} watcher"), Some(("orders", "turn-drawn-up")));
    let roles = world.wait_for_death("orders");
    world.start(&roles);
    assert_eq!(world.result(), TOUR_RESULT);
    world.close();
}

/// The harder half of 17: the client died after it had created the instance and before it published the start; nobody asks again.
fn created_and_never_published(mut world: World) {
    world.start_with_fault(&format!("{APPS} watcher starter"), Some(("starter", "start-created")));
    let roles = world.wait_for_death("starter");
    if roles != "starter" {
        world.start(&roles.replace(" starter", ""));
    }
    assert_eq!(world.result(), TOUR_RESULT);
    world.close();
}

#[test]
fn a_start_whose_client_died_before_it_was_published_runs() {
    created_and_never_published(World::on_servers("tour 0"));
}

#[test]
fn a_start_in_an_embedded_process_that_died_before_it_was_published_runs() {
    created_and_never_published(World::on_file("tour 0"));
}

/// A call to an app that has never been there is kept while workers die over it.
#[test]
fn a_task_for_a_missing_app_outlives_the_worker_that_parks_it() {
    let mut world = World::on_servers("tour 0");
    world.start_with_fault("orders watcher starter", Some(("orders", "unrouted-handled")));
    let roles = world.wait_for_death("orders");
    world.start(&roles);
    world.start("payments shipping");
    assert_eq!(world.result(), TOUR_RESULT);
    world.close();
}

/// Scenario 19: the activity kills its process each time; the test starts that again each time, as an orchestrator would.
fn deadly(mut world: World) {
    const LIMIT: usize = 5;
    world.start(&format!("{APPS} watcher starter"));
    let deaths = soon("the last death", PATIENCE * 2, {
        let mut deaths = 0;
        let world = &mut world;
        move || {
            if world.is_dead("payments") {
                let roles = world.wait_for_death("payments");
                world.start(&roles);
                deaths += 1;
            }
            world.has_result().then_some(deaths)
        }
    });
    assert_eq!(deaths, world.begun("detonate")[0]);
    // The first delivery carries no count: its process had others as well.
    assert_eq!(deaths, LIMIT + 1);
    assert_eq!(world.result(), format!("{:?}", kinds::ACTIVITY_CRASHED));
    world.stop();
    world.with_backend(async |backend| {
        assert_histories(backend).await;
        let left = messages_left(backend).await;
        assert_eq!(left.len(), 1, "{left:?}");
        let is_dead_letter = left[0].starts_with("payments.dead: ") && left[0].contains("its process died each time");
        assert!(is_dead_letter, "{left:?}");
    });
}

#[test]
fn an_activity_that_kills_its_process_each_time_fails_its_call_in_the_end() {
    deadly(World::on_servers("minefield null"));
}

#[test]
fn an_activity_that_kills_its_embedded_process_each_time_fails_its_call_in_the_end() {
    // Caller and target die together, so the caller's turn comes again beside the task each time.
    deadly(World::on_file("minefield null"));
}

#[test]
fn a_second_signal_ends_a_process_at_once_and_what_it_had_in_hand_is_done_by_the_next() {
    let mut world = World::on_servers(r#"visit "here""#);
    world.start(&format!("{APPS} watcher starter"));
    world.wait_at_the_gate("orders/subject");
    // The first would have it wait for its activity, and then end in order.
    let (status, log) = world.tell_to_end_twice("payments");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("worker stopped"), "{log}");
    world.open_gate("here");
    world.start("payments");
    assert_eq!(world.result(), VISIT_RESULT);
    world.assert_begun_at_the_gate(2);
    world.close();
}
