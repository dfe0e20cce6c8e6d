//! Time limits of calls.

use std::time::Duration;

use bytes::Bytes;
use leveret::backend::{Claim, ClaimTerms, ClaimVerdict, Commit, Progress, Record};
use leveret::{ExecutionId, InstanceRef, Timestamp};

use super::fixture::*;

const OPEN: ClaimTerms = ClaimTerms {
    start_by: None,
    timeout: None,
    heartbeat: None,
};

fn timeout(limit: Duration) -> ClaimTerms {
    ClaimTerms {
        timeout: Some(limit),
        ..OPEN
    }
}

/// A running instance with these claims open.
async fn calling(store: &Fresh, instance: &InstanceRef, claims: &[(u64, ClaimTerms)]) -> Record {
    let before = running(store, instance).await;
    let commit = Commit {
        claims_opened: claims.to_vec(),
        ..turn(instance, before.guard())
    };
    apply(store, &commit).await.0
}

/// Asks until the verdict is something else than "again".
async fn verdict(store: &Fresh, instance: &InstanceRef, execution: ExecutionId, sequence: u64) -> ClaimVerdict {
    eventually(|| async move {
        match store.settle_claim(instance, execution, sequence).await.unwrap() {
            ClaimVerdict::Again(at) => {
                assert!(at > Timestamp::from_millis(0));
                None
            }
            verdict => Some(verdict),
        }
    })
    .await
}

async fn again(store: &Fresh, instance: &InstanceRef, execution: ExecutionId, sequence: u64) -> Timestamp {
    match store.settle_claim(instance, execution, sequence).await.unwrap() {
        ClaimVerdict::Again(at) => at,
        other => panic!("all limits hold, and yet: {other:?}"),
    }
}

/// What is true of every claim that has its verdict.
async fn assert_closed(store: &Fresh, instance: &InstanceRef, execution: ExecutionId, expected: ClaimVerdict) {
    for _ in 0..2 {
        assert_eq!(store.settle_claim(instance, execution, 1).await.unwrap(), expected);
        assert_eq!(store.claim(instance, execution, 1).await.unwrap(), Claim::Closed);
        assert!(!store.progress(instance, execution, 1, true, None).await.unwrap());
    }
    assert_eq!(store.progress_of(instance, 10).await.unwrap(), []);
}

pub(crate) async fn an_open_claim_is_granted_again_and_again(store: Fresh) {
    let instance = instance("a");
    let terms = [(1, timeout(KEEP)), (2, OPEN)];
    let execution = calling(&store, &instance, &terms).await.execution;
    for sequence in [1, 2] {
        for _ in 0..3 {
            assert_eq!(
                store.claim(&instance, execution, sequence).await.unwrap(),
                Claim::Granted
            );
        }
        again(&store, &instance, execution, sequence).await;
    }
    let running = store.progress_of(&instance, 10).await.unwrap();
    assert_eq!(running.iter().map(|of| of.sequence).collect::<Vec<_>>(), [1, 2]);
    assert!(
        running.iter().all(|of| of.claimed_at.is_some() && of.at.is_none()),
        "{running:?}"
    );
}

pub(crate) async fn a_claim_that_is_not_open_is_refused(store: Fresh) {
    let (here, absent) = (instance("a"), instance("b"));
    let execution = calling(&store, &here, &[(1, timeout(KEEP))]).await.execution;
    let refused = [
        (&here, execution, 2),
        (&here, ExecutionId::generate(), 1),
        (&absent, execution, 1),
    ];
    for (instance, execution, sequence) in refused {
        assert_eq!(store.claim(instance, execution, sequence).await.unwrap(), Claim::Closed);
        let verdict = store.settle_claim(instance, execution, sequence).await.unwrap();
        assert_eq!(verdict, ClaimVerdict::Closed);
    }
    end(&store, &here).await;
    assert_eq!(store.claim(&here, execution, 1).await.unwrap(), Claim::Closed);
    let verdict = store.settle_claim(&here, execution, 1).await.unwrap();
    assert_eq!(verdict, ClaimVerdict::Closed);
}

pub(crate) async fn a_claim_in_time_is_what_keeps_a_call_from_not_starting(store: Fresh) {
    let (unclaimed, claimed) = (instance("a"), instance("b"));
    let start_by = store.now().await.unwrap() + ms(500);
    let terms = ClaimTerms {
        start_by: Some(start_by),
        ..timeout(KEEP)
    };
    let first = calling(&store, &unclaimed, &[(1, terms)]).await.execution;
    let second = calling(&store, &claimed, &[(1, terms)]).await.execution;
    assert_eq!(store.claim(&claimed, second, 1).await.unwrap(), Claim::Granted);
    assert_eq!(again(&store, &unclaimed, first, 1).await, start_by);

    assert_eq!(verdict(&store, &unclaimed, first, 1).await, ClaimVerdict::NotStarted);
    assert!(store.now().await.unwrap() >= start_by, "not a moment too early");
    assert_closed(&store, &unclaimed, first, ClaimVerdict::NotStarted).await;

    // A redelivery takes a claim that was taken in time, however late it is now.
    assert!(again(&store, &claimed, second, 1).await > start_by);
    assert_eq!(store.claim(&claimed, second, 1).await.unwrap(), Claim::Granted);
}

