//! Commits and marks.

use leveret::backend::{Claim, ClaimTerms, Commit, Committed, Guard, Mark, Stall, View};
use leveret::{BuildId, CommitId, ExecutionId, StallReason, Status, Timestamp, WaitingFor, WaitingView};

use super::fixture::*;

const NO_LIMITS: ClaimTerms = ClaimTerms {
    start_by: None,
    timeout: Some(KEEP),
    heartbeat: None,
};

pub(crate) async fn a_commit_appends_its_turn_and_sets_the_record(store: Fresh) {
    let instance = instance("a");
    let created = pending(&store, &instance).await;
    let view = View {
        started_at: Some(Timestamp::from_millis(5)),
        generation: 2,
        custom_status: Some(payload("half way")),
        commanded_at: Some(Timestamp::from_millis(7)),
        waiting: WaitingView {
            total: 20,
            given_up: 0,
            shown: vec![WaitingFor::Timer {
                sequence: 3,
                due: Timestamp::from_millis(9),
            }],
        },
        stall: Some(Stall {
            tried: Vec::new(),
            reason: StallReason::Crashed,
            message: "it took five workers down".into(),
            build: BuildId::new("b1").unwrap(),
            since: Timestamp::from_millis(8),
        }),
        history_events: 4,
        history_bytes: 1234,
    };
    let commit = Commit {
        status: Status::Stalled,
        view: view.clone(),
        marks: vec![Mark::Run, Mark::Turn(1)],
        ..turn(&instance, created.guard())
    };
    let (record, left) = apply(&store, &commit).await;
    assert_eq!(left, 0);
    assert_eq!(
        record.guard(),
        Guard {
            execution: created.execution,
            version: 1,
            commit: Some(commit.id)
        }
    );
    assert_eq!((record.status, record.lane), (Status::Stalled, Some(3)));
    assert_eq!(record.view, view);
    assert_eq!(record.marks, [Mark::Start, Mark::Turn(1), Mark::Run], "in order");
    assert_eq!((record.run, &record.origin), (created.run, &created.origin));
    assert_eq!(record.input, created.input, "kept until the history holds it");
    let loaded = store.load(&instance, 0, 10).await.unwrap().expect("a record");
    assert_eq!(loaded.turns, [commit.turn]);
    assert_eq!(loaded.record, record);

    let second = Commit {
        drop_input: true,
        lane: None,
        ..turn(&instance, record.guard())
    };
    let (record, _) = apply(&store, &second).await;
    assert_eq!((record.version, record.input, record.lane), (2, None, None));
    assert_eq!(record.view, View::default());
}

pub(crate) async fn a_commit_sent_again_is_applied_once(store: Fresh) {
    let instance = instance("a");
    let created = pending(&store, &instance).await;
    for text in ["1", "2", "3"] {
        park(&store, &instance, text).await;
    }
    let commit = Commit {
        inbox_taken: 2,
        marks: vec![Mark::Turn(1)],
        cleared: vec![Mark::Start],
        ..turn(&instance, created.guard())
    };
    let (record_then, left) = apply(&store, &commit).await;
    assert_eq!(left, 1);
    for _ in 0..2 {
        assert_eq!(apply(&store, &commit).await, (record_then.clone(), 1));
    }
    assert_eq!(
        store.load(&instance, 0, 0).await.unwrap().unwrap().turns,
        std::slice::from_ref(&commit.turn)
    );
    // A repeat brings no mark back either.
    store
        .clear_mark(&instance, created.execution, Mark::Turn(1))
        .await
        .unwrap();
    assert_eq!(apply(&store, &commit).await.0.marks, []);

    // With another commit on top of it, it is no longer the last one.
    apply(&store, &turn(&instance, record_then.guard())).await;
    assert_eq!(store.commit(&commit).await.unwrap(), Committed::Conflict);
}

