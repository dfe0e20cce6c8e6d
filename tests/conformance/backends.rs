//! The suite on each backend.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use leveret::Namespace;
use leveret::backend::{Backend, RabbitMq, RabbitMqConfig, RedisConfig, RedisStore, SystemClock};

use crate::harness::{Harness, until};

fn fresh_namespace() -> Namespace {
    Namespace::new(format!("t{}", uuid::Uuid::now_v7().simple())).expect("a valid namespace")
}

/// Makes a test of every behaviour on the harness that the expression gives.
macro_rules! suite {
    ($harness:expr; $($theme:ident: $($behaviour:ident),+ $(,)?;)+) => {
        $(mod $theme {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let harness = $harness;
                crate::$theme::$behaviour(&harness).await;
                harness.clean_up().await;
            })+
        })+
    };
}

macro_rules! all_behaviours {
    ($harness:expr) => {
        suite! { $harness;
            audit:
                a_task_whose_message_is_deleted_is_sent_again,
                a_task_that_was_lost_while_its_app_is_away_is_sent_again,
                what_runs_is_leased_or_waits_is_left_alone,
                a_start_whose_message_is_deleted_is_published_again,
                a_result_whose_message_is_deleted_is_asked_for_again,
                an_answer_of_a_child_whose_message_is_deleted_is_told_again,
                a_timer_whose_entry_is_deleted_is_set_again,
                a_task_whose_lease_is_deleted_is_sent_again,
                effects_whose_mark_is_deleted_are_made,
                a_next_execution_whose_mark_is_deleted_begins,
                a_check_that_is_deleted_is_written_again,
                queues_that_are_deleted_are_declared_and_their_tasks_sent_again,
                queues_that_are_deleted_under_running_workers_cost_no_workflow,
                what_is_left_over_is_removed_and_nothing_else,
                audits_of_a_busy_namespace_find_nothing_and_change_nothing,
                what_waits_for_an_app_that_does_not_exist_is_left_alone,
                an_answer_that_waits_for_a_queue_that_was_deleted_is_left_alone,
                a_task_that_waits_for_the_one_worker_that_knows_it_is_left_alone,
                what_a_worker_still_runs_while_it_stops_is_left_alone,
                a_child_that_was_purged_long_ago_is_not_run_again,
                a_child_of_which_nothing_is_kept_is_not_run_again,
                the_answer_of_a_child_whose_id_was_taken_by_another_is_told_again,
                a_task_that_two_audits_repair_runs_once,
                an_instance_that_cannot_be_read_keeps_no_audit_from_the_others,
                a_repair_that_fails_for_good_keeps_no_audit_from_the_others,
                an_app_with_a_worker_that_gives_no_sign_of_life_is_undecided,
                an_app_of_many_lanes_is_decided,
                a_queue_that_takes_no_marker_leaves_only_its_own_calls_undecided;
            bounds:
                a_worker_takes_no_more_tasks_than_it_runs_at_once,
                tasks_of_one_message_run_no_more_at_once_than_the_setting_says,
                a_worker_begins_on_no_more_tasks_than_it_has_room_for,
                tasks_that_have_not_begun_in_time_go_to_another_worker,
                a_redelivered_bundle_of_tasks_is_split,
                of_a_redelivered_bundle_only_tasks_without_a_result_run_again,
                tasks_of_an_activity_that_is_known_to_be_short_share_messages,
                no_more_turns_run_at_once_than_the_setting_says,
                a_worker_takes_no_more_starts_than_it_has_room_for,
                a_worker_opens_no_more_of_a_lane_than_it_has_room_for,
                what_a_worker_has_not_opened_goes_back_when_it_stops,
                a_worker_holds_no_more_messages_than_its_prefetch,
                a_fan_out_wider_than_the_worker_is_joined;
            calls_across_apps:
                each_activity_runs_once_where_it_belongs,
                results_come_back_through_a_chain_of_apps,
                a_fan_out_goes_on_while_one_of_its_apps_is_down,
                a_timer_wins_against_a_call_to_a_dead_app,
                an_activity_whose_worker_is_killed_runs_again,
                a_child_whose_worker_is_killed_goes_on_from_its_history,
                a_result_waits_for_its_caller,
                another_namespace_is_never_reached,
                the_same_id_in_two_apps_is_two_instances,
                a_result_that_was_not_asked_for_is_ignored,
                a_runtimes_macros_work_over_calls;
            children:
                the_end_of_a_parent_ends_its_children_on_other_apps,
                a_child_whose_app_is_down_ends_when_it_comes_back,
                a_pending_child_ends_without_its_app,
                a_child_of_an_unknown_app_ends_with_its_parent,
                a_root_that_is_terminated_twice_ends_ten_children_once,
                children_are_left_alone_if_that_is_wanted,
                a_detached_child_outlives_its_parent,
                a_child_whose_id_is_taken_fails_and_the_occupant_is_untouched,
                with_a_policy_a_child_starts_once_the_occupant_is_over,
                a_child_without_an_id_is_named_after_its_call,
                a_tree_over_three_apps_is_purged_as_one,
                a_result_for_a_parent_that_was_purged_is_dropped,
                a_child_whose_end_was_not_told_is_heard_of_without_its_app,
                a_child_whose_end_was_not_told_is_heard_of_whatever_its_parent_waits_for,
                a_child_that_was_purged_while_its_parent_was_away_is_not_started_again,
                a_child_that_was_purged_long_ago_is_not_started_again,
                a_child_whose_time_was_over_long_ago_is_not_started_again;
            code_changes:
                swapped_calls_stall_the_instance_until_the_old_code_is_back,
                of_two_builds_the_fitting_one_takes_the_instance,
                a_patch_keeps_running_instances_on_their_way,
                code_that_waits_for_a_foreign_future_is_told_so,
                a_stalled_instance_keeps_events_and_can_be_ended,
                a_workflow_that_takes_its_process_down_is_stopped,
                turns_that_may_be_deadly_run_one_at_a_time_beside_all_others,
                a_turn_that_was_done_by_another_leaves_no_count_of_crashes,
                redelivered_messages_that_change_nothing_are_no_crashes,
                a_resume_that_comes_late_tries_no_code,
                builds_that_were_tried_are_not_tried_again,
                code_that_was_dropped_by_replay_leaves_no_trace;
            cost:
                the_last_step_costs_what_the_first_did,
                a_result_of_20_mib_fails_its_call_and_names_the_limit,
                a_result_of_20_mib_is_carried_if_the_limit_is_raised;
            damage:
                a_history_that_cannot_be_read_holds_up_nothing_else_and_can_be_ended,
                a_suspended_instance_that_cannot_be_read_stays_suspended,
                a_finished_instance_whose_effects_cannot_be_made_can_be_purged,
                a_marked_turn_that_is_not_in_its_place_is_not_taken_for_done,
                a_turn_that_is_not_in_its_place_stalls_the_instance,
                a_damaged_occupant_of_a_childs_id_holds_up_no_parent,
                effects_that_cannot_be_made_do_not_hold_up_what_children_have_to_tell;
            dead_letters:
                letters_are_listed_with_reason_origin_and_age,
                a_letter_that_is_retried_completes_its_call,
                a_letter_whose_call_is_over_is_settled,
                a_raw_start_that_is_retried_counts_once,
                a_letter_that_cannot_be_processed_this_time_either_comes_back,
                an_item_in_the_wrong_place_is_sent_to_where_it_belongs,
                a_retry_that_ends_in_the_middle_loses_no_letter,
                an_id_names_one_letter_or_nothing_is_touched,
                a_raw_start_that_another_app_has_buried_is_about_its_own_app,
                a_letter_of_a_call_that_the_history_does_not_have_is_not_settled;
            due:
                a_start_that_is_made_while_its_check_gives_it_up_is_not_lost,
                a_start_that_was_given_up_is_asked_for_anew,
                a_due_entry_that_hangs_holds_up_no_other,
                the_claim_of_a_due_entry_is_short_and_renewed_while_it_is_handled;
            duplicates:
                a_result_that_comes_again_has_no_history_read,
                each_kind_of_message_counts_once,
                what_comes_after_the_end_changes_nothing,
                an_old_copy_of_a_task_that_is_done_does_not_run,
                a_start_whose_taker_died_is_taken_again,
                a_start_that_was_lost_is_sent_again,
                effects_that_a_crash_left_unmade_are_made_by_whoever_comes_next,
                the_due_loop_finds_unmade_effects_without_any_message;
            earlier_executions:
                children_of_an_earlier_execution_go_on_and_are_ended_by_their_own_ids;
            events_and_timers:
                events_arrive_in_order_whoever_waits,
                events_wait_for_an_instance_that_is_yet_to_come,
                a_workflow_raises_events_on_another_app,
                an_event_with_one_message_id_counts_once,
                a_timer_is_never_early,
                a_thousand_timers_due_at_once_all_fire,
                a_timer_goes_on_in_another_worker,
                a_wait_that_is_over_leaves_no_timer,
                time_and_chance_are_the_same_on_replay;
            failures_across_apps:
                a_task_that_cannot_be_read_is_answered_and_put_among_the_dead,
                a_failure_crosses_two_apps_whole_and_a_fatal_one_is_tried_once,
                the_root_tells_which_call_failed_on_which_app,
                a_name_that_is_not_registered_is_tried_again_by_the_policy,
                an_attempt_after_a_missed_heartbeat_succeeds,
                activities_of_five_apps_are_called_in_a_chain;
            failures_and_retries:
                a_failed_attempt_is_tried_again_by_the_policy,
                attempts_end_with_the_policy_and_the_failure_arrives_whole,
                a_fatal_failure_is_not_tried_again,
                a_panic_fails_the_attempt_and_not_the_worker,
                a_payload_of_another_type_fails_the_call,
                an_activity_that_takes_its_process_down_fails_in_the_end,
                a_task_that_took_a_process_down_once_runs_again,
                a_task_that_nobody_knows_any_more_is_no_longer_counted,
                a_copy_that_comes_after_its_call_is_over_is_no_longer_counted,
                a_workflow_that_fails_or_panics_says_why;
            held_effects:
                what_is_over_is_not_begun_anew_with_what_cannot_be_made,
                continue_as_new_waits_for_what_cannot_be_made_and_does_not_spin;
            held_up:
                a_failure_over_the_limit_fails_its_call_alone,
                a_message_that_the_broker_does_not_take_fails_its_call_alone,
                an_event_that_the_broker_does_not_take_arrives_all_the_same,
                a_queue_that_takes_nothing_holds_up_nothing_else,
                an_activity_that_fails_as_if_its_app_were_not_there_runs_once,
                a_child_that_cannot_be_read_holds_up_nothing_else_of_its_parent,
                an_instance_that_cannot_be_read_keeps_its_messages_and_its_lane_free,
                a_task_whose_caller_cannot_be_read_is_run_and_its_message_does_not_spin,
                leases_outlast_an_outage_of_the_store,
                a_lease_that_is_due_in_an_outage_of_the_store_is_written_after_it,
                a_copy_of_a_task_that_runs_under_a_lease_does_not_run,
                copies_of_a_task_that_was_passed_on_never_run_at_once,
                one_probe_for_each_lane_waits_while_the_broker_is_away;
            lifecycle:
                a_suspended_instance_keeps_what_arrives_and_goes_on_with_it,
                a_suspend_or_a_resume_that_comes_late_changes_nothing,
                an_instance_that_is_suspended_twice_is_resumed_once,
                a_suspended_instance_stays_so_in_another_worker,
                a_pending_instance_is_suspended_and_resumed_without_a_worker,
                a_suspend_that_comes_late_to_a_pending_instance_changes_nothing,
                an_instance_ends_in_whatever_state_it_is,
                an_end_wins_over_continue_as_new,
                a_workflow_that_always_begins_anew_holds_up_nobody,
                a_run_goes_on_through_its_generations,
                events_are_carried_over_and_seen_once,
                late_results_of_the_old_execution_are_dropped,
                a_taken_id_is_handled_by_the_policy,
                a_request_id_starts_one_run,
                a_delayed_start_waits_for_its_time,
                what_was_purged_is_gone_and_can_be_started_again,
                nothing_of_an_instance_that_is_over_is_looked_at_again;
            limits:
                a_large_payload_goes_all_the_way,
                a_payload_over_the_limit_fails_its_call_alone,
                an_output_over_the_limit_fails_its_workflow,
                a_full_inbox_refuses_events_and_nothing_else,
                a_child_of_a_long_name_is_found_again,
                a_wide_fan_out_is_joined,
                a_long_loop_goes_on_in_another_worker,
                a_history_of_many_pages_is_replayed,
                a_cache_without_room_costs_replays_and_nothing_else;
            lost_state:
                an_instance_that_lost_its_turns_begins_again;
            management:
                an_instance_shows_all_that_it_waits_for,
                progress_is_shown_and_forgotten,
                the_next_attempt_is_shown,
                instances_are_listed_by_status_in_pages,
                apps_and_their_workers_are_shown,
                a_dead_worker_is_not_shown_for_long,
                an_instance_that_is_purged_while_its_end_is_noted_leaves_nothing_behind,
                what_sweeps_up_notes_an_instance_whose_id_is_used_anew,
                the_root_tells_the_whole_story;
            missing_targets:
                a_task_waits_for_an_app_that_is_away,
                without_a_policy_a_call_waits_for_an_unknown_app,
                what_waits_for_an_unknown_app_holds_up_nothing_else,
                with_a_policy_each_attempt_at_an_unknown_app_is_a_failure,
                with_a_policy_a_child_on_an_unknown_app_fails_and_shows_it,
                an_app_that_comes_between_two_attempts_is_found,
                a_name_that_is_not_registered_fails_at_once,
                a_start_at_an_app_that_is_away_is_pending_and_runs_when_it_comes,
                an_app_that_is_removed_is_unknown_again,
                an_app_with_an_activity_under_way_is_not_removed,
                what_waits_for_an_unknown_app_is_dropped_with_its_caller;
            raw_starts:
                a_raw_start_runs_its_workflow,
                a_raw_start_counts_once_by_its_message_id,
                a_raw_start_that_cannot_be_is_among_the_dead_with_its_reason,
                a_raw_start_whose_fault_is_monstrous_is_among_the_dead_all_the_same,
                a_raw_start_at_an_app_that_is_away_waits,
                a_raw_start_that_came_before_its_app_runs_when_the_app_is_there,
                a_raw_message_to_the_unrouted_queue_is_among_the_dead,
                a_raw_start_of_an_unknown_workflow_fails_and_says_so,
                a_message_that_cannot_be_read_holds_up_no_queue;
            readiness:
                a_worker_is_ready_from_its_start_to_its_end_and_says_why_not;
            replicas:
                each_worker_and_each_build_gets_a_lane,
                two_workers_share_the_work_and_one_takes_over,
                of_two_workers_that_run_one_turn_one_commits,
                results_that_come_by_any_lane_are_all_in_the_history,
                while_half_of_the_workers_know_an_activity_calls_to_it_do_not_fail,
                while_half_of_the_workers_know_a_workflow_starts_of_it_do_not_fail,
                an_instance_whose_lane_moves_to_an_older_worker_goes_on_in_a_newer_one,
                an_instance_that_only_older_workers_are_left_for_waits_for_a_newer_one,
                a_worker_that_stops_hands_back_what_it_cannot_finish,
                a_long_activity_is_handed_back_by_a_worker_that_stops,
                a_worker_that_stops_lets_short_activities_end,
                a_worker_says_what_is_wrong_with_it_at_start_up,
                workers_that_come_and_go_leave_no_work_undone;
            retention:
                a_finished_instance_is_kept_for_its_time;
            running_activities:
                a_worker_whose_lease_was_taken_over_stops_and_its_late_result_is_dropped,
                a_worker_whose_lease_is_gone_stops_and_its_late_result_is_dropped,
                a_body_that_fails_because_its_lease_was_taken_over_is_no_answer,
                a_body_that_fails_while_its_worker_stops_runs_again,
                a_body_that_panics_while_its_worker_stops_runs_again,
                a_long_body_that_fails_while_its_worker_stops_runs_again,
                tasks_that_may_be_deadly_run_one_at_a_time_beside_all_others,
                tasks_that_may_be_deadly_leave_room_for_others_in_the_prefetch,
                a_turn_and_a_task_of_one_process_that_may_be_deadly_do_not_run_at_once,
                a_leased_task_whose_activity_is_not_known_here_keeps_its_lease;
            time_limits:
                a_call_that_does_not_start_in_time_never_runs,
                a_call_to_an_unknown_app_does_not_start_in_time_either,
                a_call_that_starts_in_time_is_not_limited_by_that,
                an_attempt_that_takes_too_long_times_out_and_is_retried,
                the_time_of_an_attempt_begins_when_it_starts,
                an_attempt_without_a_heartbeat_fails_and_one_with_it_goes_on,
                a_child_that_does_not_start_in_time_never_runs,
                a_child_of_an_unknown_app_does_not_start_in_time_either,
                a_child_that_takes_too_long_is_terminated,
                an_activity_longer_than_the_delivery_timeout_runs_once,
                a_long_activity_whose_worker_is_killed_is_taken_over,
                a_running_activity_learns_that_its_caller_is_gone,
                an_activity_that_gives_no_sign_of_life_learns_that_its_caller_is_gone,
                a_deadline_that_is_told_early_or_twice_changes_nothing;
        }
    };
}

