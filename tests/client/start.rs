use std::time::Duration;

use leveret::backend::{DueKind, Retryable};
use leveret::client::{Error, WaitingOn};
use leveret::{Client, Failure, Limits, MessageId, OnConflict, Status, Timestamp, Workflow};

use crate::fixture::*;

#[tokio::test]
async fn a_start_is_pending_and_in_the_apps_queue_before_any_worker_is_up() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    let run = client
        .start(CHECKOUT, 7)
        .id("order-7")
        .tag("region", "eu")
        .await
        .unwrap();
    assert_eq!(starts(&backend, "orders").await, 1);
    let info = run.get().await.unwrap();
    assert_eq!((info.status, info.workflow.as_str()), (Status::Pending, "checkout"));
    assert_eq!(info.input, Some(payload(7)));
    assert_eq!(info.tags["region"], "eu");
    assert_eq!(info.run, run.run_id());
    // That it is published is noted a moment later, if no turn has come until then.
    let noted = async {
        while !record(&backend, run.instance()).await.marks.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noted)
        .await
        .expect("it is noted");
}

#[tokio::test]
async fn a_start_without_an_id_gets_one_of_its_own() {
    let (client, _) = client();
    let first = client.start(CHECKOUT, 1).await.unwrap();
    let second = client.start(CHECKOUT, 1).await.unwrap();
    assert_ne!(first.id(), second.id());
}

#[tokio::test]
async fn a_repeated_request_counts_once() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    let start = || client.start(CHECKOUT, 7).id("order-7").request_id("mail-1");
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    assert_eq!(first.run_id(), second.run_id());
    assert_eq!(starts(&backend, "orders").await, 1);
    // Nor does it count again once the instance is over.
    play(&backend, first.instance(), Played::completed("done")).await;
    assert_eq!(start().await.unwrap().run_id(), first.run_id());
}

#[tokio::test]
async fn a_repeated_request_without_an_instance_id_finds_the_same_instance() {
    let (client, _) = client();
    let start = || client.start(CHECKOUT, 7).request_id("mail-1");
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    assert_eq!((first.id(), first.run_id()), (second.id(), second.run_id()));
}

#[tokio::test]
async fn a_request_that_was_refused_because_it_was_slow_starts_all_the_same_and_once() {
    let (client, backend) = client();
    let request = MessageId::new("slow").unwrap();
    let target = instance("orders", "order-7");
    assert!(backend.store().refuse(&target, &request, LONG).await.unwrap());
    let start = || client.start(CHECKOUT, 7).id("order-7").request_id("slow");
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    assert_eq!(first.run_id(), second.run_id());
}

#[tokio::test]
async fn an_active_instance_is_not_replaced_and_a_finished_one_is() {
    let (client, backend) = client();
    let first = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let error = client.start(CHECKOUT, 2).id("a").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "instance orders/a exists already and is Pending (workflow `checkout`): choose another ID or another conflict policy"
    );
    assert_eq!(error.retryable(), Retryable::Permanent);
    play(&backend, first.instance(), Played::completed("one")).await;
    let second = client.start(CHECKOUT, 2).id("a").await.unwrap();
    assert_ne!(second.run_id(), first.run_id());
    // The first run's handle still has its result.
    assert_eq!(first.result().within(LONG).await.unwrap(), "one");
    assert!(matches!(first.get().await, Err(Error::RunGone { run, .. }) if run == first.run_id()));
}

#[tokio::test]
async fn reject_refuses_a_finished_instance_too() {
    let (client, backend) = client();
    let first = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, first.instance(), Played::completed("one")).await;
    let refused = client.start(CHECKOUT, 2).id("a").policy(OnConflict::Reject).await;
    assert!(matches!(
        refused,
        Err(Error::InstanceAlreadyExists {
            status: Status::Completed,
            ..
        })
    ));
}

#[tokio::test]
async fn use_existing_gives_the_run_that_is_there() {
    let (client, backend) = client();
    let attach = || client.start(CHECKOUT, 2).id("a").policy(OnConflict::UseExisting);
    let first = attach().await.unwrap();
    assert!(!first.is_existing());
    let second = attach().await.unwrap();
    assert!(second.is_existing());
    assert_eq!(second.run_id(), first.run_id());
    play(&backend, first.instance(), Played::completed("one")).await;
    assert_eq!(attach().await.unwrap().result().within(LONG).await.unwrap(), "one");
}

#[tokio::test]
async fn use_existing_refuses_an_instance_of_another_workflow() {
    const REFUND: Workflow<u64, String> = Workflow::new("orders", "refund");
    let (client, _) = client();
    client.start(REFUND, 1).id("a").await.unwrap();
    let refused = client.start(CHECKOUT, 2).id("a").policy(OnConflict::UseExisting).await;
    assert!(matches!(refused, Err(Error::InstanceAlreadyExists { workflow, .. }) if workflow == "refund"));
}

#[tokio::test]
async fn terminate_existing_ends_a_pending_instance_and_takes_its_place() {
    let (client, _) = client();
    let first = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let second = client
        .start(CHECKOUT, 2)
        .id("a")
        .policy(OnConflict::TerminateExisting)
        .await
        .unwrap();
    assert_eq!(second.get().await.unwrap().input, Some(payload(2)));
    let error = first.result().within(LONG).await.unwrap_err();
    assert!(matches!(&error, Error::Terminated { .. }), "{error}");
    assert!(error.to_string().contains("another start takes its place"), "{error}");
}

