//! The three services as processes of their own on RabbitMQ and Redis, and the demo as their client: what the README shows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use leveret::Namespace;
use leveret::backend::{Backend, RabbitMqConfig, RedisConfig};
use payments::Ledger;
use serde_json::{Value, json};

/// For what has to come, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);
const APPS: [&str; 3] = ["orders", "payments", "shipping"];

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with tests/run"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process of ours that does not outlive its test.
struct Process(Child);

impl Process {
    /// Returns when it has ended in order.
    fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .expect("kill is there")
                .success()
        );
        let began = Instant::now();
        loop {
            match self.0.try_wait().expect("a child of ours") {
                Some(status) => return assert!(status.success(), "it ended with {status}"),
                None if began.elapsed() > PATIENCE => panic!("waited {PATIENCE:?} for the end after SIGTERM"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// SIGKILL, and returns when it is gone.
    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("it is over");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace on the test servers, and a directory for the bank's ledger and the logs.
struct Shop {
    namespace: String,
    directory: PathBuf,
}

impl Shop {
    fn new() -> Self {
        let namespace = format!("shop-{}", uuid::Uuid::new_v4().simple());
        let directory = std::env::temp_dir().join(&namespace);
        std::fs::create_dir_all(&directory).expect("a directory");
        Self { namespace, directory }
    }

    fn ledger(&self) -> PathBuf {
        self.directory.join("ledger")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("LEVERET_AMQP_URL", setting("LEVERET_TEST_AMQP_URL"))
            .env("LEVERET_REDIS_URL", setting("LEVERET_TEST_REDIS_URL"))
            .env("LEVERET_NAMESPACE", &self.namespace)
            .env("PAYMENTS_LEDGER", self.ledger())
            .env("RUST_LOG", "info,lapin=off")
            .current_dir(&self.directory);
        command
    }

    fn demo(&self) -> Command {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_leveret-demo")));
        command.env_remove("RUST_LOG");
        command
    }

    /// A process of the app: the binary that a user builds and starts.
    fn start(&self, app: &str) -> Process {
        let demo = Path::new(env!("CARGO_BIN_EXE_leveret-demo"));
        let program = demo.with_file_name(format!("leveret-{app}{}", std::env::consts::EXE_SUFFIX));
        assert!(
            program.exists(),
            "{} is not built: `cargo test --workspace` builds it, or `cargo build -p {app}`",
            program.display()
        );
        let log = self.log(app);
        let log = File::options().append(true).create(true).open(log).expect("a log");
        let child = self.command(&program).stdin(Stdio::null()).stderr(log).spawn();
        Process(child.expect("it starts"))
    }

    fn log(&self, app: &str) -> PathBuf {
        self.directory.join(format!("{app}.log"))
    }

    /// What the processes have said, for a test that fails.
    fn logs(&self) -> String {
        let read = |app: &&str| std::fs::read_to_string(self.log(app)).unwrap_or_default();
        APPS.iter().map(read).collect::<Vec<_>>().join("\n")
    }

    /// Leaves nothing on the shared servers.
    fn close(self) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let namespace = Namespace::new(&self.namespace).expect("valid");
            let rabbit = RabbitMqConfig::new(setting("LEVERET_TEST_AMQP_URL"), namespace.clone());
            let redis = RedisConfig::new(setting("LEVERET_TEST_REDIS_URL"), namespace);
            let backend = Backend::servers(rabbit, redis).await.expect("the servers");
            for app in backend.store().apps().await.expect("Redis") {
                backend.broker().remove(&app.id, app.lanes).await.expect("RabbitMQ");
            }
        });
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The lines of `--json`, by order.
fn lines(output: &Output) -> BTreeMap<String, Value> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        (value["order"].as_str().expect("an order").to_owned(), value)
    };
    text(&output.stdout).lines().map(parse).collect()
}

/// What each order of the sample ends with, and what the bank has booked for it.
fn assert_all_ended_as_the_orders_say(lines: &BTreeMap<String, Value>, ledger: &Path) {
    assert_eq!(lines.len(), 12);
    let entries = Ledger::open(ledger).expect("a ledger").entries();
    for (order, line) in lines {
        let booked: Vec<i64> = entries
            .iter()
            .filter(|entry| entry.order == *order)
            .map(|entry| entry.cents)
            .collect();
        let (status, kind, expected): (&str, Value, Value) = match order.as_str() {
            "1004" => ("Failed", "CardDeclined".into(), json!([])),
            "1007" => ("Failed", "NoCarrier".into(), json!([2500, -2500])),
            "1009" => ("Failed", "Rejected".into(), json!([])),
            "1011" => ("Failed", "OutOfStock".into(), json!([])),
            _ => ("Completed", Value::Null, json!([line["output"]["receipt"]["cents"]])),
        };
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["failure"]["kind"], kind, "{line}");
        assert_eq!(json!(booked), expected, "{line}");
    }
    assert_eq!(lines["1003"]["activities"]["payments"]["charge"], 3);
    assert_eq!(lines["1007"]["activities"]["payments"]["refund"], 1);
    let shipped = json!({"pack": 1, "book": 1});
    assert_eq!(lines["1001"]["activities"]["shipping"], shipped);
}

