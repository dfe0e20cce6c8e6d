//! Live workflows: executions kept in memory between turns, so that a turn costs the new events and not the history.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::state::Live;
use crate::model::{InstanceRef, Map};

/// Least recently used first out, by bytes. What is taken out for a turn is not counted until it is put back.
pub(super) struct Cache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: Map<InstanceRef, Entry>,
    /// Ages to instances, oldest first.
    ages: BTreeMap<u64, InstanceRef>,
    clock: u64,
    bytes: usize,
}

struct Entry {
    /// Apart: the table has room for more than it has, and twice while it grows.
    live: Box<Live>,
    age: u64,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::default(),
        }
    }

    /// Takes an instance's state out.
    pub(super) fn take(&self, instance: &InstanceRef) -> Option<Box<Live>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.entries.remove(instance)?;
        inner.ages.remove(&entry.age);
        inner.bytes -= entry.bytes;
        Some(entry.live)
    }

    /// Keeps an instance's state, and drops the oldest ones if that is too much.
    pub(super) fn put(&self, instance: InstanceRef, live: Box<Live>) {
        let bytes = live.weight();
        let mut dropped = Vec::new();
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.clock += 1;
            let age = inner.clock;
            inner.bytes += bytes;
            inner.ages.insert(age, instance.clone());
            inner.entries.insert(instance, Entry { live, age, bytes });
            while inner.bytes > self.limit {
                let Some((_, oldest)) = inner.ages.pop_first() else {
                    break;
                };
                if let Some(entry) = inner.entries.remove(&oldest) {
                    inner.bytes -= entry.bytes;
                    dropped.push(entry);
                }
            }
        }
        // User code's destructors run outside the lock.
        drop(dropped);
    }

    /// Bytes of the instances that are live and rest.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// How many instances are live.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }
}
