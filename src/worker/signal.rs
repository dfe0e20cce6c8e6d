//! When to stop.

use tracing::info;

/// Ready on the first SIGTERM or SIGINT. A second one ends the process at once, with exit code 1: whatever was in hand is handed back by the broker.
pub async fn shutdown_signal() {
    next_signal().await;
    info!("stopping; another signal ends the process at once");
    // Detached on purpose: it must outlive whoever waits here, and ends with the process.
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(next_signal());
            std::process::exit(1);
        }
    });
}

#[cfg(unix)]
async fn next_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn next_signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