pub(crate) async fn a_claim_that_comes_too_late_is_refused_and_settled(store: Fresh) {
    let instance = instance("a");
    let terms = ClaimTerms {
        start_by: Some(store.now().await.unwrap()),
        ..timeout(KEEP)
    };
    let execution = calling(&store, &instance, &[(1, terms)]).await.execution;
    assert_eq!(store.claim(&instance, execution, 1).await.unwrap(), Claim::Closed);
    assert_closed(&store, &instance, execution, ClaimVerdict::NotStarted).await;
}

pub(crate) async fn a_claimed_call_times_out(store: Fresh) {
    let instance = instance("a");
    let execution = calling(&store, &instance, &[(1, timeout(ms(200)))]).await.execution;
    again(&store, &instance, execution, 1).await;
    let before = store.now().await.unwrap();
    store.claim(&instance, execution, 1).await.unwrap();
    assert!(again(&store, &instance, execution, 1).await >= before + ms(200));
    assert_eq!(verdict(&store, &instance, execution, 1).await, ClaimVerdict::TimedOut);
    assert!(store.now().await.unwrap() >= before + ms(200), "not a moment too early");
    assert_closed(&store, &instance, execution, ClaimVerdict::TimedOut).await;
}

pub(crate) async fn a_claim_taken_again_starts_its_time_anew(store: Fresh) {
    let instance = instance("a");
    let execution = calling(&store, &instance, &[(1, timeout(KEEP))]).await.execution;
    store.claim(&instance, execution, 1).await.unwrap();
    let first = again(&store, &instance, execution, 1).await;
    let (store, instance) = (&store, &instance);
    eventually(|| async move {
        store.claim(instance, execution, 1).await.unwrap();
        (again(store, instance, execution, 1).await > first).then_some(())
    })
    .await;
}

pub(crate) async fn a_heartbeat_holds_off_its_deadline(store: Fresh) {
    let instance = instance("a");
    let terms = ClaimTerms {
        heartbeat: Some(ms(400)),
        ..timeout(KEEP)
    };
    let execution = calling(&store, &instance, &[(1, terms)]).await.execution;
    store.claim(&instance, execution, 1).await.unwrap();
    let claimed = again(&store, &instance, execution, 1).await;
    let (store, instance) = (&store, &instance);
    let renewed = eventually(|| async move {
        assert!(store.progress(instance, execution, 1, true, None).await.unwrap());
        let at = again(store, instance, execution, 1).await;
        (at > claimed).then_some(at)
    })
    .await;
    assert_eq!(
        verdict(store, instance, execution, 1).await,
        ClaimVerdict::HeartbeatMissed
    );
    assert!(store.now().await.unwrap() >= renewed, "not a moment too early");
    assert_closed(store, instance, execution, ClaimVerdict::HeartbeatMissed).await;
}

pub(crate) async fn a_commit_closes_claims_and_forgets_their_progress(store: Fresh) {
    let instance = instance("a");
    let terms = [(1, timeout(KEEP)), (12, timeout(KEEP))];
    let before = calling(&store, &instance, &terms).await;
    let execution = before.execution;
    for sequence in [1, 12, 20] {
        store.claim(&instance, execution, sequence).await.unwrap();
        let details = Some(Bytes::from_static(b"{}"));
        assert!(
            store
                .progress(&instance, execution, sequence, sequence != 20, details)
                .await
                .unwrap()
        );
    }
    let commit = Commit {
        claims_closed: vec![1, 20],
        ..turn(&instance, before.guard())
    };
    apply(&store, &commit).await;
    // Its body has not heard of it yet.
    let late = Some(Bytes::from_static(b"{}"));
    assert!(!store.progress(&instance, execution, 1, true, late).await.unwrap());
    let left = store.progress_of(&instance, 10).await.unwrap();
    assert_eq!(left.iter().map(|of| of.sequence).collect::<Vec<_>>(), [12]);
    assert_eq!(store.claim(&instance, execution, 1).await.unwrap(), Claim::Closed);
    assert_eq!(
        store.settle_claim(&instance, execution, 1).await.unwrap(),
        ClaimVerdict::Closed
    );
    assert_eq!(store.claim(&instance, execution, 12).await.unwrap(), Claim::Granted);
}

pub(crate) async fn progress_is_kept_for_calls_without_limits_too(store: Fresh) {
    let (here, absent) = (instance("a"), instance("b"));
    let execution = running(&store, &here).await.execution;
    for (sequence, details) in [(10, "10"), (9, "9"), (100, "old"), (100, "100")] {
        let details = Some(Bytes::copy_from_slice(details.as_bytes()));
        for _ in 0..2 {
            assert!(
                store
                    .progress(&here, execution, sequence, false, details.clone())
                    .await
                    .unwrap()
            );
        }
    }
    // A sign of life without details leaves the details.
    assert!(store.progress(&here, execution, 9, false, None).await.unwrap());
    let all = store.progress_of(&here, 10).await.unwrap();
    let shown = |of: &Progress| (of.sequence, of.details.clone().unwrap(), of.claimed_at, of.at.is_some());
    let expected = [9u64, 10, 100].map(|sequence| (sequence, Bytes::from(sequence.to_string()), None, true));
    assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(store.progress_of(&here, 2).await.unwrap(), all[..2]);

    assert!(
        !store
            .progress(&here, ExecutionId::generate(), 9, false, None)
            .await
            .unwrap()
    );
    assert!(!store.progress(&absent, execution, 9, false, None).await.unwrap());
    assert_eq!(store.progress_of(&absent, 10).await.unwrap(), []);
    end(&store, &here).await;
    assert!(!store.progress(&here, execution, 9, false, None).await.unwrap());
    assert_eq!(store.progress_of(&here, 10).await.unwrap(), []);
}
