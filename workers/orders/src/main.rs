//! A process of app `orders`. Configured by the environment, see docs/configuration.md; SIGTERM stops it in order.

use leveret::backend::Backend;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> leveret::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let backend = Backend::from_env().await?;
    orders::worker(backend).run_until(leveret::shutdown_signal()).await?;
    Ok(())
}
