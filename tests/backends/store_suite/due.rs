//! The due-set, and run tokens.

use std::collections::BTreeSet;

use bytes::Bytes;
use leveret::backend::{DueEntry, DueKey, DueKind, DueOutcome, When};
use leveret::{AppId, MessageId, RunToken, Timestamp};

use super::fixture::*;

fn entry(kind: DueKind, subject: &str, due: Timestamp, payload: &str) -> DueEntry {
    DueEntry {
        key: due_key(kind, subject),
        due,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn orders() -> AppId {
    app("orders")
}

const LONG_AGO: Timestamp = Timestamp::from_millis(1000);

async fn far_ahead(store: &Fresh) -> Timestamp {
    store.now().await.unwrap() + KEEP
}

pub(crate) async fn a_due_entry_is_claimed_once_per_lease(store: Fresh) {
    let app = orders();
    let scheduled = [
        entry(DueKind::Timer, "a", LONG_AGO, "payload"),
        entry(DueKind::Check, "a", LONG_AGO, ""),
    ];
    for _ in 0..2 {
        store.schedule(&app, &scheduled, When::Set).await.unwrap();
    }
    let before = store.now().await.unwrap();
    let mut claimed = store.claim_due(&app, 10, ms(300)).await.unwrap();
    claimed.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(claimed.len(), 2);
    assert_eq!(
        (&claimed[0].key, claimed[0].payload.as_ref()),
        (&scheduled[1].key, &b""[..])
    );
    assert_eq!(
        (&claimed[1].key, claimed[1].payload.as_ref()),
        (&scheduled[0].key, &b"payload"[..])
    );
    for entry in &claimed {
        assert!(entry.due >= before + ms(300), "its time is ahead by the lease");
        assert_eq!(store.due_entry(&app, &entry.key).await.unwrap().as_ref(), Some(entry));
    }
    assert!(store.claim_due(&app, 10, ms(300)).await.unwrap().is_empty());

    // Whoever claimed them has died: they come back.
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let store = &store;
        let app = &app;
        let back = eventually(|| async move {
            let back = store.claim_due(app, 10, KEEP).await.unwrap();
            (!back.is_empty()).then_some(back)
        })
        .await;
        assert!(store.now().await.unwrap() >= before + ms(300));
        seen.extend(back.into_iter().map(|entry| entry.key));
    }
    assert!(store.claim_due(&app, 0, KEEP).await.unwrap().is_empty());
}

pub(crate) async fn an_entry_that_is_not_due_is_not_claimed(store: Fresh) {
    let app = orders();
    let soon = store.now().await.unwrap() + ms(150);
    let entries = [
        entry(DueKind::Timer, "soon", soon, ""),
        entry(DueKind::Timer, "later", far_ahead(&store).await, ""),
    ];
    store.schedule(&app, &entries, When::Set).await.unwrap();
    let (store, app) = (&store, &app);
    let claimed = eventually(|| async move {
        let claimed = store.claim_due(app, 10, KEEP).await.unwrap();
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    assert!(store.now().await.unwrap() >= soon, "not a moment too early");
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].key, entries[0].key);
}

pub(crate) async fn setting_replaces_and_sooner_only_brings_forward(store: Fresh) {
    let app = orders();
    let at = |millis: u64| Timestamp::from_millis(9_000_000_000_000 + millis);
    let key = due_key(DueKind::Check, "a");
    let steps = [
        (When::Sooner, 50, "first", (50, "first")),
        (When::Sooner, 60, "later", (50, "first")),
        (When::Sooner, 40, "sooner", (40, "first")),
        (When::Set, 70, "set", (70, "set")),
        (When::Set, 70, "", (70, "")),
        (When::Sooner, 30, "not used", (30, "")),
        (When::Absent, 20, "not used", (30, "")),
        (When::Absent, 80, "not used", (30, "")),
    ];
    for (when, due, payload, (then_due, then_payload)) in steps {
        for _ in 0..2 {
            let given = entry(DueKind::Check, "a", at(due), payload);
            store.schedule(&app, &[given], when).await.unwrap();
            let now = store.due_entry(&app, &key).await.unwrap();
            assert_eq!(
                now,
                Some(entry(DueKind::Check, "a", at(then_due), then_payload)),
                "{when:?} {due}"
            );
        }
    }
    store.schedule(&app, &[], When::Set).await.unwrap();
    let new = entry(DueKind::Lease, "new", at(10), "first");
    store
        .schedule(&app, std::slice::from_ref(&new), When::Absent)
        .await
        .unwrap();
    assert_eq!(store.due_entry(&app, &new.key).await.unwrap(), Some(new));
}

pub(crate) async fn a_settled_entry_is_removed_or_comes_again(store: Fresh) {
    let app = orders();
    let entries = [
        entry(DueKind::Timer, "done", LONG_AGO, "1"),
        entry(DueKind::Timer, "again", LONG_AGO, "2"),
    ];
    store.schedule(&app, &entries, When::Set).await.unwrap();
    let claimed = store.claim_due(&app, 10, KEEP).await.unwrap();
    let later = far_ahead(&store).await;
    let settled: Vec<_> = claimed
        .into_iter()
        .map(|entry| {
            let done = entry.key == entries[0].key;
            (
                entry,
                if done {
                    DueOutcome::Remove
                } else {
                    DueOutcome::Again(later)
                },
            )
        })
        .collect();
    assert_eq!(settled.len(), 2);
    for _ in 0..2 {
        store.settle_due(&app, &settled).await.unwrap();
        assert_eq!(store.due_entry(&app, &entries[0].key).await.unwrap(), None);
        let again = store.due_entry(&app, &entries[1].key).await.unwrap();
        assert_eq!(again, Some(entry(DueKind::Timer, "again", later, "2")));
    }
}

pub(crate) async fn settling_spares_an_entry_that_was_timed_anew(store: Fresh) {
    let app = orders();
    for outcome in [DueOutcome::Remove, DueOutcome::Again(far_ahead(&store).await)] {
        let first = entry(DueKind::Check, "a", LONG_AGO, "1");
        store.schedule(&app, &[first], When::Set).await.unwrap();
        let claimed = store.claim_due(&app, 10, KEEP).await.unwrap().remove(0);
        let anew = entry(DueKind::Check, "a", Timestamp::from_millis(2000), "2");
        store
            .schedule(&app, std::slice::from_ref(&anew), When::Set)
            .await
            .unwrap();
        store.settle_due(&app, &[(claimed, outcome)]).await.unwrap();
        assert_eq!(store.due_entry(&app, &anew.key).await.unwrap(), Some(anew));
    }
}

pub(crate) async fn unscheduled_entries_are_gone(store: Fresh) {
    let app = orders();
    let entries: Vec<_> = (0..10)
        .map(|n| entry(DueKind::Retention, &n.to_string(), LONG_AGO, "payload"))
        .collect();
    store.schedule(&app, &entries, When::Set).await.unwrap();
    let keys: Vec<DueKey> = entries[1..].iter().map(|entry| entry.key.clone()).collect();
    for were_there in [true, false] {
        assert_eq!(store.unschedule(&app, &keys).await.unwrap(), were_there);
        assert_eq!(
            store.due_entries(&app, DueKind::Retention, 100).await.unwrap(),
            entries[..1]
        );
    }
    // The payload went with the entry: one without a payload that takes its name has none.
    let bare = entry(DueKind::Retention, "1", LONG_AGO, "");
    store
        .schedule(&app, std::slice::from_ref(&bare), When::Sooner)
        .await
        .unwrap();
    assert_eq!(store.due_entry(&app, &bare.key).await.unwrap(), Some(bare));
    assert!(store.unschedule(&app, &[]).await.unwrap());
    // Of these, one is not there.
    assert!(!store.unschedule(&app, &keys[..2]).await.unwrap());
}

pub(crate) async fn no_entry_is_claimed_by_two_at_once(store: Fresh) {
    let app = orders();
    let entries: Vec<_> = (0..200)
        .map(|n| entry(DueKind::Timer, &format!("{n}"), LONG_AGO, ""))
        .collect();
    store.schedule(&app, &entries, When::Set).await.unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, app) = (store.clone(), app.clone());
        racers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim_due(&app, 7, KEEP).await.unwrap();
                assert!(claimed.len() <= 7);
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|entry| entry.key));
            }
        });
    }
    let claimed: Vec<DueKey> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 200);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 200);
}

