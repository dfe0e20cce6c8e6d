//! The end: everything comes to it, what it came to is right, and nothing is left over.

use std::fmt::Write as _;
use std::time::Duration;

use leveret::backend::{DueKind, Queue, QueueDepth};

use crate::clients::Lived;
use crate::code;
use crate::invariants::at_once;
use crate::model::{self, Ended, Given};
use crate::plan::{APPS, Life};
use crate::scenario::Play;

impl Play<'_> {
    /// Returns when no instance is active, and no message waits.
    pub(crate) async fn all_is_over(&self) {
        loop {
            if self.active().is_empty() && self.waiting_messages() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    fn active(&self) -> Vec<(leveret::InstanceRef, leveret::backend::Record)> {
        let store = self.world.servers().store();
        let known = self.watcher.known().into_iter();
        known
            .filter_map(|instance| {
                let record = at_once(store.record(&instance))?;
                let is_active = !record.status.is_terminal() || !record.marks.is_empty();
                is_active.then_some((instance, record))
            })
            .collect()
    }

    fn waiting_messages(&self) -> u64 {
        self.depths().into_iter().map(|(_, depth)| depth.messages).sum()
    }

    fn depths(&self) -> Vec<(Queue, QueueDepth)> {
        let broker = self.world.servers().broker();
        let app = |app: &&str| leveret::AppId::new(app).expect("an app of ours");
        let queues = APPS.iter().map(app).flat_map(|app| {
            [
                Queue::Workflows(app.clone()),
                Queue::Activities(app.clone()),
                Queue::Events(app.clone(), 0),
                Queue::Events(app, 1),
            ]
        });
        queues
            .chain([Queue::Unrouted])
            .filter_map(|queue| {
                let depth = at_once(broker.depth(&queue))?;
                Some((queue, depth))
            })
            .collect()
    }

    pub(crate) async fn what_is_left(&self) -> String {
        let mut text = String::new();
        for (queue, depth) in self.depths().into_iter().filter(|(_, depth)| depth.messages > 0) {
            let _ = writeln!(
                text,
                "{queue}: {} messages wait, {} consumers",
                depth.messages, depth.consumers
            );
        }
        let client = self.world.client();
        for (instance, record) in self.active() {
            let info = client.handle(instance.clone()).get().await;
            let waiting = info.map(|info| info.waiting.to_string()).unwrap_or_default();
            let _ = writeln!(
                text,
                "{instance}: {}, marks {:?}, version {}, lane {:?}, waiting for {waiting}",
                record.status, record.marks, record.version, record.lane
            );
        }
        text
    }

    pub(crate) fn judge(&self, number: usize, life: &Life, lived: &Lived) -> Result<(), String> {
        let is_known = match lived.ended {
            Ended::Unknown => false,
            Ended::Terminated => !lived.was_terminated,
            _ => true,
        };
        if is_known {
            let given = Given {
                follows_run: number > 0,
                follows_plan: false,
                ended: &self.script.ended_children(),
                is_calm: self.script.is_calm,
            };
            model::check(&life.plan, &lived.ended, given)?;
        }
        let mut calls = Vec::new();
        model::calls_of(&life.plan, 1, &mut calls);
        for (key, round, most) in calls {
            let have = self.journal.calls(&key, round);
            if have > most {
                return Err(format!(
                    "step {key} of round {round} was called {have} times, and {most} is the most"
                ));
            }
        }
        Ok(())
    }

    /// No timer, lease, parked item, check, dead letter or active instance is left, nor one that is over and was to be kept for a moment.
    pub(crate) async fn nothing_is_left(&self) -> Result<(), String> {
        // Late messages, and the checks of what they woke, take a while.
        for _ in 0..180 {
            if self.first_left().is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.first_left().map_or(Ok(()), Err)
    }

    /// What was purged in the end has not come back.
    pub(crate) fn purged_stay_away(&self) -> Result<(), String> {
        let store = self.world.servers().store();
        let purged = self
            .script
            .roots
            .iter()
            .filter(|root| root.lives.last().is_some_and(|life| life.is_purged));
        for root in purged {
            if at_once(store.record(&code::instance(&root.app, &root.id))).is_some() {
                return Err(format!("{} was purged and is there again", root.id));
            }
        }
        Ok(())
    }

    fn first_left(&self) -> Option<String> {
        let (store, broker) = (self.world.servers().store(), self.world.servers().broker());
        if let Err(kept) = self.watcher.with_memory(|memory| memory.is_empty()) {
            return Some(kept);
        }
        if let Some((instance, record)) = self.active().first() {
            return Some(format!("{instance} is {} after the end", record.status));
        }
        if self.script.retention.is_some() {
            let kept = self
                .watcher
                .known()
                .into_iter()
                .find(|instance| at_once(store.record(instance)).is_some());
            if let Some(instance) = kept {
                return Some(format!("{instance} is over, and kept for longer than it was to be"));
            }
        }
        for app in APPS {
            let app = leveret::AppId::new(app).expect("an app of ours");
            for kind in [DueKind::Timer, DueKind::Lease, DueKind::Parked, DueKind::Check] {
                let left = at_once(store.due_entries(&app, kind, 10));
                if !left.is_empty() {
                    return Some(format!("left over in app {app}: {left:?}"));
                }
            }
            let mut dead = at_once(broker.browse(&Queue::Dead(app.clone())));
            if let Some(letter) = at_once(dead.next()) {
                return Some(format!("app {app} has dead letters: {:?}", letter.properties));
            }
        }
        None
    }
}
