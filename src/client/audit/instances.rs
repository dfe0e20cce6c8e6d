//! Instances: from what one look does not find to what is certainly missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::future::try_join_all;

use super::look::Looker;
use super::passage::{Passage, pass};
use super::repair::Mender;
use super::report::{Finding, Undecided};
use super::suspect::Suspect;
use super::{Auditor, BATCH, PAGE, is_permanent};
use crate::backend::{Holding, Queue, Record, Survey};
use crate::client::Error;
use crate::model::{AppId, InstanceRef, MessageId, Timestamp};

/// A message may have been handed back behind a marker. Behind the second it is found.
const ROUNDS: usize = 2;
/// Markers that are sent to the queues of one app at a time: a worker tells of the latest only, and two audits may be under way.
const MARKERS: usize = Holding::MARKERS / 2;

/// A suspect, and when it was found.
struct Doubt {
    suspect: Suspect,
    now: Timestamp,
}

/// Queues that tell nothing: why, and whom that concerns.
type Unknown = BTreeMap<Queue, (String, BTreeSet<InstanceRef>)>;

impl Auditor {
    /// Looks at every instance that is not over, and at what is stored of those that are not there.
    pub(super) async fn instances(&mut self) -> Result<(), Error> {
        for app in self.apps().await? {
            self.report.instances.insert(app.id, 0);
        }
        let (mut doubts, mut doubted) = (Vec::new(), HashSet::new());
        let (mut strays, mut indexed) = (Vec::new(), Vec::new());
        let mut after: Option<String> = None;
        loop {
            let store = self.client.store();
            let page = self
                .client
                .ask("survey", || store.survey(after.as_deref(), PAGE))
                .await?;
            let Survey {
                active,
                unreadable,
                strays: more_strays,
                indexed: more_indexed,
                next,
            } = page;
            for (instance, reason) in unreadable {
                self.unread(&instance, reason);
            }
            for (instance, record) in active {
                if !self.is_audited(&instance.app) {
                    continue;
                }
                *self.report.instances.entry(instance.app.clone()).or_default() += 1;
                let now = self.now();
                let found = self.look(&instance, &record, now).await?;
                // A walk may show one twice.
                let is_new = !found.is_empty() && !self.stuck.contains(&instance) && doubted.insert(instance);
                if is_new {
                    doubts.extend(found.into_iter().map(|suspect| Doubt { suspect, now }));
                }
                // Now, not behind the page: each of them may have thousands of open calls.
                if doubts.len() >= BATCH {
                    self.settle(std::mem::take(&mut doubts)).await?;
                    doubted.clear();
                }
            }
            strays.extend(
                more_strays
                    .into_iter()
                    .filter(|stray| self.is_audited(&stray.instance.app)),
            );
            indexed.extend(
                more_indexed
                    .into_iter()
                    .filter(|instance| self.is_audited(&instance.app)),
            );
            if strays.len() + indexed.len() >= BATCH {
                self.strays(std::mem::take(&mut strays), std::mem::take(&mut indexed))
                    .await?;
            }
            after = next;
            if after.is_none() {
                break;
            }
            self.pause().await;
        }
        self.settle(doubts).await?;
        self.strays(strays, indexed).await
    }

