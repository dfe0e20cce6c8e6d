//! The health port: `/live` answers while the process does, `/ready` says why not.
//!
//! There is one for each address of a process, however many workers it runs: who has something to say about readiness joins it, and it is ready when
//! all are. The port is open from the first attempt to reach a server on, so that an orchestrator does not take a process that waits for a dead one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Says whether all is well, else why not.
type Voice = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The ports that this process has open.
static OPEN: Mutex<Option<HashMap<SocketAddr, Weak<Port>>>> = Mutex::new(None);

/// An open port; closed when the last who joined is gone.
struct Port {
    voices: Arc<Mutex<Voices>>,
    _close: DropGuard,
}

#[derive(Default)]
struct Voices {
    next: u64,
    joined: BTreeMap<u64, Voice>,
}

/// A voice at a port, which falls silent when this is dropped.
pub(crate) struct Joined {
    port: Arc<Port>,
    number: u64,
}

impl Joined {
    /// Joins the port, which is opened if this process does not have it open. Needs a runtime with I/O.
    ///
    /// # Errors
    /// If another process listens there, or nobody may.
    pub(crate) fn at(
        address: SocketAddr,
        voice: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let port = open(address)?;
        let number = {
            let mut voices = lock(&port.voices);
            voices.next += 1;
            let number = voices.next;
            voices.joined.insert(number, Box::new(voice));
            number
        };
        Ok(Self { port, number })
    }

    /// Says something else from now on.
    pub(crate) fn replace(&self, voice: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        lock(&self.port.voices).joined.insert(self.number, Box::new(voice));
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // The voice may hold what joined the port, too: it is dropped when the lock is free again.
        let silenced = lock(&self.port.voices).joined.remove(&self.number);
        drop(silenced);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(address: SocketAddr) -> io::Result<Arc<Port>> {
    let mut ports = lock(&OPEN);
    let ports = ports.get_or_insert_default();
    ports.retain(|_, port| port.strong_count() > 0);
    if let Some(port) = ports.get(&address).and_then(Weak::upgrade) {
        return Ok(port);
    }
    let port = serve(address)?;
    // Port 0 is another one each time.
    if address.port() != 0 {
        ports.insert(address, Arc::downgrade(&port));
    }
    Ok(port)
}

fn serve(address: SocketAddr) -> io::Result<Arc<Port>> {
    // Bound here and now, so that nobody else of this process comes in between.
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let closing = CancellationToken::new();
    let voices = Arc::new(Mutex::new(Voices::default()));
    let port = Arc::new(Port {
        voices: voices.clone(),
        _close: closing.clone().drop_guard(),
    });
    let ready = move || std::future::ready(answer(&voices));
    let router = Router::new()
        .route("/live", get(|| std::future::ready("live\n")))
        .route("/ready", get(ready));
    match listener.local_addr() {
        Ok(address) => tracing::info!(%address, "serving /live and /ready"),
        Err(error) => tracing::warn!(%error, "the health port has no address"),
    }
    // The task ends with the port.
    TaskTracker::new().spawn(async move {
        // An open connection of a prober must not keep a port that nobody has: no graceful end.
        tokio::select! {
            served = async { axum::serve(listener, router).await } => tracing::warn!(?served, "the health port is closed"),
            () = closing.cancelled() => {}
        }
    });
    Ok(port)
}

fn answer(voices: &Mutex<Voices>) -> (StatusCode, String) {
    let mut reasons: Vec<String> = lock(voices).joined.values().filter_map(|voice| voice().err()).collect();
    reasons.dedup();
    match reasons.is_empty() {
        true => (StatusCode::OK, "ready\n".into()),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", reasons.join("; ")),
        ),
    }
}
