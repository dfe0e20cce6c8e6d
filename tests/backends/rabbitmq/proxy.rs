//! A wire between client and broker that can be cut, and into which frames can be put.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Forwards connections to the server until it is dropped.
pub(crate) struct Proxy {
    url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    /// The server's `host:port`.
    server: String,
    /// Ends the connections that there are.
    wires: Mutex<CancellationToken>,
    refuses: AtomicBool,
    frozen: watch::Sender<bool>,
    /// Bytes to put into connections that publish, towards the client.
    injected: broadcast::Sender<Vec<u8>>,
    tasks: TaskTracker,
}

impl Proxy {
    /// Listens on a free port in front of the server of this URL.
    pub(crate) async fn start(url: &str) -> Self {
        let server = url
            .split(['@', '/'])
            .find(|part| part.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()));
        let server = server.expect("a URL with credentials, host and port").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            server: server.clone(),
            wires: Mutex::new(stop.child_token()),
            refuses: AtomicBool::new(false),
            frozen: watch::Sender::new(false),
            injected: broadcast::Sender::new(16),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(listen(shared.clone(), listener, stop.clone()));
        Self {
            url: url.replace(&server, &address),
            shared,
            stop,
        }
    }

    /// The server's URL, by way of this proxy.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Ends every connection, in the middle of whatever it carries.
    pub(crate) fn cut(&self) {
        let mut wires = self.shared.wires.lock().expect("no panic while held");
        std::mem::replace(&mut *wires, self.stop.child_token()).cancel();
    }

    /// From now on connections are closed as soon as they come.
    pub(crate) fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
    }

    /// From now on connections are forwarded again.
    pub(crate) fn accept(&self) {
        self.shared.refuses.store(false, Ordering::SeqCst);
    }

    /// Carries nothing any more in either direction, and ends no connection: as when a cable is pulled.
    pub(crate) fn freeze(&self) {
        self.shared.frozen.send_replace(true);
    }

    /// Carries again what is sent.
    pub(crate) fn thaw(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// Puts bytes into every connection that publishes, towards the client. They fall between two frames if the server is silent.
    pub(crate) fn inject(&self, bytes: &[u8]) {
        self.shared
            .injected
            .send(bytes.to_vec())
            .expect("somebody is connected");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The frame in which a broker says that it blocks publishers: method 60 of class 10.
pub(crate) fn blocked(reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len()).expect("a short reason");
    method(&[&[0, 10, 0, 60, length], reason.as_bytes()].concat())
}

/// The frame in which it says that it no longer does: method 61 of class 10.
pub(crate) fn unblocked() -> Vec<u8> {
    method(&[0, 10, 0, 61])
}

/// A method frame on channel 0.
fn method(payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[1, 0, 0], &size[..], payload, &[0xce]].concat()
}

async fn listen(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (client, _) = accepted.expect("the listener works");
        if shared.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let cut = shared.wires.lock().expect("no panic while held").clone();
        let forwarding = forward(
            client,
            shared.server.clone(),
            shared.injected.subscribe(),
            shared.frozen.subscribe(),
        );
        shared
            .tasks
            .spawn(async move { cut.run_until_cancelled(forwarding).await });
    }
}

async fn forward(
    client: TcpStream,
    server: String,
    mut injected: broadcast::Receiver<Vec<u8>>,
    frozen: watch::Receiver<bool>,
) {
    let server = TcpStream::connect(server).await.expect("the server is there");
    client.set_nodelay(true).expect("a live socket");
    server.set_nodelay(true).expect("a live socket");
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let publishes = AtomicBool::new(false);
    let thawed = async || frozen.clone().wait_for(|frozen| !frozen).await.is_ok();
    let upwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 || !thawed().await {
                return std::io::Result::Ok(());
            }
            // The connection's name, in the client's first frame.
            if buffer[..count].windows(9).any(|bytes| bytes == b"(publish)") {
                publishes.store(true, Ordering::SeqCst);
            }
            to_server.write_all(&buffer[..count]).await?;
        }
    };
    let downwards = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                Ok(bytes) = injected.recv() => if publishes.load(Ordering::SeqCst) {
                    to_client.write_all(&bytes).await?;
                },
                count = from_server.read(&mut buffer) => {
                    let count = count?;
                    if count == 0 || !thawed().await {
                        return std::io::Result::Ok(());
                    }
                    to_client.write_all(&buffer[..count]).await?;
                }
            }
        }
    };
    // Either side's end is the end of both, as on a cut wire; why does not matter.
    tokio::select! {
        _ = upwards => {}
        _ = downwards => {}
    }
}
