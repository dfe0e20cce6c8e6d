//! The index of instances.

use leveret::backend::{Commit, Create, IndexFilter};
use leveret::{InstanceId, InstanceRef, Status, Timestamp};

use super::fixture::*;

/// A new instance in the index, created at this time.
async fn indexed(store: &Fresh, id: &str, created_at: u64) -> InstanceRef {
    let instance = instance(id);
    let mut create: Create = request(&instance);
    create.origin.created_at = Timestamp::from_millis(created_at);
    store.create(&create).await.unwrap();
    note(store, &instance).await;
    instance
}

/// Tells the index, twice, what the record says.
async fn note(store: &Fresh, instance: &InstanceRef) {
    let now = record(store, instance).await;
    for _ in 0..2 {
        store.index(instance, &now).await.unwrap();
    }
}

async fn commit_status(store: &Fresh, instance: &InstanceRef, status: Status) {
    let now = record(store, instance).await;
    let commit = Commit {
        status,
        outcome: status.is_terminal().then(outcome),
        cleared: now.marks.clone(),
        ..turn(instance, now.guard())
    };
    apply(store, &commit).await;
}

/// Pages to the end, and returns the IDs.
async fn page_through(store: &Fresh, filter: &IndexFilter, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    // More pages than instances would be a list that does not end.
    for _ in 0..1000 {
        let page = store.list(filter, after.as_deref(), most).await.unwrap();
        assert!(page.instances.len() <= most);
        found.extend(page.instances.into_iter().map(|(instance, _)| instance.id.to_string()));
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
    panic!("the list does not end: {found:?}");
}

pub(crate) async fn a_list_is_ordered_by_creation_and_ends(store: Fresh) {
    assert!(page_through(&store, &everything(), 10).await.is_empty());
    for (id, created_at) in [("c", 2), ("b", 3), ("a", 3), ("d", 1), ("Z", 3)] {
        indexed(&store, id, created_at).await;
    }
    // The same ID in another app is another instance.
    let elsewhere = InstanceRef::new(app("shipping"), InstanceId::new("d").unwrap());
    store.create(&request(&elsewhere)).await.unwrap();
    note(&store, &elsewhere).await;

    for most in 1..=6 {
        assert_eq!(
            page_through(&store, &everything(), most).await,
            ["d", "c", "Z", "a", "b"]
        );
    }
    let page = store.list(&everything(), None, 10).await.unwrap();
    for (instance, found) in page.instances {
        assert_eq!(found, record(&store, &instance).await);
    }

    for _ in 0..2 {
        store.unindex(&instance("c")).await.unwrap();
    }
    assert_eq!(page_through(&store, &everything(), 2).await, ["d", "Z", "a", "b"]);
}

pub(crate) async fn paging_neither_skips_nor_repeats_within_one_millisecond(store: Fresh) {
    let mut ids: Vec<String> = super::ODD_IDS.iter().map(|id| id.to_string()).collect();
    ids.extend((0..40).map(|n| format!("child:{n:04x}")));
    ids.push("x".repeat(1024));
    for id in &ids {
        indexed(&store, id, 1_790_000_000_000).await;
    }
    ids.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for most in [1, 3, 7, 100] {
        assert_eq!(page_through(&store, &everything(), most).await, ids, "pages of {most}");
    }
}

pub(crate) async fn paging_goes_on_when_the_last_one_seen_is_gone(store: Fresh) {
    for id in ["a", "b", "c", "d", "e"] {
        indexed(&store, id, 7).await;
    }
    let first = store.list(&everything(), None, 2).await.unwrap();
    let ids: Vec<_> = first
        .instances
        .iter()
        .map(|(instance, _)| instance.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let gone = instance("b");
    let over = end(&store, &gone).await;
    store.delete(&gone, over.execution, KEEP).await.unwrap();
    store.unindex(&gone).await.unwrap();
    let token = first.next.expect("more pages");
    for _ in 0..2 {
        let rest = store.list(&everything(), Some(&token), 10).await.unwrap();
        let ids: Vec<_> = rest
            .instances
            .iter()
            .map(|(instance, _)| instance.id.as_str())
            .collect();
        assert_eq!(ids, ["c", "d", "e"]);
    }
}

/// The network may hold a note up, and its writer may die before it looks again.
pub(crate) async fn a_note_that_comes_after_its_instance_is_gone_does_not_stay(store: Fresh) {
    let gone = indexed(&store, "a", 7).await;
    indexed(&store, "b", 7).await;
    let late = record(&store, &gone).await;
    let over = end(&store, &gone).await;
    store.delete(&gone, over.execution, KEEP).await.unwrap();
    store.unindex(&gone).await.unwrap();
    store.index(&gone, &late).await.unwrap();

    assert_eq!(page_through(&store, &everything(), 10).await, ["b"]);
    assert!(stale(&store).await.is_empty(), "a list leaves no such note behind");

    // Where the ID is in use again, the list that looks is not mistaken in the one that is there.
    store.index(&gone, &late).await.unwrap();
    // Notes are told apart by the times of their records, in whole milliseconds: the two must not be of one.
    passes(&store, late.updated_at).await;
    indexed(&store, "a", 8).await;
    store.index(&gone, &late).await.unwrap();
    for _ in 0..2 {
        assert_eq!(page_through(&store, &everything(), 10).await, ["b", "a"]);
    }
    assert!(stale(&store).await.is_empty());
}

/// What the index has without a record.
async fn stale(store: &Fresh) -> Vec<InstanceRef> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.survey(after.as_deref(), 100).await.unwrap();
        found.extend(page.indexed);
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

pub(crate) async fn a_list_is_filtered_by_status_and_time(store: Fresh) {
    for (n, status) in Status::ALL.into_iter().enumerate() {
        let instance = indexed(&store, status.as_str(), 100 + n as u64).await;
        if status != Status::Pending {
            commit_status(&store, &instance, status).await;
            note(&store, &instance).await;
        }
    }
    let filters: [&[Status]; 8] = [
        &[Status::Pending],
        &[Status::Running],
        &[Status::Suspended],
        &[Status::Stalled, Status::Failed],
        &[Status::Failed, Status::Terminated, Status::Suspended],
        &[Status::Pending, Status::Running, Status::Stalled],
        &[Status::Completed],
        &[Status::Completed, Status::Pending],
    ];
    for statuses in filters {
        let filter = IndexFilter {
            statuses: statuses.to_vec(),
            ..everything()
        };
        // "May return more than match": what is returned beside the matches is not looked at.
        let expected: Vec<&str> = Status::ALL
            .iter()
            .filter(|status| statuses.contains(status))
            .map(|status| status.as_str())
            .collect();
        for most in [1, 10] {
            let mut found = page_through(&store, &filter, most).await;
            found.retain(|id| statuses.iter().any(|status| status.as_str() == id));
            assert_eq!(found, expected, "{statuses:?}");
        }
    }
    let filter = IndexFilter {
        created_from: Some(Timestamp::from_millis(102)),
        created_before: Some(Timestamp::from_millis(105)),
        ..everything()
    };
    for most in [1, 2, 10] {
        assert_eq!(
            page_through(&store, &filter, most).await,
            ["Suspended", "Stalled", "Completed"]
        );
    }
}

pub(crate) async fn the_record_counts_and_not_the_note(store: Fresh) {
    let instance = indexed(&store, "a", 1).await;
    indexed(&store, "b", 2).await;
    // Ended since the index was told: the record that is returned says so.
    let over = end(&store, &instance).await;
    let page = store.list(&everything(), None, 10).await.unwrap();
    assert_eq!(page.instances[0], (instance.clone(), over.clone()));
    // Deleted since.
    store.delete(&instance, over.execution, KEEP).await.unwrap();
    assert_eq!(page_through(&store, &everything(), 1).await, ["b"]);
}

pub(crate) async fn an_older_note_does_not_undo_a_newer_one(store: Fresh) {
    let instance = indexed(&store, "a", 1).await;
    let older = record(&store, &instance).await;
    commit_status(&store, &instance, Status::Failed).await;
    note(&store, &instance).await;
    store.index(&instance, &older).await.unwrap();
    assert_eq!(listed(&store, Status::Failed).await, ["a"]);

    let back = indexed(&store, "b", 2).await;
    commit_status(&store, &back, Status::Suspended).await;
    let suspended = record(&store, &back).await;
    commit_status(&store, &back, Status::Running).await;
    note(&store, &back).await;
    store.index(&back, &suspended).await.unwrap();
    assert_eq!(listed(&store, Status::Running).await, ["b"]);
}

pub(crate) async fn a_note_of_an_instance_that_had_the_id_before_changes_nothing(store: Fresh) {
    // When an instance was created is what its starter's clock says.
    for (id, created, is_end_first) in [
        ("a", [7, 8], false),
        ("b", [8, 7], false),
        ("c", [7, 8], true),
        ("d", [8, 7], true),
    ] {
        let before = indexed(&store, id, created[0]).await;
        let first = record(&store, &before).await;
        let over = end(&store, &before).await;
        store.delete(&before, over.execution, KEEP).await.unwrap();
        store.unindex(&before).await.unwrap();
        passes(&store, over.updated_at).await;
        let now = indexed(&store, id, created[1]).await;
        let mut late = [first, over];
        late.rotate_left(usize::from(is_end_first));
        for late in late {
            store.index(&now, &late).await.unwrap();
            assert!(listed(&store, Status::Pending).await.contains(&id.to_owned()));
            assert!(stale(&store).await.is_empty());
        }
    }
}

pub(crate) async fn an_instance_that_replaces_one_of_a_later_time_is_listed(store: Fresh) {
    let before = indexed(&store, "a", 8).await;
    let first = record(&store, &before).await;
    let over = end(&store, &before).await;
    let now = indexed(&store, "a", 7).await;
    for late in [first, over] {
        assert_eq!(listed(&store, Status::Pending).await, ["a"]);
        store.index(&now, &late).await.unwrap();
    }
    assert_eq!(listed(&store, Status::Pending).await, ["a"]);
    commit_status(&store, &now, Status::Failed).await;
    note(&store, &now).await;
    assert_eq!(listed(&store, Status::Failed).await, ["a"]);
}

/// As after a stall.
pub(crate) async fn one_that_goes_on_is_listed_whether_that_is_noted_or_not(store: Fresh) {
    let instance = indexed(&store, "a", 1).await;
    commit_status(&store, &instance, Status::Stalled).await;
    note(&store, &instance).await;
    commit_status(&store, &instance, Status::Running).await;
    assert_eq!(listed(&store, Status::Running).await, ["a"]);
}

/// Those that are listed as having a status.
async fn listed(store: &Fresh, status: Status) -> Vec<String> {
    let filter = IndexFilter {
        statuses: vec![status],
        ..everything()
    };
    page_through(store, &filter, 10).await
}

pub(crate) async fn a_page_token_of_somebody_else_is_refused(store: Fresh) {
    indexed(&store, "a", 1).await;
    for token in ["", "x", "-", "é"] {
        let error = store.list(&everything(), Some(token), 10).await.expect_err(token);
        assert!(error.is_permanent(), "{token}: {error}");
    }
}
