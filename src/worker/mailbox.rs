//! Mailboxes: what waits for an instance whose turn is running. At most one turn of an instance runs in a worker at a time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::delivery::Arrival;
use crate::model::{InstanceRef, Map};

/// See the module. Bounded by the prefetch of the consumers that fill it.
#[derive(Default)]
pub(super) struct Mailboxes(Mutex<Map<InstanceRef, VecDeque<Arrival>>>);

impl Mailboxes {
    /// Adds an arrival. True if nobody works on the instance: the caller begins to.
    pub(super) fn push(&self, instance: &InstanceRef, arrival: Arrival) -> bool {
        let mut boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match boxes.get_mut(instance) {
            Some(waiting) => {
                waiting.push_back(arrival);
                false
            }
            None => {
                boxes.insert(instance.clone(), VecDeque::from([arrival]));
                true
            }
        }
    }

    /// Instances that somebody works on, and items that wait for them.
    pub(super) fn size(&self) -> (usize, usize) {
        let boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (boxes.len(), boxes.values().map(VecDeque::len).sum())
    }

    /// Takes what waits, at most so many. Nothing means that the caller's work is over and the next arrival begins anew.
    pub(super) fn take(&self, instance: &InstanceRef, most: usize) -> Vec<Arrival> {
        let mut boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = boxes.get_mut(instance) else {
            return Vec::new();
        };
        let taken: Vec<_> = waiting.drain(..most.min(waiting.len())).collect();
        if taken.is_empty() {
            boxes.remove(instance);
        }
        taken
    }
}
