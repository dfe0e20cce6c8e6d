//! A start that somebody publishes with any AMQP client.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::DecodeError;
use super::read::shortened;
use crate::model::{InstanceId, LONGEST_TAG, MOST_TAGS, MessageId, Payload, Timestamp, check_tags};

/// A workflow start as any AMQP client may publish it, as JSON, to the exchange `leveret.{namespace}` with the routing key
/// `{namespace}.{app}.workflows`; the same fields as MessagePack (with `input` as a value) when the content type is `application/msgpack`.
///
/// It counts once by its AMQP `message_id` if it has one, else by its instance ID; it must have one of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStart {
    /// The workflow's name, as registered by the app: 1 to 255 bytes.
    #[schemars(length(min = 1, max = 255))]
    pub workflow: String,
    /// The instance ID: 1 to 200 printable bytes. Without it, one is derived from the AMQP `message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = InstanceId::MOST_CHOSEN))]
    pub instance_id: Option<InstanceId>,
    /// The workflow's input: any JSON value.
    #[serde(default = "Payload::null")]
    pub input: Payload,
    /// Do not start before this time: milliseconds since 1970-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Labels to find the instance by: at most 32, of at most 255 bytes each for key and value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    #[schemars(extend(
        "maxProperties" = MOST_TAGS,
        "propertyNames" = { "minLength": 1, "maxLength": LONGEST_TAG },
        "additionalProperties" = { "type": "string", "maxLength": LONGEST_TAG },
    ))]
    pub tags: BTreeMap<String, String>,
}

/// The fields as they come, so that each refusal can name its field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    workflow: Option<&'a RawValue>,
    #[serde(borrow)]
    instance_id: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    start_at: Option<&'a RawValue>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
}

/// A field's value, if the field is there.
fn value<T: DeserializeOwned>(name: &'static str, raw: Option<&RawValue>) -> Result<Option<T>, DecodeError> {
    let read = raw.map(|raw| serde_json::from_str(raw.get())).transpose();
    read.map_err(|error| field(name, format!("cannot be read: {error}")))
}

fn field(field: &'static str, problem: impl Into<String>) -> DecodeError {
    DecodeError::Field {
        field,
        problem: shortened(problem.into()),
    }
}

