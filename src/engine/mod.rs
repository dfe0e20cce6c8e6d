//! What workers and clients do alike: create instances, send items, make the effects of turns, drive marks.
//!
//! Everything here may be done twice, by two processes at once, and again after a crash at any line: it is what turns "committed" into "happened"
//! (docs/how-it-works.md, "The commit protocol").

mod command;
mod confirmed;
mod delete;
mod due;
mod effects;
mod ending;
mod marks;
mod open;
mod outbox;
mod persist;
mod start;
mod store_time;

pub(crate) use command::Commanded;
pub(crate) use confirmed::Confirmed;
pub(crate) use due::{
    CheckEntry, Due, LeaseEntry, ParkedEntry, RetentionEntry, check_key, check_of, decode, encode, lease_key,
    parked_entry, parked_key, retention_key, timer_entry, timer_key,
};
pub(crate) use effects::{Effect, answer, claim_terms, effects_of, started};
pub(crate) use ending::{EarlyEnd, ended_by};
pub(crate) use open::{Open, What};
pub(crate) use outbox::Outbox;
pub(crate) use persist::persist;
pub(crate) use start::{FIRST_CHECK, NewInstance};

use std::sync::Arc;

use self::store_time::StoreTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Backend, Broker, Store};
pub(crate) use crate::model::Retention;
use crate::model::{AppId, Limits};

/// A backend with an outbox: what effects are made with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) backend: Backend,
    pub(crate) outbox: Outbox,
    /// Marks that are yet to be cleared.
    pub(crate) confirmed: Confirmed,
    tracker: TaskTracker,
    store_time: StoreTime,
    pub(crate) limits: Arc<Limits>,
    pub(crate) retention: Arc<Retention>,
    /// Fires when the process is to stop: retries end then.
    pub(crate) stop: CancellationToken,
}

impl Engine {
    /// `home` is the app of the worker that it belongs to; a client's has none.
    pub(crate) fn new(
        backend: Backend,
        home: Option<AppId>,
        limits: Limits,
        retention: Retention,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let limits = Arc::new(limits);
        let outbox = Outbox::new(backend.clone(), home, limits.clone(), tracker.clone(), stop.clone());
        Self {
            backend,
            outbox,
            confirmed: Confirmed::default(),
            store_time: StoreTime::default(),
            tracker,
            limits,
            retention: Arc::new(retention),
            stop,
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.backend.store()
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        self.backend.broker()
    }
}
