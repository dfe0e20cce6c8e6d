//! What an instance waits for, told to a person.

use std::fmt;

use serde::Serialize;

use super::target::{Called, Sighting};
use super::{Client, Error, Target, TargetState};
use crate::backend::{Progress, Record, Stall};
use crate::engine::{lease_key, parked_key};
use crate::model::{AppId, InstanceRef, MessageId, Payload, Sequence, Status, Timestamp, WaitingFor};
use crate::wire::TaskRef;

/// What an instance waits for. `Display` is meant for a person, one line a thing:
///
/// ```text
/// activity `charge` on app `payments`, attempt 2, since 2026-11-22T03:02:11.000Z: no worker of payments since 2026-11-22T02:58:40.125Z
/// event `approved`, since 2026-11-22T03:02:10.000Z
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Waiting {
    /// How many things in all; 0 if it is over, or about to run.
    pub total: usize,
    /// The first of them: at most 16, and before them what holds up the whole instance.
    pub on: Vec<WaitingOn>,
}

/// One thing that an instance waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitingOn {
    /// Its time: the start is delayed.
    StartTime {
        /// When it starts.
        due: Timestamp,
    },
    /// A worker that runs its first turn.
    Worker {
        /// The workflow.
        workflow: String,
        /// Since when.
        since: Timestamp,
        /// Its app.
        target: Target,
    },
    /// An operator: it is suspended.
    Resume,
    /// Code that fits: it is stalled.
    FittingCode(Stall),
    /// An activity attempt.
    Activity {
        /// The call's number.
        sequence: Sequence,
        /// The activity.
        name: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// When it was scheduled.
        since: Timestamp,
        /// The app called.
        target: Target,
        /// When its body began, if that is known: it is of calls with a time limit.
        claimed_at: Option<Timestamp>,
        /// When it last reported progress.
        reported_at: Option<Timestamp>,
        /// What it reported.
        details: Option<Payload>,
        /// Set for a long activity that a worker keeps a lease on: when the lease lapses unless it is renewed.
        leased_until: Option<Timestamp>,
        /// Set if the task is parked because its app is unknown, or its queue took no messages: when it is tried again.
        tried_again: Option<Timestamp>,
    },
    /// A child workflow.
    Child {
        /// The call's number.
        sequence: Sequence,
        /// The child.
        instance: InstanceRef,
        /// The workflow.
        workflow: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// When it was scheduled.
        since: Timestamp,
        /// The child's own status; `None` if it does not exist (yet).
        status: Option<Status>,
        /// Its app.
        target: Target,
    },
    /// The pause before a call's next attempt.
    Retry {
        /// The timer's number.
        sequence: Sequence,
        /// What is called.
        name: String,
        /// The attempt that comes next.
        attempt: u32,
        /// When it comes.
        due: Timestamp,
        /// The app called. Only its ID is sure: whether what is called is an activity or a workflow is not known here.
        app: AppId,
    },
    /// A timer.
    Timer {
        /// Its number.
        sequence: Sequence,
        /// When it fires.
        due: Timestamp,
    },
    /// An external event.
    Event {
        /// Its name.
        name: String,
        /// Since when.
        since: Timestamp,
        /// Until when, if the wait has a time limit. Of several waits for the name, the one that began first counts.
        until: Option<Timestamp>,
    },
}

/// Finds out what the instance of the record waits for.
pub(super) async fn waiting(client: &Client, instance: &InstanceRef, record: &Record) -> Result<Waiting, Error> {
    if record.status.is_terminal() {
        return Ok(Waiting::default());
    }
    let mut look = Look {
        client,
        instance,
        record,
        progress: Vec::new(),
        sightings: Vec::new(),
    };
    let mut on = look.whole_instance().await?;
    let view = &record.view.waiting;
    if view
        .shown
        .iter()
        .any(|thing| matches!(thing, WaitingFor::Activity { .. }))
    {
        let store = client.store();
        look.progress = client.ask("progress", || store.progress_of(instance, PROGRESS)).await?;
    }
    let total = on.len() + view.total.saturating_sub(view.given_up);
    for thing in &view.shown {
        on.push(look.thing(thing).await?);
    }
    Ok(Waiting { total, on })
}

