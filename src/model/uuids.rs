//! Ids that nobody chooses: uuids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{IdError, refuse};
use super::random;

/// A uuid newtype: serialised as 16 bytes in binary formats and as 32 hex digits in readable ones.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "uuid_text")] Uuid);

        impl $name {
            /// A new, random ID (uuid version 7).
            pub fn generate() -> Self {
                Self(random::new_uuid())
            }

            /// The uuid itself.
            pub fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| refuse(stringify!($name), text, "is not a uuid (32 hex digits)"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.simple(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.simple(), f)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$" })
            }
        }
    };
}

/// Uuids on the wire: 16 raw bytes in MessagePack, 32 hex digits without dashes in JSON (as durabletask has them).
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.collect_str(&id.simple())
        } else {
            to.serialize_bytes(id.as_bytes())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        Uuid::deserialize(from)
    }
}

uuid_id!(
    /// One generation of an instance; continue-as-new starts the next. A uuid, written without dashes.
    ExecutionId
);
uuid_id!(
    /// What a start began, kept across continue-as-new: the handle by which a client waits for the result.
    RunId
);
uuid_id!(
    /// A call's ID, the same for all its attempts: the user's idempotency key.
    TaskExecutionId
);
uuid_id!(
    /// Names one commit, so that a commit whose reply was lost can be sent again.
    CommitId
);
uuid_id!(
    /// One run of an activity's body, or of a turn, that may be deadly: counted once, however often it is noted.
    RunToken
);
uuid_id!(
    /// One running worker process (replica) of an app.
    WorkerId
);

impl ExecutionId {
    /// Derives an ID for something that belongs to this execution: the same parts give the same ID on every machine (uuid version 5).
    pub fn derive(&self, kind: &str, number: u64) -> Uuid {
        let mut name = Vec::with_capacity(kind.len() + 9);
        name.extend_from_slice(kind.as_bytes());
        name.push(0);
        name.extend_from_slice(&number.to_be_bytes());
        Uuid::new_v5(&self.0, &name)
    }

    /// The execution that continue-as-new starts after this one. Derived, so that two workers that both compute it agree.
    pub fn next(&self) -> ExecutionId {
        ExecutionId(self.derive("continue-as-new", 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_id_is_text_in_json_and_bytes_in_message_pack() {
        let id = ExecutionId::generate();
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        let packed = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(packed.len(), 18);
        assert_eq!(rmp_serde::from_slice::<ExecutionId>(&packed).unwrap(), id);
        assert_eq!(serde_json::from_str::<ExecutionId>(&format!("\"{id}\"")).unwrap(), id);
    }
}
