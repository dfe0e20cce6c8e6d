//! Replies, read as what the scripts' files promise.

use bytes::Bytes;
use deadpool_redis::redis::Value;

use crate::backend::{Error, Result};
use crate::model::Timestamp;

/// A reply, or a part of one, and to what.
pub(super) struct Reply {
    to: &'static str,
    value: Value,
}

impl Reply {
    pub(super) fn new(to: &'static str, value: Value) -> Self {
        Self { to, value }
    }

    /// A part that was read as bytes, to be read as something else.
    pub(super) fn of_bytes(to: &'static str, bytes: Bytes) -> Self {
        Self::new(to, Value::BulkString(bytes.into()))
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        Err(Error::permanent(format!(
            "Redis answered {} to `{}`, where {expected} was expected: do two versions of Leveret share it?",
            kind_of(&self.value),
            self.to
        )))
    }

    /// An error about what the reply says.
    pub(super) fn strange<T>(to: &str, said: &str) -> Result<T> {
        Err(Error::permanent(format!(
            "Redis answered {said:?} to `{to}`, which this version does not know: do two versions of Leveret share it?"
        )))
    }

    pub(super) fn number(self) -> Result<i64> {
        match &self.value {
            Value::Int(number) => Ok(*number),
            // Scores and stored numbers come as text; whole ones may come as `1.79e+12`.
            Value::BulkString(text) => match std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) {
                Some(number) => Ok(number as i64),
                None => self.unexpected("a number"),
            },
            _ => self.unexpected("a number"),
        }
    }

    /// A number, or none for nil.
    pub(super) fn optional_number(self) -> Result<Option<i64>> {
        match self.value {
            Value::Nil => Ok(None),
            _ => self.number().map(Some),
        }
    }

    /// Bytes, or none for nil.
    pub(super) fn optional_bytes(self) -> Result<Option<Bytes>> {
        match self.value {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            _ => self.unexpected("bytes"),
        }
    }

    pub(super) fn bytes(self) -> Result<Bytes> {
        match self.value {
            Value::BulkString(bytes) => Ok(bytes.into()),
            _ => self.unexpected("bytes"),
        }
    }

    pub(super) fn text(self) -> Result<String> {
        let to = self.to;
        match self.value {
            Value::SimpleString(text) => Ok(text),
            Value::Okay => Ok("OK".into()),
            Value::BulkString(bytes) => {
                String::from_utf8(bytes).or_else(|bad| Self::strange(to, &String::from_utf8_lossy(bad.as_bytes())))
            }
            _ => self.unexpected("text"),
        }
    }

    /// The members of a list; none for nil.
    pub(super) fn items(self) -> Result<Vec<Reply>> {
        let to = self.to;
        match self.value {
            Value::Array(values) => Ok(values.into_iter().map(|value| Reply { to, value }).collect()),
            Value::Nil => Ok(Vec::new()),
            _ => self.unexpected("a list"),
        }
    }

    /// The members of a list of bytes.
    pub(super) fn list(self) -> Result<Vec<Bytes>> {
        self.items()?.into_iter().map(Reply::bytes).collect()
    }

    /// Names and values, one after the other.
    pub(super) fn pairs(self) -> Result<Vec<(Bytes, Bytes)>> {
        let mut list = self.list()?.into_iter();
        let mut pairs = Vec::with_capacity(list.len() / 2);
        while let (Some(name), Some(value)) = (list.next(), list.next()) {
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    /// Redis' clock, as `TIME` tells it: seconds and microseconds.
    pub(super) fn time(self) -> Result<Timestamp> {
        let to = self.to;
        let mut parts = self.items()?.into_iter().map(Reply::number);
        match (parts.next(), parts.next()) {
            (Some(seconds), Some(micros)) => Ok(Timestamp::from_millis((seconds? * 1000 + micros? / 1000) as u64)),
            _ => Self::strange(to, "nothing"),
        }
    }

    /// A word, and what comes with it.
    pub(super) fn word(self) -> Result<(String, Vec<Reply>)> {
        let mut items = self.items()?.into_iter();
        match items.next() {
            Some(word) => Ok((word.text()?, items.collect())),
            None => Ok((String::new(), Vec::new())),
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Int(_) => "a number",
        Value::BulkString(_) => "bytes",
        Value::Array(_) => "a list",
        Value::SimpleString(_) | Value::Okay => "a status",
        _ => "something else",
    }
}
