//! The workers, and what happens to them.

use std::collections::BTreeMap;
use std::time::Duration;

use leveret::backend::Queue;
use leveret::testing::{Faults, Process};
use leveret::{RunningWorker, Worker};
use tokio::time::Instant;

use crate::code::{self, NEW_WORK, WORK};
use crate::plan::APPS;
use crate::scenario::Play;
use crate::script::{Chaos, HEALED};

/// How often the fleet is looked at, in milliseconds.
const LOOK_EVERY: u64 = 500;
/// Deaths by chance; a few more may happen before they are noticed.
const MOST_DEATHS: u32 = 2;

/// An app's number, and a worker's among its replicas.
type Place = (usize, usize);

/// All workers.
pub(crate) struct Fleet<'a> {
    play: &'a Play<'a>,
    slots: BTreeMap<Place, Slot>,
    /// When the dead come back, and those that are late come, in milliseconds.
    back: Vec<(u64, Place)>,
    /// The servers fail over until then, in milliseconds.
    failing_until: u64,
    /// Processes that there have been.
    born: u32,
}

/// A worker's place in the fleet.
struct Slot {
    name: String,
    process: Process,
    worker: Option<RunningWorker>,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(play: &'a Play<'a>) -> Self {
        Self {
            play,
            slots: BTreeMap::new(),
            back: Vec::new(),
            failing_until: 0,
            born: 0,
        }
    }

    /// Starts the workers and lets happen to them what the script says; in the end all are up and well.
    pub(crate) async fn rule(&mut self) {
        let script = self.play.script;
        for app in 0..APPS.len() {
            for replica in 0..script.replicas {
                if let Some((_, at)) = script.late_app.filter(|(late, _)| *late == app) {
                    self.back.push((at, (app, replica)));
                    continue;
                }
                let is_old = script.has_old_build && replica == 0;
                self.hire((app, replica), is_old).await;
            }
        }
        let began = Instant::now();
        let mut events = script.chaos.iter().copied().peekable();
        let (mut look, mut deaths) = (0, 0);
        loop {
            look += LOOK_EVERY;
            self.back.sort_unstable();
            let next_event = events.peek().map(|(at, _)| *at);
            let next_back = self.back.first().map(|(at, _)| *at);
            let at = next_event.into_iter().chain(next_back).fold(look, u64::min);
            if at >= HEALED && next_back.is_none() {
                break;
            }
            tokio::time::sleep_until(began + Duration::from_millis(at)).await;
            for place in self.bury() {
                self.back.push((at + 1 + script.seed % 3_000, place));
                deaths += 1;
            }
            self.set_faults(at, deaths);
            if next_back == Some(at) {
                let (_, place) = self.back.remove(0);
                self.hire(place, false).await;
            } else if next_event == Some(at)
                && let Some((_, event)) = events.next()
            {
                self.happen(at, event).await;
            }
        }
        self.play.world.set_faults(Faults::slow(Duration::from_millis(2)));
        for place in self.bury() {
            self.hire(place, false).await;
        }
        for slot in self.slots.values() {
            slot.process.set_clock_wrong_by(0);
        }
    }

    fn set_faults(&self, at: u64, deaths: u32) {
        let mut faults = self.play.script.faults.clone();
        if deaths >= MOST_DEATHS {
            // No task is to be taken for a killer.
            faults.dies = 0.0;
        }
        if at < self.failing_until {
            (faults.refused, faults.answer_lost) = (0.5, 0.3);
        }
        self.play.world.set_faults(faults);
    }

    /// Stops all in order.
    pub(crate) async fn stop(mut self) {
        for slot in self.slots.values_mut() {
            if let Some(worker) = slot.worker.take() {
                worker.stop().await;
            }
        }
    }

    /// Takes the dead out.
    fn bury(&mut self) -> Vec<Place> {
        let dead = self.slots.extract_if(.., |_, slot| !slot.process.is_alive());
        let dead: Vec<_> = dead.collect();
        dead.iter().for_each(|(_, slot)| self.forget(slot));
        dead.into_iter().map(|(place, _)| place).collect()
    }

