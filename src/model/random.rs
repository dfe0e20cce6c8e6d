//! Where new IDs come from: the one source of chance outside workflows, so that a simulation can replay it.

use uuid::Uuid;

/// A new, random uuid (version 7, so that IDs sort by creation); in a thread that was given a seed, the next one of that seed.
pub(crate) fn new_uuid() -> Uuid {
    #[cfg(feature = "testing")]
    if let Some(uuid) = seeded::next() {
        return uuid;
    }
    Uuid::now_v7()
}

#[cfg(feature = "testing")]
pub(crate) use seeded::set as seed_thread;

#[cfg(feature = "testing")]
mod seeded {
    use std::cell::RefCell;

    use uuid::{Builder, Uuid};

    thread_local! {
        static SOURCE: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
    }

    /// From now on this thread's IDs follow from the seed; with `None` they are random again.
    pub(crate) fn set(seed: Option<u64>) {
        SOURCE.set(seed.map(fastrand::Rng::with_seed));
    }

    pub(super) fn next() -> Option<Uuid> {
        SOURCE.with_borrow_mut(|source| {
            let source = source.as_mut()?;
            Some(Builder::from_random_bytes(source.u128(..).to_be_bytes()).into_uuid())
        })
    }
}
