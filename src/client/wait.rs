//! Waiting: for a run's result, and for an instance to reach a status.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::{Client, Error};
use crate::backend::{Ending, Record, Watch};
use crate::model::{Failure, InstanceRef, Payload, RunId, Status, Timestamp, kinds, random};
use crate::wire::Outcome;

/// Whatever wakes us may be lost, so the record is read again this often, less up to a quarter.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// Statuses other than the terminal ones wake nobody: they are looked for this often, at first and at last.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A watch that is older than the run that it is for, so that nothing has escaped it: for the first who waits.
#[derive(Default)]
pub(super) struct EarlyWatch(Mutex<Option<Box<dyn Watch>>>);

impl EarlyWatch {
    pub(super) fn new(watch: Option<Box<dyn Watch>>) -> Self {
        Self(Mutex::new(watch))
    }

    pub(super) fn take(&self) -> Option<Box<dyn Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for EarlyWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EarlyWatch")
    }
}

/// A wait for a result, ready to be awaited: `run.result().await?` or `run.result().within(Duration::from_secs(5)).await?`.
///
/// It survives restarts of servers and workers, and waits as long as it takes unless [`within`](Self::within) says otherwise. Continue-as-new is no
/// end: what is waited for is the run.
///
/// # Errors
/// [`Error::Failed`] or [`Error::Terminated`] if the run ended like that; [`Error::ResultPending`] if it was not over in time; [`Error::RunGone`]
/// (or [`Error::NotFound`]) if it was replaced or purged and its outcome is kept no longer; [`Error::Decode`] if its output is not an `O`;
/// [`Error::Backend`] if the store refuses.
#[derive(Debug)]
#[must_use = "nothing is waited for until it is awaited"]
pub struct ResultWait<O> {
    client: Client,
    instance: InstanceRef,
    run: Option<RunId>,
    watch: EarlyWatch,
    within: Option<Duration>,
    output: PhantomData<fn() -> O>,
}

impl<O> ResultWait<O> {
    pub(super) fn new(client: Client, instance: InstanceRef, run: Option<RunId>) -> Self {
        Self {
            client,
            instance,
            run,
            watch: EarlyWatch::default(),
            within: None,
            output: PhantomData,
        }
    }

    pub(super) fn with_watch(mut self, watch: EarlyWatch) -> Self {
        self.watch = watch;
        self
    }

    /// Waits at most this long. The run goes on in any case.
    pub fn within(mut self, longest: Duration) -> Self {
        self.within = Some(longest);
        self
    }
}

impl<O: DeserializeOwned + 'static> IntoFuture for ResultWait<O> {
    type Output = Result<O, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let told_within = LAST_LOOK.min(self.within.unwrap_or(LAST_LOOK) / 2);
            let watch = self.watch.take().map(|watch| (watch, told_within));
            let output = output(&self.client, &self.instance, self.run, watch);
            let output = match self.within {
                None => output.await?,
                Some(longest) => tokio::select! {
                    biased;
                    output = output => output?,
                    () = self.client.clock().sleep(longest) => {
                        return Err(Error::ResultPending { instance: self.instance, waited: longest });
                    }
                },
            };
            output.decode().map_err(|failure| Error::Decode {
                what: format!("the output of {}", self.instance),
                failure: Box::new(failure),
            })
        })
    }
}

