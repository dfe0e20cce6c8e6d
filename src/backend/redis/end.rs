//! What is said of an instance's end, to whoever waits for it.

use crate::backend::Ending;
use crate::model::{InstanceRef, RunId, Status};

/// Bytes of an outcome that is told to everybody who listens to a channel, also to those who wait for others; who waits for a longer one reads it.
const SHORT: usize = 512;

/// What a commit that ends an instance says on its channel, after the run and a space: `<status> <bytes of the ID> <ID><outcome>`. The outcome is
/// left out unless it is short.
pub(super) fn end_message(instance: &InstanceRef, status: Status, outcome: &[u8]) -> Vec<u8> {
    let id = instance.id.as_str();
    let mut message = format!("{} {} {id}", status.as_str(), id.len()).into_bytes();
    if outcome.len() <= SHORT {
        message.extend_from_slice(outcome);
    }
    message
}

/// An end, as it was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End<'a> {
    pub(super) id: &'a str,
    run: RunId,
    status: Status,
    /// Empty if it was not told.
    outcome: &'a [u8],
}

impl<'a> End<'a> {
    /// `None` for what is no such message.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let mut parts = message.splitn(4, |byte| *byte == b' ');
        let mut text = || std::str::from_utf8(parts.next()?).ok();
        let (run, status, length) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?.parse().ok()?);
        let (id, outcome) = parts.next()?.split_at_checked(length)?;
        Some(Self {
            id: std::str::from_utf8(id).ok()?,
            run,
            status,
            outcome,
        })
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        let outcome = rmp_serde::from_slice(self.outcome).ok()?;
        Some(Ending {
            run: self.run,
            status: self.status,
            outcome: Some(outcome),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::redis::record::pack;
    use crate::model::Payload;
    use crate::wire::Outcome;

    fn instance(id: &str) -> InstanceRef {
        InstanceRef::new("orders".parse().unwrap(), id.parse().unwrap())
    }

    fn message(run: RunId, id: &str, outcome: &[u8]) -> Vec<u8> {
        let rest = end_message(&instance(id), Status::Completed, outcome);
        [run.to_string().as_bytes(), b" ", &rest].concat()
    }

    #[test]
    fn an_end_is_read_as_it_was_told() {
        let run = RunId::generate();
        let outcome = Outcome::Completed(Payload::from_trusted("\" 3 4 \""));
        let id = "order 17 of 3 ü";
        let told = message(run, id, &pack(&outcome));
        let end = End::read(&told).expect("an end");
        assert_eq!((end.id, end.run), (id, run));
        let ending = end.ending().expect("its outcome is short");
        assert_eq!((ending.status, ending.outcome), (Status::Completed, Some(outcome)));
    }

    #[test]
    fn a_long_outcome_is_not_told() {
        let outcome = pack(&Outcome::Completed(Payload::from_trusted("7".repeat(SHORT))));
        let told = message(RunId::generate(), "a", &outcome);
        let end = End::read(&told).expect("an end");
        assert_eq!((end.id, end.ending()), ("a", None));
    }

    #[test]
    fn what_is_no_end_is_not_read_as_one() {
        let run = RunId::generate();
        for told in [
            "",
            "order-1",
            " 9 ",
            &format!("{run} Completed 9 short"),
            &format!("{run} Dreaming 1 a"),
        ] {
            assert_eq!(End::read(told.as_bytes()), None, "{told}");
        }
    }
}
