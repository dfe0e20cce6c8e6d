//! What the variables are written into, before it is known whether they fit together.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::model::{Namespace, QueueType, Settings};

/// See the module.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) amqp_url: Option<SecretString>,
    pub(super) redis_url: Option<SecretString>,
    pub(super) file: Option<PathBuf>,
    pub(super) namespace: Namespace,
    pub(super) queue_type: QueueType,
    pub(super) amqp_heartbeat: Duration,
    pub(super) amqp_message_bytes: u64,
    pub(super) settings: Settings,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            amqp_url: None,
            redis_url: None,
            file: None,
            namespace: Namespace::new("default").expect("a valid name"),
            queue_type: QueueType::default(),
            amqp_heartbeat: Duration::from_secs(10),
            amqp_message_bytes: 16 << 20,
            settings: Settings::default(),
        }
    }
}
