//! Virtual time, and how each process reads it.

use std::sync::Arc;
use std::time::Duration;

use super::process::State;
use crate::backend::Clock;
use crate::model::Timestamp;

/// The world's time: it begins at a fixed moment and goes by the paused clock of the runtime.
#[derive(Clone, Copy)]
pub(super) struct VirtualClock {
    began: tokio::time::Instant,
}

/// 2030-01-01 00:00 UTC, in milliseconds.
const BEGINNING: u64 = 1_893_456_000_000;

impl VirtualClock {
    pub(super) fn begin() -> Self {
        Self {
            began: tokio::time::Instant::now(),
        }
    }
}

#[async_trait::async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(BEGINNING + self.began.elapsed().as_millis() as u64)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A process's clock: it may be wrong, and it stands still with its process.
pub(super) struct ProcessClock {
    pub(super) clock: VirtualClock,
    pub(super) process: Arc<State>,
}

#[async_trait::async_trait]
impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now().as_millis().saturating_add_signed(self.process.skew()))
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
        self.process.goes_on().await;
    }
}
