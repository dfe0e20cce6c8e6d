//! A dead letter: a message that could not be processed, as people see it.

use serde::Serialize;

use crate::backend::{BUNDLE_TYPE, Browsed, Properties, Queue};
use crate::model::{AppId, InstanceRef, Namespace, Timestamp};
use crate::wire::{Bundle, Item, RawStart};

/// A message that an app could not process. It stays in the app's dead queue until somebody retries or drops it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Names it: derived from all that it is, so that it is the same in every list. Two letters that are the same in everything have one ID.
    pub id: String,
    /// The app that could not process it.
    pub app: AppId,
    /// What is in it: `task`, `start`, `completion`, `event`, `command`, `timer`, `wake`, `raw start`, or `unreadable`. Of a message with several items,
    /// the first.
    pub kind: String,
    /// How many items are in it; 0 if it cannot be read.
    pub items: usize,
    /// The instance that it is about, if that can be read; a task's is its caller.
    pub instance: Option<InstanceRef>,
    /// The activity or workflow that it names, if that can be read.
    pub name: Option<String>,
    /// Why it could not be processed.
    pub reason: String,
    /// The queue that it came from, without the namespace: `payments.activities`.
    pub origin: String,
    /// When it was given up, if that is known.
    pub died_at: Option<Timestamp>,
    /// Its message ID.
    pub message_id: Option<String>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its size in bytes.
    pub bytes: usize,
}

/// A dead letter with what is in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OpenedLetter {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// What is in it.
    pub content: LetterContent,
    /// Why a retry would have no effect, if that is known: nobody waits for it any more.
    pub settled: Option<String>,
}

/// What is in a dead letter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterContent {
    /// Leveret's own items.
    Items(Vec<Item>),
    /// Text: a raw start, or what was meant as one.
    Text(String),
    /// Neither: the first bytes as hexadecimal digits.
    Hex(String),
}

/// A header's prefix: what Leveret says of a dead letter; and what the broker says of a message that it has given up by itself.
const OWN: &str = "leveret-";
const BROKERS: &str = "x-";

/// A letter on its way through a look.
pub(super) struct Found {
    pub(super) letter: DeadLetter,
    pub(super) body: bytes::Bytes,
    pub(super) properties: Properties,
    pub(super) items: Vec<Item>,
    pub(super) tag: u64,
    /// The app that it was sent to: another's worker may have buried it, before there was any of its own.
    home: AppId,
}

impl Found {
    pub(super) fn read(namespace: &Namespace, app: &AppId, message: Browsed) -> Self {
        let Browsed { body, properties, tag } = message;
        let is_bundle = properties.content_type.as_deref() == Some(BUNDLE_TYPE);
        let items = match is_bundle {
            true => Bundle::decode(&body).map(|bundle| bundle.items).unwrap_or_default(),
            false => Vec::new(),
        };
        let raw = || {
            let (kind, id) = (properties.content_type.as_deref(), properties.message_id.as_deref());
            RawStart::decode(&body, kind, id).ok()
        };
        let origin = origin_of(namespace, &properties);
        let home = Queue::from_local_name(&origin)
            .and_then(|queue| queue.app().cloned())
            .unwrap_or_else(|| app.clone());
        let (kind, instance, name, count) = match (items.first(), raw()) {
            (Some(item), _) => (item.kind(), item.instance().cloned(), name_of(item), items.len()),
            (None, Some((start, id, _))) if !is_bundle => {
                let instance = InstanceRef::new(home.clone(), id);
                ("raw start", Some(instance), Some(start.workflow), 1)
            }
            (None, _) => ("unreadable", None, None, 0),
        };
        let letter = DeadLetter {
            id: id_of(&body, &properties),
            app: app.clone(),
            kind: kind.to_owned(),
            items: count,
            instance,
            name,
            reason: reason_of(&properties),
            origin,
            died_at: died_at(&properties),
            message_id: properties.message_id.clone(),
            content_type: properties.content_type.clone(),
            bytes: body.len(),
        };
        Self {
            letter,
            body,
            properties,
            items,
            tag,
            home,
        }
    }

    /// The app whose start it is, if it is a raw one.
    pub(super) fn home(&self) -> &AppId {
        &self.home
    }

    /// The properties that it had before it died.
    pub(super) fn former_properties(&self) -> Properties {
        let mut former = self.properties.clone();
        former
            .headers
            .retain(|(name, _)| !name.starts_with(OWN) && !name.starts_with(BROKERS));
        former
    }

    pub(super) fn content(&self) -> LetterContent {
        /// Enough to see what it is.
        const SHOWN: usize = 512;
        if !self.items.is_empty() {
            return LetterContent::Items(self.items.clone());
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => LetterContent::Text(text.to_owned()),
            Err(_) => {
                let shown = self.body.iter().take(SHOWN).map(|byte| format!("{byte:02x}"));
                LetterContent::Hex(shown.collect())
            }
        }
    }

