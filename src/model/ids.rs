//! Ids: each a newtype whose constructor validates.
//!
//! Namespace and app ID are names of queues and parts of keys, so their alphabet is narrow: joining them with `.` or `/` is unambiguous. An
//! instance ID is free text and therefore always stands last in what it is joined into.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::random;

/// An id that does not have the form it must have; the text names the value and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {rule}")]
pub struct IdError {
    what: &'static str,
    value: String,
    rule: String,
}

/// How many bytes of a bad value an error message repeats.
const SHOWN: usize = 80;

pub(super) fn refuse(what: &'static str, value: &str, rule: impl Into<String>) -> IdError {
    let shown = value
        .char_indices()
        .take_while(|(at, _)| *at < SHOWN)
        .map(|(_, c)| c)
        .collect();
    IdError {
        what,
        value: shown,
        rule: rule.into(),
    }
}

fn check_name(what: &'static str, value: &str) -> Result<(), IdError> {
    let mut chars = value.chars();
    let first = chars
        .next()
        .ok_or_else(|| refuse(what, value, "is empty: it needs 1 to 63 letters, digits, '-' or '_'"))?;
    if !first.is_ascii_alphanumeric() {
        return Err(refuse(
            what,
            value,
            "must begin with a letter or a digit (A-Z, a-z, 0-9)",
        ));
    }
    if let Some(bad) = chars.find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_') {
        return Err(refuse(
            what,
            value,
            format!("contains {bad:?}: only letters, digits, '-' and '_' are allowed"),
        ));
    }
    if value.len() > 63 {
        return Err(refuse(
            what,
            value,
            format!("is {} bytes long: 63 is the most", value.len()),
        ));
    }
    if value == "amq" {
        return Err(refuse(what, value, "is reserved by AMQP brokers: choose another name"));
    }
    Ok(())
}

fn check_printable(what: &'static str, value: &str, most: usize) -> Result<(), IdError> {
    if value.is_empty() {
        return Err(refuse(
            what,
            value,
            format!("is empty: it needs 1 to {most} printable bytes"),
        ));
    }
    if value.len() > most {
        return Err(refuse(
            what,
            value,
            format!("is {} bytes long: {most} is the most", value.len()),
        ));
    }
    let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !is_plain && let Some(bad) = value.chars().find(|c| c.is_control()) {
        return Err(refuse(
            what,
            value,
            format!("contains the control character {bad:?}: only printable characters are allowed"),
        ));
    }
    Ok(())
}

/// The rule of [`check_name`] as a schema.
fn name_schema() -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", "not": { "const": "amq" } })
}

/// The rule of [`check_printable`] as a schema. It counts characters where the rule counts bytes, so it lets a little more pass.
fn printable_schema(most: usize) -> schemars::Schema {
    schemars::json_schema!({
        "description": format!("Printable text of 1 to {most} bytes (UTF-8)."),
        "type": "string",
        "minLength": 1,
        "maxLength": most,
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
    })
}

/// Reads a text and has it checked, without a copy in between: a message holds dozens of IDs.
struct IdText<T>(fn(&str) -> Result<T, IdError>);

impl<T> Visitor<'_> for IdText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    /// MessagePack has two forms of text, and some clients know only this one.
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.visit_str(text),
            Err(_) => Err(E::invalid_value(Unexpected::Bytes(bytes), &self)),
        }
    }
}