#[tokio::test]
async fn terminate_existing_waits_for_the_worker_that_ends_it() {
    let (client, backend) = client();
    let first = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, first.instance(), Played::running(Vec::new())).await;
    let start = client.start(CHECKOUT, 2).id("a").policy(OnConflict::TerminateExisting);
    let ending = async {
        // Its command has to be stored before the worker can act on it.
        let failure = Failure::new("Any", "ended by the worker");
        play(&backend, first.instance(), Played::failed(failure)).await;
    };
    let (second, ()) = tokio::join!(start.into_future(), ending);
    assert_ne!(second.unwrap().run_id(), first.run_id());
}

#[tokio::test]
async fn terminate_existing_without_a_worker_says_so_in_the_end() {
    let backend = backend();
    let client = Client::builder(backend.clone()).patience(SOON).build();
    let first = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, first.instance(), Played::running(Vec::new())).await;
    let error = client
        .start(CHECKOUT, 2)
        .id("a")
        .policy(OnConflict::TerminateExisting)
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            Error::NotYet {
                status: Status::Running,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.retryable(), Retryable::Unknown);
}

#[tokio::test]
async fn a_delayed_start_is_published_by_its_check_and_not_before() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    let before = backend.store().now().await.unwrap();
    let run = client
        .start(CHECKOUT, 1)
        .id("later")
        .after(Duration::from_secs(3600))
        .await
        .unwrap();
    let info = run.get().await.unwrap();
    let due = info.start_at.unwrap();
    assert!(due >= before + Duration::from_secs(3600));
    assert_eq!(info.waiting.on, [WaitingOn::StartTime { due }]);
    assert_eq!(starts(&backend, "orders").await, 0);
    let checks = backend
        .store()
        .due_entries(&app("orders"), DueKind::Check, 10)
        .await
        .unwrap();
    assert_eq!(checks.iter().map(|check| check.due).collect::<Vec<_>>(), [due]);
}

#[tokio::test]
async fn a_delayed_start_that_was_suspended_and_resumed_still_waits_for_its_time() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    let run = client
        .start(CHECKOUT, 1)
        .after(Duration::from_secs(3600))
        .await
        .unwrap();
    run.suspend("").await.unwrap();
    run.resume("").await.unwrap();
    assert_eq!(run.get().await.unwrap().status, Status::Pending);
    assert_eq!(starts(&backend, "orders").await, 0);
    assert_eq!(
        record(&backend, run.instance()).await.marks,
        [leveret::backend::Mark::Start]
    );
}

#[tokio::test]
async fn starts_that_find_the_id_taken_leave_no_heap_of_checks() {
    let (client, backend) = client();
    client.start(CHECKOUT, 1).id("a").await.unwrap();
    for _ in 0..3 {
        client.start(CHECKOUT, 1).id("a").await.unwrap_err();
        let attach = client.start(CHECKOUT, 1).id("a").policy(OnConflict::UseExisting);
        attach.await.unwrap();
    }
    let checks = backend
        .store()
        .due_entries(&app("orders"), DueKind::Check, 10)
        .await
        .unwrap();
    assert_eq!(checks.len(), 1);
}

#[tokio::test]
async fn a_start_time_that_has_passed_is_now() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    client.start(CHECKOUT, 1).at(Timestamp::from_millis(1)).await.unwrap();
    assert_eq!(starts(&backend, "orders").await, 1);
}

#[tokio::test]
async fn bad_input_is_named_and_nothing_is_started() {
    let limits = Limits {
        payload_bytes: 10,
        ..Limits::default()
    };
    let client = Client::builder(backend()).limits(limits).build();
    let start = |app: &str, workflow: &str, input: &str| client.start_named::<String>(app, workflow, input);
    let texts = [
        (start("a.b", "w", "x").await, "app ID \"a.b\" contains '.'"),
        (start("a", "", "x").await, "the workflow's name is 0 bytes long"),
        (start("a", "w", "x").id("").await, "instance ID \"\" is empty"),
        (
            start("a", "w", "x").id("y".repeat(201)).await,
            "is 201 bytes long: 200 is the most",
        ),
        (start("a", "w", "x").request_id("a\nb").await, "control character"),
        (start("a", "w", "x").tag("", "v").await, "the tags hold an empty key"),
        (start("a", "w", "x").tag("k", "v".repeat(256)).await, "255 is the most"),
        (
            start("a", "w", "0123456789").await,
            "the input of workflow `w` is 12 bytes of JSON and the limit is 10: pass a reference to it, or raise `Limits::payload_bytes`",
        ),
    ];
    for (result, text) in texts {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.retryable(), Retryable::Permanent);
    }
    let no_json = std::collections::HashMap::from([((1, 2), 3)]);
    let error = client.start_named::<String>("a", "w", no_json).await.unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
    assert!(
        client
            .list(leveret::client::Filter::app("a"))
            .collect()
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_contract_can_be_started_on_another_app() {
    let (client, _) = client();
    let run = client
        .start(CHECKOUT, 1)
        .id("a")
        .app_id("orders-staging")
        .await
        .unwrap();
    assert_eq!(run.instance(), &instance("orders-staging", "a"));
}
