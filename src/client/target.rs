//! The app that a call waits for: is it there, are its workers up, do they know what is called.

use std::fmt;

use serde::Serialize;

use super::{Client, Error};
use crate::backend::{App, Queue, WorkerInfo};
use crate::model::{AppId, Timestamp};

/// The app that something waits for, as it was when the client looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The app.
    pub app: AppId,
    /// What there is of it.
    pub state: TargetState,
    /// Messages in the queue that the call goes through, those of other callers included; `None` if the broker did not say.
    pub queued: Option<u64>,
}

/// What there is of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Workers are up.
    Live {
        /// How many.
        workers: usize,
        /// How many of them have registered what is called.
        knowing: usize,
    },
    /// The app has registered before, and no worker of it is up now.
    NoWorker {
        /// The last sign of life of any.
        since: Option<Timestamp>,
    },
    /// No worker of it has ever registered: a wrong app ID, or the app is yet to be deployed.
    Unknown,
}

/// What is called.
#[derive(Clone, Copy)]
pub(super) enum Called<'a> {
    Activity(&'a str),
    Workflow(&'a str),
}

/// What the client has found out about one app.
pub(super) struct Sighting {
    app: AppId,
    registered: Option<App>,
    workers: Vec<WorkerInfo>,
    activities: Option<u64>,
    workflows: Option<u64>,
}

impl Sighting {
    pub(super) async fn of(client: &Client, app: &AppId) -> Result<Self, Error> {
        let registered = client.ask("app", || client.store().app(app)).await?;
        let mut workers = client.ask("workers", || client.store().workers(app)).await?;
        workers.retain(|worker| !worker.is_draining);
        Ok(Self {
            app: app.clone(),
            registered,
            workers,
            activities: depth(client, Queue::Activities(app.clone())).await,
            workflows: depth(client, Queue::Workflows(app.clone())).await,
        })
    }

    pub(super) fn target(&self, called: Called<'_>) -> Target {
        let knows = |worker: &&WorkerInfo| match called {
            Called::Activity(name) => worker.activities.iter().any(|known| known == name),
            Called::Workflow(name) => worker.workflows.iter().any(|known| known == name),
        };
        let queued = match called {
            Called::Activity(_) => self.activities,
            Called::Workflow(_) => self.workflows,
        };
        let state = match &self.registered {
            _ if !self.workers.is_empty() => TargetState::Live {
                workers: self.workers.len(),
                knowing: self.workers.iter().filter(knows).count(),
            },
            Some(app) => TargetState::NoWorker { since: app.last_seen },
            // Its queues are there, so it was.
            None if queued.is_some() => TargetState::NoWorker { since: None },
            None => TargetState::Unknown,
        };
        Target {
            app: self.app.clone(),
            state,
            queued,
        }
    }
}

/// For people: when the broker is away or slow, the rest of the answer is worth more than this.
async fn depth(client: &Client, queue: Queue) -> Option<u64> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    let depth = client.engine().broker().depth(&queue);
    tokio::select! {
        biased;
        depth = depth => depth.ok().flatten().map(|depth| depth.messages),
        () = client.clock().sleep(PATIENCE) => None,
    }
}

impl Target {
    /// True if no worker is up that could take the call.
    pub fn is_away(&self) -> bool {
        !matches!(self.state, TargetState::Live { knowing: 1.., .. })
    }
}

impl fmt::Display for Target {
    /// As `no worker of payments since 2026-11-22T10:30:00.000Z, 17 messages wait in its queue`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = &self.app;
        match self.state {
            TargetState::Live { workers, knowing: 0 } => {
                write!(
                    f,
                    "none of the {} of {app} that are up has registered it",
                    counted(workers, "worker")
                )?;
            }
            TargetState::Live { workers, knowing } if knowing < workers => {
                write!(
                    f,
                    "{knowing} of {} of {app} that are up have registered it",
                    counted(workers, "worker")
                )?;
            }
            TargetState::Live { workers: 1, .. } => write!(f, "1 worker of {app} is up")?,
            TargetState::Live { workers, .. } => write!(f, "{workers} workers of {app} are up")?,
            TargetState::NoWorker { since: Some(since) } => write!(f, "no worker of {app} since {since}")?,
            TargetState::NoWorker { since: None } => write!(f, "no worker of {app}")?,
            TargetState::Unknown => return write!(f, "app {app} is unknown, no worker of it has ever registered"),
        }
        match self.queued {
            Some(0) | None => Ok(()),
            Some(1) => f.write_str(", 1 message waits in its queue"),
            Some(messages) => write!(f, ", {messages} messages wait in its queue"),
        }
    }
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
