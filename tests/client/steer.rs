use leveret::backend::{Queue, Retryable};
use leveret::client::{CommandState, Error, Raised, WaitingOn};
use leveret::{Client, Event, Failure, Limits, Status};

use crate::fixture::*;

const APPROVED: Event<bool> = Event::new("approved");

#[tokio::test]
async fn a_pending_instance_is_terminated_without_a_worker() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    assert_eq!(run.terminate("wrong order").await.unwrap(), CommandState::Done);
    let info = run.get().await.unwrap();
    assert_eq!(info.status, Status::Terminated);
    assert_eq!(info.waiting.to_string(), "nothing");
    assert_eq!(info.input, Some(payload(1)));
    let error = run.result().await.unwrap_err();
    assert_eq!(error.to_string(), "orders/a: the workflow was terminated: wrong order");
    // Nothing is left to look at, and a second terminate is no error.
    let checks = backend
        .store()
        .due_entries(&app("orders"), leveret::backend::DueKind::Check, 10)
        .await
        .unwrap();
    assert!(checks.is_empty(), "{checks:?}");
    let again = run.terminate("wrong order").await.unwrap();
    assert_eq!(again, CommandState::AlreadyOver(Status::Terminated));
}

#[tokio::test]
async fn a_pending_instance_is_suspended_and_resumed() {
    let (client, _) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    assert_eq!(run.suspend("stocktaking").await.unwrap(), CommandState::Done);
    let info = run.get().await.unwrap();
    assert_eq!(
        (info.status, &info.waiting.on[..]),
        (Status::Suspended, &[WaitingOn::Resume][..])
    );
    assert_eq!(info.input, Some(payload(1)));
    assert_eq!(
        run.raise(APPROVED, true).await.unwrap(),
        Raised::Kept(Status::Suspended)
    );
    // Twice is once.
    run.suspend("stocktaking").await.unwrap();
    let turns = run.handle().history().await.unwrap();
    assert_eq!(turns.iter().flat_map(|turn| &turn.events).count(), 1);
    assert_eq!(run.resume("done").await.unwrap(), CommandState::Done);
    assert_eq!(run.get().await.unwrap().status, Status::Pending);
}

#[tokio::test]
async fn the_input_is_shown_even_when_the_first_turns_were_a_suspend_and_a_resume() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 41).id("a").await.unwrap();
    for _ in 0..3 {
        run.suspend("").await.unwrap();
        run.resume("").await.unwrap();
    }
    play(&backend, run.instance(), Played::running(Vec::new())).await;
    assert_eq!(run.get().await.unwrap().input, Some(payload(41)));
}

#[tokio::test]
async fn commands_for_a_running_instance_are_stored_in_its_lane() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, run.instance(), Played::running(Vec::new())).await;
    assert_eq!(run.suspend("").await.unwrap(), CommandState::Sent);
    assert_eq!(run.terminate("").not_recursive().await.unwrap(), CommandState::Sent);
    assert_eq!(run.raise(APPROVED, true).await.unwrap(), Raised::Sent);
    let lane = backend
        .broker()
        .depth(&Queue::Events(app("orders"), 0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lane.messages, 3);
    let error = run.suspend("").and_wait(SOON).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotYet {
                status: Status::Running,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_command_that_waits_returns_when_the_worker_has_carried_it_out() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, run.instance(), Played::running(Vec::new())).await;
    let suspend = run.suspend("").and_wait(LONG).into_future();
    let worker = async {
        play(
            &backend,
            run.instance(),
            Played::running(Vec::new()).status(Status::Suspended),
        )
        .await;
    };
    let (state, ()) = tokio::join!(suspend, worker);
    assert_eq!(state.unwrap(), CommandState::Done);
}

#[tokio::test]
async fn a_suspend_that_waits_says_that_the_instance_ended_instead() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, run.instance(), Played::running(Vec::new())).await;
    let suspend = run.suspend("").and_wait(LONG).into_future();
    let worker = async {
        play(&backend, run.instance(), Played::completed("done")).await;
    };
    let (result, ()) = tokio::join!(suspend, worker);
    assert!(matches!(
        result,
        Err(Error::InstanceOver {
            status: Status::Completed,
            ..
        })
    ));
}