pub(crate) async fn a_commit_that_expects_something_else_changes_nothing(store: Fresh) {
    let (here, absent) = (instance("a"), instance("b"));
    let before = running(&store, &here).await;
    park(&store, &here, "1").await;
    let right = before.guard();
    let wrong = [
        Guard {
            execution: ExecutionId::generate(),
            ..right
        },
        Guard { version: 0, ..right },
        Guard { version: 2, ..right },
        Guard { commit: None, ..right },
        Guard {
            commit: Some(CommitId::generate()),
            ..right
        },
    ];
    for guard in wrong {
        let commit = Commit {
            inbox_taken: 1,
            status: Status::Failed,
            marks: vec![Mark::Turn(9)],
            claims_opened: vec![(1, NO_LIMITS)],
            ..turn(&here, guard)
        };
        assert_eq!(store.commit(&commit).await.unwrap(), Committed::Conflict, "{guard:?}");
    }
    let after = store.load(&here, 0, 10).await.unwrap().unwrap();
    assert_eq!((after.record, after.turns.len(), after.inbox.len()), (before, 1, 1));
    assert_eq!(store.claim(&here, right.execution, 1).await.unwrap(), Claim::Closed);
    assert_eq!(store.commit(&turn(&absent, right)).await.unwrap(), Committed::Absent);
    assert_eq!(store.record(&absent).await.unwrap(), None);
}

pub(crate) async fn of_many_commits_on_one_guard_one_is_applied(store: Fresh) {
    let instance = instance("a");
    let before = running(&store, &instance).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, commit) = (store.clone(), turn(&instance, before.guard()));
        racers.spawn(async move { (store.commit(&commit).await.unwrap(), commit.id) });
    }
    let answers = racers.join_all().await;
    let (applied, refused): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|(answer, _)| matches!(answer, Committed::Applied { inbox_left: 0, .. }));
    assert_eq!((applied.len(), refused.len()), (1, 15));
    assert!(refused.iter().all(|(answer, _)| *answer == Committed::Conflict));
    let after = record(&store, &instance).await;
    assert_eq!((after.version, after.commit), (2, Some(applied[0].1)));
}

pub(crate) async fn a_terminal_commit_ends_the_record(store: Fresh) {
    let instance = instance("a");
    for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
        let before = running(&store, &instance).await;
        let open = Commit {
            claims_opened: vec![(1, NO_LIMITS)],
            ..turn(&instance, before.guard())
        };
        let (before, _) = apply(&store, &open).await;
        assert_eq!(before.ended_at, None);
        store.claim(&instance, before.execution, 1).await.unwrap();
        let last = Commit {
            status,
            outcome: Some(outcome()),
            ..turn(&instance, before.guard())
        };
        let (over, _) = apply(&store, &last).await;
        assert_eq!((over.status, &over.outcome), (status, &last.outcome));
        assert!(over.ended_at.expect("an end") >= before.updated_at);
        assert_eq!(apply(&store, &last).await.0, over, "a repeat does not move the end");
        assert_eq!(store.progress_of(&instance, 10).await.unwrap(), []);
    }
}

pub(crate) async fn a_mark_stays_until_it_is_cleared(store: Fresh) {
    let instance = instance("a");
    let created = pending(&store, &instance).await;
    let execution = created.execution;
    let commit = Commit {
        marks: vec![Mark::Turn(1), Mark::Run],
        ..turn(&instance, created.guard())
    };
    let (first, _) = apply(&store, &commit).await;
    assert_eq!(first.marks.len(), 3);
    let other = ExecutionId::generate();
    assert_eq!(store.clear_mark(&instance, other, Mark::Start).await.unwrap(), Some(3));
    for _ in 0..2 {
        assert_eq!(
            store.clear_mark(&instance, execution, Mark::Start).await.unwrap(),
            Some(2)
        );
    }
    // Turn 11 is not turn 1.
    assert_eq!(
        store.clear_mark(&instance, execution, Mark::Turn(11)).await.unwrap(),
        Some(2)
    );
    let second = Commit {
        marks: vec![Mark::Turn(2), Mark::Turn(2)],
        cleared: vec![Mark::Turn(1), Mark::Turn(7)],
        ..turn(&instance, first.guard())
    };
    assert_eq!(apply(&store, &second).await.0.marks, [Mark::Turn(2), Mark::Run]);
    assert_eq!(
        store.clear_mark(&instance, execution, Mark::Run).await.unwrap(),
        Some(1)
    );
    assert_eq!(
        store.clear_mark(&instance, execution, Mark::Turn(2)).await.unwrap(),
        Some(0)
    );
    assert_eq!(record(&store, &instance).await.marks, []);
    let absent = super::fixture::instance("b");
    assert_eq!(store.clear_mark(&absent, execution, Mark::Start).await.unwrap(), None);
}

