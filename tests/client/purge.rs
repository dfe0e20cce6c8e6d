use std::time::Duration;

use leveret::backend::{Backend, ConflictPolicy, Create, Created, DueKind, Mark, Origin};
use leveret::client::{ChildInfo, Error, Filter};
use leveret::replay::history::{HistoryEvent, TimeLimits};
use leveret::wire::{ParentLink, TaskRef};
use leveret::{Client, ExecutionId, InstanceRef, MessageId, Payload, RunId, Status};

use crate::fixture::*;

/// Has the parent call a child, and creates it as the parent's worker does.
async fn call_child(backend: &Backend, parent: &InstanceRef, sequence: u64, child: &InstanceRef, is_detached: bool) {
    let call = HistoryEvent::ChildScheduled {
        sequence,
        instance: child.clone(),
        workflow: "ship".into(),
        input: Payload::null(),
        attempt: 1,
        limits: TimeLimits::default(),
        retried: false,
        detached: is_detached,
    };
    let record = play(backend, parent, Played::running(vec![call])).await;
    let link = ParentLink {
        task: TaskRef {
            instance: parent.clone(),
            execution: record.execution,
            sequence,
        },
        lane: 0,
        detached: is_detached,
        retried: false,
    };
    let create = Create {
        instance: child.clone(),
        execution: ExecutionId::generate(),
        run: RunId::generate(),
        origin: Origin {
            workflow: "ship".into(),
            parent: Some(link),
            created_at: backend.store().now().await.unwrap(),
            start_at: None,
            tags: Default::default(),
            request: MessageId::generate(),
        },
        input: Payload::null(),
        policy: ConflictPolicy::RejectActive,
        keep: LONG,
    };
    backend.store().create(&create).await.unwrap();
    let created = crate::fixture::record(backend, child).await;
    backend.store().index(child, &created).await.unwrap();
}

async fn exists(backend: &Backend, instance: &InstanceRef) -> bool {
    backend.store().record(instance).await.unwrap().is_some()
}

/// `orders/root` with the children `shipping/one` and `shipping/two`, the latter with `billing/leaf`.
async fn family(client: &Client, backend: &Backend) -> [InstanceRef; 4] {
    let root = client.start(CHECKOUT, 1).id("root").await.unwrap().instance().clone();
    let [one, two, leaf] =
        [("shipping", "one"), ("shipping", "two"), ("billing", "leaf")].map(|(app, id)| instance(app, id));
    call_child(backend, &root, 0, &one, false).await;
    call_child(backend, &root, 1, &two, false).await;
    call_child(backend, &two, 0, &leaf, false).await;
    [root, one, two, leaf]
}

#[tokio::test]
async fn a_purged_instance_leaves_nothing_behind_but_what_sweeps_up_after_it() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    run.terminate("").await.unwrap();
    assert_eq!(run.handle().purge().await.unwrap(), 1);
    assert!(matches!(run.get().await, Err(Error::RunGone { .. })));
    assert!(client.list(Filter::app("orders")).collect().await.unwrap().is_empty());
    let soon = backend.store().now().await.unwrap() + Duration::from_secs(31);
    for kind in DueKind::ALL {
        let left = backend.store().due_entries(&app("orders"), kind, 10).await.unwrap();
        // A worker may still note its end: half a minute later that goes again.
        let sweeps = usize::from(kind == DueKind::Retention);
        assert!(
            left.len() == sweeps && left.iter().all(|entry| entry.due < soon),
            "{left:?}"
        );
    }
    // Its result is kept for a while, and purging it again is harmless.
    assert!(matches!(run.result().await, Err(Error::Terminated { .. })));
    assert_eq!(client.instance("orders", "a").unwrap().purge().await.unwrap(), 0);
}

#[tokio::test]
async fn an_active_instance_is_not_purged() {
    let (client, _) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let error = run.handle().purge().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "instance orders/a is Pending and cannot be purged: terminate it, or wait until it is over"
    );
}

#[tokio::test]
async fn a_purge_takes_the_children_on_every_app() {
    let (client, backend) = client();
    let family = family(&client, &backend).await;
    for instance in &family {
        play(&backend, instance, Played::completed("done")).await;
    }
    assert_eq!(client.handle(family[0].clone()).purge().await.unwrap(), 4);
    for instance in &family {
        assert!(!exists(&backend, instance).await, "{instance}");
    }
}

