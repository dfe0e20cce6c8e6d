//! What workflow code awaits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::machine::Machine;
use super::slots::{Filling, SlotId};
use crate::model::{Payload, Result};

/// The machine, shared between an execution and the futures in its code.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Machine>>);

impl Shared {
    pub(super) fn new(machine: Machine) -> Self {
        Self(Arc::new(Mutex::new(machine)))
    }

    /// No user code runs under the lock, so a panic in user code cannot poison it; a poisoned one is used as it is.
    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes the request when the handle is first polled.
type Begin = Box<dyn FnOnce(&mut Machine) -> SlotId + Send>;

enum State {
    Lazy(Begin),
    Waiting(SlotId),
    Over,
}

/// A call, a timer or a wait for an event, as a future: what the options' builders turn into when they are awaited.
///
/// It is lazy: nothing is scheduled before it is first polled, or [`start`](Self::start)ed. Dropping it gives up interest: a call's result is then
/// recorded and ignored, and not retried; a timer is cancelled; an event stays for the next who waits.
#[must_use = "a handle does nothing until it is awaited or started"]
pub struct Handle<T> {
    machine: Shared,
    state: State,
    decode: fn(Option<Payload>) -> Result<T>,
}

impl<T> Handle<T> {
    pub(super) fn new(
        machine: Shared,
        decode: fn(Option<Payload>) -> Result<T>,
        begin: impl FnOnce(&mut Machine) -> SlotId + Send + 'static,
    ) -> Self {
        Self {
            machine,
            state: State::Lazy(Box::new(begin)),
            decode,
        }
    }

    /// Schedules it now, in the order of these calls; it then runs while other things are awaited.
    pub fn start(mut self) -> Self {
        self.begin();
        self
    }

    pub(super) fn machine(&self) -> &Shared {
        &self.machine
    }

    pub(super) fn begin(&mut self) -> Option<SlotId> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Lazy(begin) => {
                let slot = begin(&mut self.machine.lock());
                self.state = State::Waiting(slot);
            }
            other => self.state = other,
        }
        self.slot()
    }

    pub(super) fn slot(&self) -> Option<SlotId> {
        match self.state {
            State::Waiting(slot) => Some(slot),
            _ => None,
        }
    }

    fn finish(&mut self, filling: Filling) -> Result<T> {
        self.state = State::Over;
        filling.and_then(self.decode)
    }
}

// Nothing in a handle is pinned: its fields are plain data and a boxed closure.
impl<T> Unpin for Handle<T> {}

impl<T> Future for Handle<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let slot = self.begin().expect("a handle is not polled again after it was ready");
        let filling = self.machine.lock().slots.poll(slot, context.waker());
        match filling {
            Some(filling) => Poll::Ready(self.finish(filling)),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        if let State::Waiting(slot) = self.state {
            self.machine.lock().abandon(slot);
        }
    }
}