/// The run's output, once there is one. Without a run, the one that is current now. With a watch that is older than the run, the record is read only if that
/// has told nothing for so long: most runs are short, and a message is seldom lost.
async fn output(
    client: &Client,
    instance: &InstanceRef,
    mut run: Option<RunId>,
    watch: Option<(Box<dyn Watch>, Duration)>,
) -> Result<Payload, Error> {
    let engine = client.engine();
    // Requests are repeated here until they have an answer: a result is worth waiting for while a server restarts.
    let (mut watch, mut told) = match watch {
        Some((mut watch, told_within)) => {
            let told = next(client, &mut *watch, told_within).await;
            (watch, told)
        }
        // Subscribed before the first look: what happens in between wakes us.
        None => (engine.retrying("watch", || client.store().watch(instance)).await?, None),
    };
    loop {
        let ending = match told.take() {
            // An end is an end, however long ago it was told. (Another run's is none.)
            Some(ending) if run == Some(ending.run) => Some(ending),
            _ => engine.retrying("ending", || client.store().ending(instance)).await?,
        };
        let sought = run.or_else(|| ending.as_ref().map(|ending| ending.run));
        let Some(sought) = sought else {
            return Err(Error::NotFound {
                instance: instance.clone(),
            });
        };
        run = Some(sought);
        match ending {
            Some(ending) if ending.run == sought => {
                if let (true, Some(outcome)) = (ending.status.is_terminal(), ending.outcome) {
                    engine.confirmed.forget_start(instance);
                    return ended(instance, outcome, ending.status == Status::Terminated);
                }
            }
            _ => {
                let outcome = engine
                    .retrying("past outcome", || client.store().past_outcome(instance, sought))
                    .await?;
                let Some(outcome) = outcome else {
                    return Err(Error::RunGone {
                        instance: instance.clone(),
                        run: sought,
                    });
                };
                let was_terminated = matches!(&outcome, Outcome::Failed(failure) if is_termination(failure));
                return ended(instance, outcome, was_terminated);
            }
        }
        told = next(client, &mut *watch, jittered(READ_AGAIN)).await;
    }
}

/// What the watch tells next; `None` if the record is to be read, after this long at the latest.
async fn next(client: &Client, watch: &mut dyn Watch, longest: Duration) -> Option<Ending> {
    tokio::select! {
        biased;
        ending = watch.changed() => ending,
        () = client.clock().sleep(longest) => None,
    }
}

fn ended(instance: &InstanceRef, outcome: Outcome, was_terminated: bool) -> Result<Payload, Error> {
    outcome.into_result().map_err(|failure| {
        if was_terminated {
            Error::Terminated {
                instance: instance.clone(),
                message: failure.message,
            }
        } else {
            Error::Failed(Box::new(failure))
        }
    })
}

/// A past outcome has no status: a run's own termination is told from a child's that it passed on by the app that the latter names.
fn is_termination(failure: &Failure) -> bool {
    failure.kind == kinds::TERMINATED && failure.app.is_none()
}

/// Returns when the run's record is as wanted, or will never be: the run is over, or (`None`) replaced or gone. Gives its status then.
pub(super) async fn settled(
    client: &Client,
    instance: &InstanceRef,
    run: RunId,
    within: Duration,
    is_settled: impl Fn(&Record) -> bool,
) -> Result<Option<Status>, Error> {
    let mut watch = client.ask("watch", || client.store().watch(instance)).await?;
    let deadline: Timestamp = client.clock().now() + within;
    let mut pause = FIRST_LOOK;
    loop {
        let record = client.record(instance).await?;
        let Some(record) = record.filter(|record| record.run == run) else {
            return Ok(None);
        };
        if record.status.is_terminal() || is_settled(&record) {
            return Ok(Some(record.status));
        }
        let left = deadline.since(client.clock().now());
        if left.is_zero() {
            return Err(Error::NotYet {
                instance: instance.clone(),
                status: record.status,
                waited: within,
            });
        }
        look_again(client, &mut *watch, pause.min(left)).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

async fn look_again(client: &Client, watch: &mut dyn Watch, pause: Duration) {
    tokio::select! {
        biased;
        _ = watch.changed() => {}
        () = client.clock().sleep(pause) => {}
    }
}

/// Up to a quarter less, so that many who wait for one instance do not read it in step.
fn jittered(longest: Duration) -> Duration {
    let random = f64::from(random::new_uuid().as_bytes()[15]) / 256.0;
    longest.mul_f64(1.0 - random / 4.0)
}
