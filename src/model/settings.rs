//! How a worker behaves: every number that is not a bound of the system (those are [`Limits`]). The environment sets them through `config`.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Limits, Retention};

/// Settings of a worker. The defaults suit services of ordinary size.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Activities that run at once: 64. Also how many unacknowledged activity messages the broker hands over.
    pub activities: usize,
    /// Turns that run at once: 1,024.
    pub turns: usize,
    /// Unacknowledged messages per lane and for starts: 256.
    pub prefetch: u16,
    /// Lanes of the app: 8. Fixed when its first worker starts; later values are ignored with a warning.
    pub lanes: u16,
    /// How often the worker gives a sign of life: 2 s. It counts as gone after three missed ones.
    pub heartbeat: Duration,
    /// How often the due-set is looked at: 50 ms. Timers are late by up to this.
    pub due_interval: Duration,
    /// The broker's delivery timeout: 30 min (RabbitMQ's default). An activity that has run for half of it gets a lease.
    pub delivery_timeout: Duration,
    /// The longest wait before an item for a missing app, or for a queue that takes no messages, is tried again: 10 s.
    pub parked_interval: Duration,
    /// What running activities get to end in when the worker stops: 10 s. Then they are handed back.
    pub shutdown_grace: Duration,
    /// True if each app connects to the broker as a user of its own, named as the app: then an activity's result counts only if the broker vouches
    /// for that user. False by default.
    pub user_per_app: bool,
    /// Where `/live` and `/ready` are served over HTTP; nowhere by default.
    pub http: Option<SocketAddr>,
    /// Bounds.
    pub limits: Limits,
    /// How long finished instances are kept.
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            activities: 64,
            turns: 1024,
            prefetch: 256,
            lanes: 8,
            heartbeat: Duration::from_secs(2),
            due_interval: Duration::from_millis(50),
            delivery_timeout: Duration::from_secs(30 * 60),
            parked_interval: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
            user_per_app: false,
            http: None,
            limits: Limits::default(),
            retention: Retention::default(),
        }
    }
}

impl Settings {
    /// What is wrong with the settings, in one line that names the setting.
    pub(crate) fn problem(&self) -> Option<String> {
        let zero = [
            ("activities", self.activities == 0),
            ("turns", self.turns == 0),
            ("prefetch", self.prefetch == 0),
            ("lanes", self.lanes == 0),
            ("heartbeat", self.heartbeat.is_zero()),
            ("due_interval", self.due_interval.is_zero()),
            ("limits.turn_events", self.limits.turn_events == 0),
            ("limits.bundle_items", self.limits.bundle_items == 0),
            ("limits.payload_bytes", self.limits.payload_bytes == 0),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Some(format!("setting `{name}` is 0: it must be at least 1"));
        }
        if self.lanes > 256 {
            return Some(format!(
                "setting `lanes` is {}: 256 is the most (each lane is a queue)",
                self.lanes
            ));
        }
        None
    }

    /// A worker counts as live this long after its last sign of life.
    pub(crate) fn worker_ttl(&self) -> Duration {
        self.heartbeat * 3
    }
}
