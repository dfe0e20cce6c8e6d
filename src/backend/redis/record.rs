//! How an instance's record and turns lie in their hash.
//!
//! - `state`: what scripts look at and commits change, one line of plain text: `<execution> <version> <commit> <status> <lane> <updated> <ended> <marks>`.
//!   Times are in ms; marks are separated by commas; `-` stands for nothing. The first three are the guard of the next commit.
//! - `run`: `<run> <request>`, of the request that created it; the origin has that only here.
//! - `origin`, `view` and `outcome`: MessagePack with named fields, which no script opens. Before the first
//!   commit a record has no view: it is the default one.
//! - `input`: the JSON text that it is.
//! - `1`, `2` and so on: the turns of the execution, by their versions. The state says how many there are.
//!
//! One line instead of a field each, because a commit spends its time in such calls: it takes a quarter less.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reply::Reply;
use crate::backend::{Ending, Error, Guard, Mark, Origin, Record, Result, View};
use crate::model::{InstanceRef, Lane, MessageId, Payload, RunId, Status, Timestamp, is_default};
use crate::wire::ParentLink;

/// As MessagePack.
pub(super) fn pack(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("a record holds only values that MessagePack can write")
}

/// From MessagePack.
pub(super) fn unpack<T: DeserializeOwned>(instance: &InstanceRef, field: &str, bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|cause| unreadable(instance, field, &cause.to_string()))
}

fn unreadable(instance: &InstanceRef, field: &str, cause: &str) -> Error {
    Error::permanent(format!(
        "the record of {instance} cannot be read: its field `{field}` {cause}; was it written by a later version?"
    ))
}

/// An [`Origin`] without its request.
#[derive(Serialize, Deserialize)]
struct StoredOrigin<'a> {
    workflow: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Cow<'a, ParentLink>>,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    tags: Cow<'a, BTreeMap<String, String>>,
}

impl StoredOrigin<'_> {
    fn with(self, request: MessageId) -> Origin {
        Origin {
            workflow: self.workflow.into_owned(),
            parent: self.parent.map(Cow::into_owned),
            created_at: self.created_at,
            start_at: self.start_at,
            tags: self.tags.into_owned(),
            request,
        }
    }
}

pub(super) fn pack_origin(origin: &Origin) -> Vec<u8> {
    pack(&StoredOrigin {
        workflow: Cow::Borrowed(&origin.workflow),
        parent: origin.parent.as_ref().map(Cow::Borrowed),
        created_at: origin.created_at,
        start_at: origin.start_at,
        tags: Cow::Borrowed(&origin.tags),
    })
}

/// What stands for nothing in a state.
const NOTHING: &str = "-";

/// Marks as the state has them.
pub(super) fn marks_text(marks: &[Mark]) -> Cow<'static, str> {
    match marks {
        [] => NOTHING.into(),
        [Mark::Start] => "start".into(),
        marks => {
            let names: Vec<String> = marks.iter().map(Mark::to_string).collect();
            names.join(",").into()
        }
    }
}

/// How many marks this is, as the state has them.
pub(super) fn count_marks(text: &[u8]) -> usize {
    if text == NOTHING.as_bytes() {
        return 0;
    }
    text.split(|byte| *byte == b',').count()
}

/// The guard as it begins the state.
pub(super) fn guard_text(guard: &Guard) -> String {
    let [mut execution, mut commit] = [Uuid::encode_buffer(); 2];
    let execution: &str = guard.execution.as_uuid().simple().encode_lower(&mut execution);
    let commit = match guard.commit {
        Some(id) => id.as_uuid().simple().encode_lower(&mut commit),
        None => NOTHING,
    };
    [execution, " ", &guard.version.to_string(), " ", commit].concat()
}

/// Status and lane as the state has them.
pub(super) fn place_text(status: Status, lane: Option<Lane>) -> String {
    let lane = lane.map_or(Cow::Borrowed(NOTHING), |lane| lane.to_string().into());
    [status.as_str(), " ", &lane].concat()
}

/// The parts of a state.
struct State<'a> {
    instance: &'a InstanceRef,
    line: &'a str,
    parts: [&'a str; 8],
}

impl<'a> State<'a> {
    fn read(instance: &'a InstanceRef, line: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(line).ok();
        let parts = text.and_then(|line| {
            let parts: Vec<&str> = line.split(' ').collect();
            Some((line, <[&str; 8]>::try_from(parts).ok()?))
        });
        match parts {
            Some((line, parts)) => Ok(Self { instance, line, parts }),
            None => Err(unreadable(
                instance,
                "state",
                &format!("holds {:?}", String::from_utf8_lossy(line)),
            )),
        }
    }

    /// A part that may be nothing.
    fn part<T: FromStr>(&self, at: usize) -> Result<Option<T>> {
        match self.parts[at] {
            NOTHING => Ok(None),
            part => match part.parse() {
                Ok(part) => Ok(Some(part)),
                Err(_) => Err(self.unreadable()),
            },
        }
    }