#[tokio::test]
async fn an_instance_that_is_over_cannot_be_steered() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, run.instance(), Played::completed("done")).await;
    for error in [
        run.suspend("").await.unwrap_err(),
        run.resume("").await.unwrap_err(),
        run.raise(APPROVED, true).await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "instance orders/a is over: it is Completed");
    }
}

#[tokio::test]
async fn an_instance_that_is_not_there_cannot_be_steered() {
    let (client, _) = client();
    let absent = client.instance("orders", "nobody").unwrap();
    for error in [
        absent.get().await.unwrap_err(),
        absent.suspend("").await.unwrap_err(),
        absent.terminate("").await.unwrap_err(),
        absent.history().await.unwrap_err(),
        absent.result().await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        assert!(error.to_string().contains("orders/nobody"), "{error}");
    }
}

#[tokio::test]
async fn a_handle_to_a_run_leaves_a_later_run_alone() {
    let (client, backend) = client();
    let first = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, first.instance(), Played::completed("one")).await;
    let second = client.start(CHECKOUT, 2).id("a").await.unwrap();
    assert!(matches!(first.terminate("").await, Err(Error::RunGone { .. })));
    assert!(matches!(first.handle().purge().await, Err(Error::RunGone { .. })));
    assert_eq!(second.get().await.unwrap().status, Status::Pending);
}

#[tokio::test]
async fn an_event_for_an_instance_to_come_is_kept_for_it() {
    let (client, backend) = client();
    let handle = client.instance("orders", "a").unwrap();
    let raise = || handle.raise(APPROVED, true).message_id("mail-1");
    assert_eq!(raise().await.unwrap(), Raised::KeptForLater);
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    assert_eq!(raise().await.unwrap(), Raised::Kept(Status::Pending));
    let loaded = backend.store().load(run.instance(), 0, 10).await.unwrap().unwrap();
    assert!(!loaded.inbox.is_empty());
}

#[tokio::test]
async fn a_full_inbox_and_bad_events_are_refused_by_name() {
    let limits = Limits {
        inbox_events: 2,
        payload_bytes: 10,
        ..Limits::default()
    };
    let client = Client::builder(backend()).limits(limits).build();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let handle = run.handle();
    for _ in 0..2 {
        run.raise(APPROVED, true).await.unwrap();
    }
    let full = run.raise(APPROVED, true).await.unwrap_err();
    assert!(full.to_string().contains("orders/a is full (2 items)"), "{full}");
    assert_eq!(full.retryable(), Retryable::Transient);
    for (error, text) in [
        (
            handle.raise_named("", 1).await.unwrap_err(),
            "the event's name is 0 bytes long",
        ),
        (
            handle.raise_named("e", "0123456789").await.unwrap_err(),
            "the payload of event `e` is 12 bytes",
        ),
        (
            handle.raise_named("e", 1).message_id("").await.unwrap_err(),
            "message ID \"\" is empty",
        ),
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_result_comes_as_soon_as_the_instance_ends() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let ending = async {
        play(&backend, run.instance(), Played::completed("done")).await;
    };
    let (result, ()) = tokio::join!(run.result().within(LONG).into_future(), ending);
    assert_eq!(result.unwrap(), "done");
}

#[tokio::test]
async fn a_result_says_what_kept_it_from_being_one() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let pending = run.result().within(SOON).await.unwrap_err();
    assert!(matches!(pending, Error::ResultPending { .. }), "{pending}");
    let declined = Failure::new("CardDeclined", "the bank said no");
    play(&backend, run.instance(), Played::failed(declined.clone())).await;
    match run.result().await.unwrap_err() {
        Error::Failed(failure) => assert_eq!(*failure, declined),
        other => panic!("{other}"),
    }
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, run.instance(), Played::completed("text")).await;
    let error = run.handle().result_as::<u64>().await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the output of orders/a: the payload \"text\" is not a u64"),
        "{error}"
    );
}
