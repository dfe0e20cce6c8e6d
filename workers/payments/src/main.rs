//! A process of app `payments`. Configured by the environment, see docs/configuration.md; SIGTERM stops it in order.

use leveret::backend::Backend;
use payments::Ledger;

#[tokio::main]
async fn main() -> leveret::Result<()> {
    logs::to_stderr("info");
    // The bank is simulated; with PAYMENTS_LEDGER its bookings outlive the process.
    let ledger = match std::env::var_os("PAYMENTS_LEDGER") {
        Some(path) => Ledger::open(path)?,
        None => Ledger::in_memory(),
    };
    let backend = Backend::from_env().await?;
    payments::worker(backend, ledger)
        .run_until(leveret::shutdown_signal())
        .await?;
    Ok(())
}
