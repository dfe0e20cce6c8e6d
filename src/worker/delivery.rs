//! From deliveries to items: each item of a message has a ticket, and the message is settled when all its tickets are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::in_hand::Held;
use crate::backend::Delivery;
use crate::model::Lane;
use crate::wire::Item;

/// What an item owes its message. [`done`](Self::done) when everything that the item caused is durable; dropping it hands the message back.
pub(super) struct Ticket(Option<Arc<Settlement>>);

struct Settlement {
    delivery: Delivery,
    left: AtomicUsize,
    is_handed_back: AtomicBool,
    /// Dropped when the message is settled, for whoever waits for that.
    _in_hand: Option<TaskTrackerToken>,
}

impl Ticket {
    /// A ticket for each of a message's items.
    pub(super) fn split(delivery: Delivery, items: usize) -> Vec<Ticket> {
        Self::split_with(delivery, items, None)
    }

    /// The same; the token lives until the message is settled.
    pub(super) fn split_held(delivery: Delivery, items: usize, in_hand: TaskTrackerToken) -> Vec<Ticket> {
        Self::split_with(delivery, items, Some(in_hand))
    }

    fn split_with(delivery: Delivery, items: usize, in_hand: Option<TaskTrackerToken>) -> Vec<Ticket> {
        let settlement = Settlement {
            delivery,
            left: AtomicUsize::new(items),
            is_handed_back: AtomicBool::new(false),
            _in_hand: in_hand,
        };
        let settlement = Arc::new(settlement);
        (0..items).map(|_| Ticket(Some(settlement.clone()))).collect()
    }

    /// The item is processed.
    pub(super) fn done(mut self) {
        if let Some(settlement) = self.0.take() {
            settlement.settle();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(settlement) = self.0.take() {
            settlement.is_handed_back.store(true, Ordering::Release);
            settlement.settle();
        }
    }
}

impl Settlement {
    fn settle(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if self.is_handed_back.load(Ordering::Acquire) {
            self.delivery.requeue();
        } else {
            self.delivery.ack();
        }
    }
}

/// An item on its way to its instance.
pub(super) struct Arrival {
    pub(super) item: Item,
    pub(super) ticket: Ticket,
    /// Tells that it is here for as long as it is.
    pub(super) held: Held,
    /// Its message was delivered before: whoever had it may have died of it.
    pub(super) is_redelivered: bool,
    /// The lane that it came by.
    pub(super) lane: Option<Lane>,
}
