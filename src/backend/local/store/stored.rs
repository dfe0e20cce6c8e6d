//! How a record lies under its key: what commits look at and change in one part, all else in parts of its own, which are passed on unread.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::kv::{decode, encode};
use crate::backend::{Ending, Guard, Mark, Record, Result, View};
use crate::model::{CommitId, ExecutionId, Lane, Payload, RunId, Status, Timestamp};
use crate::wire::Outcome;

/// The part that every operation reads. Its fields are those of [`Record`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) execution: ExecutionId,
    pub(super) run: RunId,
    pub(super) version: u64,
    pub(super) commit: Option<CommitId>,
    pub(super) status: Status,
    pub(super) lane: Option<Lane>,
    pub(super) updated_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) marks: Vec<Mark>,
}

impl State {
    /// What the next commit has to be guarded by.
    pub(super) fn guard(&self) -> Guard {
        Guard {
            execution: self.execution,
            version: self.version,
            commit: self.commit,
        }
    }
}

/// A record in its stored form.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredRecord<'a> {
    pub(super) state: State,
    /// An [`Origin`](crate::backend::Origin).
    #[serde(borrow, with = "serde_bytes")]
    origin: Cow<'a, [u8]>,
    /// A [`View`].
    #[serde(borrow, with = "serde_bytes")]
    view: Cow<'a, [u8]>,
    /// JSON text.
    #[serde(borrow, with = "serde_bytes")]
    input: Option<Cow<'a, [u8]>>,
    /// An [`Outcome`].
    #[serde(borrow, with = "serde_bytes")]
    outcome: Option<Cow<'a, [u8]>>,
}

impl<'a> StoredRecord<'a> {
    /// Reads what lies under a record's key.
    ///
    /// # Errors
    /// Permanent if this release cannot read it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        decode(bytes)
    }

    /// A record that is to be stored.
    pub(super) fn of(record: &Record) -> Self {
        Self {
            state: State {
                execution: record.execution,
                run: record.run,
                version: record.version,
                commit: record.commit,
                status: record.status,
                lane: record.lane,
                updated_at: record.updated_at,
                ended_at: record.ended_at,
                marks: record.marks.clone(),
            },
            origin: packed(&record.origin),
            view: packed(&record.view),
            input: record.input.as_ref().map(|input| input.as_bytes().to_vec().into()),
            outcome: record.outcome.as_ref().map(packed),
        }
    }

    pub(super) fn set_view(&mut self, view: &View) {
        self.view = packed(view);
    }

    pub(super) fn set_outcome(&mut self, outcome: Option<&Outcome>) {
        self.outcome = outcome.map(packed);
    }

    pub(super) fn drop_input(&mut self) {
        self.input = None;
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Bytes {
        encode(self)
    }

    /// What the run has come to so far.
    pub(super) fn ending(&self) -> Result<Ending> {
        Ok(Ending {
            run: self.state.run,
            status: self.state.status,
            outcome: self.outcome.as_deref().map(decode).transpose()?,
        })
    }

    /// All of it.
    pub(super) fn record(self) -> Result<Record> {
        let Ending { run, status, outcome } = self.ending()?;
        Ok(Record {
            execution: self.state.execution,
            run,
            version: self.state.version,
            commit: self.state.commit,
            status,
            lane: self.state.lane,
            origin: decode(&self.origin)?,
            input: self.input.map(|input| Payload::from_trusted(input.into_owned())),
            view: decode(&self.view)?,
            outcome,
            updated_at: self.state.updated_at,
            ended_at: self.state.ended_at,
            marks: self.state.marks,
        })
    }
}

fn packed(value: &impl Serialize) -> Cow<'static, [u8]> {
    Vec::from(encode(value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Origin;

    fn record() -> Record {
        Record {
            execution: ExecutionId::generate(),
            run: RunId::generate(),
            version: 3,
            commit: Some(CommitId::generate()),
            status: Status::Completed,
            lane: Some(5),
            origin: Origin {
                workflow: "main".into(),
                parent: None,
                created_at: Timestamp::from_millis(7),
                start_at: None,
                tags: [("colour".to_owned(), "grey".to_owned())].into(),
                request: "a request".parse().unwrap(),
            },
            input: None,
            view: View {
                history_events: 12,
                ..View::default()
            },
            outcome: Some(Outcome::Completed(Payload::from_trusted("17"))),
            updated_at: Timestamp::from_millis(20),
            ended_at: Some(Timestamp::from_millis(20)),
            marks: vec![Mark::Start, Mark::Turn(3)],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_stored() {
        let ended = record();
        let pending = Record {
            commit: None,
            status: Status::Pending,
            lane: None,
            input: Some(Payload::from_trusted("[1, 2]")),
            outcome: None,
            ended_at: None,
            marks: Vec::new(),
            ..record()
        };
        for record in [ended, pending] {
            let stored = StoredRecord::of(&record).encode();
            assert_eq!(StoredRecord::read(&stored).unwrap().record().unwrap(), record);
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let stored = StoredRecord::of(&record()).encode();
        for bad in [&b""[..], b"\x80", &stored[..stored.len() / 2]] {
            let error = StoredRecord::read(bad).map(|_| ()).expect_err("unreadable");
            assert!(error.is_permanent(), "{error}");
        }
    }
}
