//! What a process of the tests does: it hosts apps, starts an instance, watches one.
//!
//! Environment variables tell it; see [`super::process`]. An embedded file is open in one process only, so that a process may have all roles, and
//! whatever the test wants to know while it lives the process has to write to a file.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use leveret::backend::{Backend, Message, Properties, Queue};
use leveret::client::Error;
use leveret::{Client, OnConflict, Payload};

use super::apps::{APPROVED, APPS, worker};
use super::inspect::untidy;
use super::process::{DIRECTORY, ROLES, SUBJECT};
use super::world::{Place, STARTED, SUBJECT_ID, WATCHED};

/// How long everything may take to be tidied up after the end: a check that a crash has left comes after some seconds.
const TIDY_WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn run_if_asked() {
    let Some(roles) = std::env::var_os(ROLES) else { return };
    std::thread::spawn(end_with_the_test);
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "leveret=debug".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(roles.to_str().expect("text")));
    std::process::exit(0);
}

/// The test holds the other end of standard input: a test that is gone leaves no process behind.
fn end_with_the_test() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(3);
}

async fn run(roles: &str) {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory"));
    let backend = Place::from_env().open().await;
    let has = |role: &str| roles.split(' ').any(|one| one == role);
    let workers = APPS.iter().filter(|app| has(app)).map(|app| {
        let worker = worker(app, &backend, &directory);
        async move { worker.run_until(leveret::shutdown_signal()).await.expect("a worker") }
    });
    tokio::join!(
        join_all(workers),
        async {
            if has("starter") {
                start(&backend, &directory).await;
            }
        },
        async {
            if has("raw-starter") {
                start_by_hand(&backend).await;
            }
        },
        async {
            if has("watcher") {
                watch(&backend, &directory).await;
            }
        },
        async {
            if has("crowd") {
                crowd(&backend, &directory).await;
            }
        }
    );
}

/// Starts the workflow that the environment names, once however often it is called.
async fn start(backend: &Backend, directory: &Path) {
    let subject = std::env::var(SUBJECT).expect("a workflow and its input");
    let (workflow, input) = subject.split_once(' ').expect("two words");
    let input: Payload = serde_json::from_str(input).expect("JSON");
    let client = Client::new(backend.clone());
    let start = client.start_named::<Payload>("orders", workflow, input);
    let start = start
        .id(SUBJECT_ID)
        .request_id("the-request")
        .policy(OnConflict::RejectActive);
    match start.await {
        // A request that is repeated is no conflict; but let the instance tell, by what it does.
        Ok(_) | Err(Error::InstanceAlreadyExists { .. }) => {}
        Err(error) => panic!("not started: {error}"),
    }
    write(directory, STARTED, "");
}

/// Publishes the start as any AMQP client may, once the app is there to route it to.
async fn start_by_hand(backend: &Backend) {
    let subject = std::env::var(SUBJECT).expect("a workflow and its input");
    let (workflow, input) = subject.split_once(' ').expect("two words");
    let queue = Queue::Workflows("orders".parse().expect("valid"));
    while backend.broker().depth(&queue).await.expect("answered").is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let body = format!(r#"{{"workflow": "{workflow}", "instance_id": "{SUBJECT_ID}", "input": {input}}}"#);
    let properties = Properties {
        message_id: Some("the-mail".into()),
        ..Properties::default()
    };
    let message = Message {
        queue,
        body: body.into(),
        properties,
    };
    backend.broker().publish(message).await.expect("stored");
}

/// Approves, waits for the result, then for everything to be tidy, and writes down both.
async fn watch(backend: &Backend, directory: &Path) {
    let client = Client::new(backend.clone());
    let instance = client.instance("orders", SUBJECT_ID).expect("valid");
    let result: Payload = loop {
        // Each process of a watcher says it again, as the same message.
        match instance.raise(APPROVED, 1000).message_id("the-approval").await {
            Ok(_) | Err(Error::InstanceOver { .. }) => {}
            Err(error) => panic!("not approved: {error}"),
        }
        match instance.result().await {
            Ok(result) => break result,
            Err(Error::NotFound { .. }) => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => break Payload::encode(&error.to_string()).expect("text"),
        }
    };
    let result = std::str::from_utf8(result.as_bytes()).expect("JSON");
    write_result(backend, directory, result).await;
}

/// Starts many tours, approves them and waits for all results. Does so again in each process, with the same IDs.
async fn crowd(backend: &Backend, directory: &Path) {
    let client = Client::new(backend.clone());
    let number: usize = std::env::var(SUBJECT).expect("a number").parse().expect("a number");
    let tours = (0..number).map(|number| tour(&client, number));
    let results: Vec<String> = stream::iter(tours).buffer_unordered(50).collect().await;
    let kinds: BTreeSet<String> = results.into_iter().collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    write_result(backend, directory, &kinds.join(", ")).await;
}

async fn tour(client: &Client, number: usize) -> String {
    let start = client
        .start_named::<Payload>("orders", "tour", 0)
        .id(format!("tour-{number}"))
        .request_id(format!("request-{number}"));
    match start.await {
        Ok(_) | Err(Error::InstanceAlreadyExists { .. }) => {}
        Err(error) => return error.to_string(),
    }
    let instance = client.instance("orders", format!("tour-{number}")).expect("valid");
    let raise = instance.raise(APPROVED, 1000).message_id(format!("approval-{number}"));
    match raise.await {
        Ok(_) | Err(Error::InstanceOver { .. }) => {}
        Err(error) => return error.to_string(),
    }
    match instance.result_as::<u64>().await {
        Ok(result) => result.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The result, once everything is tidy, or with what is not.
async fn write_result(backend: &Backend, directory: &Path, result: &str) {
    let began = tokio::time::Instant::now();
    let mut left = untidy(backend).await;
    while !left.is_empty() && began.elapsed() < TIDY_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        left = untidy(backend).await;
    }
    write(directory, WATCHED, &format!("{result}\n{}", left.join("\n")));
}

/// All at once, so that nobody reads half of it.
fn write(directory: &Path, name: &str, text: &str) {
    let draft = directory.join(format!("{name}.new"));
    std::fs::write(&draft, text).expect("written");
    std::fs::rename(draft, directory.join(name)).expect("renamed");
}
