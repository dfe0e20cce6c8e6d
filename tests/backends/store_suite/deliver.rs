//! The inbox.

use leveret::Status;
use leveret::backend::{Commit, Committed, Deliver, Delivered};

use super::fixture::*;

pub(crate) async fn where_an_item_goes_depends_on_the_status(store: Fresh) {
    let instance = instance("a");
    assert_eq!(store.deliver(&item(&instance, "0")).await.unwrap(), Delivered::Absent);

    let mut now = pending(&store, &instance).await;
    let kept = |status| Delivered::Kept { status: Some(status) };
    assert_eq!(
        store.deliver(&item(&instance, "1")).await.unwrap(),
        kept(Status::Pending)
    );
    for status in [Status::Running, Status::Suspended, Status::Stalled] {
        let commit = Commit {
            status,
            ..turn(&instance, now.guard())
        };
        now = apply(&store, &commit).await.0;
        let expected = match status {
            Status::Running => Delivered::ToLane(3),
            _ => kept(status),
        };
        assert_eq!(
            store.deliver(&item(&instance, status.as_str())).await.unwrap(),
            expected
        );
        let parked = Deliver {
            park: true,
            ..item(&instance, &format!("parked while {status}"))
        };
        assert_eq!(store.deliver(&parked).await.unwrap(), kept(status));
    }
    let expected = [
        "1",
        "parked while Running",
        "Suspended",
        "parked while Suspended",
        "Stalled",
        "parked while Stalled",
    ];
    assert_eq!(inbox(&store, &instance).await, expected);

    end(&store, &instance).await;
    for park in [false, true] {
        let late = Deliver {
            park,
            keep_absent: Some(KEEP),
            ..item(&instance, "late")
        };
        assert_eq!(store.deliver(&late).await.unwrap(), Delivered::Over(Status::Completed));
    }
}

pub(crate) async fn an_item_delivered_again_waits_once(store: Fresh) {
    let (here, absent) = (instance("a"), instance("b"));
    pending(&store, &here).await;
    for _ in 0..2 {
        for instance in [&here, &absent] {
            let delivered = Deliver {
                bound: Some(1),
                keep_absent: Some(KEEP),
                ..item(instance, "1")
            };
            let answer = store.deliver(&delivered).await.unwrap();
            assert!(
                matches!(answer, Delivered::Kept { .. }),
                "the same answer, and not full: {answer:?}"
            );
        }
    }
    pending(&store, &absent).await;
    for instance in [&here, &absent] {
        assert_eq!(inbox(&store, instance).await, ["1"]);
    }
}

pub(crate) async fn a_bounded_inbox_is_full_for_events_only(store: Fresh) {
    let (here, absent) = (instance("a"), instance("b"));
    pending(&store, &here).await;
    for instance in [&here, &absent] {
        let event = |text: &str| Deliver {
            bound: Some(2),
            keep_absent: Some(KEEP),
            ..item(instance, text)
        };
        for text in ["1", "2"] {
            let answer = store.deliver(&event(text)).await.unwrap();
            assert!(matches!(answer, Delivered::Kept { .. }), "{answer:?}");
        }
        assert_eq!(store.deliver(&event("3")).await.unwrap(), Delivered::Full);
        let completion = Deliver {
            bound: None,
            ..event("4")
        };
        let answer = store.deliver(&completion).await.unwrap();
        assert!(matches!(answer, Delivered::Kept { .. }), "{answer:?}");
    }
    assert_eq!(inbox(&store, &here).await, ["1", "2", "4"]);
}

pub(crate) async fn an_item_for_an_absent_instance_waits_for_it(store: Fresh) {
    let instance = instance("a");
    for (text, keep) in [("1", KEEP), ("2", ms(200))] {
        let early = Deliver {
            keep_absent: Some(keep),
            ..item(&instance, text)
        };
        for _ in 0..2 {
            assert_eq!(store.deliver(&early).await.unwrap(), Delivered::Kept { status: None });
        }
    }
    assert_eq!(store.record(&instance).await.unwrap(), None);
    pending(&store, &instance).await;
    assert_eq!(inbox(&store, &instance).await[0], "1");

    // What has found its instance no longer lapses.
    let second = super::fixture::instance("b");
    let early = Deliver {
        keep_absent: Some(ms(300)),
        ..item(&second, "2")
    };
    store.deliver(&early).await.unwrap();
    pending(&store, &second).await;
    let after = store.now().await.unwrap() + ms(400);
    passes(&store, after).await;
    assert_eq!(inbox(&store, &second).await, ["2"]);
}

pub(crate) async fn an_item_for_an_instance_that_never_comes_lapses(store: Fresh) {
    let instance = instance("a");
    let early = Deliver {
        keep_absent: Some(ms(50)),
        ..item(&instance, "1")
    };
    store.deliver(&early).await.unwrap();
    let after = store.now().await.unwrap() + ms(150);
    passes(&store, after).await;
    pending(&store, &instance).await;
    assert!(inbox(&store, &instance).await.is_empty());
}

pub(crate) async fn a_commit_takes_out_exactly_what_it_read(store: Fresh) {
    let instance = instance("a");
    let created = pending(&store, &instance).await;
    for text in ["1", "2", "3"] {
        park(&store, &instance, text).await;
    }
    let read = store.load(&instance, 0, 10).await.unwrap().unwrap().inbox;
    park(&store, &instance, "4, which came meanwhile").await;
    let commit = Commit {
        inbox_taken: read.len(),
        inbox_kept: vec![read[2].clone(), read[0].clone()],
        ..turn(&instance, created.guard())
    };
    for _ in 0..2 {
        let committed = store.commit(&commit).await.unwrap();
        let Committed::Applied { inbox_left, updated_at } = committed else {
            panic!("{committed:?}");
        };
        assert_eq!(inbox_left, 3, "those that wait on included");
        assert_eq!(updated_at, record(&store, &instance).await.updated_at);
        assert_eq!(inbox(&store, &instance).await, ["3", "1", "4, which came meanwhile"]);
    }
}
