//! What can go wrong at the edge, and whether to try again.

/// Whether a failed operation is worth repeating: the one place where that is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retryable {
    /// It had no effect and may work later.
    Transient,
    /// It had no effect and will not work until a person changes something.
    Permanent,
    /// The reply was lost: it may have had its effect. Repeating it is right, because every operation of the traits is idempotent.
    Unknown,
}

/// An error of a broker or a store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    retryable: Retryable,
    is_too_large: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of an operation at the edge.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The operation had no effect and may work later.
    pub fn transient(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: Retryable::Transient,
            is_too_large: false,
            source: None,
        }
    }

    /// The operation will not work until a person changes something; the message says what.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: Retryable::Permanent,
            is_too_large: false,
            source: None,
        }
    }

    /// The message has more bytes than the broker takes: permanent, for this message alone.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self {
            is_too_large: true,
            ..Self::permanent(message)
        }
    }

    /// The reply was lost.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: Retryable::Unknown,
            is_too_large: false,
            source: None,
        }
    }

    /// Adds the cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether to try again.
    pub fn retryable(&self) -> Retryable {
        self.retryable
    }

    /// True if a message has more bytes than the broker takes.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// The same for somebody else, without its cause.
    pub(crate) fn share(&self) -> Self {
        Self {
            message: self.message.clone(),
            retryable: self.retryable,
            is_too_large: self.is_too_large,
            source: None,
        }
    }

    /// True if it makes no sense to try again.
    pub fn is_permanent(&self) -> bool {
        self.retryable == Retryable::Permanent
    }
}