pub(crate) async fn due_entries_can_be_claimed_one_by_one(store: Fresh) {
    let app = orders();
    let entries: Vec<_> = (0..10)
        .map(|n| entry(DueKind::Timer, &format!("{n}"), LONG_AGO, ""))
        .collect();
    store.schedule(&app, &entries, When::Set).await.unwrap();
    for left in (0..10).rev() {
        let claimed = store.claim_due(&app, 1, KEEP).await.unwrap();
        assert_eq!(claimed.len(), 1, "{left} would be left");
    }
    assert!(store.claim_due(&app, 1, KEEP).await.unwrap().is_empty());
}

pub(crate) async fn entries_are_listed_by_kind_in_order_of_time(store: Fresh) {
    let app = orders();
    let mut of_kind = Vec::new();
    for n in 0..20u64 {
        let due = Timestamp::from_millis(5000 - n);
        for kind in DueKind::ALL {
            let entry = entry(kind, &format!("{n}"), due, &format!("payload {n}"));
            store
                .schedule(&app, std::slice::from_ref(&entry), When::Set)
                .await
                .unwrap();
            if kind == DueKind::Parked {
                of_kind.insert(0, entry);
            }
        }
    }
    assert_eq!(store.due_entries(&app, DueKind::Parked, 100).await.unwrap(), of_kind);
    assert_eq!(store.due_entries(&app, DueKind::Parked, 3).await.unwrap(), of_kind[..3]);
    assert!(store.due_entries(&app, DueKind::Parked, 0).await.unwrap().is_empty());
}

