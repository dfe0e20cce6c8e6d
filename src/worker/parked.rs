//! What waits in the due-set for its queue: the queue did not exist, or took no messages.

use std::time::Duration;

use super::runtime::Runtime;
use super::unrouted;
use crate::backend::{DueOutcome, Result};
use crate::engine::ParkedEntry;
use crate::model::Timestamp;
use crate::wire::Item;

/// An item for an app that did not exist, or for a queue that took no messages, is tried again.
pub(super) async fn try_again(runtime: &Runtime, parked: ParkedEntry) -> Result<DueOutcome> {
    let engine = &runtime.engine;
    let queue = parked.queue();
    let again = DueOutcome::Again(next_try(runtime, parked.since));
    // Before anything is asked of the servers: there may be thousands for one queue.
    if engine.outbox.leaves_alone(&queue) {
        return Ok(again);
    }
    let Ok(_place) = runtime.parked_tries.acquire().await else {
        return Ok(again);
    };
    if !engine.outbox.may_try(&queue) {
        return Ok(again);
    }
    if !engine.may_be_wanted(&parked.item).await? {
        runtime.counters.dropped("nobody waits for the parked item");
        if let Item::Start(start) = &parked.item {
            // Whoever ended the child may have died before its parent was told.
            engine.drive_marks_if_over(&start.instance).await?;
        }
        return Ok(DueOutcome::Remove);
    }
    // Not asked again and again: that would hold up the other entries.
    let depth = match engine.broker().depth(&queue).await {
        Err(error) if !error.is_permanent() => return Ok(again),
        depth => depth?,
    };
    let is_over = match (depth, parked.item) {
        (Some(_), Item::Event(event)) => match engine.outbox.try_once(&queue, Item::Event(event.clone())).await {
            Err(error) if error.is_too_large() => engine.keep(&event, queue).await.map(|_| true)?,
            tried => tried?,
        },
        (Some(_), item) => engine.outbox.try_once(&queue, item).await?,
        // What a queue did not take may be for an app that was unknown all the while, or is so by now.
        (None, item) => unrouted::answer(runtime, &item, &parked.app).await?,
    };
    Ok(if is_over { DueOutcome::Remove } else { again })
}

/// When an item that has been parked since then is tried again.
pub(super) fn next_try(runtime: &Runtime, since: Timestamp) -> Timestamp {
    let now = runtime.now();
    now + wait_for_app(now.since(since), runtime.settings.parked_interval)
}

/// Waits that grow with the time that has passed: a quarter of it, between 1 s and the setting.
fn wait_for_app(parked_for: Duration, longest: Duration) -> Duration {
    (parked_for / 4).clamp(Duration::from_secs(1).min(longest), longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_an_unknown_app_is_tried_less_and_less_often_up_to_the_setting() {
        let wait =
            |parked_for, longest| wait_for_app(Duration::from_millis(parked_for), Duration::from_millis(longest));
        let waits = [0, 4_000, 8_000, 20_000, 40_000, 86_400_000].map(|age| wait(age, 10_000).as_millis());
        assert_eq!(waits, [1_000, 1_000, 2_000, 5_000, 10_000, 10_000]);
        // A setting below a second holds from the first try on.
        assert_eq!([0, 86_400_000].map(|age| wait(age, 200).as_millis()), [200, 200]);
    }

    #[test]
    fn within_an_hour_an_unknown_app_is_asked_for_some_hundred_times_at_most() {
        let (mut age, mut tries) = (Duration::ZERO, 0);
        while age < Duration::from_secs(3600) {
            age += wait_for_app(age, Duration::from_secs(10));
            tries += 1;
        }
        assert!((300..400).contains(&tries), "{tries}");
    }
}
