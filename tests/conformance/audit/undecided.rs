//! What cannot be known is said to be unknown, and keeps nobody from all the rest.

use leveret::backend::{Error, Record};
use leveret::client::LetterFilter;

use super::*;
use crate::between::{with_publisher_behind, with_store_that_refuses};

const ELSEWHERE: leveret::Activity<u64, u64> = leveret::Activity::new("elsewhere", "work");

/// A call whose task is lost, so that there is something to find.
async fn a_lost_task(stage: &Stage, id: &str) {
    stage.client.start(MAIN, 7).id(id).await.unwrap();
    let begun = |info: &leveret::client::InstanceInfo| info.turns == 1;
    stage.wait_for("orders", id, "begun", begun).await;
    stage.settled("orders", id).await;
    stage.take(&Queue::Activities(app("payments"))).await;
}

pub(crate) async fn an_instance_that_cannot_be_read_keeps_no_audit_from_the_others(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    for id in ["damaged", "one"] {
        a_lost_task(&stage, id).await;
    }
    // Its check was put off, as that of one that cannot be read is.
    let store = stage.backend.store();
    let now = store.now().await.unwrap();
    let checks = stage.due("orders", DueKind::Check).await.into_iter();
    let late: Vec<_> = checks
        .map(|check| DueEntry {
            due: now + HOUR,
            ..check
        })
        .collect();
    store.schedule(&app("orders"), &late, When::Set).await.unwrap();
    let of_it = |call: &Call| {
        let is_it = call.instance.as_ref().is_some_and(|it| it.id.as_str() == "damaged");
        is_it && matches!(call.method, "record" | "load" | "turns")
    };
    let client = Client::new(with_store_that_refuses(&stage.backend, of_it));
    let report = stage.repair_by(&client).await;
    assert_eq!(sorts(&report), [Trouble::LostTask], "{report:?}");
    assert_eq!(report.findings[0].repair, Repair::Done);
    let unread = report.undecided.iter().find(|undecided| undecided.instance.is_some());
    let unread = unread.expect("the one that cannot be read");
    assert_eq!(unread.instance.as_ref().unwrap().id.as_str(), "damaged");
    assert!(unread.reason.contains("a later release"), "{unread:?}");

    // The same for letters.
    for id in ["damaged", "one"] {
        let task = leveret::wire::Item::Event(leveret::wire::EventItem {
            instance: instance("orders", id),
            name: "go".into(),
            payload: leveret::Payload::encode(&()).unwrap(),
            message_id: leveret::MessageId::generate(),
        });
        stage.publish(Queue::Dead(app("orders")), vec![task]).await;
    }
    stage.wait_for_depth(Queue::Dead(app("orders")), 2).await;
    let letters = client.dead_letters(LetterFilter::app("orders"));
    assert_eq!(letters.open().await.unwrap().len(), 2);
    let retried = letters.retry().await.unwrap();
    assert_eq!(retried.len(), 2, "{retried:?}");
    for letter in retried {
        let is_damaged = letter.letter.instance.as_ref().unwrap().id.as_str() == "damaged";
        assert_eq!(
            matches!(letter.outcome, leveret::client::Retried::Impossible(_)),
            is_damaged,
            "{letter:?}"
        );
    }
    stage.wait_for_depth(Queue::Dead(app("orders")), 1).await;
}

pub(crate) async fn a_repair_that_fails_for_good_keeps_no_audit_from_the_others(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    stage.known_app("elsewhere").await;
    let both = async |ctx: WorkflowContext, n: u64| {
        let (child, work) = (ctx.child(CHILD, n).id("kid").start(), ctx.call(ELSEWHERE, n).start());
        ok(child.await? + work.await?)
    };
    let orders = up(stage.worker("orders").workflow(MAIN, both)).await;
    stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Running).await;
    stage.settled("orders", "one").await;
    orders.stop().await;
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Completed).await;
    stage.settled("payments", "kid").await;
    payments.stop().await;
    let lane = stage.record("orders", "one").await.unwrap().lane.unwrap();
    let lane = Queue::Events(app("orders"), lane);
    take_completion(&stage, &lane).await;
    stage.take(&Queue::Activities(app("elsewhere"))).await;
    // What the child has to tell can be read by no release.
    let kid = instance("payments", "kid");
    let record: Record = stage.record("payments", "kid").await.unwrap();
    let mark = Mark::Turn(record.version + 1);
    stage
        .append(&kid, &record, bytes::Bytes::from_static(b"not a turn"), vec![mark])
        .await;
    let report = stage.repair().await;
    let of = |trouble| report.findings.iter().find(|finding| finding.trouble == trouble);
    let answer = of(Trouble::LostAnswer).unwrap_or_else(|| panic!("the answer that cannot be told: {report:?}"));
    assert!(matches!(answer.repair, Repair::Impossible(_)), "{answer:?}");
    let task = of(Trouble::LostTask).unwrap_or_else(|| panic!("the task of the other call: {report:?}"));
    assert_eq!(task.repair, Repair::Done);
    assert!(!report.is_clean());
}

