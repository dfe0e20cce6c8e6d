//! The store's time, as a process reckons it between two looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use crate::backend::Result;
use crate::model::Timestamp;

/// After this long it is looked at again, where nothing depends on a clock that is right to the millisecond.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone, Default)]
pub(super) struct StoreTime(Arc<Reckoning>);

#[derive(Default)]
struct Reckoning {
    /// The store's clock minus ours, in milliseconds.
    offset: AtomicI64,
    /// When it was last looked at, by our clock; 0 if never.
    looked_at: AtomicU64,
}

impl Engine {
    /// The store's time itself.
    pub(crate) async fn now(&self) -> Result<Timestamp> {
        self.retrying("time", || self.store().now()).await
    }

    /// The store's time by our clock, as of the last [`look_at_clock`](Self::look_at_clock).
    pub(crate) fn reckoned_now(&self) -> Timestamp {
        let here = self.backend.clock().now().as_millis();
        Timestamp::from_millis(here.saturating_add_signed(self.store_time.0.offset.load(Ordering::Relaxed)))
    }

    /// The same; looks at the store's clock first if that was long ago.
    pub(crate) async fn about_now(&self) -> Result<Timestamp> {
        let looked_at = Timestamp::from_millis(self.store_time.0.looked_at.load(Ordering::Relaxed));
        let here = self.backend.clock().now();
        // A clock that was set back is as bad as one that has run on.
        if here < looked_at || here.since(looked_at) > GOOD_FOR {
            self.retrying("time", || self.look_at_clock()).await?;
        }
        Ok(self.reckoned_now())
    }

    /// Sees how far the store's clock is from ours.
    pub(crate) async fn look_at_clock(&self) -> Result<()> {
        // In this order our time is never behind the store's, whatever the reply took: a due time that we compute is late by that much, never early.
        let here = self.backend.clock().now();
        let there = self.store().now().await?;
        let offset = there.as_millis() as i64 - here.as_millis() as i64;
        self.store_time.0.offset.store(offset, Ordering::Relaxed);
        self.store_time.0.looked_at.store(here.as_millis(), Ordering::Relaxed);
        Ok(())
    }
}