pub(crate) async fn apps_have_their_own_due_sets(store: Fresh) {
    // A subject is any bytes; a name is its kind and its subject.
    let subject = Bytes::from_static(b"\0\xff{}:\r\n");
    let named = |kind| DueEntry {
        key: DueKey {
            kind,
            subject: subject.clone(),
        },
        due: LONG_AGO,
        payload: Bytes::from_static(b"\0\xff"),
    };
    store
        .schedule(&app("one"), &[named(DueKind::Check)], When::Set)
        .await
        .unwrap();
    assert!(store.claim_due(&app("two"), 10, KEEP).await.unwrap().is_empty());
    assert_eq!(
        store.due_entry(&app("two"), &named(DueKind::Check).key).await.unwrap(),
        None
    );
    assert_eq!(
        store.due_entry(&app("one"), &named(DueKind::Lease).key).await.unwrap(),
        None
    );
    let found = store.due_entry(&app("one"), &named(DueKind::Check).key).await.unwrap();
    assert_eq!(found, Some(named(DueKind::Check)));
    let claimed = store.claim_due(&app("one"), 10, KEEP).await.unwrap();
    assert_eq!((claimed.len(), &claimed[0].key), (1, &named(DueKind::Check).key));
}

pub(crate) async fn run_tokens_count_until_they_are_taken_away(store: Fresh) {
    let (here, there) = (app("one"), app("two"));
    let item = MessageId::new("a:{b}/%").unwrap();
    for count in 1..=3 {
        assert_eq!(store.runs(&here, &item).await.unwrap(), count - 1);
        let run = RunToken::generate();
        // A repeated note, as after a lost reply, counts nothing.
        for _ in 0..2 {
            assert_eq!(store.begin_run(&here, &item, run).await.unwrap(), count);
        }
    }
    let run = RunToken::generate();
    assert_eq!(store.begin_run(&there, &item, run).await.unwrap(), 1);
    for _ in 0..2 {
        store.end_run(&here, &item).await.unwrap();
    }
    assert_eq!(store.begin_run(&here, &item, run).await.unwrap(), 1);
}
