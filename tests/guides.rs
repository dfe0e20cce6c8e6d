//! The programs of README.md and docs/first-two-apps.md do what is said there. They stand in `tests/guides`, word for word, and run as processes:
//! this test program again, running one of the `…_process` functions alone.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The programs as they are, each a module with a `main`.
#[allow(clippy::all, reason = "they are written to be read")]
mod hello {
    include!("guides/hello.rs");

    pub(super) fn run() -> Result<()> {
        main()
    }
}

#[allow(clippy::all, unreachable_pub, reason = "they are written to be read")]
mod two_apps {
    include!("guides/two_apps.rs");

    pub(super) fn run() -> Result<()> {
        main()
    }
}

const PROGRAM: &str = "LEVERET_TEST_PROGRAM";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The first block of this kind behind a line of the document.
fn block<'a>(document: &'a str, line: &str, kind: &str) -> &'a str {
    let (_, rest) = document.split_once(&format!("\n{line}\n")).expect(line);
    let (_, rest) = rest.split_once(&format!("```{kind}\n")).expect(kind);
    rest.split_once("```").expect("the block's end").0
}

#[test]
fn the_guides_hold_the_programs_that_run_here() {
    for (document, line, program) in [
        ("README.md", "## Hello world", "tests/guides/hello.rs"),
        ("docs/first-two-apps.md", "`src/main.rs`:", "tests/guides/two_apps.rs"),
    ] {
        let text = read(document);
        let written = block(&text, line, "rust,no_run");
        assert!(
            written == read(program),
            "{document} and {program} differ: copy the one that is right"
        );
    }
}

#[test]
fn hello_world_is_seventeen_lines_at_most() {
    let program = read("tests/guides/hello.rs");
    let lines = program.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 17, "{lines}");
}

/// Not a test of its own: what [`Place::start`] runs.
#[test]
fn hello_process() {
    if std::env::var(PROGRAM).as_deref() == Ok("hello") {
        hello::run().expect("it ends well");
    }
}

/// Not a test of its own: what [`Place::start`] runs.
#[test]
fn two_apps_process() {
    if std::env::var(PROGRAM).as_deref() == Ok("two_apps") {
        two_apps::run().expect("it ends well");
    }
}

/// An empty directory, in which programs are started.
struct Place {
    directory: PathBuf,
    /// Servers and a namespace, if it is not to be the file.
    environment: Vec<(&'static str, String)>,
}

/// A process that does not outlive its test.
struct Process(Child);

impl Place {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("leveret-guides-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).expect("a directory");
        Self {
            directory,
            environment: Vec::new(),
        }
    }

    /// The program with these arguments, before those that the test program needs.
    fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        for (name, _) in std::env::vars_os() {
            // What a person's shell has is not the guide's.
            if name.to_string_lossy().starts_with("LEVERET_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .args([
                &format!("{program}_process"),
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(PROGRAM, program)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .current_dir(&self.directory);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output: Output = self.program(program, arguments).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said(&String::from_utf8_lossy(&output.stdout))
    }

    /// A program that goes on, with its output in a file of this name.
    fn start(&self, program: &str, arguments: &[&str], output: &str) -> Process {
        let output = File::create(self.directory.join(output)).expect("a file");
        let child = self.program(program, arguments).stdout(output).spawn();
        Process(child.expect("it starts"))
    }

    fn said(&self, output: &str) -> String {
        said(&std::fs::read_to_string(self.directory.join(output)).expect("a file"))
    }
}

/// What a program has printed, without what the test program says around it: `running 1 test`, `test two_apps_process ... ` and `ok`.
fn said(output: &str) -> String {
    let its_own = |line: &'_ str| -> Option<String> {
        let line = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            Some((_, printed)) => printed,
            None => line,
        };
        let is_ours = line.is_empty()
            || line == "ok"
            || ["running ", "test result: "]
                .iter()
                .any(|begin| line.starts_with(begin));
        (!is_ours).then(|| format!("{line}\n"))
    };
    output.lines().filter_map(its_own).collect()
}

