//! What is stored and concerns nobody any more, and queues that are missing.

use std::time::Duration;

use super::report::{Repair, Trouble};
use super::{Auditor, PAGE};
use crate::backend::{DueEntry, DueKind, Queue, Record, Stray, When};
use crate::client::Error;
use crate::engine::{CheckEntry, RetentionEntry, decode};
use crate::model::{AppId, ExecutionId, InstanceRef};
use crate::wire::TimerItem;

/// An entry that is due sooner than this goes by itself.
const SOON: Duration = Duration::from_secs(60);
/// Candidates that are gathered before they are looked at again.
const BATCH: usize = 1000;

/// What an entry of the due-set concerns.
enum Owner {
    /// This execution of the instance; `of_ended` if that is over.
    Execution(InstanceRef, ExecutionId, bool),
    /// The instance that this request has made.
    Request(CheckEntry),
}

impl Auditor {
    /// The queues of every app that has registered.
    pub(super) async fn queues(&mut self) -> Result<(), Error> {
        for app in self.apps().await? {
            let mut queues = vec![
                Queue::Workflows(app.id.clone()),
                Queue::Activities(app.id.clone()),
                Queue::Dead(app.id.clone()),
            ];
            queues.extend((0..app.lanes).map(|lane| Queue::Events(app.id.clone(), lane)));
            let missing = self.missing_of(queues).await?;
            if missing.is_empty() {
                continue;
            }
            // A worker that has lost one makes it anew by itself.
            self.wait_for_second_look().await;
            for queue in self.missing_of(missing).await? {
                if !self.has_room() {
                    continue;
                }
                let repair = match self.settings.is_repairing {
                    true => {
                        let broker = self.client.engine().broker();
                        self.client
                            .ask("declare", || broker.declare(&app.id, app.lanes))
                            .await?;
                        Repair::Done
                    }
                    false => Repair::NotAsked,
                };
                let reason = format!("queue {queue} does not exist; what was in it is lost");
                self.find(Trouble::MissingQueue, &app.id, None, reason, repair);
            }
        }
        Ok(())
    }

    async fn missing_of(&self, queues: Vec<Queue>) -> Result<Vec<Queue>, Error> {
        let broker = self.client.engine().broker();
        let mut missing = Vec::new();
        for queue in queues {
            if self.client.ask("depth", || broker.depth(&queue)).await?.is_none() {
                missing.push(queue);
            }
        }
        Ok(missing)
    }

    /// Parts of instances without a record, and entries of the index without one.
    pub(super) async fn strays(&mut self, strays: Vec<Stray>, indexed: Vec<InstanceRef>) -> Result<(), Error> {
        if strays.is_empty() && indexed.is_empty() {
            return Ok(());
        }
        self.wait_for_second_look().await;
        let is_repairing = self.settings.is_repairing;
        let asked = if is_repairing { Repair::Done } else { Repair::NotAsked };
        for stray in strays {
            let (store, keep) = (self.client.store().clone(), self.client.limits().dedup_window);
            if !self.has_room() {
                continue;
            }
            let is_there = self
                .client
                .ask("stray", || store.stray(&stray, is_repairing, keep))
                .await?;
            if is_there {
                let reason = format!("`{}` of {} is stored, which does not exist", stray.part, stray.instance);
                let app = stray.instance.app.clone();
                self.find(Trouble::StrayKey, &app, Some(stray.instance), reason, asked.clone());
            }
        }
        for instance in indexed {
            if self.client.record(&instance).await?.is_some() || !self.has_room() {
                continue;
            }
            if is_repairing {
                let store = self.client.store();
                self.client.ask("unindex", || store.unindex(&instance)).await?;
                // Started anew in between: what we have just removed may have been its entry.
                if let Some(record) = self.client.record(&instance).await? {
                    self.client.ask("index", || store.index(&instance, &record)).await?;
                }
            }
            let reason = format!("the index has {instance}, which does not exist");
            let app = instance.app.clone();
            self.find(Trouble::StaleIndexEntry, &app, Some(instance), reason, asked.clone());
        }
        Ok(())
    }

