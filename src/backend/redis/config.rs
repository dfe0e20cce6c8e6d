//! How to reach Redis.

use std::time::Duration;

use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use secrecy::{ExposeSecret, SecretString};

use crate::backend::{Error, Result};
use crate::model::Namespace;

/// Where the store's Redis is, and how to talk to it.
///
/// ```
/// use leveret::Namespace;
/// use leveret::backend::RedisConfig;
/// let mut config = RedisConfig::new("redis://:secret@localhost:6379/0", Namespace::new("shop")?);
/// config.connections = 4;
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), leveret::IdError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://[user][:password@]host[:port][/database]`; `rediss://` for TLS, with the feature `tls`.
    pub url: SecretString,
    /// The tenant: every key begins with it.
    pub namespace: Namespace,
    /// How long a command may take before its reply counts as lost: 10 s. A script that took longer may have run all the same.
    pub response_timeout: Duration,
    /// How long it may take to connect and to log in: 5 s.
    pub connect_timeout: Duration,
    /// Connections for commands, each shared by all callers: 2. There is one more for those who wait for an instance to end.
    pub connections: usize,
}

impl RedisConfig {
    /// The defaults, for this URL and tenant.
    pub fn new(url: impl Into<String>, namespace: Namespace) -> Self {
        Self {
            url: SecretString::from(url.into()),
            namespace,
            response_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            connections: 2,
        }
    }

    /// What the URL says.
    ///
    /// # Errors
    /// Permanent if it says nothing that is understood. The URL is not repeated: it may hold a password.
    pub(super) fn parse(&self) -> Result<Endpoint> {
        let info = self.url.expose_secret().into_connection_info().map_err(|cause| {
            Error::permanent(format!(
                "the Redis URL cannot be read ({}): write redis://[user][:password@]host[:port][/database]",
                cause.detail().unwrap_or(cause.category())
            ))
        })?;
        // Measured: without TCP_NODELAY, which is off by default, a command waits for the acknowledgement of the last one.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let settings = info.redis_settings();
        let (username, password) = (
            settings.username().map(str::to_owned),
            settings.password().map(str::to_owned),
        );
        let database = settings.db();
        Ok(Endpoint {
            address: format!("{}/{database}", info.addr()),
            info,
            username,
            password: password.map(SecretString::from),
            database,
        })
    }
}

/// A parsed URL.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// For people: host, port and database, and no password.
    pub(super) address: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) database: i64,
    info: ConnectionInfo,
}

impl Endpoint {
    /// What opens a connection for commands. It logs in itself: the client library would report every refusal, even "too many clients", as a wrong
    /// password. RESP2, whose replies the scripts' readers expect.
    pub(super) fn anonymous(&self) -> ConnectionInfo {
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2);
        self.info.clone().set_redis_settings(settings)
    }

    /// What opens a connection for subscriptions, which cannot log in later.
    pub(super) fn logged_in(&self) -> ConnectionInfo {
        let settings = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        self.info.clone().set_redis_settings(settings)
    }
}
