//! Trying again: the one loop around every call to a server.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backend::{Clock, Result};

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Repeats an operation until it has an answer, because every operation of the traits may be repeated: what was transient or unknown is tried again,
/// with back-off, until `stop` fires.
///
/// # Errors
/// The last error, if it is permanent or the process stops.
pub(crate) async fn persist<T, F, Fut>(
    clock: &dyn Clock,
    stop: &CancellationToken,
    what: &'static str,
    mut operation: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut wait = FIRST_WAIT;
    let mut tries = 0u32;
    loop {
        let error = match operation().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_permanent() || stop.is_cancelled() => return Err(error),
            Err(error) => error,
        };
        tries += 1;
        // The first failure is part of every reconnect; it is worth a line when it lasts.
        if tries > 1 {
            warn!(operation = what, tries, %error, "a server did not answer; trying again");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(error),
            () = clock.sleep(wait) => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
