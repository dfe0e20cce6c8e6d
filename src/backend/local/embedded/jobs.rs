//! The queue between callers and the writer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::kv::Transaction;
use crate::backend::Result;

/// Runs an operation, or learns why it cannot be run. If it succeeds, the result tells whoever waits that it is durable, or why it is not.
pub(super) type Run = Box<dyn FnOnce(Result<&mut Transaction<'_>>) -> Option<Finish> + Send>;

/// The end of an operation.
pub(super) type Finish = Box<dyn FnOnce(Result<()>) + Send>;

/// Most operations in the queue; further callers wait.
const QUEUED: usize = 1024;

/// With more posted operations than this, no more is delivered, so that no more is posted.
const POSTED: usize = 8192;

/// How long posted operations wait for company before a write of their own.
const LINGER: Duration = Duration::from_millis(10);

/// The queue.
pub(super) struct Jobs {
    state: Mutex<State>,
    /// Told when something arrives, or the queue stops.
    arrived: Condvar,
    /// Room for what callers wait for.
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    /// What callers wait for.
    awaited: VecDeque<(Run, OwnedSemaphorePermit)>,
    /// What nobody waits for.
    posted: VecDeque<Run>,
    /// When the first of these came.
    posted_since: Option<Instant>,
    stopping: bool,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUED)),
        }
    }
}

impl Jobs {
    /// Queues an operation, once there is room.
    pub(super) async fn submit(&self, run: Run) {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        self.lock().awaited.push_back((run, permit));
        self.arrived.notify_one();
    }

    /// Queues an operation that nobody waits for.
    pub(super) fn post(&self, run: Run) {
        let mut state = self.lock();
        state.posted.push_back(run);
        if state.posted_since.is_none() {
            state.posted_since = Some(Instant::now());
            self.arrived.notify_one();
        }
    }

    /// True if there are more posted operations than there should be.
    pub(super) fn is_behind(&self) -> bool {
        self.lock().posted.len() > POSTED
    }

    /// Lets the writer end once the queue is empty.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// Waits for operations and takes all that are there, in order; posted ones first, since what is awaited came after what led to it. `None` once
    /// the queue has stopped and is empty.
    pub(super) fn take(&self) -> Option<VecDeque<Run>> {
        let mut state = self.lock();
        loop {
            if !state.awaited.is_empty() {
                break;
            }
            let lingered = state.posted_since.map(|since| since.elapsed());
            state = match lingered {
                None if state.stopping => return None,
                Some(lingered) if state.stopping || lingered >= LINGER => break,
                Some(lingered) => {
                    let waited = self.arrived.wait_timeout(state, LINGER - lingered);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.posted_since = None;
        let mut batch = std::mem::take(&mut state.posted);
        // Dropping the permits makes room for the next batch.
        batch.extend(state.awaited.drain(..).map(|(run, _permit)| run));
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
