//! What a file is after its process was killed, and while it lives.
//!
//! The other process is this test's own program: it runs [`embedded_child_process`] alone, which works on the file that an environment variable
//! names and tells on its standard output what was answered.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use leveret::backend::{Backend, Queue, Store};
use leveret::{InstanceId, InstanceRef};

use super::{Directory, broker_words, namespace, open, store_words};

const FILE: &str = "LEVERET_TEST_CHILD_FILE";

/// Instances that the child works on side by side.
const INSTANCES: u64 = 8;

fn orders() -> leveret::AppId {
    store_words::app("orders")
}

fn numbered(number: u64) -> InstanceRef {
    InstanceRef::new(orders(), InstanceId::new(format!("i{number}")).expect("valid"))
}

/// The process that is killed: commits, publishes, consumes and acknowledges until it dies.
#[tokio::test]
async fn embedded_child_process() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let backend = open(Path::new(&path)).await;
    backend.broker().declare(&orders(), 1).await.expect("declared");
    println!("\nopen");
    let working = (0..INSTANCES).map(|number| work(&backend, number));
    tokio::join!(futures_util::future::join_all(working), consume(&backend));
}

/// Commits turns to one instance and publishes a message for each, without end. Says `turn {instance} {version}` or `message {body}` when answered.
async fn work(backend: &Backend, number: u64) {
    let instance = numbered(number);
    let mut record = match backend.store().record(&instance).await.expect("read") {
        Some(record) => record,
        None => store_words::pending(backend.store(), &instance).await,
    };
    loop {
        let commit = store_words::turn(&instance, record.guard());
        record = store_words::apply(backend.store(), &commit).await.0;
        say(&format!("turn {number} {}", record.version));
        let body = format!("{number}-{}", record.version);
        let message = broker_words::message(&Queue::Workflows(orders()), &body);
        backend.broker().publish(message).await.expect("published");
        say(&format!("message {body}"));
        let work = broker_words::message(&Queue::Activities(orders()), &body);
        backend.broker().publish(work).await.expect("published");
    }
}

/// Takes and acknowledges without end. Says `delivered {body}` before it acknowledges.
async fn consume(backend: &Backend) {
    let mut consumer = broker_words::consume(backend.broker(), &Queue::Activities(orders()), 10).await;
    while let Some(delivery) = consumer.next().await {
        say(&format!("delivered {}", broker_words::text(&delivery)));
        delivery.ack();
    }
}

/// A whole line at once, so that the kill cuts at most the last one.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).expect("the test listens");
    out.flush().expect("the test listens");
}

/// The child, killed when it is dropped: a failing test leaves none behind.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "embedded::crash::embedded_child_process", "--nocapture"])
            .env(FILE, path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let opened = lines.by_ref().any(|line| line.expect("text") == "open");
        assert!(opened, "the child opens the file");
        Self { child, lines }
    }

    /// Kills it after it has said so many lines, and returns all that it has said.
    fn kill_after(mut self, count: usize) -> Vec<String> {
        let mut said: Vec<String> = self
            .lines
            .by_ref()
            .take(count)
            .map(|line| line.expect("text"))
            .collect();
        assert_eq!(said.len(), count, "the child works until it is killed");
        self.child.kill().expect("killed");
        // What it said before it died is in the pipe still.
        said.extend(self.lines.by_ref().map_while(Result::ok));
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_answered() {
    let directory = Directory::new();
    let (mut turns, mut messages, mut delivered) = ([0; INSTANCES as usize], HashSet::new(), HashSet::new());
    for round in 1..=4 {
        let said = Running::start(&directory.file()).kill_after(300 * round);
        for line in &said {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["turn", number, version] => {
                    let (Ok(number), Ok(version)) = (number.parse::<usize>(), version.parse::<u64>()) else {
                        continue;
                    };
                    turns[number] = version.max(turns[number]);
                }
                ["message", body] => drop(messages.insert(body.to_owned())),
                ["delivered", body] => drop(delivered.insert(body.to_owned())),
                _ => panic!("the child said {line:?}"),
            }
        }
        let backend = open(&directory.file()).await;
        for (number, answered) in turns.iter().enumerate() {
            check_history(backend.store().as_ref(), number as u64, *answered).await;
        }
        check_queues(&backend, &messages, &delivered).await;
    }
    assert!(!delivered.is_empty() && !messages.is_empty());
}

/// The history has every turn that was answered, and is whole.
async fn check_history(store: &dyn Store, number: u64, answered: u64) {
    let instance = numbered(number);
    let Some(record) = store.record(&instance).await.expect("read") else {
        assert_eq!(answered, 0, "the record of {instance} is lost");
        return;
    };
    assert!(
        record.version >= answered,
        "{instance} has {} of {answered} turns",
        record.version
    );
    let (mut read, mut after) = (0, 0);
    loop {
        let page = store
            .turns(&instance, record.execution, after, 500)
            .await
            .expect("read");
        if page.is_empty() {
            break;
        }
        read += page.len() as u64;
        after = read;
    }
    assert_eq!(read, record.version, "a turn for every version of {instance}");
    let last = store
        .turns(&instance, record.execution, record.version - 1, 1)
        .await
        .expect("read");
    let expected = format!(
        "turn {} of {}: {}",
        record.version,
        record.execution,
        record.commit.expect("a commit")
    );
    assert_eq!(last[0], expected.as_bytes(), "record and history are of one moment");
}

/// Every message that was confirmed is there, once; what was delivered and comes again says so.
async fn check_queues(backend: &Backend, messages: &HashSet<String>, delivered: &HashSet<String>) {
    let queue = Queue::Workflows(orders());
    let depth = backend
        .broker()
        .depth(&queue)
        .await
        .expect("answered")
        .expect("declared");
    let mut consumer = broker_words::consume(backend.broker(), &queue, 0).await;
    let mut found = HashSet::new();
    for _ in 0..depth.messages {
        let delivery = broker_words::next(&mut consumer).await;
        assert!(found.insert(broker_words::text(&delivery)), "stored twice");
    }
    let lost: Vec<_> = messages.difference(&found).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");

    let queue = Queue::Activities(orders());
    let depth = backend
        .broker()
        .depth(&queue)
        .await
        .expect("answered")
        .expect("declared");
    let mut consumer = broker_words::consume(backend.broker(), &queue, 0).await;
    for _ in 0..depth.messages {
        let delivery = broker_words::next(&mut consumer).await;
        let came_before = delivered.contains(&broker_words::text(&delivery));
        assert!(
            delivery.redelivered || !came_before,
            "delivered before, and does not say so"
        );
    }
}

#[tokio::test]
async fn a_second_process_is_refused_and_may_come_when_the_first_is_gone() {
    let directory = Directory::new();
    let first = Running::start(&directory.file());
    let error = Backend::embedded(directory.file(), namespace("n"))
        .await
        .expect_err("refused");
    assert!(error.is_permanent());
    let message = error.to_string();
    assert!(
        message.contains("state.leveret is in use by another process"),
        "{message}"
    );
    drop(first);
    open(&directory.file()).await;
}
