//! What a worker keeps in memory.

use std::sync::Arc;

use super::runtime::Runtime;

/// Tells what a worker keeps in memory, for as long as it is kept itself. See [`RunningWorker::gauge`](super::RunningWorker::gauge).
#[derive(Clone)]
pub struct Gauge(Arc<Runtime>);

/// What a worker keeps in memory (I7: all of it is bounded, whatever the number of instances, the length of histories or the size of a backlog).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of workflows that are live and wait: at most `Limits::cache_bytes`.
    pub cached_bytes: usize,
    /// Instances whose turn is under way. With `waiting`, and with `in_hand` but for activities, bounded by what the broker hands out at a time: the
    /// prefetch, for each lane and for starts and the unrouted, times the items of a bundle, of which a lane's has eight times as many. Most often it
    /// is far less: while as many wait for a turn as may have one, lanes bring no more, but for an item of each that looked at the same moment.
    pub active: usize,
    /// Items that wait for such a turn to end.
    pub waiting: usize,
    /// Items that have come out of a queue and are not done with; of activities those of as many messages as may run at once, and those that wait under
    /// a lease.
    pub in_hand: usize,
    /// Tasks that are begun on and wait for a slot: at most twice as many as may run at once.
    pub tasks: usize,
    /// Items that wait to be published. Bounded as `waiting` is, and by what one turn may decide; those for a queue that takes nothing are parked in the
    /// store after 3 s.
    pub outgoing: usize,
    /// Instances with marks that wait to be cleared, those of the last second's turns and starts, and those whose end waits to be settled.
    pub confirmed: usize,
}

impl Gauge {
    pub(super) fn of(runtime: &Arc<Runtime>) -> Self {
        Self(runtime.clone())
    }

    /// What it is now.
    pub fn read(&self) -> Footprint {
        let (active, waiting) = self.0.mailboxes.size();
        Footprint {
            cached_bytes: self.0.cache.bytes(),
            active,
            waiting,
            in_hand: self.0.in_hand.len(),
            tasks: self.0.slot_room.len(),
            outgoing: self.0.engine.outbox.waiting(),
            confirmed: self.0.engine.confirmed.len(),
        }
    }
}
