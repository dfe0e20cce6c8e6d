//! What every [`leveret::backend::Store`] must do, as functions over the trait.
//!
//! Each behaviour gets a store whose namespace nobody has used. A backend runs them all with one line, [`store_suite`], and each idempotency
//! promise is tested by doing it twice. Where time has to pass, the suite polls; it sleeps only to show that something did *not* happen.

mod apps;
mod claims;
mod commit;
mod create;
mod delete;
mod deliver;
mod due;
pub(crate) mod fixture;
mod index;
mod load;
mod survey;

pub(crate) use apps::*;
pub(crate) use claims::*;
pub(crate) use commit::*;
pub(crate) use create::*;
pub(crate) use delete::*;
pub(crate) use deliver::*;
pub(crate) use due::*;
pub(crate) use index::*;
pub(crate) use load::*;
pub(crate) use survey::*;

/// Makes a test of every behaviour.
///
/// The argument is an expression, evaluated once a test, whose future gives `(Arc<dyn Store>, guard)`: a fresh store, and whatever has to live as
/// long as it does (a temporary directory, or `()`).
///
/// ```ignore
/// crate::store_suite::store_suite!(fresh());
/// ```
macro_rules! store_suite {
    ($fresh:expr) => {
        $crate::store_suite::store_suite! { @each $fresh;
            // create
            a_created_instance_is_pending_and_marked,
            a_request_creates_once,
            a_taken_id_is_refused_with_its_record,
            a_finished_instance_is_replaced_if_the_policy_allows,
            a_marked_instance_is_not_replaced,
            what_a_replaced_run_left_behind_is_gone,
            a_refused_request_never_creates,
            a_refusal_lapses,
            of_many_creates_at_once_one_wins,
            instances_are_told_apart_whatever_their_ids,
            // commit
            a_commit_appends_its_turn_and_sets_the_record,
            a_commit_sent_again_is_applied_once,
            a_commit_that_expects_something_else_changes_nothing,
            of_many_commits_on_one_guard_one_is_applied,
            a_terminal_commit_ends_the_record,
            a_mark_stays_until_it_is_cleared,
            a_first_start_is_cleared_only_before_the_first_turn,
            continue_as_new_replaces_the_history,
            continue_as_new_waits_for_the_marks,
            the_time_of_change_grows_with_every_commit,
            // load
            a_load_pages_through_the_turns,
            turns_of_another_execution_are_not_there,
            a_load_takes_as_much_of_the_inbox_as_asked,
            bytes_of_any_value_and_size_come_back,
            // deliver
            where_an_item_goes_depends_on_the_status,
            an_item_delivered_again_waits_once,
            a_bounded_inbox_is_full_for_events_only,
            an_item_for_an_absent_instance_waits_for_it,
            an_item_for_an_instance_that_never_comes_lapses,
            a_commit_takes_out_exactly_what_it_read,
            // delete
            only_a_terminal_unmarked_record_is_deleted,
            a_deleted_instance_leaves_its_receipt_and_outcome,
            a_receipt_of_a_deleted_instance_lapses,
            another_execution_is_not_deleted,
            a_watcher_wakes_when_the_instance_ends,
            who_listens_before_an_instance_is_there_is_woken_by_its_end,
            a_watch_that_was_interrupted_still_wakes,
            // claims
            an_open_claim_is_granted_again_and_again,
            a_claim_that_is_not_open_is_refused,
            a_claim_in_time_is_what_keeps_a_call_from_not_starting,
            a_claim_that_comes_too_late_is_refused_and_settled,
            a_claimed_call_times_out,
            a_claim_taken_again_starts_its_time_anew,
            a_heartbeat_holds_off_its_deadline,
            a_commit_closes_claims_and_forgets_their_progress,
            progress_is_kept_for_calls_without_limits_too,
            // due-set
            a_due_entry_is_claimed_once_per_lease,
            an_entry_that_is_not_due_is_not_claimed,
            setting_replaces_and_sooner_only_brings_forward,
            a_settled_entry_is_removed_or_comes_again,
            settling_spares_an_entry_that_was_timed_anew,
            unscheduled_entries_are_gone,
            no_entry_is_claimed_by_two_at_once,
            due_entries_can_be_claimed_one_by_one,
            entries_are_listed_by_kind_in_order_of_time,
            apps_have_their_own_due_sets,
            run_tokens_count_until_they_are_taken_away,
            // index
            a_list_is_ordered_by_creation_and_ends,
            paging_neither_skips_nor_repeats_within_one_millisecond,
            paging_goes_on_when_the_last_one_seen_is_gone,
            a_note_that_comes_after_its_instance_is_gone_does_not_stay,
            a_list_is_filtered_by_status_and_time,
            the_record_counts_and_not_the_note,
            an_older_note_does_not_undo_a_newer_one,
            a_note_of_an_instance_that_had_the_id_before_changes_nothing,
            an_instance_that_replaces_one_of_a_later_time_is_listed,
            one_that_goes_on_is_listed_whether_that_is_noted_or_not,
            a_page_token_of_somebody_else_is_refused,
            // audits
            a_walk_through_the_due_set_shows_every_entry,
            an_inbox_is_looked_at_bit_by_bit,
            a_survey_shows_every_active_instance_and_what_has_no_record,
            // apps and workers
            an_app_keeps_the_lanes_it_began_with,
            a_removed_app_is_unknown,
            a_worker_lives_as_long_as_it_beats,
            the_stores_clock_goes_forward,
        }
    };
    (@each $fresh:expr; $($behaviour:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                let (store, _guard) = $fresh.await;
                $crate::store_suite::$behaviour(store).await;
            }
        )*
    };
}
pub(crate) use store_suite;