impl Process {
    /// SIGKILL, and returns when it is gone.
    fn kill(&mut self) {
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

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn hello_world_greets() {
    let place = Place::new();
    assert_eq!(place.run("hello", &[]), "Hello, Ada!\n");
    assert!(
        place.directory.join("leveret.db").exists(),
        "the file that the comment names"
    );
}

/// What the guide shows after `$ cargo run`.
fn shown() -> String {
    let guide = read("docs/first-two-apps.md");
    let shown = block(&guide, "## One process, one file", "console");
    shown
        .strip_prefix("$ cargo run\n")
        .expect("the command first")
        .to_owned()
}

#[test]
fn the_first_two_apps_print_what_the_guide_shows_and_repeat_nothing_after_a_kill() {
    let whole = Place::new();
    assert_eq!(whole.run("two_apps", &[]), shown());
    // "The order is there already and its result comes at once."
    let result = shown()
        .lines()
        .last()
        .map(|line| format!("{line}\n"))
        .expect("a result");
    assert_eq!(whole.run("two_apps", &[]), result);

    // "End it while it waits for the van; the next run fetches nothing and tells nobody a second time."
    let killed = Place::new();
    let mut first = killed
        .program("two_apps", &[])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(first.stdout.take().expect("piped")).lines();
    let mut first = Process(first);
    assert!(
        lines.any(|line| line.expect("a line").contains("[shop] tells")),
        "it tells the customer"
    );
    // The van takes 10 s, and what came before it is in the file within milliseconds. The process says nothing more, and nobody else may open its file:
    // there is no signal to wait for, so this waits as a person would.
    std::thread::sleep(std::time::Duration::from_secs(4));
    first.kill();
    assert_eq!(killed.run("two_apps", &[]), result);
}

#[cfg(all(feature = "rabbitmq", feature = "redis"))]
#[test]
fn the_first_two_apps_run_as_processes_on_servers() {
    let setting =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with tests/run"));
    let mut place = Place::new();
    let namespace = format!("guide-{}", uuid::Uuid::new_v4().simple());
    place.environment = vec![
        ("LEVERET_AMQP_URL", setting("LEVERET_TEST_AMQP_URL")),
        ("LEVERET_REDIS_URL", setting("LEVERET_TEST_REDIS_URL")),
        ("LEVERET_NAMESPACE", namespace.clone()),
    ];
    // The shop first: the order waits for a warehouse that is not there yet.
    let _shop = place.start("two_apps", &["shop", "-"], "shop.out");
    let mut order = place.start("two_apps", &["order", "order-17"], "order.out");
    let _warehouse = place.start("two_apps", &["warehouse", "-"], "warehouse.out");
    assert!(order.0.wait().expect("it ends").success());
    let shown = shown();
    let of = |side: &str| -> String {
        let lines = shown.lines().filter(|line| line.starts_with('[') != side.is_empty());
        lines
            .filter(|line| line.starts_with(side))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    assert_eq!(place.said("warehouse.out"), of("[warehouse]"));
    assert_eq!(place.said("shop.out"), of("[shop]"));
    assert_eq!(place.said("order.out"), of(""));
    drop((_shop, _warehouse));
    remove_queues(&namespace);
}

/// Leaves nothing on the shared servers.
#[cfg(all(feature = "rabbitmq", feature = "redis"))]
fn remove_queues(namespace: &str) {
    use leveret::backend::{Backend, RabbitMqConfig, RedisConfig};
    let url = |name: &str| std::env::var(name).expect("set, or the test would not be here");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let namespace = leveret::Namespace::new(namespace).expect("valid");
        let rabbit = RabbitMqConfig::new(url("LEVERET_TEST_AMQP_URL"), namespace.clone());
        let redis = RedisConfig::new(url("LEVERET_TEST_REDIS_URL"), namespace);
        let backend = Backend::servers(rabbit, redis).await.expect("the servers");
        for app in backend.store().apps().await.expect("Redis") {
            backend.broker().remove(&app.id, app.lanes).await.expect("RabbitMQ");
        }
    });
}