    fn required<T: FromStr>(&self, at: usize) -> Result<T> {
        self.part(at)?.ok_or_else(|| self.unreadable())
    }

    fn status(&self) -> Result<Status> {
        self.required(3)
    }

    fn time(&self, at: usize) -> Result<Option<Timestamp>> {
        Ok(self.part(at)?.map(Timestamp::from_millis))
    }

    fn marks(&self) -> Result<Vec<Mark>> {
        if self.parts[7] == NOTHING {
            return Ok(Vec::new());
        }
        let marks = self.parts[7]
            .split(',')
            .map(str::parse)
            .collect::<std::result::Result<Vec<Mark>, _>>();
        let mut marks = marks.map_err(|_| self.unreadable())?;
        marks.sort_unstable();
        Ok(marks)
    }

    fn unreadable(&self) -> Error {
        unreadable(self.instance, "state", &format!("holds {:?}", self.line))
    }
}

/// True if what is in this state is over and has no marks; `None` if it cannot be read.
pub(super) fn is_over(instance: &InstanceRef, state: &[u8]) -> Option<bool> {
    let state = State::read(instance, state).ok()?;
    Some(state.status().ok()?.is_terminal() && state.parts[7] == NOTHING)
}

/// The fields of one record.
struct Fields<'a> {
    instance: &'a InstanceRef,
    of: HashMap<Bytes, Bytes>,
}

impl Fields<'_> {
    fn bytes(&mut self, field: &'static str) -> Option<Bytes> {
        self.of.remove(field.as_bytes()).filter(|value| !value.is_empty())
    }

    fn blob<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<Option<T>> {
        let value = self.bytes(field);
        value.map(|value| unpack(self.instance, field, &value)).transpose()
    }

    fn required<T>(&self, field: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| unreadable(self.instance, field, "is missing"))
    }

    fn state(&mut self) -> Result<Bytes> {
        let state = self.bytes("state");
        self.required("state", state)
    }

    /// The run, and the request that created it.
    fn run(&mut self) -> Result<(RunId, MessageId)> {
        let stored = self.bytes("run");
        let stored = self.required("run", stored)?;
        let run = std::str::from_utf8(&stored).ok().and_then(|text| {
            let (run, request) = text.split_once(' ')?;
            Some((run.parse().ok()?, request.parse().ok()?))
        });
        run.ok_or_else(|| {
            unreadable(
                self.instance,
                "run",
                &format!("holds {:?}", String::from_utf8_lossy(&stored)),
            )
        })
    }
}

/// All of a record's fields; the other ones of its hash are turns.
pub(super) const FIELDS: [&str; 6] = ["state", "run", "origin", "view", "input", "outcome"];

/// What a record needs besides its input and its outcome, which may be large.
pub(super) const SMALL_FIELDS: [&str; 4] = ["state", "run", "origin", "view"];

/// Reads [`FIELDS`], as they were asked for; `None` if there is none of them.
pub(super) fn read(instance: &InstanceRef, fields: Reply) -> Result<Option<Record>> {
    read_fields(instance, named(&FIELDS, fields)?)
}

/// What an [`Ending`] needs; all but the last are small.
pub(super) const ENDING_FIELDS: [&str; 3] = ["state", "run", "outcome"];

/// Reads [`SMALL_FIELDS`], as they were asked for.
pub(super) fn read_small(instance: &InstanceRef, fields: Reply) -> Result<Option<Record>> {
    read_fields(instance, named(&SMALL_FIELDS, fields)?)
}

/// Reads [`ENDING_FIELDS`] or the first of them, as they were asked for.
pub(super) fn read_ending(instance: &InstanceRef, fields: Reply) -> Result<Option<Ending>> {
    let of = named(&ENDING_FIELDS, fields)?;
    if of.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields { instance, of };
    let state = fields.state()?;
    Ok(Some(Ending {
        run: fields.run()?.0,
        status: State::read(instance, &state)?.status()?,
        outcome: fields.blob("outcome")?,
    }))
}

