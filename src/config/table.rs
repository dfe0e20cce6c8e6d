//! The table of environment variables. A line here is all that a new one needs; `docs/configuration.md` is made from it.

use std::time::Duration;

use super::variable::{Field, Variable};
use crate::model::{Namespace, QueueType};

/// The file of the embedded backend, where nothing else is said.
pub(super) const DEFAULT_FILE: &str = "leveret.db";

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// RabbitMQ counts heartbeats in 16 bits of seconds.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(18 * 3600);
const LEAST_SIGN: Duration = Duration::from_millis(100);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A variable whose value goes into a field of the draft as it is, but for the width of numbers.
macro_rules! variable {
    ($name:literal, Time($range:expr), $($field:ident).+, $sets:literal) => {
        Variable { name: $name, sets: $sets, field: Field::Time {
            range: $range, get: |draft| draft.$($field).+, set: |draft, value| draft.$($field).+ = value,
        } }
    };
    ($name:literal, Kept, $($field:ident).+, $sets:literal) => {
        Variable { name: $name, sets: $sets, field: Field::Kept {
            get: |draft| draft.$($field).+, set: |draft, value| draft.$($field).+ = value,
        } }
    };
    // The range has to fit the field's type; a test sets each to its end.
    ($name:literal, $kind:ident($range:expr), $($field:ident).+, $sets:literal) => {
        Variable { name: $name, sets: $sets, field: Field::$kind {
            range: $range, get: |draft| draft.$($field).+ as u64, set: |draft, value| draft.$($field).+ = value as _,
        } }
    };
}

/// Every variable that is read.
pub fn variables() -> &'static [Variable] {
    VARIABLES
}

