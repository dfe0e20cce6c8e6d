//! A worker process: this program again, told by its environment what it hosts.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use leveret::Namespace;
use leveret::backend::{Backend, RabbitMqConfig, RedisConfig};

use crate::apps::{self, APPS, HEARTBEAT};
use crate::effects::Journal;

/// The app that the process hosts. Its presence makes the program a worker.
pub(crate) const APP: &str = "CHAOS_APP";
/// The number of the code's version.
pub(crate) const BUILD: &str = "CHAOS_BUILD";
/// The process's name: its files begin with it.
pub(crate) const PROCESS: &str = "CHAOS_PROCESS";
/// Where it notes its effects.
pub(crate) const DIRECTORY: &str = "CHAOS_DIRECTORY";
pub(crate) const AMQP: &str = "CHAOS_AMQP";
pub(crate) const REDIS: &str = "CHAOS_REDIS";
pub(crate) const NAMESPACE: &str = "CHAOS_NAMESPACE";

/// A backend by way of these servers.
pub(crate) async fn open(amqp: &str, redis: &str, namespace: &Namespace) -> leveret::backend::Result<Backend> {
    let rabbit = RabbitMqConfig {
        // How long a process that is frozen keeps its messages follows from this.
        heartbeat: HEARTBEAT,
        ..RabbitMqConfig::new(amqp, namespace.clone())
    };
    Backend::servers(rabbit, RedisConfig::new(redis, namespace.clone())).await
}

pub(crate) fn main() -> ExitCode {
    std::thread::spawn(end_with_the_bench);
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "leveret=info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(work()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// The bench holds the other end of standard input: if it is gone, however, so are its workers.
fn end_with_the_bench() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(3);
}

async fn work() -> Result<(), String> {
    let read = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let (app, build) = (read(APP)?, read(BUILD)?);
    let app = APPS.into_iter().find(|known| *known == app).ok_or("no such app")?;
    let build = build.parse().map_err(|error| format!("{BUILD}: {error}"))?;
    // A process that is told to stop while it still waits for its servers stops. It listens for that before its file of effects shows that it has begun.
    let mut shutdown = std::pin::pin!(leveret::shutdown_signal());
    if futures_util::future::poll_immediate(&mut shutdown).await.is_some() {
        return Ok(());
    }
    let journal = Journal::create(&PathBuf::from(read(DIRECTORY)?), &read(PROCESS)?);
    let journal = Arc::new(journal.map_err(|error| format!("no file for effects: {error}"))?);
    let namespace = read(NAMESPACE)?
        .parse()
        .map_err(|error| format!("{NAMESPACE}: {error}"))?;
    let (amqp, redis) = (read(AMQP)?, read(REDIS)?);
    let backend = tokio::select! {
        backend = open(&amqp, &redis, &namespace) => backend.map_err(|error| error.to_string())?,
        () = &mut shutdown => return Ok(()),
    };
    let worker = apps::worker(app, build, &backend, &journal);
    worker.run_until(shutdown).await.map_err(|error| error.to_string())
}
