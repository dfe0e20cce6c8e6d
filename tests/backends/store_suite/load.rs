//! Reading turns and inboxes.

use bytes::Bytes;
use leveret::backend::{Commit, Loaded};
use leveret::{ExecutionId, Payload};

use super::fixture::*;

pub(crate) async fn a_load_pages_through_the_turns(store: Fresh) {
    let instance = instance("a");
    let mut now = running(&store, &instance).await;
    let mut all = store.load(&instance, 0, 0).await.unwrap().unwrap().turns;
    let many = Loaded::TURNS + 5;
    while all.len() < many {
        let commit = turn(&instance, now.guard());
        all.push(commit.turn.clone());
        // The next guard is known without reading: it keeps a slow store's test short.
        store.commit(&commit).await.unwrap();
        (now.version, now.commit) = (now.version + 1, Some(commit.id));
    }
    let loaded = store.load(&instance, 0, 0).await.unwrap().unwrap();
    assert_eq!(loaded.record.version as usize, many);
    assert_eq!(loaded.turns, all[..Loaded::TURNS]);
    let rest = store.load(&instance, Loaded::TURNS as u64, 0).await.unwrap().unwrap();
    assert_eq!(rest.turns, all[Loaded::TURNS..]);
    for after in [many as u64, many as u64 + 1, u64::MAX] {
        assert!(store.load(&instance, after, 0).await.unwrap().unwrap().turns.is_empty());
    }

    let execution = now.execution;
    assert_eq!(store.turns(&instance, execution, 0, usize::MAX).await.unwrap(), all);
    assert_eq!(store.turns(&instance, execution, 10, 3).await.unwrap(), all[10..13]);
    assert_eq!(
        store.turns(&instance, execution, many as u64 - 1, 3).await.unwrap(),
        all[many - 1..]
    );
    assert!(
        store
            .turns(&instance, execution, many as u64, 3)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.turns(&instance, execution, 0, 0).await.unwrap().is_empty());
}

pub(crate) async fn turns_of_another_execution_are_not_there(store: Fresh) {
    let instance = instance("a");
    let before = running(&store, &instance).await;
    assert!(
        store
            .turns(&instance, ExecutionId::generate(), 0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let next = Commit {
        next_execution: Some(before.execution.next()),
        ..turn(&instance, before.guard())
    };
    apply(&store, &next).await;
    assert!(
        store
            .turns(&instance, before.execution, 0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.turns(&instance, next.execution(), 0, 10).await.unwrap(),
        [next.turn]
    );

    let absent = super::fixture::instance("b");
    assert!(store.load(&absent, 0, 10).await.unwrap().is_none());
    assert!(store.turns(&absent, before.execution, 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_load_takes_as_much_of_the_inbox_as_asked(store: Fresh) {
    let instance = instance("a");
    pending(&store, &instance).await;
    for text in ["1", "2", "3"] {
        park(&store, &instance, text).await;
    }
    for (asked, expected) in [
        (0, vec![]),
        (2, vec!["1", "2"]),
        (3, vec!["1", "2", "3"]),
        (9, vec!["1", "2", "3"]),
    ] {
        assert_eq!(store.load(&instance, 0, asked).await.unwrap().unwrap().inbox, expected);
    }
}

pub(crate) async fn bytes_of_any_value_and_size_come_back(store: Fresh) {
    let instance = instance("a");
    let create = leveret::backend::Create {
        input: Payload::encode(&"x".repeat(1 << 20)).unwrap(),
        ..request(&instance)
    };
    store.create(&create).await.unwrap();
    let every: Vec<u8> = (0..=255u8).cycle().take(1 << 20).collect();
    let delivered = leveret::backend::Deliver {
        item: Bytes::from(every.clone()),
        ..item(&instance, "")
    };
    store.deliver(&delivered).await.unwrap();
    let commit = Commit {
        turn: Bytes::from(every.clone()),
        ..turn(&instance, record(&store, &instance).await.guard())
    };
    apply(&store, &commit).await;
    let loaded = store.load(&instance, 0, 10).await.unwrap().unwrap();
    assert!(loaded.record.input == Some(create.input), "the input");
    assert!(loaded.turns == [every.clone()], "the turn");
    assert!(loaded.inbox == [every], "the item");
}
