//! What a worker has in hand: items that have come out of a queue and are neither done with nor handed back. It tells of those that it has had for a
//! while with each sign of life, so that an auditor can tell what is lost from what is under way.
//!
//! An item that is handed back or published again may come and go many times between two signs of life, and each time behind an auditor's marker. So it
//! counts as in hand for a while after it was let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::backend::Holding;
use crate::model::{ExecutionId, Map, MessageId, Sequence, Timestamp};
use crate::wire::{Item, TaskItem, TaskRef};

/// See the module. Bounded by the prefetch of the consumers, and by the activities that have a lease.
#[derive(Default)]
pub(super) struct InHand(Mutex<State>);

#[derive(Default)]
struct State {
    items: Map<Key, Since>,
    /// The latest first.
    markers: VecDeque<MessageId>,
}

/// What stands for an item's [`identity`](Item::identity), which is derived from it only when it is told.
type Key = (&'static str, ExecutionId, Sequence);

/// An item that was let go, and will come again, is told of for so many signs of life more.
const TOLD_AFTER: u32 = 3;

struct Since {
    at: Timestamp,
    /// When it was let go to come again, since it was last taken.
    let_go: Option<Timestamp>,
    /// How many copies of the item there are.
    copies: usize,
    /// Copies take turns by it.
    turns: Arc<Semaphore>,
}

impl InHand {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The item is in hand until the guard is dropped.
    pub(super) fn take(self: &Arc<Self>, item: &Item, now: Timestamp) -> Held {
        let of_task = |kind, task: &TaskRef| (kind, task.execution, task.sequence);
        let key = match item {
            Item::Task(task) => return self.take_task(task, now),
            Item::Completion(completion) => Some(of_task("completion", &completion.task)),
            Item::Timer(timer) => Some(of_task("timer", &timer.task)),
            Item::Start(start) => Some(("start", start.execution, 0)),
            Item::Event(_) | Item::Command(_) | Item::Wake(_) | Item::Probe(_) => None,
        };
        self.hold(key, now)
    }

    /// The same for a task.
    pub(super) fn take_task(self: &Arc<Self>, task: &TaskItem, now: Timestamp) -> Held {
        self.hold(Some(("task", task.caller.execution, task.caller.sequence)), now)
    }

    fn hold(self: &Arc<Self>, key: Option<Key>, now: Timestamp) -> Held {
        let turns = key.map(|key| {
            let mut state = self.lock();
            let since = state.items.entry(key).or_insert_with(|| Since {
                at: now,
                let_go: None,
                copies: 0,
                turns: Arc::new(Semaphore::new(1)),
            });
            since.copies += 1;
            since.let_go = None;
            since.turns.clone()
        });
        let in_hand = self.clone();
        Held { in_hand, key, turns }
    }

    /// Items that are in hand.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// A marker has come.
    pub(super) fn note(&self, marker: MessageId) {
        let mut state = self.lock();
        state.markers.push_front(marker);
        state.markers.truncate(Holding::MARKERS);
    }

    /// What has been in hand for so long.
    pub(super) fn report(&self, now: Timestamp, least: Duration) -> Holding {
        let mut state = self.lock();
        // What was let go, and has not come again.
        state
            .items
            .retain(|_, since| since.copies > 0 || since.let_go.is_some_and(|at| now.since(at) <= least * TOLD_AFTER));
        let mut holding = Holding {
            for_millis: least.as_millis() as u64,
            markers: state.markers.iter().cloned().collect(),
            ..Holding::default()
        };
        for ((kind, execution, sequence), since) in &state.items {
            if now.since(since.at) < least {
                continue;
            }
            if holding.items.len() == Holding::ITEMS {
                holding.more += 1;
            } else {
                holding.items.push(execution.derive(kind, *sequence).into());
            }
        }
        holding
    }
}

/// Keeps an item among those in hand.
pub(super) struct Held {
    in_hand: Arc<InHand>,
    key: Option<Key>,
    turns: Option<Arc<Semaphore>>,
}

impl Held {
    /// By what the copies of the item in this worker take turns.
    pub(super) fn turns(&self) -> Option<&Semaphore> {
        self.turns.as_deref()
    }

    /// The item is handed back or sent on, and comes again.
    pub(super) fn comes_again(&self, now: Timestamp) {
        let Some(key) = &self.key else { return };
        if let Some(since) = self.in_hand.lock().items.get_mut(key) {
            since.let_go = Some(now);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut state = self.in_hand.lock();
        let is_last = state.items.get_mut(key).is_none_or(|since| {
            since.copies -= 1;
            since.copies == 0 && since.let_go.is_none()
        });
        if is_last {
            state.items.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceRef;
    use crate::wire::TimerItem;

    fn timer(sequence: Sequence) -> Item {
        Item::Timer(TimerItem {
            task: TaskRef {
                instance: InstanceRef::new("a".parse().unwrap(), "i".parse().unwrap()),
                execution: uuid::Uuid::from_u128(7).into(),
                sequence,
            },
            deadline: false,
        })
    }

    #[test]
    fn only_what_has_been_in_hand_for_long_is_told_by_its_identity() {
        let in_hand = Arc::new(InHand::default());
        let at = Timestamp::from_millis;
        let (old, young) = (in_hand.take(&timer(1), at(0)), in_hand.take(&timer(2), at(90)));
        let again = in_hand.take(&timer(1), at(95));
        let told = |now| in_hand.report(at(now), Duration::from_millis(50)).items;
        assert_eq!(told(100), [timer(1).identity().unwrap()]);
        drop(old);
        assert_eq!(told(100).len(), 1, "there is another copy");
        drop(again);
        assert!(told(100).is_empty());
        assert_eq!(told(140), [timer(2).identity().unwrap()]);
        drop(young);
        assert!(in_hand.lock().items.is_empty());
    }

    #[test]
    fn what_comes_and_goes_is_told_of_as_if_it_had_stayed() {
        let in_hand = Arc::new(InHand::default());
        let at = Timestamp::from_millis;
        let told = |now| in_hand.report(at(now), Duration::from_millis(50)).items.len();
        for round in 0..10 {
            let held = in_hand.take(&timer(1), at(round * 10));
            held.comes_again(at(round * 10 + 5));
        }
        assert_eq!(told(100), 1);
        assert_eq!(told(200), 1, "it may be on its way back to us");
        assert_eq!(told(300), 0, "somebody else has it");
        assert!(in_hand.lock().items.is_empty());
        in_hand.take(&timer(1), at(0)).comes_again(at(5));
        drop(in_hand.take(&timer(1), at(10)));
        assert_eq!(told(100), 0, "it came again, and is done");
    }

    #[test]
    fn what_is_told_is_bounded_and_says_so() {
        let in_hand = Arc::new(InHand::default());
        let held: Vec<_> = (0..Holding::ITEMS as u64 + 3)
            .map(|sequence| in_hand.take(&timer(sequence), Timestamp::default()))
            .collect();
        (0..Holding::MARKERS + 1).for_each(|_| in_hand.note(MessageId::generate()));
        let holding = in_hand.report(Timestamp::default(), Duration::ZERO);
        assert_eq!(
            (holding.items.len(), holding.more, holding.markers.len()),
            (Holding::ITEMS, 3, Holding::MARKERS)
        );
        drop(held);
    }
}
