//! A broker, a store and a clock, bound to a namespace.

use std::fmt;
use std::sync::Arc;

use super::apart::Apart;
use super::{Broker, Clock, Store};
use crate::model::{Namespace, Settings};
use crate::probes::Joined;

/// What workers and clients run on. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Backend {
    namespace: Namespace,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    description: String,
    /// What workers and clients on it go by, unless they are told otherwise.
    settings: Arc<Settings>,
    apart: Apart,
    /// The health port, kept open from the first attempt to connect on.
    probes: Option<Arc<Joined>>,
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
            settings: Arc::default(),
            apart: Apart::default(),
            probes: None,
        }
    }

    /// With other settings for the workers and clients that are made on it from now on.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// What workers and clients on it go by, unless they are told otherwise: the defaults, or those of the environment if the backend comes from
    /// [`Backend::from_env`].
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What keeps apart whatever may take down the process, whichever of the workers on this backend runs it.
    pub(crate) fn apart(&self) -> &Apart {
        &self.apart
    }

    /// Keeps the health port open for as long as the backend is there.
    pub(super) fn with_probes(mut self, probes: Arc<Joined>) -> Self {
        self.probes = Some(probes);
        self
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