pub(crate) async fn an_app_with_a_worker_that_gives_no_sign_of_life_is_undecided(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (cut_off, runs, gate) = (Gate::new(), Tally::new(), Gate::new());
    let silent = cut_off.clone();
    let backend = with_store_behind(&stage.backend, move |call: Call| {
        let silent = silent.clone();
        Box::pin(async move {
            if silent.is_open() && call.method == "beat" {
                std::future::pending::<()>().await;
            }
        })
    });
    let cut = up(Worker::new("payments", backend)
        .settings(settings())
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    stage.settled("orders", "one").await;
    cut_off.open();
    until("it to count as gone", async || {
        stage.client.workers("payments").await.unwrap().is_empty().then_some(())
    })
    .await;
    // It has the lanes still.
    let other = stage.worker("payments").activity(WORK, gated(&runs, &gate));
    let _other = soon("a worker", other.start()).await.unwrap();
    let report = stage.repair().await;
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!(
        report.undecided[0].queue.as_deref(),
        Some("payments.activities"),
        "{report:?}"
    );
    assert!(report.undecided[0].reason.contains("sign of life"), "{report:?}");
    gate.open();
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    drop(cut);
}

pub(crate) async fn an_app_of_many_lanes_is_decided(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let many = Settings {
        lanes: 80,
        ..settings()
    };
    let _orders = up(stage.worker("orders").settings(many).workflow(MAIN, call_work)).await;
    a_lost_task(&stage, "one").await;
    let report = stage.audit().await;
    assert_eq!(sorts(&report), [Trouble::LostTask], "{report:?}");
}

pub(crate) async fn a_queue_that_takes_no_marker_leaves_only_its_own_calls_undecided(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("elsewhere").await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let one_slot = Settings {
        activities: 1,
        ..settings()
    };
    let _payments = up(stage
        .worker("payments")
        .settings(one_slot)
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let both = async |ctx: WorkflowContext, n: u64| {
        let (near, far) = (ctx.call(WORK, n).start(), ctx.call(ELSEWHERE, n).start());
        ok(near.await? + far.await?)
    };
    let _orders = up(stage.worker("orders").workflow(MAIN, both)).await;
    for id in ["one", "two"] {
        stage.client.start(MAIN, 7).id(id).await.unwrap();
        stage.wait_for("orders", id, "begun", |info| info.turns == 1).await;
        stage.settled("orders", id).await;
        stage.take(&Queue::Activities(app("elsewhere"))).await;
    }
    runs.reach(1).await;
    // An operator's policy limits its length, and it is full.
    let backend = with_publisher_behind(&stage.backend, |message| {
        let is_full = message.queue == Queue::Activities(app("payments"));
        let refused = is_full.then(|| Error::transient("the broker refused the message"));
        Box::pin(std::future::ready(refused.map_or(Ok(()), Err)))
    });
    let client = Client::new(backend);
    let audit = client.audit().grace(Duration::ZERO);
    let report = soon("an audit", audit.into_future()).await.unwrap();
    assert_eq!(sorts(&report), [Trouble::LostTask; 2], "{report:?}");
    let undecided = &report.undecided[0];
    assert_eq!(undecided.queue.as_deref(), Some("payments.activities"));
    assert!(undecided.reason.contains("refused"), "{undecided:?}");
    assert_eq!(undecided.instances, 2, "{undecided:?}");
    gate.open();
}