const VARIABLES: &[Variable] = &[
    Variable {
        name: "LEVERET_AMQP_URL",
        sets: "The RabbitMQ server. Needs `LEVERET_REDIS_URL` beside it. A parameter `?heartbeat=` in seconds wins over `LEVERET_AMQP_HEARTBEAT`.",
        field: Field::Secret {
            takes: "a URL like amqp://user:password@host:5672/vhost (amqps:// for TLS; the virtual host / is written %2f)",
            set: |draft, text| is_url(text, &["amqp", "amqps"]).then(|| draft.amqp_url = Some(text.into())),
        },
    },
    Variable {
        name: "LEVERET_REDIS_URL",
        sets: "The Redis server. Needs `LEVERET_AMQP_URL` beside it.",
        field: Field::Secret {
            takes: "a URL like redis://user:password@host:6379/0 (rediss:// for TLS)",
            set: |draft, text| is_url(text, &["redis", "rediss"]).then(|| draft.redis_url = Some(text.into())),
        },
    },
    Variable {
        name: "LEVERET_FILE",
        sets: "The file of the embedded backend, where no servers are. Not together with the URLs.",
        field: Field::Text {
            takes: "a path",
            get: |draft| {
                draft
                    .file
                    .as_ref()
                    .map_or_else(|| DEFAULT_FILE.into(), |file| file.display().to_string())
            },
            set: |draft, text| {
                draft.file = Some(text.into());
                Some(())
            },
        },
    },
    Variable {
        name: "LEVERET_NAMESPACE",
        sets: "The tenant: nothing crosses it.",
        field: Field::Text {
            takes: "a name of 1 to 63 letters, digits, - and _ that begins with a letter or a digit and is not amq",
            get: |draft| draft.namespace.to_string(),
            set: |draft, text| Namespace::new(text).ok().map(|namespace| draft.namespace = namespace),
        },
    },
    Variable {
        name: "LEVERET_QUEUE_TYPE",
        sets: "The kind of RabbitMQ's queues. All processes of a namespace have to agree, and it cannot be changed later.",
        field: Field::Text {
            takes: "quorum or classic",
            get: |draft| draft.queue_type.argument().into(),
            set: |draft, text| {
                let mut types = [QueueType::Quorum, QueueType::Classic].into_iter();
                let named = types.find(|queue_type| text.eq_ignore_ascii_case(queue_type.argument()));
                named.map(|queue_type| draft.queue_type = queue_type)
            },
        },
    },
    variable!(
        "LEVERET_AMQP_HEARTBEAT",
        Time(SECOND..=LONGEST_HEARTBEAT),
        amqp_heartbeat,
        "A connection to RabbitMQ that is silent for this long is dead. Counted in whole seconds."
    ),
    variable!(
        "LEVERET_AMQP_MESSAGE_BYTES",
        Size(64 * KIB..=512 * MIB),
        amqp_message_bytes,
        "The largest message that RabbitMQ takes: its own `max_message_size`."
    ),
    variable!(
        "LEVERET_ACTIVITIES",
        Count(1..=65_535),
        settings.activities,
        "Activities that a worker runs at once."
    ),
    variable!(
        "LEVERET_TURNS",
        Count(1..=65_535),
        settings.turns,
        "Turns of workflows that a worker runs at once."
    ),
    variable!(
        "LEVERET_PREFETCH",
        Count(1..=65_535),
        settings.prefetch,
        "Messages that a worker holds unacknowledged, for each lane and for starts."
    ),
    variable!(
        "LEVERET_LANES",
        Count(1..=256),
        settings.lanes,
        "Lanes of the app, the most workers that can run its workflows. Fixed when its first worker starts."
    ),
    variable!(
        "LEVERET_WORKER_HEARTBEAT",
        Time(LEAST_SIGN..=HOUR),
        settings.heartbeat,
        "How often a worker gives a sign of life. It counts as gone after three missed ones."
    ),
    variable!(
        "LEVERET_DUE_INTERVAL",
        Time(MILLI..=HOUR),
        settings.due_interval,
        "How often timers are looked at: they are late by up to this."
    ),
    variable!(
        "LEVERET_PARKED_INTERVAL",
        Time(LEAST_SIGN..=DAY),
        settings.parked_interval,
        "The longest wait before what was sent to an app that does not exist, or to a queue that takes no messages, is tried again."
    ),
    variable!(
        "LEVERET_DELIVERY_TIMEOUT",
        Time(SECOND..=YEAR),
        settings.delivery_timeout,
        "RabbitMQ's `consumer_timeout`. An activity that has run for half of it gets a lease instead of its message."
    ),
    variable!(
        "LEVERET_SHUTDOWN_GRACE",
        Time(Duration::ZERO..=DAY),
        settings.shutdown_grace,
        "What running activities get to end in when a worker stops; then they are handed back."
    ),
    Variable {
        name: "LEVERET_USER_PER_APP",
        sets: "`yes` if each app connects to RabbitMQ as a user of its own, named as the app. Then an activity's result counts only if RabbitMQ vouches for that user.",
        field: Field::Text {
            takes: "yes or no",
            get: |draft| if draft.settings.user_per_app { "yes" } else { "no" }.into(),
            set: |draft, text| {
                draft.settings.user_per_app = match text {
                    "yes" => true,
                    "no" => false,
                    _ => return None,
                };
                Some(())
            },
        },
    },
    Variable {
        name: "LEVERET_HTTP",
        sets: "Where `/live` and `/ready` are served. Nowhere if not set.",
        field: Field::Text {
            takes: "an IP address and a port, such as 0.0.0.0:8080",
            get: |draft| {
                draft
                    .settings
                    .http
                    .map_or_else(String::new, |address| address.to_string())
            },
            set: |draft, text| text.parse().ok().map(|address| draft.settings.http = Some(address)),
        },
    },
    variable!(
        "LEVERET_PAYLOAD_BYTES",
        Size(KIB..=512 * MIB),
        settings.limits.payload_bytes,
        "The largest payload: an input, output, event or failure's details."
    ),
    variable!(
        "LEVERET_HISTORY_EVENTS",
        Count(1..=1_000_000_000),
        settings.limits.history_events,
        "A history of this many events is warned of."
    ),
    variable!(
        "LEVERET_CACHE_BYTES",
        Size(0..=1024 * GIB),
        settings.limits.cache_bytes,
        "What a worker keeps of live workflows in memory, estimated. Others are replayed when something happens to them."
    ),
    variable!(
        "LEVERET_INBOX_EVENTS",
        Count(1..=10_000_000),
        settings.limits.inbox_events,
        "Raised events that may wait for an instance. Results and timers always fit."
    ),
    variable!(
        "LEVERET_TURN_EVENTS",
        Count(1..=1_000_000),
        settings.limits.turn_events,
        "Events that one turn takes at most."
    ),
    variable!(
        "LEVERET_BUNDLE_ITEMS",
        Count(1..=10_000),
        settings.limits.bundle_items,
        "Items that share one message at most; eight times as many in one to a lane, which has a single reader, and in one of tasks that are over in less than a millisecond."
    ),
    variable!(
        "LEVERET_BUNDLE_BYTES",
        Size(KIB..=64 * MIB),
        settings.limits.bundle_bytes,
        "A message takes no further item that would bring it past this size."
    ),
    variable!(
        "LEVERET_GENERATIONS",
        Count(1..=1_000_000),
        settings.limits.generations,
        "Continue-as-new generations of an instance that run before others get their turn."
    ),
    variable!(
        "LEVERET_CRASHES",
        Count(1..=1000),
        settings.limits.crashes,
        "Redeliveries with which an activity or a turn may take its process down before it is stopped."
    ),
    variable!(
        "LEVERET_DEDUP_WINDOW",
        Time(SECOND..=YEAR),
        settings.limits.dedup_window,
        "How long the ID of a request or an event is remembered, so that a repetition has no effect."
    ),
    variable!(
        "LEVERET_RETENTION_COMPLETED",
        Kept,
        settings.retention.completed,
        "How long completed instances are kept. `off`: until they are purged."
    ),
    variable!(
        "LEVERET_RETENTION_FAILED",
        Kept,
        settings.retention.failed,
        "How long failed instances are kept."
    ),
    variable!(
        "LEVERET_RETENTION_TERMINATED",
        Kept,
        settings.retention.terminated,
        "How long terminated instances are kept."
    ),
];