    /// The queue that it came from, if that is the place for what is in it.
    pub(super) fn origin(&self) -> Option<Queue> {
        let origin = Queue::from_local_name(&self.letter.origin)?;
        let fits = match &origin {
            Queue::Workflows(_) => self.items.iter().all(|item| matches!(item, Item::Start(_))),
            Queue::Activities(_) => self.items.iter().all(|item| matches!(item, Item::Task(_))),
            Queue::Events(app, _) => self.items.iter().all(|item| {
                !matches!(item, Item::Start(_) | Item::Task(_))
                    && item.instance().is_none_or(|instance| instance.app == *app)
            }),
            Queue::Unrouted | Queue::Dead(_) => false,
        };
        fits.then_some(origin)
    }
}

fn name_of(item: &Item) -> Option<String> {
    match item {
        Item::Task(task) => Some(task.name.clone()),
        Item::Start(start) => Some(start.workflow.clone()),
        Item::Event(event) => Some(event.name.clone()),
        _ => None,
    }
}

fn header<'a>(properties: &'a Properties, name: &str) -> Option<&'a str> {
    let found = properties.headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// The same in every look, whoever looks.
fn id_of(body: &[u8], properties: &Properties) -> String {
    let mut all = format!("{:?}{:?}", properties.message_id, properties.content_type).into_bytes();
    let mut headers: Vec<_> = properties.headers.iter().collect();
    // A table of the protocol has no order.
    headers.sort();
    all.extend_from_slice(format!("{headers:?}").as_bytes());
    all.extend_from_slice(body);
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &all)
        .simple()
        .to_string();
    hash[..16].to_owned()
}

fn reason_of(properties: &Properties) -> String {
    if let Some(reason) = header(properties, "leveret-reason") {
        return reason.to_owned();
    }
    match header(properties, "x-first-death-reason") {
        Some(reason) => format!("the broker gave it up ({reason}): a policy of the operator's"),
        None => "not given: somebody else put it here".into(),
    }
}

fn origin_of(namespace: &Namespace, properties: &Properties) -> String {
    if let Some(origin) = header(properties, "leveret-origin") {
        return origin.to_owned();
    }
    let queue = header(properties, "x-first-death-queue").unwrap_or_default();
    let local = queue
        .strip_prefix(namespace.as_str())
        .and_then(|rest| rest.strip_prefix('.'));
    local.unwrap_or(queue).to_owned()
}

fn died_at(properties: &Properties) -> Option<Timestamp> {
    if let Some(at) = header(properties, "leveret-at") {
        return at.parse().ok().map(Timestamp::from_millis);
    }
    // A table as text; AMQP's timestamps are in seconds.
    let (_, time) = header(properties, "x-death")?.split_once("time: ")?;
    let seconds: String = time.chars().take_while(char::is_ascii_digit).collect();
    let seconds: u64 = seconds.parse().ok()?;
    Some(Timestamp::from_millis(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(properties: Properties, body: &'static [u8]) -> DeadLetter {
        let message = Browsed {
            body: bytes::Bytes::from_static(body),
            properties,
            tag: 1,
        };
        let (namespace, app) = (Namespace::new("shop").unwrap(), AppId::new("orders").unwrap());
        Found::read(&namespace, &app, message).letter
    }

    #[test]
    fn what_the_broker_gave_up_says_so() {
        let headers = [
            ("x-first-death-queue", "shop.orders.activities"),
            ("x-first-death-reason", "expired"),
            (
                "x-death",
                "[{count: 1, exchange: leveret.shop, queue: shop.orders.activities, time: 1790000000}]",
            ),
        ];
        let headers = headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let letter = read(
            Properties {
                headers,
                ..Properties::default()
            },
            b"\xff",
        );
        assert_eq!(letter.origin, "orders.activities");
        assert!(letter.reason.contains("expired"), "{}", letter.reason);
        assert_eq!(letter.died_at, Some(Timestamp::from_millis(1_790_000_000_000)));
        assert_eq!((letter.kind.as_str(), letter.items), ("unreadable", 0));
    }

    #[test]
    fn an_id_does_not_depend_on_the_order_of_headers() {
        let headers = |names: [&str; 2]| Properties {
            headers: names.map(|name| (name.to_owned(), "1".to_owned())).to_vec(),
            ..Properties::default()
        };
        assert_eq!(read(headers(["a", "b"]), b"x").id, read(headers(["b", "a"]), b"x").id);
        assert_ne!(read(headers(["a", "b"]), b"x").id, read(headers(["a", "b"]), b"y").id);
    }

    #[test]
    fn a_raw_start_is_known_by_its_workflow() {
        let letter = read(Properties::default(), br#"{"workflow":"checkout","instance_id":"one"}"#);
        assert_eq!(letter.kind, "raw start");
        assert_eq!(letter.name.as_deref(), Some("checkout"));
        assert_eq!(
            letter.instance.map(|instance| instance.to_string()).as_deref(),
            Some("orders/one")
        );
    }
}
