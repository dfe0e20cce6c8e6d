//! The worker processes: two of each app, started, killed, frozen and replaced.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, MutexGuard};

use crate::apps::APPS;
use crate::{effects, worker};

const SIGTERM: i32 = 15;

/// Processes of each app.
pub(crate) const REPLICAS: usize = 2;
/// How long a worker gets to stop in order: its grace, what is left after it, and a machine that is busy.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// What every worker is told.
pub(crate) struct Surroundings {
    pub(crate) directory: PathBuf,
    pub(crate) amqp: String,
    pub(crate) redis: String,
    pub(crate) namespace: String,
}

/// All worker processes.
pub(crate) struct Fleet {
    surroundings: Surroundings,
    places: Vec<Mutex<Place>>,
    /// Processes that were started: each has a name of its own.
    started: AtomicU32,
    /// The newest build of each app: it knows all activities of the older ones, and one more.
    builds: [AtomicU32; APPS.len()],
}

/// Where a worker runs; one at a time.
pub(crate) struct Place {
    app: &'static str,
    build: u32,
    process: Option<Process>,
}

struct Process {
    name: String,
    /// Its file of effects.
    journal: PathBuf,
    child: Child,
    /// It ends when this does. Held beside the child, which closes it as soon as somebody waits for its end.
    _stdin: Option<ChildStdin>,
}

impl Fleet {
    /// Starts all of them.
    pub(crate) async fn start(surroundings: Surroundings) -> Result<Self, String> {
        let place = |app| {
            Mutex::new(Place {
                app,
                build: 1,
                process: None,
            })
        };
        let fleet = Self {
            places: APPS
                .into_iter()
                .cycle()
                .take(APPS.len() * REPLICAS)
                .map(place)
                .collect(),
            surroundings,
            started: AtomicU32::new(0),
            builds: std::array::from_fn(|_| AtomicU32::new(1)),
        };
        for number in 0..fleet.places.len() {
            let mut place = fleet.place(number).await;
            fleet.fill(&mut place)?;
        }
        Ok(fleet)
    }

    /// The newest build of the app with this number that runs, or is about to.
    pub(crate) fn build(&self, app: usize) -> u32 {
        self.builds[app].load(Ordering::Relaxed)
    }

    /// A place, for as long as the guard is held. Any number is one's.
    pub(crate) async fn place(&self, number: usize) -> MutexGuard<'_, Place> {
        self.places[number % self.places.len()].lock().await
    }

    /// Starts a process where there is none.
    pub(crate) fn fill(&self, place: &mut Place) -> Result<(), String> {
        if place.process.is_some() {
            return Ok(());
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{number:04}-{}-build-{}", place.app, place.build);
        let mut child = self
            .spawn(&name, place)
            .map_err(|error| format!("worker {name} does not start: {error}"))?;
        let _stdin = child.stdin.take();
        place.process = Some(Process {
            journal: effects::path(&self.surroundings.directory, &name),
            name,
            child,
            _stdin,
        });
        Ok(())
    }

    fn spawn(&self, name: &str, place: &Place) -> std::io::Result<Child> {
        let Surroundings {
            directory,
            amqp,
            redis,
            namespace,
        } = &self.surroundings;
        let log = std::fs::File::create(directory.join(name).with_extension("log"))?;
        Command::new(std::env::current_exe()?)
            .env(worker::APP, place.app)
            .env(worker::BUILD, place.build.to_string())
            .env(worker::PROCESS, name)
            .env(worker::DIRECTORY, directory)
            .env(worker::AMQP, amqp)
            .env(worker::REDIS, redis)
            .env(worker::NAMESPACE, namespace)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // The terminal's Ctrl-C is ours to handle.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Replaces the app's workers, one after the other, by those of a new build. Gives that build's number, and says who did not stop in order.
    pub(crate) async fn deploy(&self, number: usize) -> Result<(u32, Vec<String>), String> {
        let number = number % APPS.len();
        let (app, build) = (APPS[number], self.builds[number].fetch_add(1, Ordering::Relaxed) + 1);
        let mut unruly = Vec::new();
        for place in &self.places {
            let mut place = place.lock().await;
            if place.app != app {
                continue;
            }
            unruly.extend(place.stop().await);
            place.build = build;
            self.fill(&mut place)?;
        }
        Ok((build, unruly))
    }

    /// Processes that ended though nobody ended them, each with how. They are replaced.
    pub(crate) async fn deaths(&self) -> Result<Vec<String>, String> {
        let mut deaths = Vec::new();
        for place in &self.places {
            // One that is being stopped or replaced is somebody else's.
            let Ok(mut place) = place.try_lock() else { continue };
            let ended = place.process.as_mut().and_then(|process| {
                let status = process.child.try_wait().ok()??;
                Some(format!("worker {} ended by itself: {status}", process.name))
            });
            if let Some(death) = ended {
                deaths.push(death);
                place.process = None;
                self.fill(&mut place)?;
            }
        }
        Ok(deaths)
    }

    /// Stops all in order. Says who did not.
    pub(crate) async fn stop(&self) -> Vec<String> {
        let stops = self
            .places
            .iter()
            .map(|place| async { place.lock().await.stop().await });
        futures_util::future::join_all(stops)
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Place {
    /// The name of the process that is here.
    pub(crate) fn name(&self) -> &str {
        self.process.as_ref().map_or("nobody", |process| &process.name)
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.child.kill().await;
        }
    }

    /// A signal to the process, if there is one.
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.process.as_ref().and_then(|process| process.child.id());
        if let Some(id) = id {
            let _ = Command::new("kill").args([signal, &id.to_string()]).status().await;
        }
    }

    /// SIGTERM. Says so if it does not end well within the limit; it is killed then.
    async fn stop(&mut self) -> Option<String> {
        self.signal("-TERM").await;
        let mut process = self.process.take()?;
        match tokio::time::timeout(STOP_LIMIT, process.child.wait()).await {
            Ok(Ok(status)) if status.success() => None,
            // It had not come so far as to listen for signals.
            Ok(Ok(status)) if status.signal() == Some(SIGTERM) && !process.journal.exists() => None,
            Ok(Ok(status)) => Some(format!("worker {} did not stop in order: {status}", process.name)),
            Ok(Err(error)) => Some(format!("worker {} cannot be waited for: {error}", process.name)),
            Err(_) => {
                let _ = process.child.kill().await;
                Some(format!("worker {} did not stop within {STOP_LIMIT:?}", process.name))
            }
        }
    }
}
