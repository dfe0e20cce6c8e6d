//! From a configuration to a backend, with the patience that a start needs.
//!
//! A server that is away is waited for, without an end: who starts services in whatever order should not have to care. One that refuses is not.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::{Backend, Error, Result};
use crate::config::{Config, ConfigError, Place, Servers};
use crate::model::Namespace;
use crate::probes::Joined;

/// First and longest pause between two attempts, without jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Error::permanent(error.to_string())
    }
}

impl Backend {
    /// The backend that the environment names: RabbitMQ and Redis (`LEVERET_AMQP_URL`, `LEVERET_REDIS_URL`), or a file (`LEVERET_FILE`). Carries the
    /// [`settings`](Backend::settings) of the environment. All variables: see [`config::variables`](crate::config::variables).
    ///
    /// ```no_run
    /// # async fn example() -> leveret::Result<()> {
    /// use leveret::{Worker, backend::Backend, shutdown_signal};
    /// let backend = Backend::from_env().await?;
    /// Worker::new("orders", backend).run_until(shutdown_signal()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Permanent for values that are wrong, one line each, and as [`Backend::open`].
    pub async fn from_env() -> Result<Backend> {
        Self::open(Config::from_env()?).await
    }

    /// The backend of a configuration. A server that is away is tried again, with back-off and a line in the log each time, until it is there or the
    /// future is dropped; meanwhile the health port (`LEVERET_HTTP`), if there is one, says that the process is live and not ready.
    ///
    /// # Errors
    /// Permanent if a server refuses for good (credentials, virtual host), if the file cannot be used, or if this build lacks a feature: the message
    /// says which.
    pub async fn open(config: Config) -> Result<Backend> {
        let Config {
            namespace,
            place,
            settings,
            ..
        } = config;
        let status = Status::default();
        let probes = match settings.http {
            None => None,
            Some(address) => {
                let status = status.clone();
                let joined = Joined::at(address, move || Err(status.reason()));
                Some(joined.map_err(|cause| {
                    Error::permanent(format!("LEVERET_HTTP: cannot listen on {address}: {cause}")).caused_by(cause)
                })?)
            }
        };
        let backend = match place {
            Place::File(path) => {
                tracing::info!(path = %path.display(), "state is kept in a file: no LEVERET_AMQP_URL and LEVERET_REDIS_URL are set");
                open_file(path, namespace).await?
            }
            Place::Servers(servers) => open_servers(servers, namespace, &status).await?,
        };
        let backend = backend.with_settings(settings);
        Ok(match probes {
            None => backend,
            Some(probes) => {
                let (broker, store) = (backend.broker().clone(), backend.store().clone());
                probes.replace(move || broker.readiness().and_then(|()| store.readiness()));
                backend.with_probes(Arc::new(probes))
            }
        })
    }

    /// A backend on RabbitMQ and Redis. Servers that are away are tried again, as [`Backend::open`] says.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use leveret::Namespace;
    /// use leveret::backend::{Backend, RabbitMqConfig, RedisConfig};
    /// let shop = Namespace::new("shop")?;
    /// let rabbit = RabbitMqConfig::new("amqp://guest:guest@localhost:5672/%2f", shop.clone());
    /// let backend = Backend::servers(rabbit, RedisConfig::new("redis://localhost:6379/0", shop)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Permanent if the two are of different namespaces, or if a server refuses for good.
    #[cfg(all(feature = "rabbitmq", feature = "redis"))]
    pub async fn servers(rabbit: super::RabbitMqConfig, redis: super::RedisConfig) -> Result<Backend> {
        connect(rabbit, redis, &Status::default()).await
    }
}

#[cfg(feature = "embedded")]
async fn open_file(path: std::path::PathBuf, namespace: Namespace) -> Result<Backend> {
    Backend::embedded(path, namespace).await
}

#[cfg(not(feature = "embedded"))]
async fn open_file(path: std::path::PathBuf, _: Namespace) -> Result<Backend> {
    Err(Error::permanent(format!(
        "neither LEVERET_AMQP_URL nor LEVERET_REDIS_URL is set, and this build cannot keep its state in the file {}: set both, or build it with the feature `embedded`",
        path.display()
    )))
}

#[cfg(all(feature = "rabbitmq", feature = "redis"))]
async fn open_servers(servers: Servers, namespace: Namespace, status: &Status) -> Result<Backend> {
    use secrecy::ExposeSecret;

    let rabbit = super::RabbitMqConfig {
        queue_type: servers.queue_type,
        heartbeat: servers.amqp_heartbeat,
        message_bytes: servers.amqp_message_bytes,
        ..super::RabbitMqConfig::new(servers.amqp_url.expose_secret(), namespace.clone())
    };
    let redis = super::RedisConfig::new(servers.redis_url.expose_secret(), namespace);
    connect(rabbit, redis, status).await
}

#[cfg(not(all(feature = "rabbitmq", feature = "redis")))]
async fn open_servers(_: Servers, _: Namespace, _: &Status) -> Result<Backend> {
    let missing: Vec<_> = [
        ("rabbitmq", cfg!(feature = "rabbitmq")),
        ("redis", cfg!(feature = "redis")),
    ]
    .into_iter()
    .filter(|(_, is_on)| !is_on)
    .map(|(name, _)| format!("`{name}`"))
    .collect();
    Err(Error::permanent(format!(
        "LEVERET_AMQP_URL and LEVERET_REDIS_URL are set, and this build cannot use them: build it with the feature {}",
        missing.join(" and ")
    )))
}

#[cfg(all(feature = "rabbitmq", feature = "redis"))]
async fn connect(rabbit: super::RabbitMqConfig, redis: super::RedisConfig, status: &Status) -> Result<Backend> {
    if rabbit.namespace != redis.namespace {
        return Err(Error::permanent(format!(
            "the broker is to serve namespace {} and the store namespace {}: a backend has one, so give both the same",
            rabbit.namespace, redis.namespace
        )));
    }
    let namespace = rabbit.namespace.clone();
    // Side by side: what one refuses is told even while the other is away.
    let (broker, store) = tokio::try_join!(
        until_there(status, || super::RabbitMq::connect(rabbit.clone())),
        until_there(status, || super::RedisStore::connect(redis.clone())),
    )?;
    let description = format!("{} and Redis at {}", broker.address(), store.address());
    Ok(Backend::new(
        namespace,
        broker,
        store,
        Arc::new(super::SystemClock),
        description,
    ))
}

/// Tries until it works or never will. No timeout: the caller drops the future when it has waited enough.
#[cfg_attr(not(all(feature = "rabbitmq", feature = "redis")), allow(dead_code))]
async fn until_there<T, F: Future<Output = Result<T>>>(status: &Status, connect: impl Fn() -> F) -> Result<T> {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .without_max_times()
        .with_jitter();
    for pause in pauses.build() {
        match connect().await {
            Err(error) if !error.is_permanent() => {
                tracing::warn!("{error}; trying again in {:.1} s", pause.as_secs_f64());
                status.set(error.to_string());
                tokio::time::sleep(pause).await;
            }
            ended => return ended,
        }
    }
    connect().await
}

/// Why there is no backend yet.
#[derive(Clone, Default)]
struct Status(Arc<Mutex<String>>);

impl Status {
    #[cfg_attr(not(all(feature = "rabbitmq", feature = "redis")), allow(dead_code))]
    fn set(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn reason(&self) -> String {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reason.is_empty() {
            "connecting".into()
        } else {
            reason.clone()
        }
    }
}