impl RawStart {
    /// Reads a start from JSON, or from MessagePack if the content type says so. `message_id` is the AMQP property.
    ///
    /// Gives the start, its instance ID and the request ID that it counts once by.
    ///
    /// # Errors
    /// [`DecodeError::Field`] names the field that is wrong, [`DecodeError::NotAStart`] what is no such message at all.
    pub fn decode(
        body: &[u8],
        content_type: Option<&str>,
        message_id: Option<&str>,
    ) -> Result<(Self, InstanceId, MessageId), DecodeError> {
        let text;
        let json = if content_type.is_some_and(|kind| kind.contains("msgpack")) {
            let value: serde_json::Value = rmp_serde::from_slice(body)
                .map_err(|error| DecodeError::NotAStart(shortened(format!("not MessagePack: {error}"))))?;
            text = value.to_string();
            text.as_bytes()
        } else {
            body
        };
        let fields: Fields<'_> =
            serde_json::from_slice(json).map_err(|error| DecodeError::NotAStart(shortened(error.to_string())))?;
        let workflow: String = value("workflow", fields.workflow)?
            .ok_or_else(|| field("workflow", "is missing: name the workflow to start"))?;
        if workflow.is_empty() || workflow.len() > 255 {
            return Err(field(
                "workflow",
                format!("is {} bytes long: a name has 1 to 255", workflow.len()),
            ));
        }
        let message_id = message_id
            .filter(|id| !id.is_empty())
            .map(MessageId::new)
            .transpose()
            .map_err(|error| field("message_id", error.to_string()))?;
        let chosen = value::<String>("instance_id", fields.instance_id)?
            .map(InstanceId::chosen)
            .transpose()
            .map_err(|error| field("instance_id", error.to_string()))?;
        let missing = || {
            field(
                "instance_id",
                "is missing, and the AMQP property message_id too: one of them is needed to start the workflow only once",
            )
        };
        let derived =
            |id: &MessageId| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("raw-start:{id}").as_bytes());
        let request = match (&message_id, &chosen) {
            (Some(id), _) => derived(id).into(),
            (None, Some(instance)) => uuid::Uuid::new_v5(
                &uuid::Uuid::NAMESPACE_OID,
                format!("raw-instance:{instance}").as_bytes(),
            )
            .into(),
            (None, None) => return Err(missing()),
        };
        let instance = match (chosen, &message_id) {
            (Some(instance), _) => instance,
            (None, Some(id)) => InstanceId::new(derived(id).simple().to_string()).expect("a uuid is printable"),
            (None, None) => return Err(missing()),
        };
        let tags = value("tags", fields.tags)?.unwrap_or_default();
        check_tags(&tags).map_err(|problem| field("tags", problem))?;
        let input = fields.input.map_or_else(Payload::null, |raw| {
            Payload::from_trusted(raw.get().as_bytes().to_vec())
        });
        let start = Self {
            workflow,
            instance_id: Some(instance.clone()),
            input,
            start_at: value("start_at", fields.start_at)?.map(Timestamp::from_millis),
            tags,
        };
        Ok((start, instance, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_start_is_read_from_json_and_message_pack() {
        let json = br#"{"workflow":"checkout","instance_id":"order-1","input":{"n":1.50}}"#;
        let (start, instance, _) = RawStart::decode(json, Some("application/json"), None).unwrap();
        assert_eq!(
            (start.workflow.as_str(), instance.as_str(), start.input.as_bytes()),
            ("checkout", "order-1", &br#"{"n":1.50}"#[..])
        );
        let packed = rmp_serde::to_vec_named(&serde_json::json!({"workflow": "checkout", "input": [1]})).unwrap();
        let (start, _, _) = RawStart::decode(&packed, Some("application/msgpack"), Some("m-1")).unwrap();
        assert_eq!(start.input.as_bytes(), b"[1]");
    }

    #[test]
    fn a_refusal_names_the_field() {
        let refused = |body: &[u8]| RawStart::decode(body, None, None).unwrap_err().to_string();
        assert!(refused(br#"{"instance_id":"a"}"#).contains("`workflow` is missing"));
        assert!(refused(br#"{"workflow":"w"}"#).contains("`instance_id` is missing"));
        assert!(refused(br#"{"workflow":"w","instance_id":""}"#).contains("`instance_id`"));
        assert!(refused(br#"{"workflow":"w","instance_id":"i","colour":1}"#).contains("colour"));
        assert!(refused(br#"{"workflow":7,"instance_id":"i"}"#).contains("`workflow` cannot be read"));
        assert!(refused(br#"{"workflow":"w","instance_id":["i"]}"#).contains("`instance_id` cannot be read"));
        assert!(refused(br#"{"workflow":"w","instance_id":"i","start_at":-1}"#).contains("`start_at` cannot be read"));
        assert!(refused(br#"{"workflow":"w","instance_id":"i","tags":{"a":1}}"#).contains("`tags` cannot be read"));
        let many: BTreeMap<_, _> = (0..33).map(|n| (n.to_string(), "x")).collect();
        for tags in [
            serde_json::json!(many),
            serde_json::json!({ "": "x" }),
            serde_json::json!({ "a": "x".repeat(256) }),
        ] {
            let start = serde_json::json!({ "workflow": "w", "instance_id": "i", "tags": tags });
            assert!(
                refused(start.to_string().as_bytes()).contains("field `tags` "),
                "{start}"
            );
        }
        assert!(refused(b"nonsense").contains("not a start message"));
    }

    #[test]
    fn the_same_message_id_is_the_same_request() {
        let read = |body: &[u8], id| RawStart::decode(body, None, id).unwrap();
        let (_, first, request) = read(br#"{"workflow":"w"}"#, Some("m"));
        let (_, again, repeated) = read(br#"{"workflow":"w"}"#, Some("m"));
        assert_eq!((&first, &request), (&again, &repeated));
        assert_ne!(read(br#"{"workflow":"w"}"#, Some("n")).1, first);
    }
}
