//! The broker: durable queues with confirms and acknowledgements.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Result;
use crate::model::{AppId, Lane, MessageId};

/// A queue of the namespace. The physical name is `{namespace}.{app}.workflows` and so on; docs/how-it-works.md says what each carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Starts for the app: clients', parents' and raw ones. Competing consumers.
    Workflows(AppId),
    /// Activity tasks for the app. Competing consumers.
    Activities(AppId),
    /// Completions, events, commands and due timers of the instances at home in the lane. One consumer at a time.
    Events(AppId, Lane),
    /// What was sent to an app that does not exist. Competing consumers, of any app.
    Unrouted,
    /// What the app could not process.
    Dead(AppId),
}

impl Queue {
    /// The queue's name without the namespace: `orders.events.3`.
    pub fn local_name(&self) -> String {
        match self {
            Queue::Workflows(app) => format!("{app}.workflows"),
            Queue::Activities(app) => format!("{app}.activities"),
            Queue::Events(app, lane) => format!("{app}.events.{lane}"),
            Queue::Unrouted => "unrouted".into(),
            Queue::Dead(app) => format!("{app}.dead"),
        }
    }

    /// The app that it belongs to; the unrouted queue belongs to none.
    pub fn app(&self) -> Option<&AppId> {
        match self {
            Queue::Workflows(app) | Queue::Activities(app) | Queue::Events(app, _) | Queue::Dead(app) => Some(app),
            Queue::Unrouted => None,
        }
    }

    /// The queue of this [`local_name`](Self::local_name); `None` if it is not the exact name of one.
    pub fn from_local_name(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let app = |name: &str| AppId::new(name).ok();
        let queue = match parts[..] {
            ["unrouted"] => Queue::Unrouted,
            [name, "workflows"] => Queue::Workflows(app(name)?),
            [name, "activities"] => Queue::Activities(app(name)?),
            [name, "dead"] => Queue::Dead(app(name)?),
            [name, "events", lane] => Queue::Events(app(name)?, lane.parse::<Lane>().ok()?),
            _ => return None,
        };
        // `events.03` and `events.+3` parse as a number and name no queue.
        (queue.local_name() == name).then_some(queue)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local_name())
    }
}

/// What stands beside a message's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// `application/vnd.leveret.bundle+msgpack` for bundles; whatever the sender chose for raw starts.
    pub content_type: Option<String>,
    /// The sender's message ID.
    pub message_id: Option<String>,
    /// Why it is in the dead queue, and where it came from: `leveret-reason`, `leveret-origin`, `leveret-at` (milliseconds since the epoch).
    pub headers: Vec<(String, String)>,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it goes.
    pub queue: Queue,
    /// What it says.
    pub body: Bytes,
    /// What stands beside it.
    pub properties: Properties,
}

/// The content type of a bundle.
pub(crate) const BUNDLE_TYPE: &str = "application/vnd.leveret.bundle+msgpack";

impl Message {
    /// A bundle for a queue.
    pub fn bundle(queue: Queue, body: Bytes, id: &MessageId) -> Self {
        Self {
            queue,
            body,
            properties: Properties {
                content_type: Some(BUNDLE_TYPE.into()),
                message_id: Some(id.as_str().to_owned()),
                headers: Vec::new(),
            },
        }
    }
}

/// A message that was delivered and has to be settled: acknowledged or handed back. Dropping it leaves it unsettled; the broker delivers it again
/// when the consumer is gone.
pub struct Delivery {
    /// What it says.
    pub body: Bytes,
    /// What stands beside it.
    pub properties: Properties,
    /// The queue that it was published to. Differs from the queue it was consumed from only for unrouted messages; `None` if the name is not one of
    /// this namespace's queues.
    pub routed_to: Option<Queue>,
    /// True if it was delivered before.
    pub redelivered: bool,
    /// The broker user that published it, if the broker vouches for it.
    pub user: Option<String>,
    /// Names the delivery towards [`Acknowledge`].
    pub tag: u64,
    /// Settles it.
    pub acknowledge: Arc<dyn Acknowledge>,
}

impl Delivery {
    /// It is processed: everything that it caused is durable.
    pub fn ack(&self) {
        self.acknowledge.ack(self.tag);
    }

