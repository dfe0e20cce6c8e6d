//! Why the demo did not get to its end.

use std::fmt;

/// See the module.
#[derive(Debug)]
pub(crate) enum Problem {
    /// What was asked for cannot be done: exit code 2.
    Usage(String),
    /// It went wrong: exit code 1.
    Failed(String),
}

impl Problem {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Problem::Usage(_) => 2,
            Problem::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Problem::Usage(text) | Problem::Failed(text)) = self;
        f.write_str(text)
    }
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        Problem::Failed(error.to_string())
    }
}