    /// One look; one that cannot be made is noted.
    async fn look(&mut self, instance: &InstanceRef, record: &Record, now: Timestamp) -> Result<Vec<Suspect>, Error> {
        let looker = Looker {
            client: &self.client,
            now,
            grace: self.settings.grace,
            apps: &self.all_apps,
        };
        match looker.look(instance, record).await {
            Err(error) if is_permanent(&error) => {
                self.unread(instance, error.to_string());
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// Turns doubts into findings, or drops them.
    async fn settle(&mut self, doubts: Vec<Doubt>) -> Result<(), Error> {
        if doubts.is_empty() {
            return Ok(());
        }
        self.wait_for_second_look().await;
        let doubts = self.again(doubts).await?;
        let (mut messages, certain): (Vec<_>, Vec<_>) =
            doubts.into_iter().partition(|doubt| doubt.suspect.may_be_on_its_way());
        let mut mender = Mender::new(self.client.clone());
        for doubt in certain {
            self.finding(doubt, &mut mender).await?;
        }
        let mut unknown = Unknown::new();
        for _ in 0..ROUNDS {
            messages = self.without_messages(messages, &mut unknown).await?;
        }
        for doubt in messages {
            self.finding(doubt, &mut mender).await?;
        }
        for (queue, (reason, instances)) in unknown {
            note(&mut self.report.undecided, &queue, reason, instances.len());
        }
        Ok(())
    }

    /// Those that another look finds just the same.
    async fn again(&mut self, doubts: Vec<Doubt>) -> Result<Vec<Doubt>, Error> {
        let mut by_instance: BTreeMap<InstanceRef, Vec<Doubt>> = BTreeMap::new();
        for doubt in doubts {
            by_instance
                .entry(doubt.suspect.instance.clone())
                .or_default()
                .push(doubt);
        }
        let mut left = Vec::new();
        for (instance, doubts) in by_instance {
            let record = match self.client.record(&instance).await {
                Err(error) if is_permanent(&error) => {
                    self.unread(&instance, error.to_string());
                    continue;
                }
                record => record?,
            };
            let Some(record) = record else { continue };
            let found = self.look(&instance, &record, doubts[0].now).await?;
            let found: HashSet<Suspect> = found.into_iter().collect();
            left.extend(doubts.into_iter().filter(|doubt| found.contains(&doubt.suspect)));
        }
        Ok(left)
    }

    /// Those whose messages are in no queue and in nobody's hands. What cannot be told is noted as unknown.
    async fn without_messages(&mut self, doubts: Vec<Doubt>, unknown: &mut Unknown) -> Result<Vec<Doubt>, Error> {
        if doubts.is_empty() {
            return Ok(doubts);
        }
        // In the order in which a message goes its way: what has left the one is found in the other.
        let first: BTreeSet<Queue> = doubts.iter().filter_map(|doubt| doubt.suspect.queue()).collect();
        let mut passages = self.pass_all(first).await?;
        let apps: BTreeSet<AppId> = doubts.iter().map(|doubt| doubt.suspect.instance.app.clone()).collect();
        let mut lanes = Vec::new();
        for app in apps {
            let found = self.client.ask("app", || self.client.store().app(&app)).await?;
            lanes.push((found.map_or(0, |app| app.lanes), app));
        }
        let most = lanes.iter().map(|(count, _)| *count).max().unwrap_or_default();
        for from in (0..most).step_by(MARKERS) {
            let some = lanes.iter().flat_map(|(count, app)| {
                let until = (*count).min(from + MARKERS as u16);
                (from..until).map(|lane| Queue::Events(app.clone(), lane))
            });
            passages.extend(self.pass_all(some.collect()).await?);
        }
        let in_hand: HashSet<&MessageId> = passages
            .values()
            .filter_map(|passage| match passage {
                Passage::Through(in_hand) => Some(in_hand),
                Passage::Blocked(_) => None,
            })
            .flatten()
            .collect();
        let mut left = Vec::new();
        for doubt in doubts {
            let is_in_hand = doubt.suspect.identities().iter().any(|id| in_hand.contains(id));
            match blocked(&passages, &doubt.suspect) {
                _ if is_in_hand => {}
                None => left.push(doubt),
                Some((queue, reason)) => {
                    let (_, instances) = unknown
                        .entry(queue.clone())
                        .or_insert_with(|| (reason.to_owned(), BTreeSet::new()));
                    instances.insert(doubt.suspect.instance);
                }
            }
        }
        self.again(left).await
    }

    /// Markers through all of these at once.
    async fn pass_all(&self, queues: BTreeSet<Queue>) -> Result<HashMap<Queue, Passage>, Error> {
        let patience = self.settings.patience;
        let passes = queues.into_iter().filter_map(|queue| {
            let app = queue.app()?.clone();
            Some(async move {
                let passage = match pass(&self.client, &queue, &app, patience).await {
                    Err(error) if is_permanent(&error) => Passage::Blocked(error.to_string()),
                    passage => passage?,
                };
                Ok::<_, Error>((queue, passage))
            })
        });
        Ok(try_join_all(passes).await?.into_iter().collect())
    }

    async fn finding(&mut self, doubt: Doubt, mender: &mut Mender) -> Result<(), Error> {
        let suspect = doubt.suspect;
        let finding = Finding {
            sequence: suspect.sequence(),
            instance: Some(suspect.instance.clone()),
            ..Finding::new(suspect.trouble(), &suspect.instance.app, suspect.reason())
        };
        self.found(finding, mender.mend(&suspect)).await
    }
}

/// The queue that keeps us from knowing, with its reason: the suspect's own, or one of the lanes of its instance's app.
fn blocked<'a>(passages: &'a HashMap<Queue, Passage>, suspect: &Suspect) -> Option<(&'a Queue, &'a str)> {
    let own = suspect.queue();
    let is_start = matches!(own, Some(Queue::Workflows(_)));
    let concerns = |queue: &Queue| {
        let is_lane = matches!(queue, Queue::Events(app, _) if *app == suspect.instance.app);
        own.as_ref() == Some(queue) || (is_lane && !is_start)
    };
    let mut blocked = passages.iter().filter_map(|(queue, passage)| match passage {
        Passage::Blocked(reason) if concerns(queue) => Some((queue, reason.as_str())),
        _ => None,
    });
    blocked.by_ref().min()
}

fn note(undecided: &mut Vec<Undecided>, queue: &Queue, reason: String, instances: usize) {
    let queue = Some(queue.local_name());
    match undecided.iter_mut().find(|noted| noted.queue == queue) {
        Some(noted) => noted.instances += instances,
        None => undecided.push(Undecided {
            queue,
            instance: None,
            reason,
            instances,
        }),
    }
}