    /// Hands it back to the queue, for whoever is next.
    pub fn requeue(&self) {
        self.acknowledge.requeue(self.tag);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.tag)
            .field("redelivered", &self.redelivered)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Settles the deliveries of one consumer. Both calls only hand the wish over and never block: an acknowledgement may be lost with its connection at
/// any time, and the message then comes again.
pub trait Acknowledge: Send + Sync {
    /// Done with it.
    fn ack(&self, tag: u64);
    /// Give it to the next.
    fn requeue(&self, tag: u64);
}

/// A subscription to a queue.
#[async_trait::async_trait]
pub trait Consumer: Send {
    /// The next message. `None` once the subscription is over: it was cancelled, or its connection is gone and with it every unsettled delivery.
    /// Cancel-safe.
    async fn next(&mut self) -> Option<Delivery>;

    /// Ends the subscription. What was delivered can still be settled; what waits in this process is handed back.
    ///
    /// # Errors
    /// Transient or unknown if the connection is gone: the subscription is over all the same, and the broker takes back what was not settled.
    async fn cancel(&mut self) -> Result<()>;
}

/// A message that was found by looking through a queue.
#[derive(Clone, Debug)]
pub struct Browsed {
    /// What it says.
    pub body: Bytes,
    /// What stands beside it.
    pub properties: Properties,
    /// Names it towards [`Browse::remove`].
    pub tag: u64,
}

/// A look through a queue, from its first message on. While it lasts nobody else gets what it has found; when it ends, in whatever way, what was not
/// removed is back, in whatever order.
#[async_trait::async_trait]
pub trait Browse: Send {
    /// The next message; `None` if there is none now.
    ///
    /// # Errors
    /// The look is over, and what was not removed is back: begin another.
    async fn next(&mut self) -> Result<Option<Browsed>>;

    /// Takes a message that was found out of the queue for good. Certain only once [`close`](Self::close) has returned: until then a crash of this
    /// process or of the broker may bring it back.
    ///
    /// # Errors
    /// As [`next`](Self::next); whether it was removed is unknown.
    async fn remove(&mut self, tag: u64) -> Result<()>;

    /// Ends the look, and returns when the broker knows what was removed and has put the rest back.
    ///
    /// # Errors
    /// Whether everything was removed is unknown.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that wait.
    pub messages: u64,
    /// Live consumers.
    pub consumers: u64,
}

/// Durable queues. Every method may be called again after any error; implementations reconnect by themselves.
#[async_trait::async_trait]
pub trait Broker: Send + Sync {
    /// Makes the app's queues (workflows, activities, dead, and `lanes` event queues), the exchange and the unrouted queue. Repeating it is harmless.
    ///
    /// # Errors
    /// Permanent if queues of that name exist with other arguments: the message names the queue.
    async fn declare(&self, app: &AppId, lanes: u16) -> Result<()>;

    /// Publishes, and returns once the message is stored (confirmed). A message for a queue that does not exist is stored in the unrouted queue.
    ///
    /// # Errors
    /// Unknown if the confirm was lost: the message may be in the queue. Publish again; receivers drop duplicates.
    async fn publish(&self, message: Message) -> Result<()>;

    /// Subscribes. At most `prefetch` deliveries are unsettled at a time. Event queues have one active consumer at a time: a further one waits its
    /// turn, silently.
    ///
    /// # Errors
    /// Permanent if the queue does not exist.
    async fn consume(&self, queue: &Queue, prefetch: u16) -> Result<Box<dyn Consumer>>;

    /// Looks through a queue that nobody consumes. (AMQP cannot peek: what is looked at is taken, and put back.) Two who look at the same time find
    /// each a part.
    ///
    /// # Errors
    /// Permanent if the queue does not exist.
    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browse>>;

    /// How full a queue is, or `None` if it does not exist. For people and for deciding whether an app exists.
    ///
    /// # Errors
    /// Transient if the broker cannot be reached or does not answer: that is no sign that the queue does not exist.
    async fn depth(&self, queue: &Queue) -> Result<Option<QueueDepth>>;

    /// Deletes the app's queues with all they hold. What is sent to the app from then on is unrouted.
    ///
    /// # Errors
    /// Some of the queues may be deleted and others not: repeat it until it answers.
    async fn remove(&self, app: &AppId, lanes: u16) -> Result<()>;

    /// `Ok` while the broker can be used; else why not.
    ///
    /// # Errors
    /// The reason: one line for a person, without a final period, that names the server and never a password.
    fn readiness(&self) -> std::result::Result<(), String>;
}
