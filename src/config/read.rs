//! From names and values to a configuration, or to everything that is wrong with them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::draft::Draft;
use super::near::{PREFIX, nearest};
use super::table::{DEFAULT_FILE, variables};
use super::value::show_size;
use crate::model::{Namespace, QueueType, Settings};

/// What a message holds besides a payload, generously: names, IDs, headers.
const ENVELOPE: u64 = 64 << 10;
/// What a process sets only if it has servers in mind.
const FOR_SERVERS: [&str; 3] = [
    "LEVERET_QUEUE_TYPE",
    "LEVERET_AMQP_HEARTBEAT",
    "LEVERET_AMQP_MESSAGE_BYTES",
];

/// What the environment says.
///
/// ```
/// use leveret::config::{Config, Place};
/// let config = Config::read([("LEVERET_NAMESPACE", "shop"), ("LEVERET_LANES", "16")])?;
/// assert_eq!(config.namespace.as_str(), "shop");
/// assert_eq!(config.settings.lanes, 16);
/// assert!(matches!(config.place, Place::File(path) if path.as_os_str() == "leveret.db"));
///
/// let error = Config::read([("LEVERET_LANES", "many")]).unwrap_err();
/// assert_eq!(error.to_string(), r#"LEVERET_LANES="many" is not a whole number from 1 to 256"#);
/// # Ok::<(), leveret::config::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The tenant.
    pub namespace: Namespace,
    /// Where messages and state are.
    pub place: Place,
    /// How workers behave.
    pub settings: Settings,
    /// What is probably a mistake, one line each.
    pub warnings: Vec<String>,
}

/// Where messages and state are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file of this process.
    File(PathBuf),
    /// On RabbitMQ and Redis.
    Servers(Servers),
}

/// What is needed to reach the servers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Servers {
    /// RabbitMQ.
    pub amqp_url: SecretString,
    /// Redis.
    pub redis_url: SecretString,
    /// The kind of queues.
    pub queue_type: QueueType,
    /// How long RabbitMQ may be silent.
    pub amqp_heartbeat: Duration,
    /// Its largest message, in bytes.
    pub amqp_message_bytes: usize,
}

/// Everything that is wrong with the environment, one line each. No line holds a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// What is wrong; at least one line.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// What this process's environment says. Warnings are logged.
    ///
    /// # Errors
    /// [`ConfigError`], as [`Config::read`].
    pub fn from_env() -> Result<Self, ConfigError> {
        let config = Self::read(std::env::vars_os())?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }

    /// What these variables say; those of other names are passed over. Space around a value does not count, and an empty value counts as none.
    ///
    /// # Errors
    /// [`ConfigError`] with every value that is wrong and every pair that does not fit together.
    pub fn read<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        given: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let (mut draft, mut problems, mut warnings) = (Draft::default(), Vec::new(), Vec::new());
        let mut set = BTreeMap::new();
        for (name, value) in given {
            let Some(name) = name.as_ref().to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let value = value.as_ref().to_string_lossy().trim().to_owned();
            if !value.is_empty() {
                set.insert(name.to_owned(), value);
            }
        }
        // In the table's order, whatever the environment's.
        for variable in variables() {
            if let Some(value) = set.get(variable.name()) {
                // What is not UTF-8 was made so, visibly, and is none of the right values.
                let read = match value.contains(char::REPLACEMENT_CHARACTER) {
                    true => Err(variable.refusal(value)),
                    false => variable.read(value, &mut draft),
                };
                problems.extend(read.err());
            }
        }
        for name in set
            .keys()
            .filter(|name| variables().iter().all(|known| known.name() != *name))
        {
            if let Some(nearest) = nearest(name) {
                warnings.push(format!(
                    "{name} is not a setting and has no effect: is {nearest} meant?"
                ));
            }
        }
        let has = |name: &str| set.contains_key(name);
        match (has("LEVERET_AMQP_URL"), has("LEVERET_REDIS_URL")) {
            (true, false) => problems.push(alone("LEVERET_AMQP_URL", "LEVERET_REDIS_URL")),
            (false, true) => problems.push(alone("LEVERET_REDIS_URL", "LEVERET_AMQP_URL")),
            (true, true) if has("LEVERET_FILE") => problems.push(
                "LEVERET_FILE is set together with LEVERET_AMQP_URL and LEVERET_REDIS_URL: state is in the file or on the servers, so leave out the one or the other".into(),
            ),
            (true, true) => problems.extend(too_large(&draft)),
            (false, false) => warnings.extend(FOR_SERVERS.into_iter().filter(|name| has(name)).map(|name| {
                format!("{name} has no effect without LEVERET_AMQP_URL and LEVERET_REDIS_URL")
            })),
        }
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        Ok(draft.finish(warnings))
    }
}

impl Draft {
    fn finish(self, warnings: Vec<String>) -> Config {
        let place = match (self.amqp_url, self.redis_url) {
            (Some(amqp_url), Some(redis_url)) => Place::Servers(Servers {
                amqp_url,
                redis_url,
                queue_type: self.queue_type,
                amqp_heartbeat: self.amqp_heartbeat,
                amqp_message_bytes: usize::try_from(self.amqp_message_bytes).unwrap_or(usize::MAX),
            }),
            _ => Place::File(self.file.unwrap_or_else(|| DEFAULT_FILE.into())),
        };
        Config {
            namespace: self.namespace,
            place,
            settings: self.settings,
            warnings,
        }
    }
}

fn alone(set: &str, missing: &str) -> String {
    format!(
        "{set} is set and {missing} is not: set both for RabbitMQ and Redis, or none for an embedded file (LEVERET_FILE)"
    )
}

/// A message may be a nearly full bundle and one item of the largest size.
fn too_large(draft: &Draft) -> Option<String> {
    let limits = &draft.settings.limits;
    let (payload, bundle) = (limits.payload_bytes as u64, limits.bundle_bytes as u64);
    let needed = payload + bundle + ENVELOPE;
    (needed > draft.amqp_message_bytes).then(|| {
        format!(
            "LEVERET_PAYLOAD_BYTES={} and LEVERET_BUNDLE_BYTES={} need messages of {}, and LEVERET_AMQP_MESSAGE_BYTES={}: lower the former, or raise the latter and RabbitMQ's max_message_size",
            show_size(payload),
            show_size(bundle),
            show_size(needed),
            show_size(draft.amqp_message_bytes),
        )
    })
}

impl Settings {
    /// The settings of this process's environment. [`Backend::from_env`](crate::backend::Backend::from_env) carries them already; this is for a
    /// backend that is put together in code.
    ///
    /// # Errors
    /// [`ConfigError`], as [`Config::read`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Config::from_env().map(|config| config.settings)
    }
}
