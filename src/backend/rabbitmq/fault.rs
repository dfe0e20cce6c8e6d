//! What errors of the client library mean: worth a retry or not, and in which words.

use lapin::ErrorKind;

use super::address::Address;
use crate::backend::Error;

/// Reply codes of AMQP 0-9-1 that are told apart (<https://www.rabbitmq.com/amqp-0-9-1-reference#constants>).
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// The server's reply code and text, if the error is the server's.
fn reply(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
        _ => None,
    }
}

/// An attempt to connect that failed.
pub(super) fn connecting(address: &Address, error: lapin::Error) -> Error {
    match reply(&error) {
        Some((ACCESS_REFUSED, text)) => Error::permanent(format!(
            "the broker at {address} refuses the user name or password of {:?}: correct the URL or the broker's user ({text})",
            address.user()
        )),
        // The same code tells of a limit on connections, and that passes.
        Some((NOT_ALLOWED, text)) if !text.contains("limit") => Error::permanent(format!(
            "the broker at {address} does not let {:?} use the virtual host {:?}: create it, permit it, or correct the URL ({text})",
            address.user(),
            address.virtual_host()
        )),
        _ if matches!(error.kind(), ErrorKind::InvalidProtocolVersion(_)) => {
            Error::permanent(format!("what answers at {address} does not speak AMQP 0-9-1: {error}"))
        }
        _ => Error::transient(format!("not connected to the broker at {address}: {error}")),
    }
    .caused_by(error)
}

/// True if the queue does not exist. A queue whose node or majority is away is answered with the same code and does exist.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    matches!(reply(error), Some((NOT_FOUND, text)) if !text.contains("inaccessible") && !text.contains("is stopped"))
}

/// A request about a queue or an exchange that failed. Its reply may be lost; all of these requests may be repeated.
pub(super) fn request(what: &str, error: lapin::Error) -> Error {
    match reply(&error) {
        Some((PRECONDITION_FAILED, text)) => Error::permanent(format!(
            "{what}: it exists with other settings; use those (queue type), or delete it when it is empty ({text})"
        )),
        Some((ACCESS_REFUSED, text)) => {
            Error::permanent(format!("{what}: the broker's user has no permission for it ({text})"))
        }
        Some((NOT_FOUND, text)) if is_missing(&error) => {
            Error::permanent(format!("{what}: it does not exist ({text})"))
        }
        Some((_, text)) => Error::transient(format!("{what}: the broker answers {text}")),
        None => Error::unknown(format!("{what}: the connection to the broker was lost")),
    }
    .caused_by(error)
}

/// The broker's own limit of a message's size in bytes, if that is what a message broke.
pub(super) fn size_limit(error: &lapin::Error) -> Option<usize> {
    let (code, text) = reply(error)?;
    (code == PRECONDITION_FAILED && text.contains("message size"))
        .then(|| {
            text.rsplit(|c: char| !c.is_ascii_digit())
                .find(|digits| !digits.is_empty())
        })?
        .and_then(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind};

    use super::*;
    use crate::backend::Retryable;

    fn answer(code: u16, text: &str) -> lapin::Error {
        let kind = AMQPErrorKind::from_id(code).expect("a code of the protocol");
        ErrorKind::ProtocolError(AMQPError::new(kind, text.into())).into()
    }

    #[test]
    fn a_queue_that_is_away_is_not_missing() {
        assert!(is_missing(&answer(
            NOT_FOUND,
            "NOT_FOUND - no queue 'n.a.workflows' in vhost '/'"
        )));
        let away =
            "NOT_FOUND - home node 'rabbit@b' of durable queue 'n.a.workflows' in vhost '/' is down or inaccessible";
        assert!(!is_missing(&answer(NOT_FOUND, away)));
        assert_eq!(
            request("queue n.a.workflows", answer(NOT_FOUND, away)).retryable(),
            Retryable::Transient
        );
    }

    #[test]
    fn a_server_s_size_limit_is_read_from_its_answer() {
        let text = "PRECONDITION_FAILED - message size 20000000 is larger than configured max size 16777216";
        assert_eq!(size_limit(&answer(PRECONDITION_FAILED, text)), Some(16_777_216));
        assert_eq!(
            size_limit(&answer(
                PRECONDITION_FAILED,
                "PRECONDITION_FAILED - unknown delivery tag 3"
            )),
            None
        );
    }
}