    fn forget(&self, slot: &Slot) {
        self.play.watcher.with_memory(|memory| memory.forget(&slot.name));
    }

    fn kill(&mut self, place: Place, back_at: u64) {
        if let Some(slot) = self.slots.remove(&place) {
            slot.process.kill();
            self.forget(&slot);
            self.back.push((back_at, place));
        }
    }

    async fn happen(&mut self, at: u64, event: Chaos) {
        match event {
            Chaos::Kill {
                app,
                replica,
                back_after,
            } => self.kill((app, replica), at + back_after),
            Chaos::Blackout { app, back_after } => {
                for replica in 0..self.play.script.replicas {
                    self.kill((app, replica), at + back_after);
                }
            }
            Chaos::Freeze { app, replica, millis } => {
                self.with((app, replica), |process| process.freeze(Duration::from_millis(millis)));
            }
            Chaos::Cut { app, replica } => self.with((app, replica), Process::cut),
            Chaos::Skew { app, replica, millis } => {
                self.with((app, replica), |process| process.set_clock_wrong_by(millis));
            }
            Chaos::Deploy { app, replica } => {
                if let Some(mut slot) = self.slots.remove(&(app, replica)) {
                    if let Some(worker) = slot.worker.take() {
                        // One that dies meanwhile never ends.
                        let _ = tokio::time::timeout(Duration::from_secs(30), worker.stop()).await;
                        slot.process.kill();
                    }
                    self.forget(&slot);
                    self.hire((app, replica), false).await;
                }
            }
            Chaos::FailOver { millis } => {
                self.failing_until = at + millis;
                for slot in self.slots.values() {
                    slot.process.cut();
                }
            }
            Chaos::Block { millis } => self.play.world.block_publishers(Duration::from_millis(millis)),
            Chaos::BlockQueue { app, queue, millis } => {
                let id = leveret::AppId::new(APPS[app]).expect("an app of ours");
                let queue = match queue {
                    0 => Queue::Workflows(id),
                    1 => Queue::Activities(id),
                    lane => Queue::Events(id, lane as u16 - 2),
                };
                self.play.world.block_queue(queue, Duration::from_millis(millis));
            }
        }
    }

    fn with(&self, place: Place, happens: impl FnOnce(&Process)) {
        if let Some(slot) = self.slots.get(&place) {
            happens(&slot.process);
        }
    }

    async fn hire(&mut self, place: Place, is_old: bool) {
        loop {
            self.born += 1;
            let hired = self.try_to_hire(APPS[place.0], is_old);
            // One that dies before it is up never ends; one whose servers do not answer takes a while.
            if let Ok(slot) = tokio::time::timeout(Duration::from_secs(120), hired).await {
                self.slots.insert(place, slot);
                return;
            }
        }
    }

    async fn try_to_hire(&self, app: &'static str, is_old: bool) -> Slot {
        let Play {
            world, journal, script, ..
        } = self.play;
        let name = format!("{app}-{}", self.born);
        let process = world.process(&name);
        let body = || {
            let (process, journal) = (process.clone(), journal.clone());
            move |ctx, work| {
                let (process, journal) = (process.clone(), journal.clone());
                async move { code::work(&process, &journal, ctx, work).await }
            }
        };
        let mut worker = Worker::new(app, process.backend())
            .settings(script.settings())
            .build_id(if is_old { "old" } else { "new" })
            .workflow(code::workflow(app), code::run)
            .activity(code::activity(app, WORK), body());
        if !is_old {
            worker = worker.activity(code::activity(app, NEW_WORK), body());
        }
        // It may wait for servers that do not answer; the others go on meanwhile.
        let worker = worker.start().await.expect("nothing is wrong with the worker");
        let gauge = worker.gauge();
        self.play.watcher.with_memory(|memory| memory.add(name.clone(), gauge));
        Slot {
            name,
            process,
            worker: Some(worker),
        }
    }
}
