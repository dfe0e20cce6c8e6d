//! Who consumes a queue in this process, and what they hold unsettled. Pure: it decides, others read, write and wake.
//!
//! Only this is forgotten when the process ends, and then every message still stored is deliverable again. It takes memory for what is
//! outstanding, whatever the length of the queue.

use std::collections::{BTreeSet, HashMap};

/// Names a subscription.
pub(super) type SubscriptionId = u64;

/// The leases of one queue.
#[derive(Debug)]
pub(super) struct Leases {
    /// True if only the first subscription is served.
    single_active: bool,
    /// Messages from this position on have not been delivered by this process.
    cursor: u64,
    /// Messages before the cursor that were handed back, in their old order.
    returned: BTreeSet<u64>,
    /// Messages before this position may have been delivered: by an earlier process, or to a consumer that is suddenly gone.
    recovered: u64,
    /// Messages before this position are durably noted as delivered.
    marked: u64,
    /// In order of subscription.
    subscriptions: Vec<Subscription>,
    last_id: SubscriptionId,
    /// Who took the last message.
    last_taker: SubscriptionId,
}

#[derive(Debug)]
struct Subscription {
    id: SubscriptionId,
    /// Most unsettled deliveries; 0 is no limit, as in AMQP.
    prefetch: usize,
    /// Unsettled: tag -> position.
    unsettled: HashMap<u64, u64>,
    last_tag: u64,
    cancelled: bool,
}

impl Subscription {
    fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// How many more messages it may take.
    fn room(&self) -> u64 {
        match self.prefetch {
            0 => u64::MAX,
            prefetch => prefetch.saturating_sub(self.unsettled.len()) as u64,
        }
    }
}

/// What a subscription may take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The message at this position, which was handed back.
    Returned(u64),
    /// The first message at or after this position.
    From(u64),
    /// Nothing now: it holds as much as it may, or another one is active.
    Wait,
    /// The subscription is over.
    Over,
}

/// How far ahead the note of what was delivered goes: one durable write for so many deliveries, and at most so many messages that are flagged as
/// redelivered after a crash although they were not.
const MARK_AHEAD: u64 = 256;

impl Leases {
    /// A queue as found in the store: messages from `floor` on, of which those before `delivered` may have been delivered.
    pub(super) fn new(single_active: bool, floor: u64, delivered: u64) -> Self {
        Self {
            single_active,
            cursor: floor,
            returned: BTreeSet::new(),
            recovered: delivered,
            marked: delivered,
            subscriptions: Vec::new(),
            last_id: 0,
            last_taker: 0,
        }
    }

    /// Adds a subscription, last in line.
    pub(super) fn subscribe(&mut self, prefetch: u16) -> SubscriptionId {
        self.last_id += 1;
        self.subscriptions.push(Subscription {
            id: self.last_id,
            prefetch: prefetch.into(),
            unsettled: HashMap::new(),
            last_tag: 0,
            cancelled: false,
        });
        self.last_id
    }

    /// Live subscriptions.
    pub(super) fn consumers(&self) -> u64 {
        self.subscriptions.iter().filter(|one| !one.cancelled).count() as u64
    }

    /// True if the subscription holds as much as it may.
    pub(super) fn is_full(&self, id: SubscriptionId) -> bool {
        let own = self.subscriptions.iter().find(|one| one.id == id);
        own.is_some_and(Subscription::is_full)
    }

    /// True if the subscription took the last message and others compete with it: it lets them go first, or they might never get any.
    pub(super) fn goes_last(&self, id: SubscriptionId) -> bool {
        self.last_taker == id && !self.single_active && self.consumers() > 1
    }

    /// What the subscription may take now.
    pub(super) fn turn(&self, id: SubscriptionId) -> Turn {
        let Some(own) = self.subscriptions.iter().find(|one| one.id == id && !one.cancelled) else {
            return Turn::Over;
        };
        let active = self.subscriptions.iter().find(|one| !one.cancelled);
        if self.single_active && active.is_some_and(|active| active.id != id) {
            return Turn::Wait;
        }
        if own.is_full() {
            return Turn::Wait;
        }
        match self.returned.first() {
            Some(position) => Turn::Returned(*position),
            None => Turn::From(self.cursor),
        }
    }

    /// The note that has to be durable before the message at this position is delivered: everything before the result may have been delivered.
    pub(super) fn mark_needed(&self, position: u64) -> Option<u64> {
        (position >= self.marked).then_some(position + MARK_AHEAD)
    }

    /// The note that had better be written soon, so that no delivery has to wait for it.
    pub(super) fn mark_wanted(&self, position: u64) -> Option<u64> {
        (position + MARK_AHEAD / 2 == self.marked).then_some(self.marked + MARK_AHEAD)
    }

    /// The note is durable.
    pub(super) fn marked(&mut self, before: u64) {
        self.marked = self.marked.max(before);
    }

    /// Gives the message to the subscription. Returns the delivery's tag, and whether it may have been delivered before.
    pub(super) fn lease(&mut self, id: SubscriptionId, position: u64) -> Option<(u64, bool)> {
        let returned = self.returned.remove(&position);
        self.cursor = self.cursor.max(position + 1);
        self.last_taker = id;
        let own = self.subscriptions.iter_mut().find(|one| one.id == id)?;
        own.last_tag += 1;
        own.unsettled.insert(own.last_tag, position);
        Some((own.last_tag, returned || position < self.recovered))
    }

