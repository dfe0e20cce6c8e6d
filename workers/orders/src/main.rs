//! A process of app `orders`. Configured by the environment, see docs/configuration.md; SIGTERM stops it in order.

use leveret::backend::Backend;

#[tokio::main]
async fn main() -> leveret::Result<()> {
    logs::to_stderr("info");
    let backend = Backend::from_env().await?;
    orders::worker(backend).run_until(leveret::shutdown_signal()).await?;
    Ok(())
}
