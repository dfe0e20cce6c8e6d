//! I7: what workers keep in memory is bounded, and when everything is over they keep nothing.

use leveret::{Footprint, Gauge};

use crate::script::Script;

/// The gauges of the workers that are up.
#[derive(Default)]
pub(crate) struct Memory {
    gauges: Vec<(String, Gauge)>,
    most: Option<Footprint>,
}

/// Copies of deliveries, which the simulated broker hands out past the prefetch, and which no real one does.
const COPIES: usize = 64;

impl Memory {
    /// What the script's settings allow.
    pub(crate) fn allow(&mut self, script: &Script) {
        let settings = script.settings();
        // Of each lane, of starts, and of the unrouted.
        let queues = usize::from(settings.lanes) + 2;
        // Eight times as many to a message if they are over at once.
        let tasks = settings.activities * settings.limits.bundle_items * 8;
        let items = queues * usize::from(settings.prefetch) * settings.limits.bundle_items + COPIES;
        self.most = Some(Footprint {
            cached_bytes: settings.limits.cache_bytes,
            active: items,
            waiting: items,
            in_hand: items + tasks,
            tasks: 2 * settings.activities,
            outgoing: items + settings.limits.turn_events,
            // Of a worker that has so little in hand.
            confirmed: 4096,
        });
    }

    pub(crate) fn add(&mut self, worker: String, gauge: Gauge) {
        self.gauges.push((worker, gauge));
    }

    /// The worker is gone.
    pub(crate) fn forget(&mut self, worker: &str) {
        self.gauges.retain(|(name, _)| name != worker);
    }

    pub(crate) fn is_bounded(&self) -> Result<(), String> {
        let Some(most) = self.most else { return Ok(()) };
        for (worker, gauge) in &self.gauges {
            let has = gauge.read();
            let is_bounded = has.cached_bytes <= most.cached_bytes
                && has.active <= most.active
                && has.waiting <= most.waiting
                && has.in_hand <= most.in_hand
                && has.tasks <= most.tasks
                && has.outgoing <= most.outgoing
                && has.confirmed <= most.confirmed;
            if !is_bounded {
                return Err(format!("I7: {worker} keeps {has:?}, and at most {most:?} is allowed"));
            }
        }
        Ok(())
    }

    /// What a worker still has in hand, with nothing left to do.
    pub(crate) fn is_empty(&self) -> Result<(), String> {
        for (worker, gauge) in &self.gauges {
            let has = gauge.read();
            let rest = Footprint { cached_bytes: 0, ..has };
            if rest != Footprint::default() {
                return Err(format!("I7: everything is over, and {worker} keeps {has:?}"));
            }
        }
        Ok(())
    }
}
