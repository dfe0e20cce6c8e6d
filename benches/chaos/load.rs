//! The load: an honest client that starts jobs, does for each what it needs, and waits for its end. It talks through the proxies, as workers do.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use leveret::backend::{Backend, Message, Properties, Queue, Retryable};
use leveret::client::Error;
use leveret::{AppId, Client, Instance};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::apps::{APPS, event_name};
use crate::checks;
use crate::fleet::Fleet;
use crate::jobs::{CARRIED, Job, Outcome, Shape, event_value};

/// Between two tries of a request that failed.
const AGAIN: Duration = Duration::from_millis(200);
/// Of so many jobs that are over, all but one are purged at once; the others stay to the end.
const PURGED_BUT_ONE_OF: usize = 4;

/// Repeats a client's operation until it is answered, as every error that is not permanent asks for.
pub(crate) async fn insist<T, F: Future<Output = Result<T, Error>>>(
    mut operation: impl FnMut() -> F,
) -> Result<T, Error> {
    loop {
        match operation().await {
            Err(error) if error.retryable() != Retryable::Permanent => tokio::time::sleep(AGAIN).await,
            answered => return answered,
        }
    }
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its start has not been confirmed yet.
    Starting,
    /// Its start was confirmed.
    Confirmed,
    /// It has ended as it had to.
    Right,
}

/// All jobs and what became of them.
#[derive(Default)]
pub(crate) struct Ledger {
    jobs: Mutex<BTreeMap<String, (Job, Stage)>>,
    wrong: Mutex<Vec<String>>,
    /// Calls that the histories say have completed.
    completed: Mutex<Vec<String>>,
    started: AtomicUsize,
    finished: AtomicUsize,
    purged: AtomicUsize,
    longest: Mutex<Duration>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    fn set(&self, job: &Job, stage: Stage) {
        match stage {
            Stage::Starting => 0,
            Stage::Confirmed => self.started.fetch_add(1, Ordering::Relaxed),
            Stage::Right => self.finished.fetch_add(1, Ordering::Relaxed),
        };
        lock(&self.jobs).insert(job.id.clone(), (job.clone(), stage));
    }

    /// Something that must not be.
    pub(crate) fn note_wrong(&self, problem: String) {
        eprintln!("chaos: WRONG: {problem}");
        lock(&self.wrong).push(problem);
    }

    pub(crate) fn note_completed(&self, calls: Vec<String>) {
        lock(&self.completed).extend(calls);
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    pub(crate) fn completed(&self) -> Vec<String> {
        lock(&self.completed).clone()
    }

    /// Starts that were confirmed.
    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }

    pub(crate) fn purged(&self) -> usize {
        self.purged.load(Ordering::Relaxed)
    }

    fn note_time(&self, took: Duration) {
        let mut longest = lock(&self.longest);
        *longest = longest.max(took);
    }

    /// The longest time that a job took, from its first start to its end.
    pub(crate) fn longest(&self) -> Duration {
        *lock(&self.longest)
    }

    pub(crate) fn jobs(&self) -> Vec<(Job, Stage)> {
        lock(&self.jobs).values().cloned().collect()
    }

    /// Those of which that is true.
    pub(crate) fn count_of(&self, shape: Shape) -> usize {
        lock(&self.jobs).values().filter(|(job, _)| job.shape == shape).count()
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) backend: Backend,
    /// A client that goes past the proxies, to look at histories.
    pub(crate) observer: Client,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) tasks: TaskTracker,
    /// Set when no more jobs are to be started.
    pub(crate) is_closing: Arc<AtomicBool>,
}

impl Load {
    /// Keeps so many jobs under way.
    pub(crate) async fn run(self, in_flight: usize, seed: u64) {
        let places = Arc::new(Semaphore::new(in_flight));
        let mut random = fastrand::Rng::with_seed(seed);
        for number in 0.. {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            if self.is_closing.load(Ordering::Relaxed) {
                return;
            }
            let mut job = Job::draw(Shape::ALL[random.usize(..Shape::ALL.len())], number, &mut random);
            if job.shape == Shape::Newest {
                // Of whichever app is called.
                job.size = u64::from(self.fleet.build((job.home + 1) % APPS.len()));
            }
            let (load, random) = (self.clone(), random.fork());
            self.tasks.spawn(async move {
                load.see_through(job, number, random).await;
                drop(place);
            });
        }
    }