/// A text newtype: validated, cheap to clone, serialised as the text itself.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr, $schema:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(IdText(|text| Self::new(text)))
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }

        impl $name {
            #[doc = concat!("Checks the text and makes it ", $what, ".\n\n# Errors\n[`IdError`] names the text and the rule that it breaks.")]
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                let check: fn(&'static str, &str) -> Result<(), IdError> = $check;
                check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// The tenant: every queue and key carries it, and nothing crosses it. `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`, not `amq`.
    Namespace, "namespace", check_name, name_schema()
);
text_id!(
    /// A service that hosts workflows and activities, run as any number of equal workers. `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`, not `amq`.
    AppId, "app ID", check_name, name_schema()
);
text_id!(
    /// The name of one workflow within its app: printable text of 1 to 1,024 bytes.
    ///
    /// What a user chooses is at most 200 bytes ([`InstanceId::chosen`]); derived child IDs may be longer.
    InstanceId, "instance ID", |what, text| check_printable(what, text, InstanceId::MOST_DERIVED), printable_schema(InstanceId::MOST_DERIVED)
);
text_id!(
    /// Identifies a message for de-duplication: a start's request, a raised event. Printable text of 1 to 255 bytes.
    MessageId, "message ID", |what, text| check_printable(what, text, 255), printable_schema(255)
);
text_id!(
    /// Names the code that a worker runs, so that a stalled instance can wait for another one. Printable text of 1 to 128 bytes.
    BuildId, "build ID", |what, text| check_printable(what, text, 128), printable_schema(128)
);

impl InstanceId {
    /// Longest ID that a user may choose, in bytes.
    pub const MOST_CHOSEN: usize = 200;
    /// Longest derived child ID, in bytes; beyond it the ID is hashed.
    pub const MOST_DERIVED: usize = 1024;

    /// Checks an ID that a person or a program chose: 1 to 200 bytes, printable.
    ///
    /// # Errors
    /// [`IdError`] names the text and the rule that it breaks.
    pub fn chosen(text: impl AsRef<str>) -> Result<Self, IdError> {
        check_printable("instance ID", text.as_ref(), Self::MOST_CHOSEN)?;
        Self::new(text)
    }

    /// A new, random ID (uuid version 7, so that IDs sort by creation).
    pub fn generate() -> Self {
        Self(random::new_uuid().simple().to_string().into())
    }
}

impl MessageId {
    /// A new, random ID.
    pub fn generate() -> Self {
        Self(random::new_uuid().simple().to_string().into())
    }
}

impl From<Uuid> for MessageId {
    fn from(id: Uuid) -> Self {
        Self(id.simple().to_string().into())
    }
}

/// Counts the tasks, timers and sent events of an execution, from 0: durabletask's action and event ID.
pub type Sequence = u64;

/// One of an app's completion queues; see the topology in `docs/`.
pub type Lane = u16;

/// Where an instance lives: its app and its ID. The namespace is the backend's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstanceRef {
    /// The app that hosts the workflow.
    pub app: AppId,
    /// The instance ID within that app.
    pub id: InstanceId,
}

impl InstanceRef {
    /// Puts the two together.
    pub fn new(app: AppId, id: InstanceId) -> Self {
        Self { app, id }
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.id)
    }
}

/// The default ID of a child: `<parent>:<sequence number, at least 4 hex digits>` (as durabletask has it), hashed when it grows past 1,024 bytes.
pub fn derived_child_id(parent: &InstanceId, sequence: Sequence) -> InstanceId {
    let plain = format!("{parent}:{sequence:04x}");
    if plain.len() <= InstanceId::MOST_DERIVED {
        return InstanceId(plain.into());
    }
    InstanceId(
        Uuid::new_v5(&Uuid::NAMESPACE_OID, plain.as_bytes())
            .simple()
            .to_string()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_or_app_id_says_what_is_wrong_with_it() {
        assert!(AppId::new("App2").is_ok());
        assert_eq!(
            AppId::new("a.b").unwrap_err().to_string(),
            "app ID \"a.b\" contains '.': only letters, digits, '-' and '_' are allowed"
        );
        assert!(AppId::new("").unwrap_err().to_string().contains("is empty"));
        assert!(AppId::new("-a").unwrap_err().to_string().contains("must begin"));
        assert!(AppId::new("amq").unwrap_err().to_string().contains("reserved"));
        assert!(AppId::new("a".repeat(63)).is_ok());
        assert!(AppId::new("a".repeat(64)).is_err());
    }

    #[test]
    fn an_instance_id_is_any_printable_text_of_1_to_200_bytes() {
        for good in ["a", "a:b/c%{d} e", "ünïcödé", &"x".repeat(200)] {
            assert!(InstanceId::chosen(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\0", &"x".repeat(201)] {
            assert!(InstanceId::chosen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_derived_child_id_is_hashed_when_it_is_too_long() {
        let parent = InstanceId::new("p").expect("valid");
        assert_eq!(derived_child_id(&parent, 7).as_str(), "p:0007");
        assert_eq!(derived_child_id(&parent, 0x12345).as_str(), "p:12345");
        let long = InstanceId::new("p".repeat(1022)).expect("valid");
        assert_eq!(derived_child_id(&long, 1).as_str().len(), 32);
    }
}
