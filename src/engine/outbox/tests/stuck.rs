//! Queues that take nothing.

use super::*;

/// The outbox of a worker of `orders`, on a broker that takes all messages but those for the lane of `payments`: it refuses those, or does not answer.
fn beside_a_stuck_queue(refuses: bool) -> (Slow, Outbox) {
    let (broker, outbox) = Slow::with_outbox_of(Some(AppId::new("orders").unwrap()), limits(4, usize::MAX));
    broker.let_all_through();
    *broker.stuck.lock().unwrap() = Some((lane("payments"), refuses));
    (broker, outbox)
}

/// Messages to another queue, one a second: the broker is there.
async fn others(outbox: &Outbox, count: u64) {
    for sequence in 0..count {
        outbox.send(lane("billing"), answer(1000 + sequence, 1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn is_parked_by_a_queue_that(refuses: bool) {
    let (broker, outbox) = beside_a_stuck_queue(refuses);
    let tries = || broker.tries_of("payments");
    // A message of one item that is on its way, and what gathers behind it.
    let sent = join_all((0..9).map(|sequence| outbox.send(lane("payments"), answer(sequence, 1))));
    let (results, ()) = tokio::join!(sent, others(&outbox, 10));
    for result in results {
        result.unwrap();
    }
    assert_eq!((parked(&outbox).await.len(), broker.items().len()), (9, 10));
    // It is tried by one message at a time. What comes meanwhile is parked at once; what is parked already stays one entry.
    let before = tries();
    assert!(outbox.may_try(&lane("payments")));
    let tried = outbox.0.tracker.spawn({
        let outbox = outbox.clone();
        async move { outbox.try_once(&lane("payments"), answer(0, 1)).await }
    });
    tokio::task::yield_now().await;
    assert!(tries() > before && outbox.leaves_alone(&lane("payments")));
    let before = tries();
    for sequence in [0, 50] {
        outbox.send(lane("payments"), answer(sequence, 1)).await.unwrap();
        assert!(!outbox.may_try(&lane("payments")));
    }
    assert_eq!((parked(&outbox).await.len(), tries()), (10, before));
    others(&outbox, 10).await;
    assert!(!tried.await.unwrap().unwrap());
    // It is well again: the next that tries finds out, and all others go out as ever.
    *broker.stuck.lock().unwrap() = None;
    tokio::time::sleep(LEFT_ALONE).await;
    assert!(outbox.may_try(&lane("payments")));
    assert!(outbox.try_once(&lane("payments"), answer(0, 1)).await.unwrap());
    outbox.send(lane("payments"), answer(51, 1)).await.unwrap();
    assert_eq!((parked(&outbox).await.len(), broker.items().len()), (10, 22));
}

#[tokio::test(start_paused = true)]
async fn what_a_queue_refuses_is_parked() {
    is_parked_by_a_queue_that(true).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_queue_does_not_confirm_is_parked_if_others_do() {
    is_parked_by_a_queue_that(false).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_whole_broker_stands_still_publishers_wait_four_times_as_long() {
    let (broker, outbox) = Slow::with_outbox_of(Some(AppId::new("orders").unwrap()), Limits::default());
    let send = |sequence| {
        let outbox = outbox.clone();
        outbox
            .0
            .tracker
            .clone()
            .spawn(async move { outbox.send(lane("payments"), answer(sequence, 1)).await })
    };
    let sent = send(0);
    tokio::time::sleep(PATIENCE * 3 + PATIENCE / 2).await;
    broker.let_all_through();
    sent.await.unwrap().unwrap();
    assert_eq!((parked(&outbox).await.len(), broker.items().len()), (0, 1));
    broker.hold_all();
    send(1).await.unwrap().unwrap();
    assert_eq!((parked(&outbox).await.len(), broker.items().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_slow_and_goes_on_is_waited_for() {
    let (broker, outbox) = Slow::with_outbox_of(Some(AppId::new("orders").unwrap()), Limits::default());
    // Each has a message of its own, and they are confirmed one every two seconds.
    let queue = Queue::Activities(AppId::new("payments").unwrap());
    let sent = join_all((0..20).map(|sequence| outbox.send(queue.clone(), task(sequence))));
    let confirms = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            broker.permits.add_permits(1);
        }
    };
    let (results, ()) = tokio::join!(sent, confirms);
    for result in results {
        result.unwrap();
    }
    assert_eq!((parked(&outbox).await.len(), broker.items().len()), (0, 20));
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_use_later_is_not_parked() {
    let (broker, outbox) = beside_a_stuck_queue(true);
    let wake = Item::Wake(crate::wire::WakeItem {
        instance: task_ref(0).instance,
    });
    let error = outbox.send(lane("payments"), wake.clone()).await.unwrap_err();
    assert!(
        !error.is_permanent() && error.to_string().contains("takes no messages"),
        "{error}"
    );
    assert!(parked(&outbox).await.is_empty());
    // It tries the queue nevertheless: a lane that nobody sends anything else to is found well by its probes.
    *broker.stuck.lock().unwrap() = None;
    tokio::time::sleep(LEFT_ALONE).await;
    outbox.send(lane("payments"), wake).await.unwrap();
    assert_eq!(broker.items(), [("payments".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn events_and_commands_are_parked_each_by_itself() {
    let (_broker, outbox) = beside_a_stuck_queue(true);
    let instance = |id: &str| InstanceRef::new(AppId::new("payments").unwrap(), id.parse().unwrap());
    let event = |id: &str| {
        Item::Event(crate::wire::EventItem {
            instance: instance(id),
            name: "closed".to_owned(),
            payload: Payload::null(),
            message_id: "2026-11-22".parse().unwrap(),
        })
    };
    let command = |reason: &str| {
        Item::Command(crate::wire::CommandItem {
            instance: instance("one"),
            command: crate::wire::Command::Terminate {
                reason: reason.to_owned(),
                recursive: true,
            },
            issued_at: Timestamp::from_millis(1),
            run: None,
            parent: None,
        })
    };
    // The same ID for two instances is two events; what is sent again is the same.
    for item in [
        event("one"),
        event("two"),
        event("one"),
        command("a"),
        command("b"),
        command("a"),
    ] {
        outbox.send(lane("payments"), item).await.unwrap();
    }
    assert_eq!(parked(&outbox).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_for_a_queue_that_takes_nothing_and_what_it_gives_up_is_not_sent() {
    let (stuck, outbox) = Slow::with_outbox(Limits::default());
    let hour = Duration::from_secs(3600);
    let first = outbox.0.tracker.spawn({
        let outbox = outbox.clone();
        async move { outbox.send(lane("orders"), answer(0, 1)).await }
    });
    tokio::time::sleep(hour).await;
    for sequence in 1..4 {
        let given_up = tokio::time::timeout(hour, outbox.send(lane("orders"), answer(sequence, 1)));
        assert!(given_up.await.is_err());
    }
    stuck.let_all_through();
    first.await.unwrap().unwrap();
    outbox.send(lane("orders"), answer(4, 1)).await.unwrap();
    assert_eq!(stuck.items(), vec![("orders".to_owned(), 1); 2]);
    assert_eq!(outbox.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_items_that_are_sent_together_one_tries_a_queue_that_has_taken_nothing() {
    let (broker, outbox) = beside_a_stuck_queue(true);
    let all = |sequences: std::ops::Range<u64>| sequences.map(|sequence| answer(sequence, 1)).collect();
    let (sent, ()) = tokio::join!(outbox.send_all(lane("payments"), all(0..3)), others(&outbox, 10));
    sent.unwrap();
    assert_eq!(parked(&outbox).await.len(), 3);
    let to_payments = || {
        broker
            .items()
            .iter()
            .filter(|(app, _)| app == "payments")
            .map(|(_, items)| items)
            .sum::<usize>()
    };
    tokio::time::sleep(LEFT_ALONE).await;
    let tries = broker.tries_of("payments");
    let (sent, ()) = tokio::join!(outbox.send_all(lane("payments"), all(3..6)), others(&outbox, 10));
    sent.unwrap();
    assert!(broker.tries_of("payments") > tries, "nobody has tried it");
    assert_eq!((parked(&outbox).await.len(), to_payments()), (6, 0));
    *broker.stuck.lock().unwrap() = None;
    tokio::time::sleep(LEFT_ALONE).await;
    outbox.send_all(lane("payments"), all(6..9)).await.unwrap();
    assert_eq!((parked(&outbox).await.len(), to_payments()), (6, 3));
}
