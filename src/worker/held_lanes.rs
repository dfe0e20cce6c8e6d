//! The lanes that a worker believes to hold.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::{Lane, Timestamp};

/// New instances get one lane for so long, then the next: what comes for those that began together shares messages, which it can only in one queue.
const ONE_LANE_FOR: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Default)]
pub(super) struct HeldLanes {
    held: Mutex<BTreeSet<Lane>>,
    changed: Notify,
    turn: Mutex<Turn>,
    /// Lanes to which a probe is on its way.
    probed: Mutex<BTreeSet<Lane>>,
}

/// Which of the lanes gets the new instances.
#[derive(Default)]
struct Turn {
    number: usize,
    until: Timestamp,
}

impl HeldLanes {
    pub(super) fn set(&self, lane: Lane, is_held: bool) {
        let has_changed = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if is_held { held.insert(lane) } else { held.remove(&lane) }
        };
        if has_changed {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn holds(&self, lane: Lane) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(&lane)
    }

    pub(super) fn all(&self) -> Vec<Lane> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }

    /// A lane for a new instance: each gets a while in turn.
    pub(super) fn pick(&self, now: Timestamp) -> Option<Lane> {
        let number = {
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            // A clock that was set back must not give one lane all that begins until it has caught up.
            if now >= turn.until || turn.until.since(now) > ONE_LANE_FOR * 2 {
                turn.number = turn.number.wrapping_add(1);
                turn.until = now + ONE_LANE_FOR;
            }
            turn.number
        };
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().nth(number % held.len().max(1)).copied()
    }

    /// Returns when the number of held lanes is one that the predicate accepts.
    pub(super) async fn wait_until(&self, accepts: impl Fn(usize) -> bool) {
        loop {
            // Registered before looking, so that no change in between is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if accepts(self.held.lock().unwrap_or_else(PoisonError::into_inner).len()) {
                return;
            }
            changed.await;
        }
    }

    /// True if no probe is on its way to the lane: the caller sends one.
    pub(super) fn begin_probe(&self, lane: Lane) -> bool {
        self.probed().insert(lane)
    }

    pub(super) fn end_probe(&self, lane: Lane) {
        self.probed().remove(&lane);
    }

    fn probed(&self) -> MutexGuard<'_, BTreeSet<Lane>> {
        self.probed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_begin_together_get_one_lane_and_all_lanes_get_a_turn() {
        let lanes = HeldLanes::default();
        let at = Timestamp::from_millis;
        assert_eq!(lanes.pick(at(0)), None);
        for lane in 0..3 {
            lanes.set(lane, true);
        }
        let mut picked = Vec::new();
        for turn in 0..6 {
            let begun = 1000 + turn * 1000;
            let lane = lanes.pick(at(begun));
            assert_eq!(lanes.pick(at(begun + 199)), lane, "one lane for a while");
            picked.extend(lane);
        }
        assert_eq!(picked.iter().collect::<BTreeSet<_>>().len(), 3, "{picked:?}");
        assert_eq!(picked[..3], picked[3..]);
        assert_ne!(picked[0], picked[1]);
        assert_eq!(
            lanes.pick(at(1)),
            Some(picked[0]),
            "the clock was set back: the next turn"
        );
    }
}
