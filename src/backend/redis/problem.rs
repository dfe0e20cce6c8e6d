//! What an error of Redis means: whether to try again, and what to tell a person.

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::backend::{Error, Retryable};

/// An error that can be kept and told to many.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) retryable: Retryable,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self {
            retryable: Retryable::Transient,
            message: message.into(),
        }
    }

    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self {
            retryable: Retryable::Unknown,
            message: message.into(),
        }
    }

    pub(super) fn permanent(message: impl Into<String>) -> Self {
        Self {
            retryable: Retryable::Permanent,
            message: message.into(),
        }
    }

    /// As the caller sees it.
    pub(super) fn error(&self) -> Error {
        match self.retryable {
            Retryable::Transient => Error::transient(&self.message),
            Retryable::Permanent => Error::permanent(&self.message),
            Retryable::Unknown => Error::unknown(&self.message),
        }
    }

    /// Of what comes before any command: connecting, logging in, subscribing. Nothing has been asked for yet, so nothing can be unknown.
    pub(super) fn of_setup(address: &str, what: &str, error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => Self::transient(format!("Redis at {address} cannot be reached: {error}")),
            _ => match Self::of_command(address, what, error) {
                unknown if unknown.retryable == Retryable::Unknown => Self::transient(unknown.message),
                known => known,
            },
        }
    }

    /// Of a command that was sent.
    pub(super) fn of_command(address: &str, what: &str, error: &RedisError) -> Self {
        if error.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort) {
            return Self::of_transaction(address, what, error);
        }
        let Some(code) = error.code() else {
            return match error.kind() {
                ErrorKind::Io if error.is_connection_refusal() => {
                    Self::transient(format!("Redis at {address} cannot be reached: {error}"))
                }
                ErrorKind::AuthenticationFailed => Self::wrong_credentials(address, &error.to_string()),
                ErrorKind::InvalidClientConfig | ErrorKind::Client => {
                    Self::permanent(format!("Redis at {address} cannot be used: {error}"))
                }
                ErrorKind::UnexpectedReturnType => Self::permanent(format!(
                    "Redis at {address} gave an answer to {what} that makes no sense: {error}"
                )),
                _ => Self {
                    retryable: Retryable::Unknown,
                    message: format!("the reply of Redis at {address} to {what} was lost: {error}"),
                },
            };
        };
        Self::of_answer(address, what, code, error.detail().unwrap_or_default())
    }

    /// Of a transaction that was not run, because one of its commands was refused when it was queued: that one says why.
    fn of_transaction(address: &str, what: &str, error: &RedisError) -> Self {
        let refused = error.clone().into_server_errors();
        match refused.as_deref().and_then(|refused| refused.first()) {
            Some((_, first)) => Self::of_answer(address, what, first.code(), first.details().unwrap_or_default()),
            None => Self::transient(format!("Redis at {address} did not run {what}: {error}")),
        }
    }

    /// Of an answer that refuses.
    fn of_answer(address: &str, what: &str, code: &str, said: &str) -> Self {
        let text = format!("{code} {said}");
        match code {
            "WRONGPASS" => Self::wrong_credentials(address, &text),
            "NOAUTH" => Self::permanent(format!(
                "Redis at {address} wants a password, and the URL has none ({text})"
            )),
            "NOPERM" => Self::permanent(format!(
                "the user of the URL may not do {what} on Redis at {address} ({text}): give it the permission"
            )),
            _ if code == "OOM" || said.contains("OOM command not allowed") => Self::transient(format!(
                "Redis at {address} is full: its memory has reached `maxmemory`, and it refuses to write ({what}). Give it more memory; nothing is lost"
            )),
            // It starts, fails over, or waits for its disk or its replicas: all of which pass.
            "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "READONLY" | "MISCONF" | "NOREPLICAS" => {
                Self::transient(format!("Redis at {address} refuses {what} for now: {text}"))
            }
            "MOVED" | "ASK" | "CROSSSLOT" => Self::permanent(format!(
                "Redis at {address} is a node of a cluster and does not own the key of {what} ({text}): use a Redis that is not a cluster"
            )),
            _ if said.contains("max number of clients") => Self::transient(format!(
                "Redis at {address} takes no more connections ({text}): raise its `maxclients`"
            )),
            _ if said.contains("without any password configured") => Self::permanent(format!(
                "the URL has a password, and Redis at {address} has none configured for the default user ({text})"
            )),
            _ => Self::permanent(format!("Redis at {address} refuses {what}: {text}")),
        }
    }

    fn wrong_credentials(address: &str, said: &str) -> Self {
        Self::permanent(format!(
            "Redis at {address} refuses the URL's user name or password ({said}): correct the URL"
        ))
    }
}

#[cfg(test)]
mod tests {
    use deadpool_redis::redis::make_extension_error;

    use super::*;

    fn of(code: &str, detail: &str) -> Problem {
        let error = make_extension_error(code.into(), Some(detail.into()));
        Problem::of_command("host:6379/0", "`commit`", &error)
    }

    #[test]
    fn a_full_redis_may_have_room_again() {
        let problem = of("OOM", "command not allowed when used memory > 'maxmemory'.");
        assert_eq!(problem.retryable, Retryable::Transient);
        assert!(problem.message.contains("maxmemory"), "{}", problem.message);
    }

    #[test]
    fn credentials_need_a_person() {
        for code in ["WRONGPASS", "NOAUTH", "NOPERM"] {
            assert_eq!(of(code, "").retryable, Retryable::Permanent, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_leaves_it_open_whether_the_command_ran() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let problem = Problem::of_command("host:6379/0", "`commit`", &reset.into());
        assert_eq!(problem.retryable, Retryable::Unknown);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let problem = Problem::of_command("host:6379/0", "`commit`", &refused.into());
        assert_eq!(problem.retryable, Retryable::Transient);
    }
}
