//! The words of the system as types: ids, times, payloads, failures, contracts.
//!
//! Everything else imports this layer; it imports nothing of the crate. A value of one of these types is valid by construction, so no code
//! further down checks it again.

mod contract;
mod failure;
mod ids;
mod limits;
mod map;
mod payload;
mod queue_type;
pub(crate) mod random;
mod retention;
mod retry;
mod settings;
mod stall;
mod status;
mod tags;
mod time;
mod uuids;
mod waiting;

pub use contract::{Activity, Event, Workflow};
pub use failure::{Failure, kinds};
pub use ids::{
    AppId, BuildId, IdError, InstanceId, InstanceRef, Lane, MessageId, Namespace, Sequence, derived_child_id,
};
pub use limits::Limits;
pub(crate) use map::Map;
pub use payload::Payload;
pub use queue_type::QueueType;
pub use retention::Retention;
pub use retry::Retry;
pub use settings::Settings;
pub use stall::StallReason;
pub use status::Status;
pub(crate) use tags::{LONGEST_TAG, MOST_TAGS, check_tags};
pub use time::Timestamp;
pub use uuids::{CommitId, ExecutionId, RunId, RunToken, TaskExecutionId, WorkerId};
pub use waiting::{WaitingFor, WaitingView};

/// What holds nothing is not stored: for fields that default to it when they are read.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The result of user code: any error becomes a [`Failure`] through `?`.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
