//! Room: how many instances may wait for a turn, and how many tasks for a slot, while more of what has come is opened.
//!
//! An item that is opened has a future of its own, and takes kilobytes; a message that is not takes its bytes. So ten thousand items that come at once stay
//! in their messages until most of those before them have had their turn. Only who waits for a turn counts: whoever waits for a server holds up nobody here.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard, Notify};

/// See the module.
pub(super) struct Room {
    /// Most that wait while lanes are opened.
    for_lanes: usize,
    /// Most that wait while whoever stands in line is let in.
    for_the_line: usize,
    waiting: AtomicUsize,
    /// Told when one waits no more.
    left: Notify,
    /// Starts stand in a line of their own, and messages of tasks, too: only the first looks.
    line: Mutex<()>,
}

/// An instance that waits for a turn, or a task for a slot, until this is dropped.
pub(super) struct Waiting(Arc<Room>);

impl Room {
    /// For instances: as many wait as may have a turn at once. Starts find half of that (but for a single turn), so that what has begun goes first.
    pub(super) fn for_turns(turns: usize) -> Self {
        Self::new(turns, turns.div_ceil(2))
    }

    /// For tasks: twice as many wait as may run at once, since bodies may be short.
    pub(super) fn for_activities(activities: usize) -> Self {
        let most = activities.saturating_mul(2);
        Self::new(most, most)
    }

    fn new(for_lanes: usize, for_the_line: usize) -> Self {
        Self {
            for_lanes,
            for_the_line,
            waiting: AtomicUsize::new(0),
            left: Notify::new(),
            line: Mutex::default(),
        }
    }

    pub(super) fn enter(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(self.clone())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Returns when a lane's next message may be opened, or an item of it be handed on.
    pub(super) async fn for_a_lane(&self) {
        self.below(self.for_lanes).await;
    }

    /// Returns when the next start may be taken. Sooner closed than lanes: what has begun goes before what has not.
    pub(super) async fn for_a_start(&self) {
        let _first = self.first_in_line().await;
        self.for_another().await;
    }

    /// Stands in line until this is dropped.
    pub(super) async fn first_in_line(&self) -> MutexGuard<'_, ()> {
        self.line.lock().await
    }

    /// Returns when there is room for another one of whoever is first in line.
    pub(super) async fn for_another(&self) {
        self.below(self.for_the_line).await;
    }

    async fn below(&self, most: usize) {
        loop {
            // Registered before looking.
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if self.waiting.load(Ordering::Acquire) < most {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn lanes_find_room_when_starts_do_not() {
        let room = Arc::new(Room::for_turns(4));
        let mut waiting: Vec<Waiting> = (0..2).map(|_| room.enter()).collect();
        room.for_a_lane().await;
        let mut starts = [Box::pin(room.for_a_start()), Box::pin(room.for_a_start())];
        assert!(poll!(&mut starts[0]).is_pending() && poll!(&mut starts[1]).is_pending());
        waiting.extend([room.enter(), room.enter()]);
        let mut lane = Box::pin(room.for_a_lane());
        assert!(poll!(&mut lane).is_pending());
        waiting.pop();
        assert!(poll!(&mut lane).is_ready() && poll!(&mut starts[0]).is_pending());
        waiting.clear();
        assert!(poll!(&mut starts[0]).is_ready() && poll!(&mut starts[1]).is_ready());
    }

    #[tokio::test]
    async fn a_start_that_gives_up_waiting_leaves_its_place_to_the_next() {
        let room = Arc::new(Room::for_turns(3));
        let waiting = [room.enter(), room.enter()];
        let mut first = Box::pin(room.for_a_start());
        let mut second = Box::pin(room.for_a_start());
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(first);
        drop(waiting);
        assert!(poll!(&mut second).is_ready());
    }
}
