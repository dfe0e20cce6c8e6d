//! A TCP proxy that misbehaves: between the processes and a server stand connections that are cut, delayed, slow, half closed, or swallow what is said.
//!
//! No byte is changed and none is left out of a stream that goes on: this is what a network does, and TCP does not let it do more.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const CHUNK: usize = 8 << 10;
/// Chunks on their way in one direction: what a network holds before it slows the sender down.
const ON_THE_WAY: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other direction of a half-closed connection lives on, at most.
const HALF_LIFE: Duration = Duration::from_secs(4);

/// What the network is like, for this many quarters of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weather {
    pub(crate) share: u8,
    /// Each chunk arrives so much later.
    pub(crate) delay: Duration,
    /// Bytes a second, in each direction; 0 is no bound.
    pub(crate) rate: u32,
}

/// One way through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// What happens to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    /// This direction ends, as if its sender had.
    Closed(Direction),
    /// This direction swallows.
    Swallowing(Direction),
}

struct Connection {
    fate: watch::Sender<Fate>,
    cut: CancellationToken,
}

/// A proxy in front of one server.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    weather: watch::Sender<Weather>,
    connections: Mutex<BTreeMap<u64, Connection>>,
    numbers: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Proxy {
    /// Listens on a free loopback port, for the server at the other one.
    pub(crate) async fn start(upstream: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            weather: watch::Sender::new(Weather::default()),
            connections: Mutex::default(),
            numbers: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        shared.tasks.spawn(accept(shared.clone(), listener));
        Ok(Self { port, shared })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Cuts so many quarters of the connections, at random. Says how many.
    pub(crate) fn cut(&self, share: u8, seed: u64) -> usize {
        let drawn = self.shared.draw(share, seed, |connection| connection.cut.clone());
        drawn.iter().for_each(CancellationToken::cancel);
        drawn.len()
    }

    /// Closes one direction of so many quarters of the connections; the other goes on for a moment.
    pub(crate) fn half_close(&self, share: u8, seed: u64) -> usize {
        self.change(share, seed, Fate::Closed)
    }

    /// So many quarters of the connections swallow what is said in one direction, until they are [mended](Self::end_swallowing): by being cut, since
    /// what was swallowed is gone.
    pub(crate) fn swallow(&self, share: u8, seed: u64) -> usize {
        self.change(share, seed, Fate::Swallowing)
    }

    pub(crate) fn end_swallowing(&self) {
        let connections = self.shared.connections();
        let swallowing = connections
            .values()
            .filter(|connection| matches!(*connection.fate.borrow(), Fate::Swallowing(_)));
        swallowing.for_each(|connection| connection.cut.cancel());
    }

    fn change(&self, share: u8, seed: u64, fate: fn(Direction) -> Fate) -> usize {
        let drawn = self.shared.draw(share, seed, |connection| connection.fate.clone());
        let mut random = fastrand::Rng::with_seed(seed ^ 1);
        for connection in &drawn {
            let direction = if random.bool() {
                Direction::ToServer
            } else {
                Direction::ToClient
            };
            connection.send_replace(fate(direction));
        }
        drawn.len()
    }

    /// Ends it and all its connections.
    pub(crate) async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw<T>(&self, share: u8, seed: u64, part: impl Fn(&Connection) -> T) -> Vec<T> {
        let mut random = fastrand::Rng::with_seed(seed);
        let connections = self.connections();
        let drawn = connections.values().filter(|_| random.u8(..4) < share);
        drawn.map(part).collect()
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                shared.tasks.spawn(serve(shared.clone(), client));
            }
            // Too many files, for a moment.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One connection, until one side ends it, or we do.
async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream));
    let Ok(Ok(server)) = timeout(CONNECT_TIMEOUT, server).await else {
        return; // the client sees its connection closed
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let (fate, fates) = watch::channel(Fate::Open);
    let cut = shared.stop.child_token();
    shared
        .connections()
        .insert(number, Connection { fate, cut: cut.clone() });
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let way = |direction| Way {
        direction,
        quarter: (number % 4) as u8,
        fates: fates.clone(),
        weather: shared.weather.subscribe(),
    };
    let ways = async {
        let there = way(Direction::ToServer).run(from_client, to_server);
        let back = way(Direction::ToClient).run(from_server, to_client);
        tokio::pin!(there, back);
        // Whoever ends a connection ends both ways of it, unless it is us who closed one.
        tokio::select! {
            is_closed = &mut there => if is_closed {
                let _ = timeout(HALF_LIFE, &mut back).await;
            },
            is_closed = &mut back => if is_closed {
                let _ = timeout(HALF_LIFE, &mut there).await;
            },
        }
    };
    tokio::select! {
        () = cut.cancelled() => {}
        () = ways => {}
    }
    shared.connections().remove(&number);
}

/// One direction of a connection.
struct Way {
    direction: Direction,
    /// Which quarter of the connections it belongs to.
    quarter: u8,
    fates: watch::Receiver<Fate>,
    weather: watch::Receiver<Weather>,
}

impl Way {
    /// Passes on what comes. True if it was closed by its fate, false if a side ended it.
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> bool {
        let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
        let (quarter, direction) = (self.quarter, self.direction);
        let weather = self.weather.clone();
        let read = async move {
            loop {
                let mut chunk = vec![0; CHUNK];
                match from.read(&mut chunk).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => chunk.truncate(read),
                }
                let delay = felt(&weather, quarter).delay;
                if queue.send((Instant::now() + delay, chunk)).await.is_err() {
                    return;
                }
            }
        };
        let (weather, swallows) = (self.weather, self.fates.clone());
        let write = async {
            while let Some((due, chunk)) = queued.recv().await {
                sleep_until(due).await;
                let rate = felt(&weather, quarter).rate;
                if rate > 0 {
                    sleep(Duration::from_secs_f64(chunk.len() as f64 / f64::from(rate))).await;
                }
                if *swallows.borrow() == Fate::Swallowing(direction) {
                    continue;
                }
                if to.write_all(&chunk).await.is_err() {
                    return;
                }
            }
        };
        let pass = async {
            tokio::pin!(write);
            tokio::select! {
                () = &mut write => {}
                // What is on its way still arrives.
                () = read => write.await,
            }
        };
        let is_closed = tokio::select! {
            closed = self.fates.wait_for(|fate| *fate == Fate::Closed(direction)) => closed.is_ok(),
            () = pass => false,
        };
        if is_closed {
            let _ = to.shutdown().await;
        }
        is_closed
    }
}

fn felt(weather: &watch::Receiver<Weather>, quarter: u8) -> Weather {
    let weather = *weather.borrow();
    if quarter < weather.share {
        weather
    } else {
        Weather::default()
    }
}
