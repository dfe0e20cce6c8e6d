//! Creating, replacing and refusing instances.

use leveret::backend::{Commit, ConflictPolicy, Create, Created, Mark, Origin};
use leveret::wire::{ParentLink, TaskRef};
use leveret::{AppId, ExecutionId, InstanceId, InstanceRef, MessageId, Status, Timestamp};

use super::fixture::*;

pub(crate) async fn a_created_instance_is_pending_and_marked(store: Fresh) {
    let instance = instance("a");
    let mut create = request(&instance);
    create.origin = Origin {
        parent: Some(ParentLink {
            task: TaskRef {
                instance: InstanceRef::new(app("shop"), InstanceId::new("parent").unwrap()),
                execution: ExecutionId::generate(),
                sequence: 7,
            },
            lane: 2,
            detached: false,
            retried: true,
        }),
        start_at: Some(Timestamp::from_millis(1_790_000_900_000)),
        tags: [("tier".to_owned(), "gold".to_owned())].into(),
        ..create.origin
    };
    let before = store.now().await.unwrap();
    assert!(matches!(store.create(&create).await.unwrap(), Created::Created(_)));
    let record = record(&store, &instance).await;
    assert_eq!((record.execution, record.run), (create.execution, create.run));
    assert_eq!((record.version, record.commit), (0, None));
    assert_eq!((record.status, record.lane), (Status::Pending, None));
    assert_eq!(record.origin, create.origin);
    assert_eq!(record.input, Some(create.input));
    assert_eq!(record.view, Default::default());
    assert_eq!((&record.outcome, record.ended_at), (&None, None));
    assert!(record.updated_at >= before);
    assert_eq!(record.marks, [Mark::Start]);
}

pub(crate) async fn a_request_creates_once(store: Fresh) {
    let instance = instance("a");
    let create = request(&instance);
    let repeated = Created::Repeated {
        execution: create.execution,
        run: create.run,
    };
    assert!(matches!(store.create(&create).await.unwrap(), Created::Created(_)));
    assert_eq!(store.create(&create).await.unwrap(), repeated);
    // The client that repeats may have lost what it generated: the request alone counts.
    let again = Create {
        execution: ExecutionId::generate(),
        ..create.clone()
    };
    assert_eq!(store.create(&again).await.unwrap(), repeated);
    end(&store, &instance).await;
    assert_eq!(store.create(&create).await.unwrap(), repeated);
    assert_eq!(record(&store, &instance).await.status, Status::Completed);
}

pub(crate) async fn a_taken_id_is_refused_with_its_record(store: Fresh) {
    let instance = instance("a");
    let occupant = running(&store, &instance).await;
    for policy in [ConflictPolicy::Reject, ConflictPolicy::RejectActive] {
        let create = Create {
            policy,
            ..request(&instance)
        };
        for _ in 0..2 {
            assert_eq!(
                store.create(&create).await.unwrap(),
                Created::Exists(Box::new(occupant.clone()))
            );
        }
    }
    assert_eq!(record(&store, &instance).await, occupant);
}

pub(crate) async fn a_finished_instance_is_replaced_if_the_policy_allows(store: Fresh) {
    let instance = instance("a");
    let first = request(&instance);
    store.create(&first).await.unwrap();
    let over = end(&store, &instance).await;

    let reject = Create {
        policy: ConflictPolicy::Reject,
        ..request(&instance)
    };
    assert_eq!(
        store.create(&reject).await.unwrap(),
        Created::Exists(Box::new(over.clone()))
    );
    assert_eq!(store.past_outcome(&instance, over.run).await.unwrap(), None);

    let second = request(&instance);
    assert!(matches!(store.create(&second).await.unwrap(), Created::Created(_)));
    let now = record(&store, &instance).await;
    assert_eq!((now.run, now.status, now.version), (second.run, Status::Pending, 0));
    assert_eq!(store.past_outcome(&instance, over.run).await.unwrap(), over.outcome);
    assert_eq!(store.past_outcome(&instance, second.run).await.unwrap(), None);

    // Both requests are remembered, each with what it created.
    for create in [&first, &second, &second] {
        let repeated = Created::Repeated {
            execution: create.execution,
            run: create.run,
        };
        assert_eq!(store.create(create).await.unwrap(), repeated);
    }
    assert_eq!(record(&store, &instance).await, now);
}

