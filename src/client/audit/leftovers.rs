//! What is stored and concerns nobody any more, and queues that are missing.

use std::time::Duration;

use super::report::{Finding, Repair, Trouble};
use super::{Auditor, BATCH, PAGE, is_permanent};
use crate::backend::{DueEntry, DueKind, Queue, Record, Stray, When};
use crate::client::{Client, Error};
use crate::engine::{CheckEntry, Due};
use crate::model::{AppId, ExecutionId, InstanceRef, Timestamp};

/// An entry that is due sooner than this goes by itself.
const BY_ITSELF: Duration = Duration::from_secs(60);

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
                let reason = format!("queue {queue} does not exist; what was in it is lost");
                let client = self.client.clone();
                let repair = async {
                    let broker = client.engine().broker();
                    client.ask("declare", || broker.declare(&app.id, app.lanes)).await?;
                    Ok(Repair::Done)
                };
                let finding = Finding::new(Trouble::MissingQueue, &app.id, reason);
                self.found(finding, repair).await?;
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
        let client = self.client.clone();
        let store = client.store();
        for stray in strays {
            if !client.ask("stray", || store.stray(&stray, false)).await? {
                continue;
            }
            let reason = format!("`{}` of {} is stored, which does not exist", stray.part, stray.instance);
            let finding = Finding {
                instance: Some(stray.instance.clone()),
                ..Finding::new(Trouble::StrayKey, &stray.instance.app, reason)
            };
            let repair = async {
                let was_there = client.ask("stray", || store.stray(&stray, true)).await?;
                Ok(if was_there { Repair::Done } else { Repair::NotNeeded })
            };
            self.found(finding, repair).await?;
        }
        for instance in indexed {
            let is_there = match client.record(&instance).await {
                // It is there; that it cannot be read is told of for itself.
                Err(error) if is_permanent(&error) => true,
                record => record?.is_some(),
            };
            if is_there {
                continue;
            }
            let reason = format!("the index has {instance}, which does not exist");
            let finding = Finding {
                instance: Some(instance.clone()),
                ..Finding::new(Trouble::StaleIndexEntry, &instance.app, reason)
            };
            let repair = async {
                client.reach(client.engine().unindex(&instance)).await?;
                Ok(Repair::Done)
            };
            self.found(finding, repair).await?;
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
                    if entry.due > self.now() + BY_ITSELF && !is_known && self.is_stale(&app.id, &entry).await? {
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
            if !self.is_stale(app, &there).await? {
                continue;
            }
            let instance = owner(app, &there).map(|owner| match owner {
                Owner::Execution(instance, ..) => instance,
                Owner::Request(check) => check.instance,
            });
            let reason = format!(
                "an entry of the due-set ({:?}, due {}) concerns nobody any more",
                there.key.kind, there.due
            );
            let finding = Finding {
                instance,
                ..Finding::new(Trouble::StaleDueEntry, app, reason)
            };
            let (client, now) = (self.client.clone(), self.now());
            self.found(finding, remove(&client, app, &there, now)).await?;
        }
        Ok(())
    }

    async fn is_stale(&self, app: &AppId, entry: &DueEntry) -> Result<bool, Error> {
        Ok(match owner(app, entry) {
            None => false,
            Some(Owner::Execution(instance, execution, of_ended)) => {
                self.is_none_or(&instance, |record| is_over(record, execution, of_ended))
                    .await?
            }
            Some(Owner::Request(check)) => {
                self.is_none_or(&check.instance, |record| record.origin.request != check.request)
                    .await?
            }
        })
    }

    /// What is said of the record; true if there is none. Of one that cannot be read nothing is stale.
    async fn is_none_or(&self, instance: &InstanceRef, is_so: impl Fn(&Record) -> bool) -> Result<bool, Error> {
        match self.client.record(instance).await {
            Err(error) if is_permanent(&error) => Ok(false),
            record => Ok(record?.is_none_or(|record| is_so(&record))),
        }
    }
}

async fn remove(client: &Client, app: &AppId, entry: &DueEntry, now: Timestamp) -> Result<Repair, Error> {
    let store = client.store();
    if entry.key.kind == DueKind::Check {
        // Its handler refuses the request for good before it removes it: whoever meant to make the instance may be slow.
        let now = DueEntry {
            due: now,
            ..entry.clone()
        };
        client
            .ask("schedule", || {
                store.schedule(app, std::slice::from_ref(&now), When::Sooner)
            })
            .await?;
    } else {
        // An execution that is over never comes back, and its entries are named by it.
        client
            .ask("unschedule", || store.unschedule(app, std::slice::from_ref(&entry.key)))
            .await?;
    }
    Ok(Repair::Done)
}

/// True if an entry of this execution concerns nobody. While a mark is set its effects may be being made.
fn is_over(record: &Record, execution: ExecutionId, of_ended: bool) -> bool {
    let is_settled = record.marks.is_empty();
    record.execution != execution || (is_settled && record.status.is_terminal() && !of_ended)
}

/// Of the sorts that may lie for long: leases and parked items come round within seconds.
fn owner(app: &AppId, entry: &DueEntry) -> Option<Owner> {
    match Due::read(app, entry).ok()? {
        Due::Timer(timer) => Some(Owner::Execution(timer.task.instance, timer.task.execution, false)),
        Due::Retention(retention) => Some(Owner::Execution(retention.instance, retention.execution, true)),
        Due::Check(check) => Some(Owner::Request(check)),
        Due::Lease(_) | Due::Parked(_) => None,
    }
}
