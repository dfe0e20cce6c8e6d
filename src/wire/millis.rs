//! Durations on the wire and in history: whole milliseconds, rounded up.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(duration) => {
            let millis = duration.as_nanos().div_ceil(1_000_000);
            to.serialize_some(&u64::try_from(millis).unwrap_or(u64::MAX))
        }
        None => to.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
}