    async fn see_through(&self, job: Job, number: usize, mut random: fastrand::Rng) {
        let began = Instant::now();
        self.ledger.set(&job, Stage::Starting);
        let handle = match self.start(&job, &mut random).await {
            Ok(handle) => handle,
            Err(error) => {
                return self
                    .ledger
                    .note_wrong(format!("{} could not be started: {error}", job.id));
            }
        };
        self.ledger.set(&job, Stage::Confirmed);
        if let Err(error) = self.assist(&job, &handle, &mut random).await {
            return self
                .ledger
                .note_wrong(format!("{} could not be steered: {error}", job.id));
        }
        let outcome = loop {
            match insist(|| handle.result_as::<u64>().into_future()).await {
                // A message that nobody has read yet has no instance.
                Err(Error::NotFound { .. }) if job.shape == Shape::Raw => tokio::time::sleep(AGAIN).await,
                result => break outcome(result),
            }
        };
        if outcome != Ok(job.outcome()) {
            let problem = format!("{} had to come to {:?} and came to {outcome:?}", job.id, job.outcome());
            return self.ledger.note_wrong(problem);
        }
        self.ledger.set(&job, Stage::Right);
        self.ledger.note_time(began.elapsed());
        if !number.is_multiple_of(PURGED_BUT_ONE_OF) {
            self.look_and_purge(&handle).await;
        }
    }

    /// Returns when the start is confirmed; a handle to that run.
    async fn start(&self, job: &Job, random: &mut fastrand::Rng) -> Result<Instance, Error> {
        let app = APPS[job.home];
        if job.shape == Shape::Raw {
            let start = serde_json::json!({ "workflow": job.shape.name(), "instance_id": job.id, "input": job });
            let message = Message {
                queue: Queue::Workflows(AppId::new(app)?),
                body: start.to_string().into(),
                properties: Properties {
                    message_id: Some(format!("mail-{}", job.id)),
                    ..Properties::default()
                },
            };
            insist(|| async { Ok(self.backend.broker().publish(message.clone()).await?) }).await?;
            return self.client.instance(app, &job.id);
        }
        let delay = (random.u8(..10) == 0).then(|| Duration::from_millis(random.u64(100..1500)));
        let start = || {
            let start = self.client.start_named::<u64>(app, job.shape.name(), job);
            let start = start.id(&job.id).request_id(format!("start-{}", job.id));
            match delay {
                None => start.into_future(),
                Some(delay) => start.after(delay).into_future(),
            }
        };
        let run = insist(start).await?;
        Ok(self.client.handle(run.instance().clone()).of_run(run.run_id()))
    }

    /// Does what the job needs from outside.
    async fn assist(&self, job: &Job, handle: &Instance, random: &mut fastrand::Rng) -> Result<(), Error> {
        match job.shape {
            Shape::Events => {
                let mut numbers: Vec<_> = (0..job.size).collect();
                random.shuffle(&mut numbers);
                for number in numbers {
                    self.raise(handle, number, event_value(number)).await?;
                }
                Ok(())
            }
            Shape::Generations => self.raise(handle, 0, CARRIED).await,
            Shape::Held => {
                tokio::time::sleep(Duration::from_millis(random.u64(..400))).await;
                match insist(|| handle.suspend("chaos").into_future()).await {
                    Ok(_) => {}
                    Err(Error::InstanceOver { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(Duration::from_millis(random.u64(..800))).await;
                match insist(|| handle.resume("chaos").into_future()).await {
                    Ok(_) | Err(Error::InstanceOver { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Shape::Ended => {
                tokio::time::sleep(Duration::from_millis(random.u64(..1_000))).await;
                insist(|| handle.terminate("chaos").into_future()).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Raises an event until it is confirmed: as the same message each time.
    async fn raise(&self, handle: &Instance, number: u64, value: u64) -> Result<(), Error> {
        let name = event_name(number);
        let raise = || {
            let raise = handle.raise_named(&name, value);
            raise.message_id(format!("message-{number}")).into_future()
        };
        match insist(raise).await {
            // An earlier try had come through although its answer had not, and that was all that was missing.
            Ok(_) | Err(Error::InstanceOver { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Looks at the histories of the instance and its children, then deletes them.
    async fn look_and_purge(&self, handle: &Instance) {
        let instance = handle.instance();
        let tree = loop {
            match insist(|| checks::tree(&self.observer, instance.clone())).await {
                // A terminated parent's children end a moment later.
                Ok(tree) if !tree.iter().all(checks::Found::is_over) => tokio::time::sleep(AGAIN).await,
                tree => break tree,
            }
        };
        match tree {
            Ok(tree) => tree.into_iter().for_each(|found| found.report(&self.ledger)),
            Err(error) => self
                .ledger
                .note_wrong(format!("the history of {instance} cannot be read: {error}")),
        }
        match insist(|| handle.purge().into_future()).await {
            Ok(count) => {
                self.ledger.purged.fetch_add(count as usize, Ordering::Relaxed);
            }
            // The purge had been done by a try whose answer was lost.
            Err(Error::RunGone { .. } | Error::NotFound { .. }) => {}
            Err(error) => self.ledger.note_wrong(format!("{instance} cannot be purged: {error}")),
        }
    }
}

/// What a result says of the outcome; the error if it says nothing.
fn outcome(result: Result<u64, Error>) -> Result<Outcome, String> {
    match result {
        Ok(value) => Ok(Outcome::Completed(value)),
        Err(Error::Failed(failure)) => Ok(Outcome::Failed(failure.kind)),
        Err(Error::Terminated { .. }) => Ok(Outcome::Terminated),
        Err(error) => Err(error.to_string()),
    }
}
