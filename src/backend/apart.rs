//! Turns and tasks that may be about to take down their process run apart from each other: then only the one that does is charged with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Clock;
use crate::model::Timestamp;

/// Whatever has not taken down its process within this is not about to, and nobody waits for it any longer.
const LONGEST: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Apart {
    one: Arc<Semaphore>,
    /// Since when somebody has it.
    since: Mutex<Timestamp>,
}

impl Default for Apart {
    fn default() -> Self {
        Self {
            one: Arc::new(Semaphore::new(1)),
            since: Mutex::new(Timestamp::from_millis(0)),
        }
    }
}

impl Apart {
    /// Waits for whoever may be deadly now. `None` if that has been so for long without a death.
    pub(crate) async fn enter(&self, clock: &dyn Clock) -> Option<OwnedSemaphorePermit> {
        let permit = match self.one.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
                let rest = LONGEST.saturating_sub(clock.now().since(since));
                tokio::select! {
                    biased;
                    permit = self.one.clone().acquire_owned() => permit.ok()?,
                    () = clock.sleep(rest) => return None,
                }
            }
        };
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = clock.now();
        Some(permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn the_next_waits_until_it_is_free_but_for_no_longer_than_is_worth_it() {
        let (apart, clock) = (Apart::default(), SystemClock);
        let first = apart.enter(&clock).await.expect("nobody has it");
        let (second, ()) = tokio::join!(apart.enter(&clock), async { drop(first) });
        let second = second.expect("the first is through");
        // It goes on, and is not deadly.
        *apart.since.lock().unwrap() = Timestamp::from_millis(0);
        assert!(apart.enter(&clock).await.is_none());
        drop(second);
        assert!(apart.enter(&clock).await.is_some());
    }
}
