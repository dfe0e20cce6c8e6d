//! `leveret audit`, on queues and keys that are broken by hand.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use deadpool_redis::redis;
use lapin::options::QueuePurgeOptions;
use leveret::backend::Queue;
use leveret::{Activity, ActivityContext, AppId, Event, Run, Workflow, WorkflowContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::place::{Place, code, lines, text, url};

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");

async fn call_work(ctx: WorkflowContext, n: u64) -> leveret::Result<u64> {
    ctx.call(WORK, n).await
}

async fn work(_: ActivityContext, n: u64) -> leveret::Result<u64> {
    Ok(n)
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "waited 60 s for {what}");
        tokio::task::yield_now().await;
    }
}

/// A workflow whose task is purged from its queue, with the tool that every operator has.
async fn purged(place: &Place) -> Run<u64> {
    place.worker("payments").start().await.unwrap().stop().await;
    let run = place.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Activities(AppId::new("payments").unwrap());
    until("the task", async || {
        let depth = place.backend.broker().depth(&queue).await.unwrap();
        depth.is_some_and(|depth| depth.messages == 1)
    })
    .await;
    // While its turn is marked the audit leaves an instance alone: what it published may be under way.
    until("the mark to be cleared", async || {
        let record = place.backend.store().record(run.instance()).await.unwrap();
        record.is_some_and(|record| record.marks.is_empty())
    })
    .await;
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&url("LEVERET_TEST_AMQP_URL"), properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{}.payments.activities", place.backend.namespace());
    let purged = channel
        .queue_purge(name.as_str().into(), QueuePurgeOptions::default())
        .await
        .unwrap();
    assert_eq!(purged, 1);
    connection.close(200, "bye".into()).await.unwrap();
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_queue_is_found_and_repaired() {
    let place = Place::new().await;
    let orders = place.worker("orders").workflow(MAIN, call_work).start().await.unwrap();
    let run = purged(&place).await;
    let payments = place.worker("payments").activity(WORK, work).start().await.unwrap();
    let audit = ["audit", "--grace", "0s"];
    let found = place.run(&audit).await;
    assert_eq!(code(&found), 1, "{}", text(&found.stderr));
    let shown = text(&found.stdout);
    assert!(shown.contains("lost task") && shown.contains("orders/one"), "{shown}");
    assert!(
        !shown.contains('\x1b') && text(&found.stderr).contains("1 stuck"),
        "{shown}"
    );
    let repaired = place.run(&["audit", "--grace", "0s", "--repair", "--json"]).await;
    assert_eq!(code(&repaired), 0, "{}", text(&repaired.stderr));
    let report = &lines(&repaired)[0];
    assert_eq!(report["findings"][0]["trouble"], "lost_task");
    assert_eq!(report["findings"][0]["repair"], "done");
    assert_eq!(report["stuck"], 0);
    assert_eq!(run.result().within(Duration::from_secs(60)).await.unwrap(), 7);
    let clean = place.run(&audit).await;
    assert_eq!((code(&clean), clean.stdout.len()), (0, 0), "{}", text(&clean.stdout));
    orders.stop().await;
    payments.stop().await;
    place.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_without_an_instance_are_found_and_removed_and_those_of_others_stay() {
    let place = Place::new().await;
    let orders = place.worker("orders").workflow(MAIN, call_work).start().await.unwrap();
    let run = place.client.start(MAIN, 7).id("a {strange}% one").await.unwrap();
    until("its first turn", async || run.get().await.unwrap().turns > 0).await;
    run.suspend("a break").and_wait(Duration::from_secs(60)).await.unwrap();
    run.raise(Event::<()>::new("go"), ()).await.unwrap();
    let client = redis::Client::open(url("LEVERET_TEST_REDIS_URL")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let tag = format!("lv:{{{}/orders/a %7Bstrange%7D%25 one}}", place.backend.namespace());
    // Somebody deletes the record, and not the event that waits.
    for (command, part) in [("EXISTS", "inbox"), ("DEL", "meta")] {
        let mut command = redis::cmd(command);
        let keys: u64 = command
            .arg(format!("{tag}:{part}"))
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(keys, 1, "{part}");
    }
    // An entry of the index that is left behind by a purge that dies in the middle.
    let kept = place.client.start(MAIN, 7).id("another").await.unwrap();
    let (store, gone) = (place.backend.store(), place.client.instance("orders", "gone").unwrap());
    let record = store.record(kept.instance()).await.unwrap().unwrap();
    store.index(gone.instance(), &record).await.unwrap();
    let repaired = place.run(&["audit", "--repair", "--json"]).await;
    assert_eq!(code(&repaired), 0, "{}", text(&repaired.stderr));
    let findings = lines(&repaired)[0]["findings"].as_array().unwrap().clone();
    let troubles: Vec<_> = findings
        .iter()
        .map(|finding| finding["trouble"].as_str().unwrap())
        .collect();
    // The inbox.
    assert_eq!(
        troubles.iter().filter(|trouble| **trouble == "stray_key").count(),
        1,
        "{troubles:?}"
    );
    assert!(troubles.contains(&"stale_index_entry"), "{troubles:?}");
    let left: Vec<String> = redis::cmd("KEYS")
        .arg(format!("{tag}:*"))
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(kept.get().await.is_ok());
    let clean = place.run(&["audit", "--json"]).await;
    assert_eq!(code(&clean), 0, "{}", text(&clean.stdout));
    orders.stop().await;
    place.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_later_release_is_told_of_and_keeps_nobody_from_the_others() {
    let place = Place::new().await;
    const WAIT: Workflow<u64, u64> = Workflow::new("orders", "wait");
    let waiting = async |ctx: WorkflowContext, n: u64| {
        ctx.event(Event::<()>::new("never")).await?;
        Ok::<u64, leveret::Failure>(n)
    };
    let orders = place.worker("orders").workflow(MAIN, call_work).workflow(WAIT, waiting);
    let orders = orders.start().await.unwrap();
    let _lost = purged(&place).await;
    let newer = place.client.start(WAIT, 8).id("newer").await.unwrap();
    until("its first turn", async || newer.get().await.unwrap().turns > 0).await;
    let client = redis::Client::open(url("LEVERET_TEST_REDIS_URL")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let meta = format!("lv:{{{}/orders/newer}}:meta", place.backend.namespace());
    let state: String = redis::cmd("HGET")
        .arg(&[meta.as_str(), "state"])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(state.contains(" Running "), "{state}");
    let strange = state.replace(" Running ", " Dreaming ");
    let added: u64 = redis::cmd("HSET")
        .arg(&[meta.as_str(), "state", &strange])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(added, 0, "there was a state");
    let payments = place.worker("payments").activity(WORK, work).start().await.unwrap();
    let audit = place.run(&["audit", "--grace", "0s", "--repair", "--json"]).await;
    let report = lines(&audit).remove(0);
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings.len() == 1 && findings[0]["trouble"] == "lost_task" && findings[0]["repair"] == "done",
        "{report}"
    );
    let undecided = report["undecided"].as_array().unwrap();
    let unread = undecided
        .iter()
        .find(|undecided| undecided["instance"]["id"] == "newer");
    let reason = unread.expect("the one that cannot be read")["reason"].as_str().unwrap();
    assert!(
        reason.contains("Dreaming") && reason.contains("later version"),
        "{reason}"
    );
    orders.stop().await;
    payments.stop().await;
    place.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_stuck_instances_is_served_to_prometheus() {
    let place = Place::new().await;
    let orders = place.worker("orders").workflow(MAIN, call_work).start().await.unwrap();
    let _run = purged(&place).await;
    let mut child = place
        .command(&["audit", "--grace", "0s", "--every", "1h", "--metrics", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let (address, said) = tokio::task::spawn_blocking(move || {
        let address = said.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("http://")?;
            Some(rest.strip_suffix("/metrics")?.to_owned())
        });
        (address.unwrap(), said)
    })
    .await
    .unwrap();
    let wanted = format!(
        "leveret_stuck_instances{{namespace=\"{}\",app=\"orders\"}} 1",
        place.backend.namespace()
    );
    until("the metric", async || get(&address).await.contains(&wanted)).await;
    let page = get(&address).await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("text/plain; version=0.0.4"),
        "{page}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    drop(said);
    orders.stop().await;
    place.clean_up().await;
}

async fn get(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
