//! A failure of user code: data that is stored in history and crosses apps whole.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AppId, Payload};

/// The kinds of failure that Leveret itself reports. A user's own kinds are free text; see [`Failure::new`].
pub mod kinds {
    /// The called app does not exist: no worker of it was ever seen. Only calls with a retry policy report it; others wait.
    pub const APP_NOT_FOUND: &str = "AppNotFound";
    /// The app is there, but no worker of it has registered the activity.
    pub const ACTIVITY_NOT_REGISTERED: &str = "ActivityNotRegistered";
    /// The app is there, but no worker of it has registered the workflow.
    pub const WORKFLOW_NOT_REGISTERED: &str = "WorkflowNotRegistered";
    /// The call did not start within its schedule-to-start time; its body will never run.
    pub const TARGET_UNAVAILABLE: &str = "TargetUnavailable";
    /// The attempt started and did not finish within its timeout.
    pub const TIMED_OUT: &str = "TimedOut";
    /// The attempt started and missed its heartbeat.
    pub const HEARTBEAT_MISSED: &str = "HeartbeatMissed";
    /// The activity took its process down more often than the crash limit allows; the task is among the dead letters.
    pub const ACTIVITY_CRASHED: &str = "ActivityCrashed";
    /// The child's instance ID belongs to another instance that is still active.
    pub const INSTANCE_ALREADY_EXISTS: &str = "InstanceAlreadyExists";
    /// A payload is larger than the limit.
    pub const PAYLOAD_TOO_LARGE: &str = "PayloadTooLarge";
    /// A value could not be written as JSON or read as the type that was asked for.
    pub const INVALID_PAYLOAD: &str = "InvalidPayload";
    /// The message could not be read by the app that received it.
    pub const UNDELIVERABLE: &str = "Undeliverable";
    /// A call named an app, an instance or an option that is not valid.
    pub const INVALID_CALL: &str = "InvalidCall";
    /// User code panicked.
    pub const PANIC: &str = "Panic";
    /// The instance was terminated.
    pub const TERMINATED: &str = "Terminated";
    /// Not a failure: what `continue_as_new` gives the workflow to return.
    pub const CONTINUED_AS_NEW: &str = "ContinuedAsNew";
}

/// Why an activity, a child workflow or a workflow failed.
///
/// Any `std::error::Error` becomes one through `?`, with its type's name, its text and its chain of causes. `Failure` is data, not an error
/// type: it does not implement `std::error::Error`, which is what makes that conversion possible.
///
/// ```
/// use leveret::{Failure, Result};
/// fn parse(text: &str) -> Result<u32> {
///     Ok(text.parse::<u32>()?)
/// }
/// let failure = parse("x").unwrap_err();
/// assert_eq!(failure.kind, "ParseIntError");
/// let declined = Failure::new("CardDeclined", "the bank said no").fatal();
/// assert!(declined.fatal);
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// The type: one of [`kinds`] or the user's own word, by which code tells failures apart.
    pub kind: String,
    /// What happened, for a person.
    pub message: String,
    /// True if another attempt cannot help: a retry policy stops here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fatal: bool,
    /// The app whose code failed; filled in by the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppId>,
    /// A stack trace, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The user's own structured details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<Failure>>,
}

