//! What stands beside a message's body, to and from AMQP's properties.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::backend::{Error, Properties, Result};

/// Written to disk, and kept over a restart of the broker.
const PERSISTENT: u8 = 2;

/// Headers in which the broker counts deliveries: they differ between two deliveries of one message and are read as `redelivered`.
const COUNTERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// The properties to publish with; `user` is vouched for by the broker.
///
/// # Errors
/// Permanent if a text is longer than AMQP can carry (255 bytes).
pub(super) fn to_amqp(properties: Properties, user: Option<&str>) -> Result<BasicProperties> {
    let mut amqp = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(content_type) = properties.content_type {
        amqp = amqp.with_content_type(short("content type", content_type)?);
    }
    if let Some(message_id) = properties.message_id {
        amqp = amqp.with_message_id(short("message ID", message_id)?);
    }
    if let Some(user) = user {
        amqp = amqp.with_user_id(short("user name", user.to_owned())?);
    }
    if !properties.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in properties.headers {
            table.insert(short("header name", name)?, AMQPValue::LongString(value.into()));
        }
        amqp = amqp.with_headers(table);
    }
    Ok(amqp)
}

/// The properties of a delivery.
pub(super) fn from_amqp(amqp: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    Properties {
        content_type: text(amqp.content_type()),
        message_id: text(amqp.message_id()),
        headers: amqp
            .headers()
            .iter()
            .flatten()
            .filter(|(name, _)| !COUNTERS.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str().to_owned(), render(value)))
            .collect(),
    }
}

/// True if the broker counts an earlier delivery. A quorum queue keeps the count where the flag of the protocol does not survive.
pub(super) fn was_delivered(amqp: &BasicProperties) -> bool {
    let headers = amqp.headers().as_ref().map(FieldTable::inner);
    let count = headers.and_then(|headers| headers.get(COUNTERS[0]));
    count
        .and_then(AMQPValue::as_long_long_int)
        .is_some_and(|count| count > 0)
        || count
            .map(render)
            .is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0))
}

fn short(what: &str, text: String) -> Result<ShortString> {
    let bytes = text.len();
    ShortString::try_new(text).map_err(|_| {
        Error::permanent(format!(
            "the message's {what} is {bytes} bytes long: AMQP carries at most 255"
        ))
    })
}

/// A header's value as text: strings as they are, numbers in decimal, tables and lists much like JSON.
fn render(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::DecimalValue(value) => format!("{}e-{}", value.value, value.scale),
        AMQPValue::ShortString(value) => value.as_str().to_owned(),
        AMQPValue::LongString(value) => value.to_string(),
        AMQPValue::ByteArray(value) => String::from_utf8_lossy(value.as_slice()).into_owned(),
        AMQPValue::Void => String::new(),
        AMQPValue::FieldArray(values) => {
            let values: Vec<_> = values.as_slice().iter().map(render).collect();
            format!("[{}]", values.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let fields: Vec<_> = table
                .into_iter()
                .map(|(name, value)| format!("{name}: {}", render(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_as_they_were() {
        let properties = Properties {
            content_type: Some("application/json".into()),
            message_id: Some("m-1".into()),
            headers: vec![
                ("leveret-at".into(), "17".into()),
                ("leveret-reason".into(), "crashed".into()),
            ],
        };
        let amqp = to_amqp(properties.clone(), Some("orders")).unwrap();
        assert_eq!(amqp.delivery_mode(), &Some(2));
        assert_eq!(amqp.user_id().as_ref().map(ShortString::as_str), Some("orders"));
        assert_eq!(from_amqp(&amqp), properties);
        assert_eq!(
            from_amqp(&to_amqp(Properties::default(), None).unwrap()),
            Properties::default()
        );
    }

    #[test]
    fn a_text_that_amqp_cannot_carry_is_named() {
        let properties = Properties {
            message_id: Some("x".repeat(256)),
            ..Properties::default()
        };
        let error = to_amqp(properties, None).unwrap_err();
        assert!(error.is_permanent());
        assert!(error.to_string().contains("message ID is 256 bytes"), "{error}");
    }

    #[test]
    fn a_value_that_is_no_string_is_shown_as_text() {
        let mut death = FieldTable::default();
        death.insert("count".into(), AMQPValue::LongLongInt(2));
        death.insert("reason".into(), AMQPValue::LongString("expired".into()));
        let mut headers = FieldTable::default();
        headers.insert(
            "x-death".into(),
            AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()),
        );
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(2));
        let amqp = BasicProperties::default().with_headers(headers);
        assert_eq!(
            from_amqp(&amqp).headers,
            [("x-death".to_owned(), "[{count: 2, reason: expired}]".to_owned())]
        );
        assert!(was_delivered(&amqp));
        assert!(!was_delivered(&BasicProperties::default()));
    }
}
