//! A user's value, carried as the text that the user's code wrote.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Failure, kinds};

/// A user's value as JSON text (UTF-8). Leveret never parses or rewrites it; readable formats embed it as JSON, binary ones as bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(bytes::Bytes);

impl Payload {
    /// Writes a value as JSON.
    ///
    /// # Errors
    /// A fatal [`Failure`] of kind `InvalidPayload` if the value has no JSON form (a map whose keys are not text, say).
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        serde_json::to_vec(value)
            .map(|text| Self(text.into()))
            .map_err(|cause| {
                Failure::new(
                    kinds::INVALID_PAYLOAD,
                    format!(
                        "a value of type {} cannot be written as JSON: {cause}",
                        std::any::type_name::<T>()
                    ),
                )
                .fatal()
            })
    }

    /// Reads the value.
    ///
    /// # Errors
    /// A fatal [`Failure`] of kind `InvalidPayload` that names the type asked for and what stood in the way.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0).map_err(|cause| {
            Failure::new(
                kinds::INVALID_PAYLOAD,
                format!(
                    "the payload {} is not a {}: {cause}",
                    self.preview(),
                    std::any::type_name::<T>()
                ),
            )
            .fatal()
        })
    }

    /// The JSON `null`: the payload of a call without input.
    pub fn null() -> Self {
        Self(bytes::Bytes::from_static(b"null"))
    }

    /// Takes bytes that are known to be JSON text (they came out of a store or a message that was checked on its way in).
    pub(crate) fn from_trusted(text: impl Into<bytes::Bytes>) -> Self {
        Self(text.into())
    }

    /// Says what is wrong with it if it is not JSON text: for what comes from outside.
    pub(crate) fn check(&self) -> Result<(), String> {
        serde_json::from_slice::<serde::de::IgnoredAny>(&self.0)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length of the text in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for no text at all, which no valid payload is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first 200 characters, for messages to people.
    pub fn preview(&self) -> String {
        let text = String::from_utf8_lossy(&self.0[..self.0.len().min(1024)]);
        let mut shown: String = text.chars().take(200).collect();
        if shown.len() < self.0.len() {
            shown.push('…');
        }
        shown
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.preview())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if !to.is_human_readable() {
            return to.serialize_bytes(&self.0);
        }
        match serde_json::from_slice::<&RawValue>(&self.0) {
            Ok(raw) => raw.serialize(to),
            // Damaged, or of a sender that was no release of ours: one bad value must not hide what stands around it.
            Err(_) => to.serialize_str(&String::from_utf8_lossy(&self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(from)?;
            return Ok(Self(raw.get().as_bytes().to_vec().into()));
        }
        let bytes = serde_bytes::ByteBuf::deserialize(from)?;
        Ok(Self(bytes.into_vec().into()))
    }
}

impl schemars::JsonSchema for Payload {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Payload".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "Any JSON value. In MessagePack: a binary string that holds JSON text." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_passes_through_untouched() {
        let text = br#"{"a":1.0,"b":123456789012345678901234567890}"#;
        let payload: Payload = serde_json::from_slice(text).unwrap();
        assert_eq!(payload.as_bytes(), text);
        assert_eq!(serde_json::to_vec(&payload).unwrap(), text);
        let packed = rmp_serde::to_vec_named(&payload).unwrap();
        assert_eq!(rmp_serde::from_slice::<Payload>(&packed).unwrap(), payload);
    }

    #[test]
    fn a_payload_that_is_no_json_is_shown_as_text() {
        let damaged = Payload::from_trusted(b"{\"a\": \xff".to_vec());
        assert!(damaged.check().is_err());
        assert_eq!(serde_json::to_string(&damaged).unwrap(), r#""{\"a\": �""#);
        assert_eq!(Payload::null().check(), Ok(()));
    }

    #[test]
    fn a_payload_of_another_type_names_both() {
        let failure = Payload::encode("text").unwrap().decode::<u32>().unwrap_err();
        assert!(
            failure.message.contains("\"text\"") && failure.message.contains("u32"),
            "{failure:?}"
        );
        assert!(failure.fatal);
    }
}
