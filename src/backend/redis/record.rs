//! How a record lies in its hash.
//!
//! What scripts look at is plain text in a field of its own; the rest are blobs that no script opens: `origin`, `view` and `outcome` as MessagePack
//! with named fields, `input` as the JSON text that it is. A field that holds nothing is empty or absent.

use std::collections::HashMap;
use std::str::FromStr;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reply::Reply;
use crate::backend::{Ending, Error, Mark, Record, Result};
use crate::model::{InstanceRef, Payload, Timestamp};

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

/// Marks as their field has them.
pub(super) fn marks_text(marks: &[Mark]) -> String {
    let names: Vec<String> = marks.iter().map(Mark::to_string).collect();
    names.join(" ")
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

    fn text<T: FromStr>(&mut self, field: &'static str) -> Result<Option<T>> {
        let Some(value) = self.bytes(field) else {
            return Ok(None);
        };
        let parsed = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        match parsed {
            Some(parsed) => Ok(Some(parsed)),
            None => {
                let shown = String::from_utf8_lossy(&value);
                Err(unreadable(self.instance, field, &format!("holds {shown:?}")))
            }
        }
    }

    fn blob<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<Option<T>> {
        let value = self.bytes(field);
        value.map(|value| unpack(self.instance, field, &value)).transpose()
    }

    fn required<T>(&self, field: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| unreadable(self.instance, field, "is missing"))
    }
}

/// Reads a field that has to be there.
macro_rules! required {
    ($fields:ident, $read:ident, $field:literal) => {{
        let value = $fields.$read($field)?;
        $fields.required($field, value)?
    }};
}

/// What a record needs besides its input and its outcome, which may be large.
pub(super) const SMALL_FIELDS: [&str; 11] = [
    "execution",
    "run",
    "version",
    "commit",
    "status",
    "lane",
    "origin",
    "view",
    "updated",
    "ended",
    "marks",
];

/// Reads the whole hash; `None` if there is none.
pub(super) fn read(instance: &InstanceRef, meta: Reply) -> Result<Option<Record>> {
    read_fields(instance, meta.pairs()?.into_iter().collect())
}

/// What an [`Ending`] needs.
pub(super) const ENDING_FIELDS: [&str; 3] = ["run", "status", "outcome"];

/// Reads [`SMALL_FIELDS`], as they were asked for.
pub(super) fn read_small(instance: &InstanceRef, fields: Reply) -> Result<Option<Record>> {
    read_fields(instance, named(&SMALL_FIELDS, fields)?)
}

/// Reads [`ENDING_FIELDS`], as they were asked for.
pub(super) fn read_ending(instance: &InstanceRef, fields: Reply) -> Result<Option<Ending>> {
    let of = named(&ENDING_FIELDS, fields)?;
    if of.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields { instance, of };
    Ok(Some(Ending {
        run: required!(fields, text, "run"),
        status: required!(fields, text, "status"),
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
    let mut marks = Vec::new();
    let stored: Option<String> = fields.text("marks")?;
    for mark in stored.iter().flat_map(|marks| marks.split(' ')) {
        marks.push(
            mark.parse()
                .map_err(|cause: String| unreadable(instance, "marks", &cause))?,
        );
    }
    marks.sort_unstable();
    Ok(Some(Record {
        execution: required!(fields, text, "execution"),
        run: required!(fields, text, "run"),
        version: required!(fields, text, "version"),
        commit: fields.text("commit")?,
        status: required!(fields, text, "status"),
        lane: fields.text("lane")?,
        origin: required!(fields, blob, "origin"),
        input: fields.bytes("input").map(Payload::from_trusted),
        view: required!(fields, blob, "view"),
        outcome: fields.blob("outcome")?,
        updated_at: Timestamp::from_millis(required!(fields, text, "updated")),
        ended_at: fields.text("ended")?.map(Timestamp::from_millis),
        marks,
    }))
}
