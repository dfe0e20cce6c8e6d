//! Turns and tasks that may be about to take down their process run apart from each other: then only the one that does is charged with it.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Clock;
use crate::model::Timestamp;

/// Whatever has not taken down its process within this is not about to, and nobody waits for it any longer.
const LONGEST: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub(crate) struct Apart {
    one: Arc<Semaphore>,
    /// Since when somebody has it.
    since: Arc<Mutex<Timestamp>>,
}

impl Default for Apart {
    fn default() -> Self {
        Self {
            one: Arc::new(Semaphore::new(1)),
            since: Arc::new(Mutex::new(Timestamp::from_millis(0))),
        }
    }
}

impl Apart {
    fn since(&self) -> MutexGuard<'_, Timestamp> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_enter(&self, now: Timestamp) -> Result<OwnedSemaphorePermit, Timestamp> {
        let mut since = self.since();
        let entered = self.one.clone().try_acquire_owned();
        if entered.is_ok() {
            *since = now;
        }
        entered.map_err(|_| *since)
    }

    /// Waits for whoever may be deadly now. `None` if that has been so for long without a death.
    pub(crate) async fn enter(&self, clock: &dyn Clock) -> Option<OwnedSemaphorePermit> {
        let mut since = match self.try_enter(clock.now()) {
            Ok(permit) => return Some(permit),
            Err(since) => since,
        };
        let mut entering = pin!(self.one.clone().acquire_owned());
        loop {
            let rest = LONGEST.saturating_sub(clock.now().since(since));
            tokio::select! {
                biased;
                permit = &mut entering => {
                    *self.since() = clock.now();
                    return permit.ok();
                }
                () = clock.sleep(rest) => {}
            }
            let now_since = *self.since();
            // Somebody else's time may have begun meanwhile.
            if now_since == since {
                return None;
            }
            since = now_since;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    /// A clock that stands still; whoever sleeps wakes at once, and somebody else may have entered meanwhile.
    struct Still {
        now: Timestamp,
        slept: Mutex<Vec<Duration>>,
        enters: Mutex<Option<(Apart, Timestamp)>>,
    }

    impl Still {
        fn at(millis: u64) -> Self {
            Self {
                now: Timestamp::from_millis(millis),
                slept: Mutex::default(),
                enters: Mutex::default(),
            }
        }
    }

    #[async_trait::async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            self.now
        }

        async fn sleep(&self, duration: Duration) {
            self.slept.lock().unwrap().push(duration);
            if let Some((apart, at)) = self.enters.lock().unwrap().take() {
                *apart.since() = at;
            }
        }
    }

    #[tokio::test]
    async fn the_next_waits_until_it_is_free() {
        let (apart, clock) = (Apart::default(), crate::backend::SystemClock);
        let first = apart.enter(&clock).await.expect("nobody has it");
        let mut second = pin!(apart.enter(&clock));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn nobody_waits_longer_for_what_has_been_harmless() {
        let apart = Apart::default();
        let _first = apart.enter(&Still::at(1_000)).await.expect("nobody has it");
        let clock = Still::at(4_000);
        assert!(apart.enter(&clock).await.is_none());
        assert_eq!(*clock.slept.lock().unwrap(), [Duration::from_secs(2)]);
        let clock = Still::at(9_000);
        assert!(apart.enter(&clock).await.is_none());
        assert_eq!(*clock.slept.lock().unwrap(), [Duration::ZERO]);
    }

    #[tokio::test]
    async fn whoever_enters_meanwhile_is_waited_for_anew() {
        let apart = Apart::default();
        let _one_after_the_other = apart.enter(&Still::at(1_000)).await.expect("nobody has it");
        let clock = Still::at(5_000);
        *clock.enters.lock().unwrap() = Some((apart.clone(), Timestamp::from_millis(4_500)));
        assert!(apart.enter(&clock).await.is_none());
        let slept = [1_000, 4_500].map(Duration::from_millis);
        assert_eq!(*clock.slept.lock().unwrap(), slept);
    }
}
