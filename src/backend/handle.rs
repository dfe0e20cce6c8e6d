//! A broker, a store and a clock, bound to a namespace.

use std::fmt;
use std::sync::Arc;

use super::{Broker, Clock, Store};
use crate::model::Namespace;

/// What workers and clients run on. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Backend {
    namespace: Namespace,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    description: String,
}

impl Backend {
    /// Puts a broker, a store and a clock together. All three serve the one namespace. The description is for people: `memory`, a file's path, URLs
    /// without passwords.
    pub fn new(
        namespace: Namespace,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        description: impl Into<String>,
    ) -> Self {
        Self {
            namespace,
            broker,
            store,
            clock,
            description: description.into(),
        }
    }

    /// The tenant.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({}, namespace {})", self.description, self.namespace)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}