impl Failure {
    /// A failure that a retry policy may retry. One whose texts and details, with its causes', have more bytes than `payload_bytes` reaches its caller as
    /// [`kinds::PAYLOAD_TOO_LARGE`].
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            message: message.into(),
            fatal: false,
            app: None,
            stack: None,
            details: None,
            cause: None,
        }
    }

    /// Marks it fatal: no retry policy tries again.
    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    /// Adds what caused it.
    pub fn caused_by(mut self, cause: impl Into<Failure>) -> Self {
        self.cause = Some(Box::new(cause.into()));
        self
    }

    /// Adds structured details, readable with [`Payload::decode`].
    pub fn with_details(mut self, details: Payload) -> Self {
        self.details = Some(details);
        self
    }

    /// True if this failure is of the kind, itself or through a cause.
    pub fn is(&self, kind: &str) -> bool {
        self.kind == kind || self.cause.as_ref().is_some_and(|cause| cause.is(kind))
    }

    /// Bytes of its texts and details, and of its causes'.
    pub(crate) fn bytes(&self) -> usize {
        self.chain()
            .map(|failure| {
                failure.kind.len()
                    + failure.message.len()
                    + failure.stack.as_ref().map_or(0, String::len)
                    + failure.details.as_ref().map_or(0, Payload::len)
            })
            .sum()
    }

    /// It and its causes.
    fn chain(&self) -> impl Iterator<Item = &Failure> {
        std::iter::successors(Some(self), |failure| failure.cause.as_deref())
    }

    /// The same as it may travel: with at most [`Self::CAUSES`] causes, and if it has more bytes than the limit, one that says so in its place. What code
    /// says of its failure must not keep the failure from its caller.
    pub(crate) fn bounded(mut self, limit: usize) -> Self {
        self.cut_causes();
        let bytes = self.bytes();
        if bytes <= limit {
            return self;
        }
        let beginning = |text: &str| text.chars().take(200).collect::<String>();
        let message = format!(
            "the failure `{}` has {bytes} bytes and the limit is {limit}: raise `payload_bytes` (LEVERET_PAYLOAD_BYTES) on every app that handles it, or say less in its message and details; its message begins: {}",
            beginning(&self.kind),
            beginning(&self.message)
        );
        Self {
            fatal: self.fatal,
            app: self.app.take(),
            ..Self::new(kinds::PAYLOAD_TOO_LARGE, message)
        }
    }

    /// Most causes that a failure keeps when it leaves its app: a message can be nested only so deep.
    pub const CAUSES: usize = 64;

    fn cut_causes(&mut self) {
        let mut last = self;
        for _ in 0..Self::CAUSES {
            match last.cause {
                Some(ref mut cause) => last = cause,
                None => return,
            }
        }
        // One by one: dropped as a whole, a very long chain would need a very deep stack.
        let mut rest = last.cause.take();
        while let Some(mut cause) = rest {
            rest = cause.cause.take();
        }
    }

    /// Names the app whose code failed, unless one is named already.
    pub(crate) fn at(mut self, app: &AppId) -> Self {
        self.app.get_or_insert_with(|| app.clone());
        self
    }
}

impl fmt::Display for Failure {
    /// As `CardDeclined on payments: the bank said no; caused by …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(app) = &self.app {
            write!(f, " on {app}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(cause) = &self.cause {
            write!(f, "; caused by {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    /// The same text as `Display`: it is what a `main` that returns an error prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Failure::new(short_name(std::any::type_name::<E>()), error.to_string());
        failure.cause = error.source().map(chain);
        failure
    }
}

/// The chain of causes, outermost first. The type of a `dyn Error` is not known, so its kind is `Error`.
fn chain(error: &(dyn std::error::Error + 'static)) -> Box<Failure> {
    let mut failure = Failure::new("Error", error.to_string());
    failure.cause = error.source().map(chain);
    Box::new(failure)
}

/// `core::num::error::ParseIntError` to `ParseIntError`; generic arguments are left out.
fn short_name(path: &str) -> &str {
    let plain = path.split('<').next().unwrap_or(path);
    plain.rsplit("::").next().unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn an_error_keeps_its_type_text_and_causes() {
        let failure = Failure::from(Outer("x".parse::<u32>().unwrap_err()));
        assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("Outer", "outer"));
        let cause = failure.cause.expect("a cause");
        assert_eq!(cause.message, "invalid digit found in string");
    }

    #[test]
    fn a_failure_that_is_too_large_or_too_deep_is_cut() {
        let small = Failure::new("A", "b").caused_by(Failure::new("C", "d"));
        assert_eq!(small.clone().bounded(4), small);
        let large = Failure::new("Bank", "x".repeat(1000)).fatal();
        let bounded = large.bounded(500);
        assert!(bounded.is(kinds::PAYLOAD_TOO_LARGE) && bounded.fatal, "{bounded}");
        assert!(
            bounded.message.contains("`Bank` has 1004 bytes and the limit is 500"),
            "{bounded}"
        );
        let hidden = Failure::new("A", "b").caused_by(Failure::new("C", "x".repeat(1000)));
        assert!(hidden.bounded(500).is(kinds::PAYLOAD_TOO_LARGE));
        let mut deep = Failure::new("A", "b");
        for _ in 0..100_000 {
            deep = Failure::new("A", "b").caused_by(deep);
        }
        let bounded = deep.bounded(usize::MAX);
        assert_eq!(bounded.chain().count(), Failure::CAUSES + 1);
        let packed = rmp_serde::to_vec_named(&bounded).unwrap();
        assert_eq!(rmp_serde::from_slice::<Failure>(&packed).unwrap(), bounded);
    }

    #[test]
    fn a_failure_crosses_the_wire_whole() {
        let mut failure = Failure::new("A", "b").fatal().caused_by(Failure::new("C", "d"));
        failure.details = Some(Payload::encode(&[1, 2]).unwrap());
        let packed = rmp_serde::to_vec_named(&failure).unwrap();
        assert_eq!(rmp_serde::from_slice::<Failure>(&packed).unwrap(), failure);
    }
}
