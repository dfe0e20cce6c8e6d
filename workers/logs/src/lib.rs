//! Where the log lines of the example services go. Leveret writes `tracing` events and leaves the rest to the program: this is one way.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sends log lines of this level and above to stderr, where `RUST_LOG` says nothing else.
pub fn to_stderr(level: &str) {
    // RabbitMQ's client library reports as errors what Leveret expects and handles: docs/configuration.md, "Logs".
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{level},lapin=off")));
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_plain)
        .init();
}
