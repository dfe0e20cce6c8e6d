//! Liveness and readiness over HTTP: `/live` answers while the process does, `/ready` says why not.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tracing::{info, warn};

use super::RunningWorker;
use super::running::readiness;

/// Serves until the worker stops.
pub(super) async fn serve(worker: &RunningWorker, address: SocketAddr) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let (runtime, has_started) = worker.probe();
    let probed = runtime.clone();
    let ready = move || {
        let answer = match readiness(&probed, &has_started) {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        };
        std::future::ready(answer)
    };
    let router = Router::new().route("/live", get(|| std::future::ready("live\n"))).route("/ready", get(ready));
    info!(%address, "serving /live and /ready");
    let stopping = runtime.draining.clone();
    runtime.tracker.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { stopping.cancelled().await });
        if let Err(error) = served.await {
            warn!(%error, "the health port is closed");
        }
    });
    Ok(())
}
