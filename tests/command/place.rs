//! A namespace of the test servers, and the command on it.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use leveret::backend::{
    Backend, Message, Properties, Queue, RabbitMq, RabbitMqConfig, RedisConfig, RedisStore, SystemClock,
};
use leveret::{AppId, Client, Namespace, Settings, Worker};
use serde_json::Value;

pub(crate) fn url(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with tests/run, which starts the servers"))
}

pub(crate) struct Place {
    pub(crate) backend: Backend,
    pub(crate) client: Client,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let namespace = Namespace::new(format!("t{}", uuid::Uuid::now_v7().simple())).unwrap();
        let broker = RabbitMq::connect(RabbitMqConfig::new(url("LEVERET_TEST_AMQP_URL"), namespace.clone()));
        let store = RedisStore::connect(RedisConfig::new(url("LEVERET_TEST_REDIS_URL"), namespace.clone()));
        let (broker, store) = (broker.await.unwrap(), store.await.unwrap());
        let backend = Backend::new(namespace, broker, store, Arc::new(SystemClock), "servers");
        Self {
            client: Client::new(backend.clone()),
            backend,
        }
    }

    pub(crate) fn worker(&self, app: &str) -> Worker {
        Worker::new(app, self.backend.clone()).settings(Settings {
            lanes: 2,
            heartbeat: Duration::from_millis(200),
            ..Settings::default()
        })
    }

    /// The command on this namespace.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command
            .env("LEVERET_NAMESPACE", self.backend.namespace().as_str())
            .env("LEVERET_AMQP_URL", url("LEVERET_TEST_AMQP_URL"))
            .env("LEVERET_REDIS_URL", url("LEVERET_TEST_REDIS_URL"))
            // A port that is taken must be of no concern.
            .env("LEVERET_HTTP", "127.0.0.1:1");
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Puts a message into an app's dead queue.
    pub(crate) async fn bury(&self, app: &str, origin: &str, reason: &str, body: &str) {
        let at = self.backend.store().now().await.unwrap().as_millis().to_string();
        let headers = [
            ("leveret-reason", reason),
            ("leveret-origin", origin),
            ("leveret-at", at.as_str()),
        ];
        let message = Message {
            queue: Queue::Dead(AppId::new(app).unwrap()),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
            properties: Properties {
                headers: headers
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
                ..Properties::default()
            },
        };
        self.backend.broker().publish(message).await.unwrap();
    }

    /// Removes what slows down the tests that are still to come.
    pub(crate) async fn clean_up(&self) {
        for app in self.backend.store().apps().await.unwrap() {
            let _ = self.backend.broker().remove(&app.id, app.lanes).await;
        }
    }
}

/// The command without any of Leveret's variables.
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEVERET_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of `--json`.
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