    /// Entries of the due-sets that concern nobody any more and would not go for a while.
    pub(super) async fn due_sets(&mut self) -> Result<(), Error> {
        for app in self.apps().await? {
            let (mut after, mut stale): (Option<String>, Vec<DueEntry>) = (None, Vec::new());
            loop {
                let store = self.client.store();
                let page = self
                    .client
                    .ask("due page", || store.due_page(&app.id, after.as_deref(), PAGE))
                    .await?;
                for entry in page.entries {
                    let is_known = stale.iter().any(|known| known.key == entry.key);
                    if entry.due > self.now() + SOON && !is_known && self.is_stale(&entry).await? {
                        stale.push(entry);
                    }
                }
                if stale.len() >= BATCH {
                    self.settle_entries(&app.id, std::mem::take(&mut stale)).await?;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
                self.pause().await;
            }
            self.settle_entries(&app.id, stale).await?;
        }
        Ok(())
    }

    async fn settle_entries(&mut self, app: &AppId, stale: Vec<DueEntry>) -> Result<(), Error> {
        if stale.is_empty() {
            return Ok(());
        }
        self.wait_for_second_look().await;
        for entry in stale {
            let store = self.client.store();
            let there = self
                .client
                .ask("due entry", || store.due_entry(app, &entry.key))
                .await?;
            let Some(there) = there.filter(|there| there.due == entry.due) else {
                continue;
            };
            if !self.is_stale(&there).await? || !self.has_room() {
                continue;
            }
            let repair = match self.settings.is_repairing {
                true => self.remove(app, &there).await?,
                false => Repair::NotAsked,
            };
            let instance = owner(&there).map(|owner| match owner {
                Owner::Execution(instance, ..) => instance,
                Owner::Request(check) => check.instance,
            });
            let reason = format!(
                "an entry of the due-set ({:?}, due {}) concerns nobody any more",
                there.key.kind, there.due
            );
            self.find(Trouble::StaleDueEntry, app, instance, reason, repair);
        }
        Ok(())
    }

    async fn remove(&self, app: &AppId, entry: &DueEntry) -> Result<Repair, Error> {
        let store = self.client.store();
        if entry.key.kind == DueKind::Check {
            // Its handler refuses the request for good before it removes it: whoever meant to make the instance may be slow.
            let now = DueEntry {
                due: self.now(),
                ..entry.clone()
            };
            self.client
                .ask("schedule", || {
                    store.schedule(app, std::slice::from_ref(&now), When::Sooner)
                })
                .await?;
        } else {
            // An execution that is over never comes back, and its entries are named by it.
            self.client
                .ask("unschedule", || store.unschedule(app, std::slice::from_ref(&entry.key)))
                .await?;
        }
        Ok(Repair::Done)
    }

    async fn is_stale(&self, entry: &DueEntry) -> Result<bool, Error> {
        Ok(match owner(entry) {
            None => false,
            Some(Owner::Execution(instance, execution, of_ended)) => {
                let record = self.client.record(&instance).await?;
                record.is_none_or(|record| is_over(&record, execution, of_ended))
            }
            Some(Owner::Request(check)) => {
                let record = self.client.record(&check.instance).await?;
                record.is_none_or(|record| record.origin.request != check.request)
            }
        })
    }
}

/// True if an entry of this execution concerns nobody. While a mark is set its effects may be being made.
fn is_over(record: &Record, execution: ExecutionId, of_ended: bool) -> bool {
    let is_settled = record.marks.is_empty();
    record.execution != execution || (is_settled && record.status.is_terminal() && !of_ended)
}

/// Of the sorts that may lie for long: leases and parked items come round within seconds.
fn owner(entry: &DueEntry) -> Option<Owner> {
    match entry.key.kind {
        DueKind::Timer => {
            let timer: TimerItem = decode(&entry.payload).ok()?;
            Some(Owner::Execution(timer.task.instance, timer.task.execution, false))
        }
        DueKind::Retention => {
            let retention: RetentionEntry = decode(&entry.payload).ok()?;
            Some(Owner::Execution(retention.instance, retention.execution, true))
        }
        DueKind::Check => decode(&entry.payload).ok().map(Owner::Request),
        DueKind::Lease | DueKind::Parked => None,
    }
}
