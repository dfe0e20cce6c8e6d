use std::time::Duration;

use leveret::backend::WorkerInfo;
use leveret::client::{TargetState, WaitingOn};
use leveret::replay::history::HistoryEvent;
use leveret::{BuildId, Status, Timestamp, WaitingFor, WaitingView, WorkerId};

use crate::fixture::*;

fn since() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn charge() -> WaitingView {
    let charge = WaitingFor::Activity {
        sequence: 0,
        app: app("payments"),
        name: "charge".into(),
        attempt: 2,
        since: since(),
    };
    let approval = WaitingFor::Event {
        name: "approved".into(),
        since: since(),
        until: Some(since() + Duration::from_secs(60)),
    };
    WaitingView {
        total: 32,
        given_up: 2,
        shown: vec![charge, approval],
    }
}

fn worker(activities: &[&str]) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId::generate(),
        app: app("payments"),
        build: BuildId::new("1").unwrap(),
        workflows: Vec::new(),
        activities: activities.iter().map(|name| (*name).to_owned()).collect(),
        lanes: Vec::new(),
        started_at: since(),
        beat_at: since(),
        is_draining: false,
        host: String::new(),
        holds: None,
    }
}

#[tokio::test]
async fn what_an_instance_waits_for_names_the_app_and_what_is_wrong_with_it() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    play(&backend, run.instance(), Played::running(Vec::new()).waiting(charge())).await;

    let unknown = run.get().await.unwrap().waiting;
    assert_eq!(
        unknown.to_string(),
        "activity `charge` on app `payments`, attempt 2, since 2026-09-21T14:13:20.000Z: \
         app payments is unknown, no worker of it has ever registered\n\
         event `approved`, since 2026-09-21T14:13:20.000Z, until 2026-09-21T14:14:20.000Z\n\
         and 28 more"
    );

    // Registered, with a queue, but nobody is up.
    let worker_info = worker(&["refund"]);
    backend.broker().declare(&app("payments"), 1).await.unwrap();
    backend.store().adopt_app(&app("payments"), 1).await.unwrap();
    let text = run.get().await.unwrap().waiting.to_string();
    assert!(text.contains(": no worker of payments"), "{text}");

    backend.store().beat(&worker_info, LONG).await.unwrap();
    let text = run.get().await.unwrap().waiting.to_string();
    assert!(
        text.contains("none of the 1 worker of payments that are up has registered it"),
        "{text}"
    );

    backend.store().beat(&worker(&["charge"]), LONG).await.unwrap();
    let waiting = run.get().await.unwrap().waiting;
    let WaitingOn::Activity { target, .. } = &waiting.on[0] else {
        panic!("{waiting}")
    };
    assert_eq!(target.state, TargetState::Live { workers: 2, knowing: 1 });
    assert!(!target.is_away());
    assert_eq!(client.workers("payments").await.unwrap().len(), 2);
    assert_eq!(client.apps().await.unwrap()[0].id, app("payments"));
}

#[tokio::test]
async fn a_pending_instance_waits_for_a_worker_of_its_app() {
    let (client, _) = client();
    let run = client.start(CHECKOUT, 1).id("a").await.unwrap();
    let info = run.get().await.unwrap();
    assert_eq!(
        info.waiting.to_string(),
        format!(
            "a worker of app `orders` to run workflow `checkout`, since {}: app orders is unknown, no worker of it has ever registered",
            info.created_at
        )
    );
}

#[tokio::test]
async fn an_end_shows_with_its_output_and_times() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 5).id("a").await.unwrap();
    play(&backend, run.instance(), Played::completed("done")).await;
    let info = run.get().await.unwrap();
    assert_eq!(
        (info.status, info.output.clone()),
        (Status::Completed, Some(payload("done")))
    );
    assert_eq!((info.input.clone(), info.turns), (Some(payload(5)), 1));
    assert!(info.started_at.is_some() && info.ended_at.is_some() && info.failure.is_none());
    // What a person, or a program behind `--json`, is shown.
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!(
        (&json["status"], &json["output"]),
        (&"Completed".into(), &"done".into())
    );
}

#[tokio::test]
async fn a_history_of_many_turns_is_read_whole_and_in_order() {
    let (client, backend) = client();
    let run = client.start(CHECKOUT, 5).id("a").await.unwrap();
    for number in 0..450 {
        let event = HistoryEvent::TimerFired { sequence: number };
        play(&backend, run.instance(), Played::running(vec![event])).await;
    }
    let turns = run.handle().history().await.unwrap();
    assert_eq!(
        turns.iter().map(|turn| turn.version).collect::<Vec<_>>(),
        (1..=450).collect::<Vec<_>>()
    );
    let page = run.handle().turns(440, 100).await.unwrap();
    assert_eq!(page.first().map(|turn| turn.version), Some(441));
    assert_eq!(page.len(), 10);
}

#[tokio::test]
async fn a_client_that_is_closed_or_dropped_leaves_a_finished_start_behind() {
    let (client, backend) = client();
    backend.broker().declare(&app("orders"), 1).await.unwrap();
    client.start(CHECKOUT, 1).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), client.close())
        .await
        .unwrap();
    assert_eq!(starts(&backend, "orders").await, 1);
}
