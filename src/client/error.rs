//! What can go wrong for a client.

use std::time::Duration;

use crate::backend::{self, Retryable};
use crate::model::{AppId, Failure, IdError, InstanceRef, RunId, Status};

/// Why a client's operation did not do what was asked.
///
/// [`Error::Failed`] and [`Error::Terminated`] are not faults of the system: the workflow ended that way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The workflow failed; the failure is whole, with its causes.
    #[error("the workflow failed: {0}")]
    Failed(Box<Failure>),
    /// The workflow was terminated by an operator or by its parent.
    #[error("{instance}: {message}")]
    Terminated {
        /// The instance.
        instance: InstanceRef,
        /// That it was terminated, and the reason given.
        message: String,
    },
    /// An app ID, instance ID, request ID or message ID does not have the form it must have.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Some other argument does not have the form it must have.
    #[error("{what} {problem}")]
    InvalidInput {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it, and the rule.
        problem: String,
    },
    /// A value has no JSON form.
    #[error("{what}: {}", failure.message)]
    Encode {
        /// Which value.
        what: String,
        /// Why not.
        failure: Box<Failure>,
    },
    /// A stored value is not of the type that was asked for.
    #[error("{what}: {}", failure.message)]
    Decode {
        /// Which value.
        what: String,
        /// Why not.
        failure: Box<Failure>,
    },
    /// A payload is larger than the limit.
    #[error(
        "{what} is {bytes} bytes of JSON and the limit is {limit}: pass a reference to it, or raise `Limits::payload_bytes` here and on every worker"
    )]
    PayloadTooLarge {
        /// Which payload.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The instance ID is taken, and the policy does not allow for that.
    #[error(
        "instance {instance} exists already and is {status} (workflow `{workflow}`): choose another ID or another conflict policy"
    )]
    InstanceAlreadyExists {
        /// The instance.
        instance: InstanceRef,
        /// Its status when it was looked at.
        status: Status,
        /// The workflow that it runs.
        workflow: String,
    },
    /// No worker of the app has ever started in this namespace.
    #[error("there is no app {app} in this namespace")]
    NoSuchApp {
        /// The app.
        app: AppId,
    },
    /// An app that is to be removed is in use.
    #[error("app {app} cannot be removed: {what}")]
    AppInUse {
        /// The app.
        app: AppId,
        /// What for, and what to do.
        what: String,
    },
    /// There is no such instance.
    #[error("there is no instance {instance}: it was never started, or it has been purged")]
    NotFound {
        /// The instance.
        instance: InstanceRef,
    },
    /// The run that was asked for is not the instance's current one, and its outcome is kept no longer.
    #[error("run {run} of instance {instance} is gone: it was replaced or purged, and its outcome is kept no longer")]
    RunGone {
        /// The instance.
        instance: InstanceRef,
        /// The run.
        run: RunId,
    },
    /// The instance is over, so nothing can be done to it any more.
    #[error("instance {instance} is over: it is {status}")]
    InstanceOver {
        /// The instance.
        instance: InstanceRef,
        /// How it ended.
        status: Status,
    },
    /// The instance is not over, so it cannot be purged.
    #[error("instance {instance} is {status} and cannot be purged: terminate it, or wait until it is over")]
    StillActive {
        /// The instance; of a recursive purge, it may be one further down.
        instance: InstanceRef,
        /// Its status.
        status: Status,
    },
    /// A purge by filter went through, but some instances could not be purged.
    #[error("{purged} instances were purged and {refused} were not; the first of these: {first}")]
    PurgedInPart {
        /// How many instances are gone, children included.
        purged: u64,
        /// How many of those that the filter matches are not.
        refused: u64,
        /// Why the first was not.
        #[source]
        first: Box<Error>,
    },
    /// The instance's inbox holds as many raised events as it may; the event was not taken.
    #[error(
        "the inbox of instance {instance} is full ({limit} items) and the event was not taken: let the instance run, or raise `Limits::inbox_events`"
    )]
    InboxFull {
        /// The instance.
        instance: InstanceRef,
        /// The limit.
        limit: usize,
    },
    /// The run was not over in the time given. It goes on.
    #[error("instance {instance} was not over within {waited:?}; it goes on")]
    ResultPending {
        /// The instance.
        instance: InstanceRef,
        /// The time given.
        waited: Duration,
    },
    /// The instance did not reach the status in the time given. The command stays in force.
    #[error(
        "instance {instance} is still {status} {waited:?} after the command, which stays in force: is a worker of its app running?"
    )]
    NotYet {
        /// The instance.
        instance: InstanceRef,
        /// Its status.
        status: Status,
        /// The time given.
        waited: Duration,
    },
    /// A stored turn cannot be read by this release.
    #[error("turn {version} of instance {instance}: {problem}")]
    UnreadableHistory {
        /// The instance.
        instance: InstanceRef,
        /// The turn's number.
        version: u64,
        /// What could not be read.
        problem: String,
    },
    /// No dead letter has this ID, or begins with it; nothing was done to the others either.
    #[error("no dead letter that was asked for has an ID that begins with {id:?}: list them again; nothing was done")]
    NoSuchLetter {
        /// The ID.
        id: String,
    },
    /// The servers did not answer. Whether the operation took effect is unknown.
    #[error("no answer within {waited:?}: {reason}")]
    Unavailable {
        /// The client's patience.
        waited: Duration,
        /// What broker and store say about themselves.
        reason: String,
    },
    /// The broker or the store refused.
    #[error("{0}")]
    Backend(#[from] backend::Error),
}

impl Error {
    /// Whether to try again: the one place where that is decided.
    ///
    /// `Transient`: nothing has happened, and later it may work. `Unknown`: it may have happened; repeating it is right (a start counts once by its
    /// request ID, an event by its message ID). `Permanent`: it will not work until somebody changes something.
    pub fn retryable(&self) -> Retryable {
        match self {
            Error::ResultPending { .. } | Error::NotYet { .. } | Error::Unavailable { .. } => Retryable::Unknown,
            Error::InboxFull { .. } | Error::StillActive { .. } => Retryable::Transient,
            Error::PurgedInPart { first, .. } => first.retryable(),
            Error::Backend(error) => error.retryable(),
            Error::Failed(_)
            | Error::Terminated { .. }
            | Error::Id(_)
            | Error::InvalidInput { .. }
            | Error::Encode { .. }
            | Error::Decode { .. }
            | Error::PayloadTooLarge { .. }
            | Error::InstanceAlreadyExists { .. }
            | Error::NotFound { .. }
            | Error::NoSuchApp { .. }
            | Error::AppInUse { .. }
            | Error::RunGone { .. }
            | Error::InstanceOver { .. }
            | Error::UnreadableHistory { .. }
            | Error::NoSuchLetter { .. } => Retryable::Permanent,
        }
    }
}
