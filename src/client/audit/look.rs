//! One look at an instance: what of all that it waits for is not where it ought to be.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::is_permanent;
use super::suspect::{Missing, Suspect};
use crate::backend::{DueKey, Mark, Record};
use crate::client::{Client, Error};
use crate::engine::{Open, What, check_key, decode, lease_key, parked_key, timer_key};
use crate::model::{AppId, InstanceRef, MessageId, Sequence, Status, Timestamp};
use crate::wire::{Item, TaskRef};

/// An entry of the due-set that is due sooner than this may just be on its way.
const SOON: Duration = Duration::from_secs(2);
/// Items of the inbox that are read at a time: each may be as large as a payload.
const INBOX: usize = 32;
/// Calls and timers of an instance that are looked at side by side.
const AT_ONCE: usize = 32;

/// Looks at instances.
pub(super) struct Looker<'a> {
    pub(super) client: &'a Client,
    pub(super) now: Timestamp,
    /// What is younger is left alone.
    pub(super) grace: Duration,
    /// All apps: what was sent to an app that does not exist may wait in the due-set of any.
    pub(super) apps: &'a [AppId],
}

impl Looker<'_> {
    /// What is not where it ought to be, as of the record. Nothing for an instance whose effects are being made.
    pub(super) async fn look(&self, instance: &InstanceRef, record: &Record) -> Result<Vec<Suspect>, Error> {
        let suspect = |what| Suspect {
            instance: instance.clone(),
            execution: record.execution,
            what,
        };
        let mut suspects = Vec::new();
        if self.lacks_check(instance, record).await? {
            suspects.push(suspect(Missing::Check));
        }
        let is_marked = record.marks.iter().any(|mark| matches!(mark, Mark::Turn(_)));
        // While a turn is marked its effects may be under way; its check makes them.
        if record.status.is_terminal() || is_marked {
            return Ok(suspects);
        }
        if record.status != Status::Pending {
            self.history(instance, record, &mut suspects).await?;
        } else if let Some(start) = self.start(record).map(suspect)
            && !self.is_parked(&start).await?
        {
            suspects.push(start);
        }
        Ok(suspects)
    }

    /// The entry is there before the record is, and goes when the record is over and unmarked: so the record is read behind it.
    async fn lacks_check(&self, instance: &InstanceRef, record: &Record) -> Result<bool, Error> {
        let needs_one = |record: &Record| !record.status.is_terminal() || !record.marks.is_empty();
        let request = &record.origin.request;
        if !needs_one(record) || self.has_entry(&instance.app, &check_key(instance, request)).await? {
            return Ok(false);
        }
        let behind = self.client.record(instance).await?;
        Ok(behind.is_some_and(|behind| needs_one(&behind) && behind.origin.request == *request))
    }

    fn is_young(&self, since: Timestamp) -> bool {
        self.now.since(since) < self.grace
    }

    fn start(&self, record: &Record) -> Option<Missing> {
        let begins = record.origin.start_at.unwrap_or_default().max(record.updated_at);
        let is_published = !record.marks.contains(&Mark::Start);
        (is_published && !self.is_young(begins)).then_some(Missing::Start)
    }

    async fn history(&self, instance: &InstanceRef, record: &Record, suspects: &mut Vec<Suspect>) -> Result<(), Error> {
        let engine = self.client.engine();
        // Not readable is for its workers to say: it stalls.
        let Some(outline) = self.client.reach(engine.outline(instance, record)).await? else {
            return Ok(());
        };
        let is_next_forgotten = outline.is_renewed && !record.marks.contains(&Mark::Run);
        if is_next_forgotten && record.status == Status::Running && !self.is_young(record.updated_at) {
            suspects.push(Suspect {
                instance: instance.clone(),
                execution: record.execution,
                what: Missing::NextExecution,
            });
        }
        let open: Vec<_> = outline
            .open
            .iter()
            .filter(|(_, open)| !self.is_young(open.at))
            .collect();
        let mut found = Vec::new();
        for some in open.chunks(AT_ONCE) {
            let looks = some.iter().map(|(sequence, open)| {
                let task = TaskRef {
                    instance: instance.clone(),
                    execution: record.execution,
                    sequence: **sequence,
                };
                self.open(task, open)
            });
            found.extend(try_join_all(looks).await?.into_iter().flatten());
        }
        if !found.is_empty() {
            let inbox = self.inbox(instance).await?;
            found.retain(|suspect| !suspect.identities().iter().any(|id| inbox.contains(id)));
        }
        suspects.append(&mut found);
        Ok(())
    }

    /// What of one open call or timer is not where it ought to be.
    async fn open(&self, task: TaskRef, open: &Open) -> Result<Vec<Suspect>, Error> {
        let missing = [self.timer(&task, open).await?, self.call(&task, open).await?];
        let mut suspects = Vec::new();
        for what in missing.into_iter().flatten() {
            let suspect = Suspect {
                instance: task.instance.clone(),
                execution: task.execution,
                what,
            };
            if !self.is_parked(&suspect).await? {
                suspects.push(suspect);
            }
        }
        Ok(suspects)
    }

    async fn timer(&self, task: &TaskRef, open: &Open) -> Result<Option<Missing>, Error> {
        let Some(due) = open.due else { return Ok(None) };
        let is_past = due < self.now + SOON;
        // A time limit that was due once has told so; whether there is to be another entry is known to the call's claim alone.
        let is_told = is_past && !matches!(open.what, What::Timer);
        if is_told || (is_past && self.is_young(due)) {
            return Ok(None);
        }
        let key = timer_key(task);
        let is_set = self.has_entry(&task.instance.app, &key).await?;
        Ok((!is_set).then_some(Missing::Timer {
            sequence: task.sequence,
            turn: open.turn,
            is_past,
        }))
    }

    async fn call(&self, task: &TaskRef, open: &Open) -> Result<Option<Missing>, Error> {
        let (sequence, turn): (Sequence, _) = (task.sequence, open.turn);
        match &open.what {
            What::Timer => Ok(None),
            What::Activity { app, name } => {
                let is_leased = self.has_entry(app, &lease_key(&task.message_id("task"))).await?;
                Ok((!is_leased).then(|| Missing::Task {
                    sequence,
                    turn,
                    app: app.clone(),
                    name: name.clone(),
                }))
            }
            What::Child { instance: child } => {
                let found = match self.client.record(child).await {
                    // It is told of for itself.
                    Err(error) if is_permanent(&error) => return Ok(None),
                    found => found?,
                };
                let child = child.clone();
                Ok(match found.filter(|record| record.is_child_of(task)) {
                    None => Some(Missing::Child {
                        sequence,
                        turn,
                        child,
                        at: open.at,
                    }),
                    Some(record) if !record.status.is_terminal() => None,
                    Some(record) => {
                        let is_young = self.is_young(record.ended_at.unwrap_or(record.updated_at));
                        (!is_young).then_some(Missing::Answer {
                            sequence,
                            child,
                            is_marked: !record.marks.is_empty(),
                        })
                    }
                })
            }
        }
    }

    /// True if its message was for a queue that does not exist or takes nothing, and is kept to be tried again: in the due-set of whoever waits for it, or
    /// of the app whose worker found it.
    async fn is_parked(&self, suspect: &Suspect) -> Result<bool, Error> {
        if !suspect.may_be_on_its_way() {
            return Ok(false);
        }
        let own = &suspect.instance.app;
        let others = self.apps.iter().filter(|app| *app != own);
        let keys: Vec<DueKey> = suspect.identities().iter().map(parked_key).collect();
        for app in std::iter::once(own).chain(others) {
            let looks = keys.iter().map(|key| self.has_entry(app, key));
            if try_join_all(looks).await?.contains(&true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What has arrived and waits for code to be allowed to run.
    async fn inbox(&self, instance: &InstanceRef) -> Result<HashSet<MessageId>, Error> {
        let (store, mut found) = (self.client.store(), HashSet::new());
        for from in (0..).step_by(INBOX) {
            let page = self.client.ask("inbox", || store.inbox(instance, from, INBOX)).await?;
            let identities = page.iter().filter_map(|bytes| decode::<Item>(bytes).ok()?.identity());
            found.extend(identities);
            if page.len() < INBOX {
                break;
            }
        }
        Ok(found)
    }

    async fn has_entry(&self, app: &AppId, key: &DueKey) -> Result<bool, Error> {
        let store = self.client.store();
        let entry = self.client.ask("due entry", || store.due_entry(app, key)).await?;
        Ok(entry.is_some())
    }
}