pub(crate) async fn a_first_start_is_cleared_only_before_the_first_turn(store: Fresh) {
    for is_changed in [false, true] {
        let instance = instance(if is_changed { "changed" } else { "fresh" });
        let created = pending(&store, &instance).await;
        let execution = created.execution;
        let clear = |execution| store.clear_first_start(&instance, execution);
        assert_eq!(clear(ExecutionId::generate()).await.unwrap(), Some(1));
        if is_changed {
            // As one that is suspended and resumed before its first turn.
            let commit = Commit {
                marks: vec![Mark::Start],
                ..turn(&instance, created.guard())
            };
            apply(&store, &commit).await;
        }
        let left = usize::from(is_changed);
        for _ in 0..2 {
            assert_eq!(clear(execution).await.unwrap(), Some(left));
        }
        assert_eq!(record(&store, &instance).await.marks.len(), left);
    }
    let absent = super::fixture::instance("absent");
    let cleared = store.clear_first_start(&absent, ExecutionId::generate()).await;
    assert_eq!(cleared.unwrap(), None);
}

pub(crate) async fn continue_as_new_replaces_the_history(store: Fresh) {
    let instance = instance("a");
    let first = running(&store, &instance).await;
    park(&store, &instance, "carried over").await;
    let last = Commit {
        marks: vec![Mark::Run],
        claims_opened: vec![(1, NO_LIMITS)],
        ..turn(&instance, first.guard())
    };
    let (before, _) = apply(&store, &last).await;
    let next = before.execution.next();
    let commit = Commit {
        next_execution: Some(next),
        claims_opened: vec![(2, NO_LIMITS)],
        marks: vec![Mark::Turn(1)],
        ..turn(&instance, before.guard())
    };
    for _ in 0..2 {
        let (record, left) = apply(&store, &commit).await;
        assert_eq!((record.execution, record.version, left), (next, 1, 1));
        assert_eq!((record.run, record.commit), (before.run, Some(commit.id)));
        assert_eq!(record.marks, [Mark::Turn(1)], "the mark `run` is gone");
        assert_eq!(record.origin, before.origin);
    }
    let loaded = store.load(&instance, 0, 10).await.unwrap().unwrap();
    assert_eq!(loaded.turns, [commit.turn]);
    assert_eq!(loaded.inbox, ["carried over"]);
    assert_eq!(
        store.claim(&instance, before.execution, 1).await.unwrap(),
        Claim::Closed
    );
    assert_eq!(store.claim(&instance, next, 1).await.unwrap(), Claim::Closed);
    assert_eq!(store.claim(&instance, next, 2).await.unwrap(), Claim::Granted);
    assert_eq!(
        store
            .clear_mark(&instance, before.execution, Mark::Turn(1))
            .await
            .unwrap(),
        Some(1),
        "a mark belongs to its execution"
    );
    let late = turn(&instance, before.guard());
    assert_eq!(store.commit(&late).await.unwrap(), Committed::Conflict);
}

pub(crate) async fn continue_as_new_waits_for_the_marks(store: Fresh) {
    let instance = instance("a");
    let first = running(&store, &instance).await;
    let marked = Commit {
        marks: vec![Mark::Turn(2), Mark::Run],
        ..turn(&instance, first.guard())
    };
    let (before, _) = apply(&store, &marked).await;
    let next = Commit {
        next_execution: Some(before.execution.next()),
        ..turn(&instance, before.guard())
    };
    for _ in 0..2 {
        assert_eq!(store.commit(&next).await.unwrap(), Committed::Conflict);
    }
    assert_eq!(record(&store, &instance).await, before, "no mark was lost over it");
    // What the commit itself says is confirmed no longer stands in its way.
    let next = Commit {
        cleared: vec![Mark::Turn(2)],
        ..next
    };
    let (after, _) = apply(&store, &next).await;
    assert_eq!((after.version, after.marks), (1, vec![]));
}

pub(crate) async fn the_time_of_change_grows_with_every_commit(store: Fresh) {
    let instance = instance("a");
    let mut last = running(&store, &instance).await;
    for _ in 0..20 {
        let (next, _) = apply(&store, &turn(&instance, last.guard())).await;
        assert!(next.updated_at > last.updated_at, "even within one millisecond");
        last = next;
    }
}
