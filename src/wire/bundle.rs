//! The envelope: a version and a list of items.

use serde::{Deserialize, Serialize};

use super::{Item, read};

/// The version of the wire format that this release writes. A message of a later one is left for a worker that knows it.
pub const WIRE_VERSION: u32 = 1;

/// A message's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Bundle {
    /// The wire version.
    pub v: u32,
    /// What the message says, in order.
    pub items: Vec<Item>,
}

/// A body that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a bundle, or a field is missing or of another type.
    #[error("the message is not a bundle of wire version {WIRE_VERSION}: {0}")]
    Malformed(String),
    /// Written by a later release.
    #[error("the message has wire version {found}; this worker reads versions up to {WIRE_VERSION}: upgrade it")]
    Newer {
        /// The version it has.
        found: u32,
    },
    /// A bundle without items says nothing.
    #[error("the bundle has no items: it needs at least one")]
    Empty,
    /// What somebody published by hand is not a start, or has a field too many.
    #[error("not a start message: {0}")]
    NotAStart(String),
    /// A start that somebody published by hand, with a bad field.
    #[error("the start message's field `{field}` {problem}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl Bundle {
    /// A bundle of these items, of the current version.
    pub fn new(items: Vec<Item>) -> Self {
        Self { v: WIRE_VERSION, items }
    }

    /// Writes the bundle as MessagePack.
    pub fn encode(&self) -> bytes::Bytes {
        rmp_serde::to_vec_named(self)
            .expect("a bundle holds only values that MessagePack can write")
            .into()
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with it; a later wire version is told apart from a malformed message.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        /// The version alone: a later release's items may not be readable, its version always is.
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        let readable = read::<Self>(body);
        let version = match &readable {
            Ok(bundle) => bundle.v,
            Err(_) => read::<Versioned>(body).map_err(DecodeError::Malformed)?.v,
        };
        if version > WIRE_VERSION {
            return Err(DecodeError::Newer { found: version });
        }
        let bundle = readable.map_err(DecodeError::Malformed)?;
        if bundle.items.is_empty() {
            return Err(DecodeError::Empty);
        }
        for (number, item) in bundle.items.iter().enumerate() {
            for (field, payload) in item.payloads() {
                payload.check().map_err(|problem| {
                    let kind = item.kind();
                    DecodeError::Malformed(format!(
                        "field `items[{number}].{kind}.{field}`: not JSON text: {problem}"
                    ))
                })?;
            }
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WorkerId;
    use crate::wire::ProbeItem;

    #[test]
    fn a_bundle_comes_back_as_it_was() {
        let bundle = Bundle::new(vec![Item::Probe(ProbeItem {
            worker: WorkerId::generate(),
            marker: None,
        })]);
        assert_eq!(Bundle::decode(&bundle.encode()).unwrap(), bundle);
    }

    #[test]
    fn a_refusal_names_the_field() {
        use crate::model::{ExecutionId, Payload};
        let task = serde_json::json!({
            "caller": { "instance": { "app": "orders", "id": "i" }, "execution": ExecutionId::generate(), "sequence": 0 },
        });
        let refused = |items: serde_json::Value| {
            let packed = rmp_serde::to_vec_named(&serde_json::json!({ "v": 1, "items": items })).unwrap();
            Bundle::decode(&packed).unwrap_err().to_string()
        };
        let text = refused(serde_json::json!([{ "wake": { "instance": { "app": "a.b", "id": "i" } } }]));
        assert!(
            text.contains("field `items[0].wake.instance.app`: app ID \"a.b\" contains '.'"),
            "{text}"
        );
        let text = refused(serde_json::json!([{ "timer": { "task": task["caller"] } }]));
        // In MessagePack a uuid is bytes.
        assert!(text.contains("field `items[0].timer.task.execution`: "), "{text}");
        let text = refused(serde_json::json!([{ "timer": {} }]));
        assert!(text.contains("field `items[0].timer`: missing field `task`"), "{text}");
        let mut event = crate::wire::EventItem {
            instance: serde_json::from_value(serde_json::json!({ "app": "a", "id": "i" })).unwrap(),
            name: "approved".into(),
            payload: Payload::null(),
            message_id: crate::model::MessageId::generate(),
        };
        assert!(Bundle::decode(&Bundle::new(vec![Item::Event(event.clone())]).encode()).is_ok());
        event.payload = Payload::from_trusted("{1:");
        let text = Bundle::decode(&Bundle::new(vec![Item::Event(event)]).encode())
            .unwrap_err()
            .to_string();
        assert!(text.contains("field `items[0].event.payload`: not JSON text"), "{text}");
    }

    #[test]
    fn a_later_version_is_told_apart_from_garbage() {
        #[derive(Serialize)]
        struct Later {
            v: u32,
            things: Vec<u8>,
        }
        let later = rmp_serde::to_vec_named(&Later { v: 2, things: vec![1] }).unwrap();
        assert!(matches!(Bundle::decode(&later), Err(DecodeError::Newer { found: 2 })));
        assert!(matches!(Bundle::decode(b"{}"), Err(DecodeError::Malformed(_))));
        assert!(matches!(Bundle::decode(b""), Err(DecodeError::Malformed(_))));
        assert!(matches!(
            Bundle::decode(&Bundle::new(Vec::new()).encode()),
            Err(DecodeError::Empty)
        ));
    }
}