mod memory {
    use super::*;

    struct Memory;

    impl Harness for Memory {
        async fn backend(&self) -> Backend {
            Backend::memory(fresh_namespace())
        }

        async fn clean_up(&self) {}
    }

    all_behaviours!(Memory);
}

mod embedded {
    use super::*;

    /// A file in a directory that goes with the test.
    struct Embedded(PathBuf);

    impl Embedded {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("leveret-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Embedded {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Harness for Embedded {
        async fn backend(&self) -> Backend {
            Backend::embedded(self.0.join("state.leveret"), fresh_namespace())
                .await
                .expect("a file")
        }

        async fn clean_up(&self) {}
    }

    all_behaviours!(Embedded::new());
}

mod servers {
    use super::*;

    /// RabbitMQ and Redis, which the test runner started.
    #[derive(Default)]
    struct Servers(Mutex<Vec<Backend>>);

    fn url(name: &str) -> String {
        std::env::var(name).unwrap_or_else(|_| {
            panic!("{name} is not set: run the tests with tests/run, which starts the servers that they need")
        })
    }

    impl Harness for Servers {
        async fn backend(&self) -> Backend {
            let namespace = fresh_namespace();
            // Large payloads are tried too.
            let broker = RabbitMq::connect(RabbitMqConfig {
                message_bytes: 64 << 20,
                ..RabbitMqConfig::new(url("LEVERET_TEST_AMQP_URL"), namespace.clone())
            });
            let store = RedisStore::connect(RedisConfig::new(url("LEVERET_TEST_REDIS_URL"), namespace.clone()));
            let (broker, store) = (broker.await.expect("RabbitMQ"), store.await.expect("Redis"));
            let backend = Backend::new(namespace, broker, store, Arc::new(SystemClock), "servers");
            self.0.lock().unwrap().push(backend.clone());
            backend
        }

        /// A thousand idle queues would slow down the tests that are still to come.
        async fn clean_up(&self) {
            let backends = std::mem::take(&mut *self.0.lock().unwrap());
            for backend in backends {
                for app in backend.store().apps().await.expect("Redis") {
                    // Workers that are still stopping may just then lose a consumer, and their channel with it.
                    let remove = async || backend.broker().remove(&app.id, app.lanes).await.ok();
                    until("the queues to be removed", remove).await;
                }
            }
        }
    }

    all_behaviours!(Servers::default());

    suite! { Servers::default();
        cut_connection:
            an_activity_whose_lease_is_written_runs_once_though_its_connection_is_cut;
        leftovers:
            a_purged_tree_leaves_no_key_but_receipts;
        deleted_by_hand:
            an_instance_whose_state_is_gone_is_missed_by_nobody,
            an_instance_whose_history_is_gone_stalls_and_can_be_ended,
            a_marked_turn_that_is_gone_is_not_taken_for_done,
            a_tree_whose_children_cannot_all_be_named_is_not_given_up;
        users:
            a_result_counts_from_its_apps_own_user_alone,
                a_forged_result_does_not_count_for_having_been_unrouted;
    }
}