#[test]
fn three_services_take_the_orders_through_though_one_is_killed_in_the_middle() {
    let shop = Shop::new();
    let orders = shop.start("orders");
    let shipping = shop.start("shipping");
    let payments = shop.start("payments");

    let mut submit = shop.demo();
    let mut submit = submit
        .args(["submit", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(submit.stderr.take().expect("piped")).lines();
    let mut submit = Process(submit);
    // In the middle: one order is through, and another one is being charged.
    let mut before: Vec<String> = Vec::new();
    for line in said.by_ref() {
        before.push(line.expect("a line"));
        let has = |what: &str| before.iter().any(|line| line.contains(what));
        if has("Completed: ")
            && before
                .last()
                .is_some_and(|line| line.contains("payments charges the card"))
        {
            break;
        }
    }
    payments.kill();
    let killed_at = before.len();
    let payments = shop.start("payments");
    // Read to its end, so that it is not held up by a full pipe.
    before.extend(said.map(|line| line.expect("a line")));
    let mut output = String::new();
    let mut stdout = submit.0.stdout.take().expect("piped");
    std::io::Read::read_to_string(&mut stdout, &mut output).expect("text");
    let status = submit.0.wait().expect("it ends");
    assert!(status.success(), "{before:#?}\n{}", shop.logs());
    let ended_after = before[killed_at..]
        .iter()
        .filter(|line| line.contains("ompleted: "))
        .count();
    assert!(ended_after > 0, "it was not in the middle: {before:#?}");
    let output = Output {
        status,
        stdout: output.into_bytes(),
        stderr: Vec::new(),
    };
    assert_all_ended_as_the_orders_say(&lines(&output), &shop.ledger());

    // The same orders once more are the same instances.
    let again = shop.demo().args(["submit", "--json"]).output().expect("it runs");
    assert!(
        text(&again.stderr).contains("all 12 orders were already finished"),
        "{}",
        text(&again.stderr)
    );
    assert_all_ended_as_the_orders_say(&lines(&again), &shop.ledger());

    let history = shop
        .demo()
        .args(["history", "1007", "--servers"])
        .output()
        .expect("it runs");
    assert_eq!(history.status.code(), Some(0), "{}", text(&history.stderr));
    let history = text(&history.stdout);
    assert!(history.contains("activity `refund` on app `payments`"), "{history}");

    start_from_python(&shop);

    for process in [orders, shipping, payments] {
        process.stop();
    }
    shop.close();
}

/// Runs the README's Python, with this test's namespace for its `shop`, and waits for the order's end with the README's next command.
fn start_from_python(shop: &Shop) {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).expect("the README");
    let (_, rest) = readme.split_once("```python\n").expect("a block in Python");
    let (block, rest) = rest.split_once("```").expect("the block's end");
    for named in ["leveret.shop", "shop.orders.workflows"] {
        assert!(block.contains(named), "{block}");
    }
    let block = block
        .replace("leveret.shop", &format!("leveret.{}", shop.namespace))
        .replace("shop.orders", &format!("{}.orders", shop.namespace));
    let python = setting("LEVERET_TEST_PYTHON");
    let ran = shop
        .command(Path::new(&python))
        .args(["-c", &block])
        .output()
        .expect("Python runs");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(
        rest.contains("`cargo run --release -- history order-2001 --servers`"),
        "what is told behind the block"
    );
    let began = Instant::now();
    loop {
        let history = shop
            .demo()
            .args(["history", "order-2001", "--servers"])
            .output()
            .expect("it runs");
        let history = text(&history.stdout);
        if history.contains("Completed") {
            return assert!(history.contains("activity `charge` on app `payments`"), "{history}");
        }
        assert!(began.elapsed() < PATIENCE, "{history}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_client_without_servers_is_told_which_variables_to_set() {
    for command in [&["submit"][..], &["history", "1007", "--servers"]] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_leveret-demo"));
        demo.env_remove("LEVERET_AMQP_URL").env_remove("LEVERET_REDIS_URL");
        let output = demo.args(command).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("set LEVERET_AMQP_URL and LEVERET_REDIS_URL"));
    }
}
