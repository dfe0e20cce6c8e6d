//! Queues that take nothing although the broker is there: full and refusing, or without their majority.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::PATIENCE;
use crate::backend::Queue;
use crate::model::Timestamp;

/// How long a stuck queue is left alone between two tries.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The queues that took nothing when they were last tried, and when they are tried again, with one message at a time.
#[derive(Default)]
pub(super) struct Stuck(Mutex<HashMap<Queue, Timestamp>>);

/// How a message gets to its queue.
#[derive(Debug, PartialEq)]
pub(super) enum Way {
    /// As all messages do.
    Free,
    /// It is the one that the queue is tried with.
    Tries,
    /// Not now.
    Closed,
}

impl Stuck {
    /// The way of the next message. Whoever tries is to say what came of it; if he does not, another may try after a while.
    pub(super) fn way(&self, queue: &Queue, now: Timestamp) -> Way {
        match self.queues().get_mut(queue) {
            None => Way::Free,
            Some(again) if is_later(*again, now) => Way::Closed,
            Some(again) => {
                *again = now + PATIENCE;
                Way::Tries
            }
        }
    }

    /// True if the queue is not to be tried now.
    pub(super) fn is_left_alone(&self, queue: &Queue, now: Timestamp) -> bool {
        self.queues().get(queue).is_some_and(|again| is_later(*again, now))
    }

    pub(super) fn contains(&self, queue: &Queue) -> bool {
        self.queues().contains_key(queue)
    }

    pub(super) fn took_nothing(&self, queue: &Queue, now: Timestamp) {
        if self.queues().insert(queue.clone(), now + LEFT_ALONE).is_none() {
            warn!(%queue, "the queue takes no messages, although the broker is there: is it full, or without a majority of its nodes? What is sent to it is kept, and tried again");
        }
    }

    pub(super) fn took_a_message(&self, queue: &Queue) {
        if self.queues().remove(queue).is_some() {
            info!(%queue, "the queue takes messages again");
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Queue, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if the time is yet to come. One that is far away was noted before the clock was set back.
fn is_later(again: Timestamp, now: Timestamp) -> bool {
    now < again && again.since(now) <= PATIENCE
}
