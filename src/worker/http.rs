//! What a worker says at the health port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::RunningWorker;
use super::running::readiness;
use crate::probes::Joined;

/// Joins the port. The worker is heard there until this is dropped.
pub(super) fn join(worker: &RunningWorker, address: SocketAddr) -> io::Result<Joined> {
    let (runtime, has_started) = worker.probe();
    // A weak one: the port may outlive the worker.
    let runtime = Arc::downgrade(&runtime);
    Joined::at(address, move || match runtime.upgrade() {
        Some(runtime) => readiness(&runtime, &has_started),
        None => Err("the worker has stopped".into()),
    })
}
