//! A namespace on the servers, or an embedded file, with the processes that work on it.

use std::path::{Path, PathBuf};

use leveret::Namespace;
use leveret::backend::{Backend, RabbitMq, RabbitMqConfig, RedisConfig, RedisStore, SystemClock};
use uuid::Uuid;

use super::apps::{APPS, LANES, gate};
use super::process::{Process, SUBJECT};
use super::soon::{PATIENCE, soon};

/// The ID of the one instance that a starter starts, on app `orders`.
pub(crate) const SUBJECT_ID: &str = "subject";
/// The file that says that the start was confirmed.
pub(crate) const STARTED: &str = "started";
/// The file with the result, and what was not tidy.
pub(crate) const WATCHED: &str = "watched";

const AMQP: &str = "LEVERET_TEST_WORLD_AMQP";
const REDIS: &str = "LEVERET_TEST_WORLD_REDIS";
const NAMESPACE: &str = "LEVERET_TEST_WORLD_NAMESPACE";
const FILE: &str = "LEVERET_TEST_WORLD_FILE";

/// Where a backend is.
#[derive(Clone)]
pub(crate) enum Place {
    Servers {
        amqp: String,
        redis: String,
        namespace: String,
    },
    File(PathBuf),
}

impl Place {
    /// A fresh namespace on these servers.
    pub(crate) fn servers(amqp: String, redis: String) -> Self {
        let namespace = format!("faults-{}", Uuid::new_v4().simple());
        Place::Servers { amqp, redis, namespace }
    }

    pub(crate) fn from_env() -> Self {
        let read = |name| std::env::var(name).expect("the process that started this one sets it");
        match std::env::var_os(FILE) {
            Some(file) => Place::File(file.into()),
            None => Place::Servers {
                amqp: read(AMQP),
                redis: read(REDIS),
                namespace: read(NAMESPACE),
            },
        }
    }

    /// Host and port of the broker and of the store.
    pub(crate) fn hosts(&self) -> (String, String) {
        let Place::Servers { amqp, redis, .. } = self else {
            panic!("a file has no host")
        };
        let host = |url: &str| {
            let (_, rest) = url.split_once("://").expect("a URL");
            let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
            rest.split('/').next().expect("a host").to_owned()
        };
        (host(amqp), host(redis))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Place::Servers { amqp, redis, namespace } => {
                vec![
                    (AMQP, amqp.clone()),
                    (REDIS, redis.clone()),
                    (NAMESPACE, namespace.clone()),
                ]
            }
            Place::File(file) => vec![(FILE, file.to_str().expect("a path of text").to_owned())],
        }
    }

    pub(crate) async fn open(&self) -> Backend {
        match self {
            Place::Servers { amqp, redis, namespace } => {
                let namespace = Namespace::new(namespace).expect("valid");
                let broker = RabbitMq::connect(RabbitMqConfig::new(amqp.as_str(), namespace.clone())).await;
                let store = RedisStore::connect(RedisConfig::new(redis.as_str(), namespace.clone())).await;
                Backend::new(
                    namespace,
                    broker.expect("the broker is there"),
                    store.expect("the store is there"),
                    std::sync::Arc::new(SystemClock),
                    "servers",
                )
            }
            Place::File(file) => Backend::embedded(file, Namespace::new("faults").expect("valid"))
                .await
                .expect("the file can be opened"),
        }
    }
}

/// See the module. Each test has its own.
pub(crate) struct World {
    pub(crate) place: Place,
    directory: PathBuf,
    subject: String,
    processes: Vec<Process>,
}

