//! Settings of the connection to RabbitMQ.

use std::time::Duration;

use secrecy::SecretString;

use crate::model::{Namespace, QueueType};

/// How to reach RabbitMQ and how to behave towards it.
///
/// ```
/// use std::time::Duration;
/// use leveret::Namespace;
/// use leveret::backend::RabbitMqConfig;
///
/// let config = RabbitMqConfig {
///     heartbeat: Duration::from_secs(5),
///     ..RabbitMqConfig::new("amqp://guest:guest@localhost:5672/%2f", Namespace::new("shop")?)
/// };
/// # Ok::<(), leveret::IdError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RabbitMqConfig {
    /// `amqp://user:password@host:port/vhost` (`amqps://` with the feature `tls`); the virtual host `/` is written `%2f` or left out. A parameter
    /// `?heartbeat=` in seconds wins over [`heartbeat`](Self::heartbeat).
    pub url: SecretString,
    /// The tenant: its name begins every queue's name.
    pub namespace: Namespace,
    /// The kind of queues to declare. All processes of a namespace have to agree.
    pub queue_type: QueueType,
    /// A connection that is silent for this long is dead: 10 s. Whole seconds, 1 to 65,535; the server may set a shorter time.
    pub heartbeat: Duration,
    /// Longest time to connect, handshake included: 10 s.
    pub connect_timeout: Duration,
    /// Longest time for one publish, from the call to the confirm, waiting for a connection included: 30 s.
    pub publish_timeout: Duration,
    /// Longest time for any other request (declare, consume, depth, remove), waiting for a connection included: 30 s.
    pub request_timeout: Duration,
    /// First pause before a lost connection is built again: 100 ms. Doubles up to [`reconnect_cap`](Self::reconnect_cap). Jitter adds up to as much
    /// again.
    pub reconnect_first: Duration,
    /// Longest pause between two attempts to connect: 1 s, without the jitter. Short, because the pause is what a server that is up again waits for.
    pub reconnect_cap: Duration,
    /// Most messages that are published and not yet confirmed: 512. Further publishes wait.
    pub unconfirmed: usize,
    /// Largest body of a message, in bytes: 16 MiB, the limit of RabbitMQ 4. A larger one is refused here, because the server would close the
    /// channel and fail everything in flight with it. A server that turns out to have a lower limit lowers it.
    pub message_bytes: usize,
    /// Whether messages name the user that published them, so that the broker vouches for it: true. The broker refuses a name that is not the one
    /// it authenticated, so turn it off where the URL's user is not the broker's (OAuth 2, certificates).
    pub send_user: bool,
    /// What the server shows as the connections' name: `leveret`. Given ` (publish)` and ` (consume)` behind it.
    pub connection_name: String,
}

impl RabbitMqConfig {
    /// The settings for this URL and tenant, everything else at its default.
    pub fn new(url: impl Into<String>, namespace: Namespace) -> Self {
        Self {
            url: url.into().into(),
            namespace,
            queue_type: QueueType::default(),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            reconnect_first: Duration::from_millis(100),
            reconnect_cap: Duration::from_secs(1),
            unconfirmed: 512,
            message_bytes: 16 << 20,
            send_user: true,
            connection_name: "leveret".into(),
        }
    }
}
