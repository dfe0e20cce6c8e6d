//! Waiting for something that is to come true.

use std::time::{Duration, Instant};

/// How long to wait between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is a value, for at most this long: a test on a loaded machine is slow, not wrong.
#[track_caller]
pub(crate) fn soon<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// For what takes a restart, a redelivery and perhaps a check.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