pub(crate) async fn a_marked_instance_is_not_replaced(store: Fresh) {
    let instance = instance("a");
    let before = running(&store, &instance).await;
    let last = Commit {
        status: Status::Failed,
        outcome: Some(outcome()),
        marks: vec![Mark::Turn(2)],
        ..turn(&instance, before.guard())
    };
    let (over, _) = apply(&store, &last).await;
    let create = request(&instance);
    assert_eq!(
        store.create(&create).await.unwrap(),
        Created::Exists(Box::new(over.clone()))
    );
    assert_eq!(
        store
            .clear_mark(&instance, over.execution, Mark::Turn(2))
            .await
            .unwrap(),
        Some(0)
    );
    assert!(matches!(store.create(&create).await.unwrap(), Created::Created(_)));
}

pub(crate) async fn what_a_replaced_run_left_behind_is_gone(store: Fresh) {
    let instance = instance("a");
    running(&store, &instance).await;
    park(&store, &instance, "unread").await;
    end(&store, &instance).await;
    pending(&store, &instance).await;
    let loaded = store.load(&instance, 0, 10).await.unwrap().expect("a record");
    assert!(loaded.turns.is_empty() && loaded.inbox.is_empty(), "{loaded:?}");
    assert_eq!(loaded.record.ended_at, None);
    assert_eq!(loaded.record.outcome, None);
}

pub(crate) async fn a_refused_request_never_creates(store: Fresh) {
    let instance = instance("a");
    let refused = request(&instance);
    for _ in 0..2 {
        let answer = store.refuse(&instance, &refused.origin.request, KEEP).await.unwrap();
        assert!(answer);
        assert_eq!(store.create(&refused).await.unwrap(), Created::Refused);
    }
    assert_eq!(store.record(&instance).await.unwrap(), None);

    let quicker = request(&instance);
    store.create(&quicker).await.unwrap();
    for _ in 0..2 {
        assert!(!store.refuse(&instance, &quicker.origin.request, KEEP).await.unwrap());
    }
    assert_eq!(store.create(&refused).await.unwrap(), Created::Refused);
}

pub(crate) async fn a_refusal_lapses(store: Fresh) {
    let instance = instance("a");
    let refused = request(&instance);
    assert!(store.refuse(&instance, &refused.origin.request, ms(100)).await.unwrap());
    let (store, refused) = (&store, &refused);
    eventually(|| async move { matches!(store.create(refused).await.unwrap(), Created::Created(_)).then_some(()) })
        .await;
}

pub(crate) async fn of_many_creates_at_once_one_wins(store: Fresh) {
    let instance = instance("a");
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, create) = (store.clone(), request(&instance));
        racers.spawn(async move { (store.create(&create).await.unwrap(), create.run) });
    }
    let answers = racers.join_all().await;
    let winners: Vec<_> = answers
        .iter()
        .filter(|(answer, _)| matches!(answer, Created::Created(_)))
        .collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert_eq!(record(&store, &instance).await.run, winners[0].1);
    let exists = answers
        .iter()
        .filter(|(answer, _)| matches!(answer, Created::Exists(_)));
    assert_eq!(exists.count(), 15);
}

/// IDs that a store which joins names into keys might confuse.
pub(crate) const ODD_IDS: [&str; 16] = [
    "a",
    "A",
    "a:b",
    "a/b",
    "a b",
    " a ",
    "{a}",
    "a}",
    "}:meta",
    "a}:inbox",
    "a%7D",
    "%",
    "due/0",
    "ünïcödé–名前",
    "a\"'\\*?[x]",
    "🐇",
];

pub(crate) async fn instances_are_told_apart_whatever_their_ids(store: Fresh) {
    let apps: [AppId; 2] = [app("orders"), app("orders-2")];
    let mut expected = Vec::new();
    for app in &apps {
        for id in ODD_IDS {
            let instance = InstanceRef::new(app.clone(), InstanceId::new(id).unwrap());
            let create = Create {
                input: payload(&instance.to_string()),
                ..request(&instance)
            };
            assert!(
                matches!(store.create(&create).await.unwrap(), Created::Created(_)),
                "{instance}"
            );
            park(&store, &instance, &format!("item for {instance}")).await;
            let odd = MessageId::new(format!("request {id}")).unwrap();
            assert!(store.refuse(&instance, &odd, KEEP).await.unwrap(), "{instance}");
            expected.push((instance, create));
        }
    }
    for (instance, create) in expected {
        let loaded = store.load(&instance, 0, 10).await.unwrap().expect("a record");
        assert_eq!(loaded.record.input, Some(create.input), "{instance}");
        assert_eq!(loaded.inbox, [format!("item for {instance}")], "{instance}");
    }
}
