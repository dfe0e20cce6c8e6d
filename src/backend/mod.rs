//! The edge to the outside: three traits, and what implements them.
//!
//! [`Broker`] moves messages, [`Store`] keeps instances, [`Clock`] tells the time. A [`Backend`] is one of each, bound to one namespace. The traits
//! speak of messages and records, not of workflows: what a turn means is decided above.

mod apart;
mod broker;
mod clock;
mod connect;
mod error;
mod handle;
mod local;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
mod store;

pub use crate::model::QueueType;
pub(crate) use broker::BUNDLE_TYPE;
pub use broker::{Acknowledge, Broker, Browse, Browsed, Consumer, Delivery, Message, Properties, Queue, QueueDepth};
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result, Retryable};
pub use handle::Backend;
#[cfg(feature = "testing")]
pub(crate) use local::Replica;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::{RabbitMq, RabbitMqConfig};
#[cfg(feature = "redis")]
pub use redis::{RedisConfig, RedisStore};
pub use store::{
    App, Claim, ClaimTerms, ClaimVerdict, Commit, Committed, ConflictPolicy, Create, Created, Deleted, Deliver,
    Delivered, DueEntry, DueKey, DueKind, DueOutcome, DuePage, Ending, Guard, Holding, IndexFilter, IndexPage, Loaded,
    Mark, Origin, Progress, Record, Stall, Store, Stray, Survey, View, Watch, When, WorkerInfo,
};

/// How many inputs tests of names and tokens draw: 256, or `LEVERET_FUZZ_INPUTS`.
#[cfg(all(test, any(feature = "rabbitmq", feature = "redis")))]
pub(crate) fn many_inputs() -> proptest::test_runner::Config {
    let inputs = std::env::var("LEVERET_FUZZ_INPUTS").ok();
    proptest::test_runner::Config {
        cases: inputs.map_or(256, |text| text.parse().expect("LEVERET_FUZZ_INPUTS is a number")),
        failure_persistence: None,
        ..Default::default()
    }
}
