//! A process of app `shipping`. Configured by the environment, see docs/configuration.md; SIGTERM stops it in order.

use std::io::IsTerminal;

use leveret::backend::Backend;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> leveret::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
    let backend = Backend::from_env().await?;
    shipping::worker(backend).run_until(leveret::shutdown_signal()).await?;
    Ok(())
}
