//! What audits read: all of it, page by page.

use std::collections::BTreeSet;

use bytes::Bytes;
use leveret::backend::{Deliver, DueEntry, DueKey, DueKind, Stray, When};
use leveret::{InstanceId, InstanceRef};

use super::fixture::*;

pub(crate) async fn a_walk_through_the_due_set_shows_every_entry(store: Fresh) {
    let app = app("orders");
    let now = store.now().await.unwrap();
    let entry = |number: usize| DueEntry {
        key: DueKey {
            kind: DueKind::ALL[number % DueKind::ALL.len()],
            subject: Bytes::from(format!("{number}\0\u{ff}")),
        },
        due: now + KEEP,
        payload: Bytes::from(number.to_string()),
    };
    let entries: Vec<DueEntry> = (0..400).map(entry).collect();
    store.schedule(&app, &entries, When::Set).await.unwrap();
    let walk = async |most| {
        let (mut found, mut after, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let page = store.due_page(&app, after.as_deref(), most).await.unwrap();
            found.extend(page.entries);
            pages += 1;
            assert!(pages < 5000, "the walk does not end");
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    for most in [1, 7, 1000] {
        let mut found = walk(most).await;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        // Twice is allowed, left out is not.
        found.dedup();
        let mut expected = entries.clone();
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found, expected);
    }
    let nobody = super::fixture::app("nobody");
    let empty = store.due_page(&nobody, None, 10).await.unwrap();
    assert!(empty.entries.is_empty());
    assert!(
        store
            .due_page(&app, Some("no token"), 10)
            .await
            .is_err_and(|error| error.is_permanent())
    );
}

pub(crate) async fn an_inbox_is_looked_at_bit_by_bit(store: Fresh) {
    let early = instance("to come");
    let mut items = Vec::new();
    for n in 0..7 {
        let one = item(&early, &format!("early {n}"));
        items.push(one.item.clone());
        let early = Deliver {
            keep_absent: Some(KEEP),
            ..one
        };
        store.deliver(&early).await.unwrap();
    }
    for most in [1, 3, 7, 100] {
        let mut found = Vec::new();
        loop {
            let page = store.inbox(&early, found.len(), most).await.unwrap();
            assert!(page.len() <= most);
            found.extend(page.iter().cloned());
            if page.len() < most {
                break;
            }
        }
        assert_eq!(found, items);
    }
    assert!(store.inbox(&early, 8, 2).await.unwrap().is_empty());
    assert!(store.inbox(&early, 0, 0).await.unwrap().is_empty());
    assert!(store.inbox(&instance("nobody"), 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_survey_shows_every_active_instance_and_what_has_no_record(store: Fresh) {
    let names = ["a", "a}b", "{x}", "50%", "meta", "due/0", "\u{e9}"];
    for name in names {
        running(&store, &instance(name)).await;
    }
    let elsewhere = InstanceRef::new(app("shipping"), InstanceId::new("a").unwrap());
    pending(&store, &elsewhere).await;
    let ended = instance("ended");
    running(&store, &ended).await;
    end(&store, &ended).await;
    // An event waits for one that may come: nothing is wrong with that.
    let early = Deliver {
        keep_absent: Some(KEEP),
        ..item(&instance("to come"), "early")
    };
    store.deliver(&early).await.unwrap();
    park(&store, &instance("a"), "unread").await;
    // Somebody dies in the middle of a purge.
    let ghost = instance("ghost");
    store.adopt_app(&ghost.app, 2).await.unwrap();
    let noted = running(&store, &ghost).await;
    store.index(&ghost, &noted).await.unwrap();
    let over = end(&store, &ghost).await;
    store.delete(&ghost, over.execution, KEEP).await.unwrap();
    let (mut active, mut indexed, mut after, mut pages) = (BTreeSet::new(), BTreeSet::new(), None::<String>, 0);
    loop {
        let page = store.survey(after.as_deref(), 2).await.unwrap();
        for (instance, found) in page.active {
            let small = leveret::backend::Record {
                input: None,
                outcome: None,
                ..record(&store, &instance).await
            };
            assert_eq!(found, small);
            active.insert(instance);
        }
        assert!(page.strays.is_empty(), "{:?}", page.strays);
        assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
        indexed.extend(page.indexed);
        pages += 1;
        assert!(pages < 100_000, "the walk does not end");
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut expected: BTreeSet<_> = names.map(instance).into();
    expected.insert(elsewhere);
    assert_eq!(active, expected);
    assert_eq!(indexed, BTreeSet::from([ghost]));
    assert!(
        store
            .survey(Some("no token"), 10)
            .await
            .is_err_and(|error| error.is_permanent())
    );
    // What belongs to a record is no stray, whatever is asked.
    let stray = Stray {
        instance: instance("a"),
        part: "inbox".into(),
    };
    assert!(!store.stray(&stray, true).await.unwrap());
    assert_eq!(inbox(&store, &instance("a")).await, ["unread"]);
}