impl World {
    /// On RabbitMQ and Redis.
    pub(crate) fn on_servers(subject: &str) -> Self {
        let url = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run the tests with tests/run, which starts the servers they need")
            })
        };
        let place = Place::servers(url("LEVERET_TEST_AMQP_URL"), url("LEVERET_TEST_REDIS_URL"));
        Self::new(subject, |_| place)
    }

    /// On a file.
    pub(crate) fn on_file(subject: &str) -> Self {
        Self::new(subject, |directory| Place::File(directory.join("state.leveret")))
    }

    /// A world whose starter starts the subject: a workflow's name, a space, its input.
    pub(crate) fn new(subject: &str, place: impl FnOnce(&Path) -> Place) -> Self {
        let directory = std::env::temp_dir().join(format!("leveret-faults-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).expect("a directory");
        Self {
            place: place(&directory),
            directory,
            subject: subject.to_owned(),
            processes: Vec::new(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts processes with these roles: one each on servers, one with all of them on a file.
    pub(crate) fn start(&mut self, roles: &str) {
        self.start_with_fault(roles, None);
    }

    /// Starts processes; the one with the role gets the fault.
    pub(crate) fn start_with_fault(&mut self, roles: &str, fault: Option<(&str, &str)>) {
        let groups: Vec<&str> = match self.place {
            Place::Servers { .. } => roles.split(' ').collect(),
            Place::File(_) => vec![roles],
        };
        for roles in groups {
            let mut environment = self.place.environment();
            environment.push((SUBJECT, self.subject.clone()));
            environment.extend(
                fault
                    .filter(|(role, _)| roles.split(' ').any(|one| one == *role))
                    .map(|(_, point)| ("LEVERET_FAULT", point.to_owned())),
            );
            self.processes
                .push(Process::start(&self.directory, roles, &environment));
        }
    }

    /// Waits until the process with the role has been killed by its fault. Gives its roles, with which it can be started again.
    pub(crate) fn wait_for_death(&mut self, role: &str) -> String {
        soon("the fault", PATIENCE, || self.is_dead(role).then_some(()));
        let index = self.index_of(role);
        self.processes.remove(index).roles().to_owned()
    }

    /// Kills the process with the role. Gives its roles, with which it can be started again.
    pub(crate) fn kill(&mut self, role: &str) -> String {
        let index = self.index_of(role);
        self.kill_number(index)
    }

    /// Tells the process with the role to end, twice: the second time as soon as its log says that it has heard the first. Gives its end, and what it
    /// has logged.
    pub(crate) fn tell_to_end_twice(&mut self, role: &str) -> (std::process::ExitStatus, String) {
        let index = self.index_of(role);
        let mut process = self.processes.remove(index);
        let log = self
            .directory
            .join(format!("{}.1.log", process.roles().replace(' ', "-")));
        let read = || std::fs::read_to_string(&log).expect("a log");
        process.tell_to_end();
        soon("it to be stopping", PATIENCE, || {
            read().contains("another signal ends the process at once").then_some(())
        });
        process.tell_to_end();
        let status = soon("its end", PATIENCE, || process.ended());
        (status, read())
    }

    /// True if the process with the role has been killed. It may be known to the test as such alone: by a fault, or by its own hand.
    pub(crate) fn is_dead(&mut self, role: &str) -> bool {
        let index = self.index_of(role);
        self.processes[index].was_killed()
    }

    /// True once the watcher has written the result down.
    pub(crate) fn has_result(&self) -> bool {
        self.directory.join(WATCHED).exists()
    }

    /// How many processes there are.
    pub(crate) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Kills the process of this number. Gives its roles, with which it can be started again.
    pub(crate) fn kill_number(&mut self, index: usize) -> String {
        let process = self.processes.remove(index);
        let roles = process.roles().to_owned();
        process.kill();
        roles
    }

    fn index_of(&self, role: &str) -> usize {
        let found = self.processes.iter().position(|process| process.has(role));
        found.expect("a process with that role")
    }

    /// Opens a gate for good.
    pub(crate) fn open_gate(&self, name: &str) {
        std::fs::write(gate(&self.directory, name), "").expect("opened");
    }

    /// Waits until the start has been confirmed.
    pub(crate) fn wait_for_start(&self) {
        let file = self.directory.join(STARTED);
        soon("the start", PATIENCE, || file.exists().then_some(()));
    }

    /// Waits until the watcher has seen the result, and everything tidy. Gives the result as JSON.
    pub(crate) fn result(&mut self) -> String {
        let file = self.directory.join(WATCHED);
        let text = soon("the result", PATIENCE * 2, || {
            for process in &mut self.processes {
                if let Some(status) = process.ended().filter(|status| !status.success()) {
                    panic!("process `{}` ended with {status}", process.roles());
                }
            }
            std::fs::read_to_string(&file).ok()
        });
        let (result, untidy) = text.split_once('\n').expect("two parts");
        assert_eq!(untidy, "", "left over (the result is {result})");
        result.to_owned()
    }

    /// Stops all processes in order, each of which must end well.
    pub(crate) fn stop(&mut self) {
        for process in std::mem::take(&mut self.processes) {
            process.stop();
        }
    }

    /// Runs something on the backend, from this process. (A file must not be open elsewhere.)
    pub(crate) fn with_backend<T>(&self, look: impl AsyncFnOnce(&Backend) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async { look(&self.place.open().await).await })
    }
}

impl Drop for World {
    /// Takes away what the shared servers keep. After a failure everything stays, and the logs are shown.
    fn drop(&mut self) {
        self.processes.clear();
        if std::thread::panicking() {
            show_logs(&self.directory);
            return;
        }
        if let Place::Servers { .. } = self.place {
            self.with_backend(async |backend| {
                for app in APPS {
                    let app = app.parse().expect("valid");
                    let _ = backend.broker().remove(&app, LANES).await;
                }
            });
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The ends of the processes' logs.
fn show_logs(directory: &Path) {
    const LINES: usize = 25;
    eprintln!("what the processes left is in {}", directory.display());
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut logs: Vec<_> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    logs.sort();
    for log in logs {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        eprintln!("--- {}", log.display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            eprintln!("{line}");
        }
    }
}
