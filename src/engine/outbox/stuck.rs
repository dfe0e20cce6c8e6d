//! Queues that take nothing although the broker is there: full and refusing, or without their majority.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::PATIENCE;
use crate::backend::Queue;
use crate::model::{Map, Timestamp};

/// How long a stuck queue is left alone between two tries.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The queues that took nothing when they were last tried, and when they are tried again, with one message at a time.
#[derive(Default)]
pub(super) struct Stuck(Mutex<Map<Queue, Timestamp>>);

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

    /// True if the queue is not to be tried now. Asking is no try.
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

    fn queues(&self) -> MutexGuard<'_, Map<Queue, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if the time is yet to come. One that is far away was noted before the clock was set back.
fn is_later(again: Timestamp, now: Timestamp) -> bool {
    now < again && again.since(now) <= PATIENCE
}

/// What the broker has confirmed: whether it is one queue that takes nothing, or all of it.
#[derive(Default)]
pub(super) struct Confirms(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    handed_over: u64,
    queues: Map<Queue, Taken>,
}

/// What a queue has taken.
#[derive(Clone, Copy, Default)]
struct Taken {
    messages: u64,
    /// The number of the last of them, in the order in which all messages were handed over.
    last: u64,
}

/// A message that was handed over.
pub(super) struct Ticket {
    number: u64,
    /// What its queue had taken by then.
    messages: u64,
}

impl Confirms {
    pub(super) fn hand_over(&self, queue: &Queue) -> Ticket {
        let mut counts = self.counts();
        counts.handed_over += 1;
        let messages = counts.queues.get(queue).map_or(0, |taken| taken.messages);
        Ticket {
            number: counts.handed_over,
            messages,
        }
    }

    pub(super) fn confirm(&self, queue: &Queue, ticket: &Ticket) {
        let mut counts = self.counts();
        let taken = counts.queues.entry(queue.clone()).or_default();
        taken.messages += 1;
        taken.last = taken.last.max(ticket.number);
    }

    /// True if the message's queue has taken others since this was last asked.
    pub(super) fn goes_on(&self, queue: &Queue, ticket: &mut Ticket) -> bool {
        let messages = self.counts().queues.get(queue).map_or(0, |taken| taken.messages);
        std::mem::replace(&mut ticket.messages, messages) != messages
    }

    /// True if another queue has taken a message that was handed over later. (Not one of before: it may have been on its way when all stood still.)
    pub(super) fn others_go_on(&self, queue: &Queue, ticket: &Ticket) -> bool {
        let counts = self.counts();
        let mut others = counts.queues.iter().filter(|(other, _)| *other != queue);
        others.any(|(_, taken)| taken.last > ticket.number)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
