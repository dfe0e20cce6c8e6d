//! Who is told what became of the items that are sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::backend::{Error, Result};

/// Whoever sent some items is told once what became of all of them.
#[derive(Clone)]
pub(super) struct Told(Arc<Mutex<Outcomes>>);

struct Outcomes {
    /// Items of which nothing is known yet.
    left: usize,
    first_error: Option<Error>,
    sender: Option<oneshot::Sender<Result<()>>>,
}

impl Told {
    /// Of so many items; and what the sender waits on.
    pub(super) fn of(items: usize) -> (Self, oneshot::Receiver<Result<()>>) {
        let (sender, receiver) = oneshot::channel();
        let outcomes = Outcomes {
            left: items,
            first_error: None,
            sender: Some(sender),
        };
        (Self(Arc::new(Mutex::new(outcomes))), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Outcomes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if nobody waits any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// What became of one of them.
    pub(super) fn tell(&self, result: Result<()>) {
        let mut outcomes = self.lock();
        outcomes.left = outcomes.left.saturating_sub(1);
        if let Err(error) = result {
            outcomes.first_error.get_or_insert(error);
        }
        if outcomes.left == 0
            && let Some(sender) = outcomes.sender.take()
        {
            // Whoever waited may have been cancelled; the items are published all the same.
            let _ = sender.send(outcomes.first_error.take().map_or(Ok(()), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_of_all_of_them() {
        let (told, mut outcome) = Told::of(3);
        told.tell(Ok(()));
        told.tell(Err(Error::permanent("the second")));
        assert!(outcome.try_recv().is_err(), "one is on its way");
        told.tell(Err(Error::permanent("the third")));
        let error = outcome.try_recv().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the second");
        assert!(told.is_closed());
    }

    #[test]
    fn one_that_is_dropped_leaves_nobody_waiting() {
        let (told, mut outcome) = Told::of(2);
        told.clone().tell(Ok(()));
        assert!(!told.is_closed());
        drop(told);
        assert!(matches!(outcome.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
