//! Where the server is. Of the URL, only what `Display` shows here ever reaches a message or a log.

use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::ExposeSecret;

use super::config::RabbitMqConfig;
use crate::backend::{Error, Result};

/// The server's address, credentials inside. Shown as `amqp://host:port/vhost`; it has no `Debug`, because the URI inside would print its password.
pub(super) struct Address {
    uri: AMQPUri,
}

impl Address {
    /// Reads the URL of the settings.
    pub(super) fn read(config: &RabbitMqConfig) -> Result<Self> {
        // The parser's own message can quote the URL, password included: it is dropped.
        let mut uri: AMQPUri = config.url.expose_secret().parse().map_err(|_: String| {
            Error::permanent("the AMQP URL cannot be read: it has to look like amqp://user:password@host:5672/vhost, with special characters percent-encoded")
        })?;
        if uri.scheme == AMQPScheme::AMQPS && !cfg!(feature = "tls") {
            return Err(Error::permanent(
                "the AMQP URL asks for TLS (amqps://), which this build does not have: build it with the feature `tls`",
            ));
        }
        uri.query.heartbeat.get_or_insert(whole_seconds(config.heartbeat));
        Ok(Self { uri })
    }

    /// The URI for the client library.
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    /// The user that logs in.
    pub(super) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    /// The virtual host.
    pub(super) fn virtual_host(&self) -> &str {
        &self.uri.vhost
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri {
            scheme,
            authority,
            vhost,
            ..
        } = &self.uri;
        write!(
            f,
            "{scheme}://{}:{}/{}",
            authority.host,
            authority.port,
            vhost.replace('/', "%2f")
        )
    }
}

/// The protocol counts heartbeats in seconds, and 0 would turn them off.
fn whole_seconds(heartbeat: Duration) -> u16 {
    u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;

    fn address(url: &str) -> Result<Address> {
        Address::read(&RabbitMqConfig::new(url, Namespace::new("n").expect("valid")))
    }

    #[test]
    fn an_address_shows_no_credentials() {
        let shown = |url| address(url).map(|address| address.to_string()).unwrap();
        assert_eq!(shown("amqp://me:s3cret@rabbit:5673/shop"), "amqp://rabbit:5673/shop");
        assert_eq!(shown("amqp://me:s3cret@rabbit"), "amqp://rabbit:5672/%2f");
        assert_eq!(shown("amqp://me:s3cret@rabbit/%2f"), "amqp://rabbit:5672/%2f");
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_quoted() {
        for bad in [
            "http://me:s3cret@host",
            "amqp:me:s3cret",
            "s3cret",
            "amqp://me:s3cret@host:port/",
        ] {
            let error = address(bad).err().expect("refused");
            assert!(error.is_permanent());
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_heartbeat_is_never_off_unless_the_url_says_so() {
        assert_eq!(whole_seconds(Duration::from_millis(300)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(100_000)), u16::MAX);
        assert_eq!(address("amqp://host").unwrap().uri().query.heartbeat, Some(10));
        assert_eq!(
            address("amqp://host?heartbeat=3").unwrap().uri().query.heartbeat,
            Some(3)
        );
    }
}
