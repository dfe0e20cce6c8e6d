//! Why a command did not get to its end.

use std::fmt;

use leveret::client;

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
        // One line, whatever it is made of.
        f.write_str(&text.lines().collect::<Vec<_>>().join("; "))
    }
}

impl From<client::Error> for Problem {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Id(_) | client::Error::InvalidInput { .. } => Problem::Usage(error.to_string()),
            _ => Problem::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Problem::Failed(format!("cannot write the output: {error}"))
    }
}