/// The fields that are there, of those that were asked for by these names.
fn named(names: &[&'static str], fields: Reply) -> Result<HashMap<Bytes, Bytes>> {
    let mut of = HashMap::new();
    for (name, value) in names.iter().zip(fields.items()?) {
        if let Some(value) = value.optional_bytes()? {
            of.insert(Bytes::from_static(name.as_bytes()), value);
        }
    }
    Ok(of)
}

fn read_fields(instance: &InstanceRef, of: HashMap<Bytes, Bytes>) -> Result<Option<Record>> {
    if of.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields { instance, of };
    let state = fields.state()?;
    let state = State::read(instance, &state)?;
    let origin: Option<StoredOrigin<'_>> = fields.blob("origin")?;
    let commit = state.part(2)?;
    let view = match fields.blob("view")? {
        // Each commit writes one.
        None if commit.is_none() => View::default(),
        view => fields.required("view", view)?,
    };
    let (run, request) = fields.run()?;
    Ok(Some(Record {
        execution: state.required(0)?,
        run,
        version: state.required(1)?,
        commit,
        status: state.status()?,
        lane: state.part(4)?,
        origin: fields.required("origin", origin)?.with(request),
        input: fields.bytes("input").map(Payload::from_trusted),
        view,
        outcome: fields.blob("outcome")?,
        updated_at: state.time(5)?.ok_or_else(|| state.unreadable())?,
        ended_at: state.time(6)?,
        marks: state.marks()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommitId, ExecutionId};

    fn instance() -> InstanceRef {
        InstanceRef::new("orders".parse().unwrap(), "one".parse().unwrap())
    }

    /// The fields of a record in this state, which was asked for with all others.
    fn stored(state: &str) -> Vec<(&'static str, Vec<u8>)> {
        let origin = Origin {
            workflow: "main".into(),
            parent: None,
            created_at: Timestamp::from_millis(7),
            start_at: None,
            tags: Default::default(),
            request: "a request".parse().unwrap(),
        };
        vec![
            ("state", state.into()),
            ("run", format!("{} a request", RunId::generate()).into()),
            ("origin", pack_origin(&origin)),
            ("view", pack(&View::default())),
        ]
    }

    fn read(fields: Vec<(&'static str, Vec<u8>)>) -> Result<Option<Record>> {
        let of = fields
            .into_iter()
            .map(|(name, value)| (Bytes::from_static(name.as_bytes()), value.into()));
        read_fields(&instance(), of.collect())
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let guard = Guard {
            execution: ExecutionId::generate(),
            version: 3,
            commit: Some(CommitId::generate()),
        };
        let place = place_text(Status::Completed, Some(5));
        let marks = [Mark::Start, Mark::Turn(3)];
        let state = format!("{} {place} 20 21 {}", guard_text(&guard), marks_text(&marks));
        let record = read(stored(&state)).unwrap().expect("a record");
        assert_eq!(record.guard(), guard);
        assert_eq!((record.status, record.lane), (Status::Completed, Some(5)));
        assert_eq!(record.updated_at.as_millis(), 20);
        assert_eq!(record.ended_at.map(Timestamp::as_millis), Some(21));
        assert_eq!(record.marks, marks);
    }

    #[test]
    fn a_record_has_a_view_from_its_first_commit_on() {
        let execution = ExecutionId::generate();
        let of = |commit: &str| {
            let mut fields = stored(&format!("{execution} 0 {commit} Running - 20 - -"));
            fields.pop();
            read(fields)
        };
        assert_eq!(of("-").unwrap().expect("a record").view, View::default());
        let error = of(&CommitId::generate().to_string()).expect_err("no view");
        assert!(error.is_permanent() && error.to_string().contains("`view`"), "{error}");
    }

    #[test]
    fn what_is_nothing_is_read_as_nothing() {
        let guard = Guard {
            execution: ExecutionId::generate(),
            version: 0,
            commit: None,
        };
        let place = place_text(Status::Pending, None);
        let state = format!("{} {place} 20 - {}", guard_text(&guard), marks_text(&[]));
        let record = read(stored(&state)).unwrap().expect("a record");
        assert_eq!(record.guard(), guard);
        assert_eq!((record.lane, record.ended_at, record.marks.len()), (None, None, 0));
        assert_eq!(is_over(&instance(), state.as_bytes()), Some(false));
        assert_eq!(read(Vec::new()).unwrap(), None);
    }

    #[test]
    fn marks_are_counted_as_they_are_written() {
        for marks in [vec![], vec![Mark::Run], vec![Mark::Start, Mark::Turn(12)]] {
            assert_eq!(count_marks(marks_text(&marks).as_bytes()), marks.len());
        }
    }

    #[test]
    fn a_state_that_makes_no_sense_is_named() {
        let execution = ExecutionId::generate();
        for state in [
            "",
            "nonsense",
            &format!("{execution} 1 - Running - 20 -"),
            &format!("{execution} 1 - Running - 20 - - -"),
            &format!("{execution} one - Running - 20 - -"),
            &format!("{execution} 1 - Dreaming - 20 - -"),
            &format!("{execution} 1 - Running x 20 - -"),
            &format!("{execution} 1 - Running - - - -"),
            &format!("{execution} 1 - Running - 20 - start,"),
            &format!("{execution} 1 - Running - 20 - walk"),
            &format!("{execution}  - Running - 20 - -"),
        ] {
            let error = read(stored(state)).expect_err(state);
            assert!(
                error.is_permanent() && error.to_string().contains("`state`"),
                "{state}: {error}"
            );
        }
        let mut fields = stored(&format!("{execution} 1 - Running - 20 - -"));
        fields[1].1 = b"no-run".to_vec();
        let error = read(fields).expect_err("a run that is none");
        assert!(error.is_permanent() && error.to_string().contains("`run`"), "{error}");
    }
}