#[tokio::test]
async fn an_active_child_is_named_and_nothing_is_deleted() {
    let (client, backend) = client();
    let family = family(&client, &backend).await;
    for instance in &family[..3] {
        play(&backend, instance, Played::completed("done")).await;
    }
    let error = client.handle(family[0].clone()).purge().await.unwrap_err();
    assert!(
        matches!(&error, Error::StillActive { instance, status: Status::Pending } if *instance == family[3]),
        "{error}"
    );
    for instance in &family {
        assert!(exists(&backend, instance).await, "{instance}");
    }
    // It works once the child is over, and without the children it works at once.
    assert_eq!(
        client.handle(family[0].clone()).purge().not_recursive().await.unwrap(),
        1
    );
    client.handle(family[3].clone()).terminate("").await.unwrap();
    assert_eq!(client.handle(family[2].clone()).purge().await.unwrap(), 2);
    assert!(exists(&backend, &family[1]).await);
}

#[tokio::test]
async fn detached_children_and_strangers_with_a_childs_id_are_left_alone() {
    let (client, backend) = client();
    let root = client.start(CHECKOUT, 1).id("root").await.unwrap();
    let (detached, stranger) = (instance("shipping", "detached"), instance("shipping", "stranger"));
    client
        .start_named::<()>("shipping", "other", ())
        .id("stranger")
        .await
        .unwrap();
    call_child(&backend, root.instance(), 0, &detached, true).await;
    call_child(&backend, root.instance(), 1, &stranger, false).await;
    let children = root.handle().children().await.unwrap();
    let seen: Vec<_> = children
        .iter()
        .map(|ChildInfo { detached, status, .. }| (*detached, *status))
        .collect();
    assert_eq!(seen, [(true, Some(Status::Pending)), (false, None)]);
    play(&backend, root.instance(), Played::completed("done")).await;
    assert_eq!(root.handle().purge().await.unwrap(), 1);
    assert!(exists(&backend, &detached).await && exists(&backend, &stranger).await);
}

#[tokio::test]
async fn a_marked_instance_is_driven_before_it_is_purged() {
    let (client, backend) = client();
    let create = Create {
        instance: instance("orders", "a"),
        execution: ExecutionId::generate(),
        run: RunId::generate(),
        origin: Origin {
            workflow: "checkout".into(),
            parent: None,
            created_at: backend.store().now().await.unwrap(),
            start_at: None,
            tags: Default::default(),
            request: MessageId::generate(),
        },
        input: Payload::null(),
        policy: ConflictPolicy::RejectActive,
        keep: LONG,
    };
    assert!(matches!(
        backend.store().create(&create).await.unwrap(),
        Created::Created(_)
    ));
    assert_eq!(record(&backend, &create.instance).await.marks, [Mark::Start]);
    let handle = client.handle(create.instance.clone());
    handle.terminate("").await.unwrap();
    assert_eq!(handle.purge().await.unwrap(), 1);
}

#[tokio::test]
async fn a_purge_by_filter_takes_what_is_over_and_names_what_it_cannot_take() {
    let (client, backend) = client();
    for number in 0..250 {
        let run = client.start(CHECKOUT, number).id(format!("i-{number}")).await.unwrap();
        if number % 2 == 0 {
            play(&backend, run.instance(), Played::completed("done")).await;
        }
    }
    let [root, one, two, leaf] = family(&client, &backend).await;
    for instance in [&root, &one, &two] {
        play(&backend, instance, Played::completed("done")).await;
    }
    let active = client
        .purge(Filter::app("orders").status(Status::Pending))
        .await
        .unwrap_err();
    assert!(active.to_string().contains("asks for Pending instances"), "{active}");
    let error = client.purge(Filter::app("orders")).await.unwrap_err();
    match &error {
        Error::PurgedInPart {
            purged: 125,
            refused: 1,
            first,
        } => {
            assert!(
                matches!(&**first, Error::StillActive { instance, .. } if *instance == leaf),
                "{first}"
            );
        }
        other => panic!("{other}"),
    }
    client.handle(leaf).terminate("").await.unwrap();
    assert_eq!(client.purge(Filter::app("orders")).await.unwrap(), 4);
    let left = client.list(Filter::app("orders")).collect().await.unwrap();
    assert_eq!(left.len(), 125);
    assert!(left.iter().all(|found| found.status == Status::Pending));
}