    /// A message that was handed back is no longer stored.
    pub(super) fn gone(&mut self, position: u64) {
        self.returned.remove(&position);
    }

    /// The position of a delivery's message, if it is still to be settled.
    pub(super) fn position(&self, id: SubscriptionId, tag: u64) -> Option<u64> {
        let own = self.subscriptions.iter().find(|one| one.id == id)?;
        own.unsettled.get(&tag).copied()
    }

    /// Settles a delivery: the position of its message, if it was still to be settled.
    pub(super) fn settle(&mut self, id: SubscriptionId, tag: u64) -> Option<u64> {
        let own = self.subscriptions.iter_mut().find(|one| one.id == id)?;
        let position = own.unsettled.remove(&tag);
        // A cancelled subscription is only kept for what it still holds.
        if own.cancelled && own.unsettled.is_empty() {
            self.subscriptions.retain(|one| one.id != id);
        }
        position
    }

    /// Settles a delivery by handing its message back.
    pub(super) fn requeue(&mut self, id: SubscriptionId, tag: u64) {
        let position = self.settle(id, tag);
        self.returned.extend(position);
    }

    /// The subscription gets nothing more; what it holds can still be settled.
    pub(super) fn cancel(&mut self, id: SubscriptionId) {
        self.subscriptions.retain_mut(|one| {
            one.cancelled |= one.id == id;
            one.id != id || !one.unsettled.is_empty()
        });
    }

    /// The subscription is gone: what it held is handed back. As with an AMQP channel that closes, what its prefetch had room for of the messages
    /// before `tail` counts as delivered too: nobody can say how far a consumer that is suddenly gone had come.
    pub(super) fn close(&mut self, id: SubscriptionId, tail: u64) {
        let Some(index) = self.subscriptions.iter().position(|one| one.id == id) else {
            return;
        };
        let closed = self.subscriptions.remove(index);
        if !closed.cancelled && (index == 0 || !self.single_active) {
            let reached = self.cursor.saturating_add(closed.room());
            self.recovered = self.recovered.max(reached.min(tail));
        }
        self.returned.extend(closed.unsettled.into_values());
    }

    /// Deliveries that are to be settled yet.
    pub(super) fn unsettled(&self) -> u64 {
        self.subscriptions.iter().map(|one| one.unsettled.len() as u64).sum()
    }

    /// The queue was removed with all its messages, which stood before this position; its subscriptions are over.
    pub(super) fn remove(&mut self, floor: u64) {
        self.subscriptions.clear();
        self.returned.clear();
        self.cursor = self.cursor.max(floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(leases: &mut Leases, id: SubscriptionId) -> Option<(u64, u64, bool)> {
        let position = match leases.turn(id) {
            Turn::Returned(position) | Turn::From(position) => position,
            Turn::Wait | Turn::Over => return None,
        };
        let (tag, redelivered) = leases.lease(id, position)?;
        Some((position, tag, redelivered))
    }

    #[test]
    fn prefetch_bounds_what_is_unsettled() {
        let mut leases = Leases::new(false, 0, 0);
        let one = leases.subscribe(2);
        assert_eq!(take(&mut leases, one), Some((0, 1, false)));
        assert_eq!(take(&mut leases, one), Some((1, 2, false)));
        assert_eq!(leases.turn(one), Turn::Wait);
        assert_eq!(leases.settle(one, 1), Some(0));
        assert_eq!(leases.settle(one, 1), None, "settled once");
        assert_eq!(leases.turn(one), Turn::From(2));
    }

    #[test]
    fn what_is_handed_back_comes_first_and_is_flagged() {
        let mut leases = Leases::new(false, 0, 0);
        let (one, other) = (leases.subscribe(0), leases.subscribe(0));
        take(&mut leases, one);
        take(&mut leases, one);
        take(&mut leases, other);
        leases.requeue(one, 2);
        leases.close(one, 3);
        assert_eq!(leases.turn(one), Turn::Over);
        assert_eq!(take(&mut leases, other), Some((0, 2, true)));
        assert_eq!(take(&mut leases, other), Some((1, 3, true)));
        assert_eq!(take(&mut leases, other), Some((3, 4, false)));
    }

    #[test]
    fn one_subscription_at_a_time_is_active_where_that_is_asked_for() {
        let mut leases = Leases::new(true, 0, 0);
        let (one, other) = (leases.subscribe(10), leases.subscribe(10));
        assert_eq!(take(&mut leases, one), Some((0, 1, false)));
        assert_eq!(leases.turn(other), Turn::Wait);
        leases.cancel(one);
        assert_eq!(leases.turn(one), Turn::Over);
        assert_eq!(
            take(&mut leases, other),
            Some((1, 1, false)),
            "what the cancelled one holds is its own"
        );
        assert_eq!(leases.settle(one, 1), Some(0));
        assert_eq!(leases.consumers(), 1);
    }

    #[test]
    fn a_delivery_is_noted_before_it_is_made() {
        let mut leases = Leases::new(false, 0, 0);
        let mark = leases.mark_needed(0).expect("nothing is noted yet");
        leases.marked(mark);
        assert_eq!(leases.mark_needed(mark - 1), None);
        assert!(leases.mark_needed(mark).is_some());
        assert!((0..mark).any(|position| leases.mark_wanted(position).is_some()));
        let after_a_crash = Leases::new(false, 0, mark);
        assert_eq!(after_a_crash.mark_needed(0), None);
    }
}
