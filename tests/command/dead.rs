//! `leveret dead`.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leveret::client::Filter;
use leveret::{Status, Workflow, WorkflowContext};

use crate::place::{Place, code, lines, text, url};

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

async fn echo(_: WorkflowContext, n: u64) -> leveret::Result<u64> {
    Ok(n)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_listed_shown_retried_and_dropped() {
    let place = Place::new().await;
    let worker = place.worker("orders").workflow(MAIN, echo).start().await.unwrap();
    let none = place.run(&["dead", "list"]).await;
    assert_eq!(code(&none), 0, "{}", text(&none.stderr));
    assert!(none.stdout.is_empty());

    let start = r#"{"workflow": "main", "instance_id": "one", "input": 7}"#;
    place
        .bury("orders", "orders.workflows", "the input is too large", start)
        .await;
    place
        .bury("orders", "orders.workflows", "not a start message", "hello")
        .await;
    let listed = place.run(&["dead", "list", "--json"]).await;
    assert_eq!(code(&listed), 1, "{}", text(&listed.stderr));
    let letters = lines(&listed);
    assert_eq!(letters.len(), 2);
    let good = letters.iter().find(|letter| letter["kind"] == "raw start").unwrap();
    assert_eq!(
        (&good["origin"], &good["reason"]),
        (&"orders.workflows".into(), &"the input is too large".into())
    );
    let table = text(&place.run(&["dead", "list"]).await.stdout);
    assert!(table.lines().count() == 3 && !table.contains('\x1b'), "{table}");
    assert!(
        table.contains("orders/one") && table.contains("not a start message"),
        "{table}"
    );

    let id = good["id"].as_str().unwrap();
    let shown = place.run(&["dead", "show", &id[..8]]).await;
    assert_eq!(code(&shown), 0);
    assert!(text(&shown.stdout).contains(start), "{}", text(&shown.stdout));
    let absent = place.run(&["dead", "show", "0123456789abcdef"]).await;
    assert_eq!((code(&absent), text(&absent.stderr).lines().count()), (1, 1));

    // More than one letter, or one that is not there: nothing is touched.
    for n in 0..20 {
        place.bury("orders", "orders.workflows", "many", &n.to_string()).await;
    }
    let many = lines(&place.run(&["dead", "list", "--json"]).await);
    let begins_alike = |first: &str| {
        let ids = many.iter().filter_map(|letter| letter["id"].as_str());
        ids.filter(|id| id.starts_with(first)).count() > 1
    };
    let mut digits = (0..16).map(|digit| format!("{digit:x}"));
    let shared = digits.find(|digit| begins_alike(digit)).expect("two that begin alike");
    let dropped = place.run(&["dead", "drop", &shared]).await;
    let said = text(&dropped.stderr);
    assert_eq!((code(&dropped), said.lines().count()), (2, 1), "{said}");
    let dropped = place.run(&["dead", "drop", id, "0123456789abcdef"]).await;
    let said = text(&dropped.stderr);
    assert_eq!((code(&dropped), said.lines().count()), (1, 1), "{said}");
    assert_eq!(lines(&place.run(&["dead", "list", "--json"]).await).len(), many.len());
    let shown = place.run(&["dead", "show", id, "0123456789abcdef"]).await;
    assert_eq!(code(&shown), 1);
    assert!(text(&shown.stderr).contains("0123456789abcdef"));
    assert_eq!(code(&place.run(&["dead", "drop", "--reason", "many"]).await), 0);

    let retried = place.run(&["dead", "retry", id]).await;
    assert_eq!(code(&retried), 0, "{}", text(&retried.stderr));
    assert!(text(&retried.stdout).contains("sent to orders.workflows"));
    let output = place.client.instance("orders", "one").unwrap();
    let output: u64 = output
        .result()
        .within(Duration::from_secs(60))
        .await
        .unwrap()
        .decode()
        .unwrap();
    assert_eq!(output, 7);
    // Somebody had sent it once more.
    place
        .bury("orders", "orders.workflows", "the input is too large", start)
        .await;
    let settled = place.run(&["dead", "retry", "--reason", "too large", "--json"]).await;
    assert_eq!(code(&settled), 1, "{}", text(&settled.stderr));
    let why = lines(&settled)[0]["outcome"]["settled"].as_str().unwrap().to_owned();
    assert!(why.contains("orders/one, which is Completed"), "{why}");

    for arguments in [
        ["dead", "list", "--app", "payment"],
        ["audit", "--repair", "--app", "payment"],
    ] {
        let unknown = place.run(&arguments).await;
        let said = text(&unknown.stderr);
        assert_eq!((code(&unknown), said.lines().count()), (2, 1), "{said}");
        assert!(
            said.contains("\"payment\"") && said.contains("there are: orders"),
            "{said}"
        );
    }

    let dropped = place.run(&["dead", "drop", "--all", "--json"]).await;
    assert_eq!((code(&dropped), lines(&dropped).len()), (0, 2));
    assert_eq!(code(&place.run(&["dead", "list"]).await), 0);
    worker.stop().await;
    place.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_killed_again_and_again_loses_no_letter_and_starts_none_twice() {
    const LETTERS: usize = 60;
    let place = Place::new().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = {
        let runs = runs.clone();
        move |_: WorkflowContext, n: u64| {
            let runs = runs.clone();
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok::<u64, leveret::Failure>(n)
            }
        }
    };
    let worker = place.worker("orders").workflow(MAIN, counted).start().await.unwrap();
    for n in 0..LETTERS {
        let start = format!(r#"{{"workflow": "main", "instance_id": "i-{n}", "input": {n}}}"#);
        place.bury("orders", "orders.workflows", "a reason", &start).await;
    }
    let mut killed = 0;
    // Each gets a little further than the one before.
    for time in (0..).map(|round| Duration::from_millis(10 * round)) {
        let mut child = place
            .command(&["dead", "retry", "--all"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(time).await;
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    assert!(killed > 0);
    // What came back is sent; what was sent twice is settled.
    let settled = |output: &std::process::Output| lines(output).iter().all(|line| line["outcome"]["sent"].is_null());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let retried = place.run(&["dead", "retry", "--all", "--json"]).await;
        place.run(&["dead", "drop", "--reason", "exists already"]).await;
        let completed = place
            .client
            .list(Filter::app("orders").status(Status::Completed))
            .collect()
            .await
            .unwrap();
        let ids: HashSet<String> = completed.iter().map(|one| one.instance.id.to_string()).collect();
        if ids.len() == LETTERS && settled(&retried) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} of {LETTERS}: {}",
            ids.len(),
            text(&retried.stdout)
        );
    }
    assert_eq!(runs.load(Ordering::SeqCst), LETTERS);
    worker.stop().await;
    place.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_gave_up_by_itself_is_listed_and_retried() {
    let place = Place::new().await;
    place.worker("orders").start().await.unwrap().stop().await;
    let connection = lapin::Connection::connect(&url("LEVERET_TEST_AMQP_URL"), Default::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let namespace = place.backend.namespace();
    let properties = lapin::BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_expiration("1".into());
    channel
        .basic_publish(
            format!("leveret.{namespace}").as_str().into(),
            format!("{namespace}.orders.workflows").as_str().into(),
            Default::default(),
            br#"{"workflow": "main", "instance_id": "one", "input": 7}"#,
            properties,
        )
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let letters = loop {
        let listed = place.run(&["dead", "list", "--json"]).await;
        if code(&listed) == 1 {
            break lines(&listed);
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", text(&listed.stderr));
    };
    connection.close(200, "bye".into()).await.unwrap();
    assert_eq!(letters[0]["origin"], "orders.workflows");
    assert!(
        letters[0]["reason"].as_str().unwrap().contains("expired"),
        "{letters:?}"
    );
    assert!(letters[0]["died_at"].is_u64(), "{letters:?}");
    let worker = place.worker("orders").workflow(MAIN, echo).start().await.unwrap();
    let retried = place.run(&["dead", "retry", "--origin", "orders.workflows"]).await;
    assert_eq!(code(&retried), 0, "{}", text(&retried.stdout));
    let instance = place.client.instance("orders", "one").unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !instance.get().await.is_ok_and(|info| info.status == Status::Completed) {
        assert!(tokio::time::Instant::now() < deadline, "it did not start");
    }
    worker.stop().await;
    place.clean_up().await;
}