/// Whether it looks like a URL of such a scheme, with a host. What is finer is for the client library to say.
fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((_, port)) if !port.contains(']') => port,
        _ => "1",
    };
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && !host.is_empty()
        && !host.starts_with(':')
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::draft::Draft;
    use crate::config::value;

    #[test]
    fn each_variable_writes_the_field_that_it_shows_and_no_other() {
        let defaults = Draft::default();
        for variable in VARIABLES {
            let value = match &variable.field {
                Field::Count { range, .. } => range.end().to_string(),
                Field::Size { range, .. } => value::show_size(*range.end()),
                Field::Time { range, .. } => value::show_duration(*range.end()),
                Field::Kept { .. } => "off".into(),
                Field::Secret { .. } => continue,
                Field::Text { .. } => match variable.name {
                    "LEVERET_QUEUE_TYPE" => "classic".into(),
                    "LEVERET_HTTP" => "127.0.0.1:1".into(),
                    "LEVERET_USER_PER_APP" => "yes".into(),
                    _ => "other".into(),
                },
            };
            let mut draft = defaults.clone();
            variable.read(&value, &mut draft).expect(variable.name);
            for other in VARIABLES {
                let is_set = other.name == variable.name;
                let expected = if is_set { value.clone() } else { other.default() };
                assert_eq!(other.shown(&draft), expected, "{} after {}", other.name, variable.name);
            }
        }
    }

    #[test]
    fn every_default_is_a_value_that_is_taken() {
        for variable in VARIABLES.iter().filter(|variable| !variable.default().is_empty()) {
            let mut draft = Draft::default();
            variable.read(&variable.default(), &mut draft).expect(variable.name);
            assert_eq!(variable.shown(&draft), variable.default(), "{}", variable.name);
        }
    }
}
