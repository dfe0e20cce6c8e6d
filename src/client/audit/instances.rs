//! Instances: from what one look does not find to what is certainly missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::future::try_join_all;

use super::look::{Looker, Suspect};
use super::passage::{Passage, pass};
use super::report::{Finding, Repair, Undecided};
use super::{Auditor, PAGE, repair};
use crate::backend::{Queue, Survey};
use crate::client::Error;
use crate::model::{AppId, InstanceRef, MessageId, Timestamp};

/// Suspects that are gathered before they are looked at again.
const BATCH: usize = 1000;
/// A message may have been handed back behind a marker. Behind the second it is found.
const ROUNDS: usize = 2;

/// A suspect, and when it was found.
struct Doubt {
    suspect: Suspect,
    now: Timestamp,
}

impl Auditor {
    /// Looks at every instance that is not over, and at what is stored of those that are not there.
    pub(super) async fn instances(&mut self) -> Result<(), Error> {
        for app in self.apps().await? {
            self.report.instances.insert(app.id, 0);
        }
        let (mut doubts, mut seen) = (Vec::new(), HashSet::new());
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
                strays: more_strays,
                indexed: more_indexed,
                next,
            } = page;
            for (instance, record) in active {
                if !self.is_audited(&instance.app) {
                    continue;
                }
                *self.report.instances.entry(instance.app.clone()).or_default() += 1;
                let now = self.now();
                let found = self.looker(now).look(&instance, &record).await?;
                // A walk may show one twice.
                if !found.is_empty() && seen.insert(instance) {
                    doubts.extend(found.into_iter().map(|suspect| Doubt { suspect, now }));
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
            if doubts.len() >= BATCH {
                self.settle(std::mem::take(&mut doubts)).await?;
            }
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

    fn looker(&self, now: Timestamp) -> Looker<'_> {
        Looker {
            client: &self.client,
            now,
            grace: self.settings.grace,
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
        for doubt in certain {
            self.finding(doubt).await?;
        }
        for _ in 0..ROUNDS {
            messages = self.without_messages(messages).await?;
        }
        for doubt in messages {
            self.finding(doubt).await?;
        }
        Ok(())
    }

    /// Those that another look finds just the same.
    async fn again(&self, doubts: Vec<Doubt>) -> Result<Vec<Doubt>, Error> {
        let mut by_instance: BTreeMap<InstanceRef, Vec<Doubt>> = BTreeMap::new();
        for doubt in doubts {
            by_instance
                .entry(doubt.suspect.instance.clone())
                .or_default()
                .push(doubt);
        }
        let mut left = Vec::new();
        for (instance, doubts) in by_instance {
            let Some(record) = self.client.record(&instance).await? else {
                continue;
            };
            let found = self.looker(doubts[0].now).look(&instance, &record).await?;
            left.extend(doubts.into_iter().filter(|doubt| found.contains(&doubt.suspect)));
        }
        Ok(left)
    }

    /// Those whose messages are in no queue and in nobody's hands. What cannot be told is noted as undecided.
    async fn without_messages(&mut self, doubts: Vec<Doubt>) -> Result<Vec<Doubt>, Error> {
        if doubts.is_empty() {
            return Ok(doubts);
        }
        // In the order in which a message goes its way: what has left the one is found in the other.
        let first: BTreeSet<Queue> = doubts.iter().filter_map(|doubt| doubt.suspect.queue()).collect();
        let mut passages = self.pass_all(first).await?;
        let apps: BTreeSet<AppId> = doubts.iter().map(|doubt| doubt.suspect.instance.app.clone()).collect();
        let mut lanes = BTreeSet::new();
        for app in apps {
            let found = self.client.ask("app", || self.client.store().app(&app)).await?;
            let count = found.map_or(0, |app| app.lanes);
            lanes.extend((0..count).map(|lane| Queue::Events(app.clone(), lane)));
        }
        passages.extend(self.pass_all(lanes).await?);
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
                Some((queue, reason)) => note(&mut self.report.undecided, queue, reason),
            }
        }
        self.again(left).await
    }

    /// Markers through all of these at once.
    async fn pass_all(&self, queues: BTreeSet<Queue>) -> Result<HashMap<Queue, Passage>, Error> {
        let patience = self.settings.patience;
        let passes = queues.into_iter().filter_map(|queue| {
            let app = queue.app()?.clone();
            Some(async move { Ok::<_, Error>((queue.clone(), pass(&self.client, &queue, &app, patience).await?)) })
        });
        Ok(try_join_all(passes).await?.into_iter().collect())
    }

    async fn finding(&mut self, doubt: Doubt) -> Result<(), Error> {
        if !self.has_room() {
            return Ok(());
        }
        let suspect = doubt.suspect;
        let repair = match self.settings.is_repairing {
            true => repair::mend(&self.client, &suspect).await?,
            false => Repair::NotAsked,
        };
        self.report.findings.push(Finding {
            trouble: suspect.trouble(),
            app: suspect.instance.app.clone(),
            sequence: suspect.sequence(),
            reason: suspect.reason(),
            instance: Some(suspect.instance),
            repair,
        });
        Ok(())
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

fn note(undecided: &mut Vec<Undecided>, queue: &Queue, reason: &str) {
    let queue = queue.local_name();
    match undecided.iter_mut().find(|noted| noted.queue == queue) {
        Some(noted) => noted.instances += 1,
        None => undecided.push(Undecided {
            queue,
            reason: reason.to_owned(),
            instances: 1,
        }),
    }
}