/// Most attempts whose progress is read.
const PROGRESS: usize = 1000;

/// One look at everything around an instance.
struct Look<'a> {
    client: &'a Client,
    instance: &'a InstanceRef,
    record: &'a Record,
    progress: Vec<Progress>,
    /// Each app is looked at once.
    sightings: Vec<(AppId, Sighting)>,
}

impl Look<'_> {
    /// What holds up the instance as a whole.
    async fn whole_instance(&mut self) -> Result<Vec<WaitingOn>, Error> {
        let record = self.record;
        let thing = match record.status {
            Status::Suspended => WaitingOn::Resume,
            Status::Stalled => match &record.view.stall {
                Some(stall) => WaitingOn::FittingCode(stall.clone()),
                None => return Ok(Vec::new()),
            },
            Status::Pending => {
                let now = self.client.ask("time", || self.client.store().now()).await?;
                let starts = record.origin.start_at.filter(|at| *at > now);
                match starts {
                    Some(due) => WaitingOn::StartTime { due },
                    None => WaitingOn::Worker {
                        workflow: record.origin.workflow.clone(),
                        since: record.origin.start_at.unwrap_or_default().max(record.origin.created_at),
                        target: self
                            .target(&self.instance.app, Called::Workflow(&record.origin.workflow))
                            .await?,
                    },
                }
            }
            _ => return Ok(Vec::new()),
        };
        Ok(vec![thing])
    }

    async fn thing(&mut self, thing: &WaitingFor) -> Result<WaitingOn, Error> {
        Ok(match thing.clone() {
            WaitingFor::Activity {
                sequence,
                app,
                name,
                attempt,
                since,
            } => {
                let target = self.target(&app, Called::Activity(&name)).await?;
                let task = self.message_of(sequence, "task");
                let progress = self.progress.iter().find(|progress| progress.sequence == sequence);
                let (claimed_at, reported_at, details) = match progress.cloned() {
                    Some(Progress {
                        claimed_at,
                        at,
                        details,
                        ..
                    }) => (claimed_at, at, details),
                    None => (None, None, None),
                };
                WaitingOn::Activity {
                    sequence,
                    attempt,
                    since,
                    claimed_at,
                    reported_at,
                    details: details.map(Payload::from_trusted),
                    // The lease is the target's, the parked task its caller's.
                    leased_until: self.due(&app, &lease_key(&task)).await?,
                    tried_again: self.due(&self.instance.app, &parked_key(&task)).await?,
                    name,
                    target,
                }
            }
            WaitingFor::Child {
                sequence,
                instance,
                workflow,
                attempt,
                since,
            } => WaitingOn::Child {
                sequence,
                status: self.status_of(&instance, sequence).await?,
                target: self.target(&instance.app, Called::Workflow(&workflow)).await?,
                instance,
                workflow,
                attempt,
                since,
            },
            WaitingFor::Retry {
                sequence,
                app,
                name,
                attempt,
                due,
            } => WaitingOn::Retry {
                sequence,
                name,
                attempt,
                due,
                app,
            },
            WaitingFor::Timer { sequence, due } => WaitingOn::Timer { sequence, due },
            WaitingFor::Event { name, since, until } => WaitingOn::Event { name, since, until },
        })
    }

    async fn target(&mut self, app: &AppId, called: Called<'_>) -> Result<Target, Error> {
        if let Some((_, sighting)) = self.sightings.iter().find(|(seen, _)| seen == app) {
            return Ok(sighting.target(called));
        }
        let sighting = Sighting::of(self.client, app).await?;
        let target = sighting.target(called);
        self.sightings.push((app.clone(), sighting));
        Ok(target)
    }

    fn task(&self, sequence: Sequence) -> TaskRef {
        TaskRef {
            instance: self.instance.clone(),
            execution: self.record.execution,
            sequence,
        }
    }

    fn message_of(&self, sequence: Sequence, kind: &str) -> MessageId {
        self.task(sequence).message_id(kind)
    }

    /// When an entry of the due-set is due, if there is one.
    async fn due(&self, app: &AppId, key: &crate::backend::DueKey) -> Result<Option<Timestamp>, Error> {
        let entry = self
            .client
            .ask("due entry", || self.client.store().due_entry(app, key))
            .await?;
        Ok(entry.map(|entry| entry.due))
    }

    /// The status of a call's child; none if the ID belongs to somebody else's instance.
    async fn status_of(&self, child: &InstanceRef, sequence: Sequence) -> Result<Option<Status>, Error> {
        let task = self.task(sequence);
        let record = self.client.record(child).await?;
        let ours = record.filter(|record| record.is_child_of(&task));
        Ok(ours.map(|record| record.status))
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total == 0 {
            return f.write_str("nothing");
        }
        for (number, thing) in self.on.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            thing.fmt(f)?;
        }
        match self.total.saturating_sub(self.on.len()) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitingOn::StartTime { due } => write!(f, "its time, {due}"),
            WaitingOn::Worker {
                workflow,
                since,
                target,
            } => write!(
                f,
                "a worker of app `{}` to run workflow `{workflow}`, since {since}: {target}",
                target.app
            ),
            WaitingOn::Resume => f.write_str("a resume: it is suspended, what arrives is kept"),
            WaitingOn::FittingCode(stall) => write!(
                f,
                "fitting code, since {} ({}, build {}): {}",
                stall.since, stall.reason, stall.build, stall.message
            ),
            WaitingOn::Activity { .. } => self.fmt_activity(f),
            WaitingOn::Child {
                instance,
                workflow,
                attempt,
                since,
                status,
                target,
                ..
            } => {
                write!(
                    f,
                    "child workflow `{workflow}` as {instance}, attempt {attempt}, since {since}: "
                )?;
                match status {
                    None => write!(f, "not there yet")?,
                    Some(status) => write!(f, "{status}")?,
                }
                match status {
                    // It is over; its answer is on its way.
                    Some(status) if status.is_terminal() => Ok(()),
                    _ => write!(f, "; {target}"),
                }
            }
            WaitingOn::Retry {
                name,
                attempt,
                due,
                app,
                ..
            } => write!(f, "attempt {attempt} of `{name}` on app `{app}`, due {due}"),
            WaitingOn::Timer { sequence, due } => write!(f, "timer {sequence}, due {due}"),
            WaitingOn::Event {
                name,
                since,
                until: None,
            } => write!(f, "event `{name}`, since {since}"),
            WaitingOn::Event {
                name,
                since,
                until: Some(until),
            } => write!(f, "event `{name}`, since {since}, until {until}"),
        }
    }
}

impl WaitingOn {
    fn fmt_activity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WaitingOn::Activity {
            name,
            attempt,
            since,
            target,
            claimed_at,
            reported_at,
            details,
            leased_until,
            tried_again,
            ..
        } = self
        else {
            return Ok(());
        };
        write!(
            f,
            "activity `{name}` on app `{}`, attempt {attempt}, since {since}: ",
            target.app
        )?;
        match (claimed_at, leased_until) {
            (Some(claimed_at), _) => write!(f, "began {claimed_at}; {target}")?,
            // A worker has it, or is to take it when the lease is over.
            (None, Some(until)) => write!(f, "lease until {until}; {target}")?,
            (None, None) => write!(f, "{target}")?,
        }
        if let Some(at) = reported_at {
            write!(f, "; last progress {at}")?;
        }
        if let Some(details) = details {
            write!(f, ": {}", details.preview())?;
        }
        if let Some(again) = tried_again {
            match target.state {
                TargetState::Unknown => write!(f, "; tried again {again}")?,
                _ => write!(f, "; its queue has not taken it, sent again {again}")?,
            }
        }
        Ok(())
    }
}
