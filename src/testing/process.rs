//! A process of the simulated world: what its workers and clients reach the servers through.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::broker::SimulatedBroker;
use super::clock::ProcessClock;
use super::store::SimulatedStore;
use super::world::Shared;
use crate::backend::{Backend, Error, Result};
use crate::model::Settings;

/// A process: workers and clients on its [`backend`](Self::backend) live and die together.
#[derive(Clone)]
pub struct Process {
    world: Arc<Shared>,
    state: Arc<State>,
}

/// See [`Process`].
pub(super) struct State {
    name: String,
    is_dead: AtomicBool,
    /// It does not die by chance.
    is_spared: AtomicBool,
    /// Its clock minus the world's, in milliseconds.
    skew: AtomicI64,
    moment: Mutex<Moment>,
}

/// What changes.
struct Moment {
    /// It stands still until then.
    frozen_until: Option<Instant>,
    /// Fires when the connection of now breaks.
    link: CancellationToken,
}

impl Process {
    pub(super) fn new(world: Arc<Shared>, name: String) -> Self {
        let moment = Moment {
            frozen_until: None,
            link: CancellationToken::new(),
        };
        let state = State {
            name,
            is_dead: AtomicBool::new(false),
            is_spared: AtomicBool::new(false),
            skew: AtomicI64::new(0),
            moment: Mutex::new(moment),
        };
        Self {
            world,
            state: Arc::new(state),
        }
    }

    /// What workers and clients of this process are made on.
    pub fn backend(&self) -> Backend {
        let broker = SimulatedBroker {
            world: self.world.clone(),
            process: self.state.clone(),
        };
        let store = SimulatedStore {
            world: self.world.clone(),
            process: self.state.clone(),
        };
        let clock = ProcessClock {
            clock: self.world.clock,
            process: self.state.clone(),
        };
        Backend::new(
            self.world.namespace.clone(),
            Arc::new(broker),
            Arc::new(store),
            Arc::new(clock),
            format!("simulation, process {}", self.state.name),
        )
        .with_settings(settings())
    }

    /// The same process, which no fault kills: for the clients of a test, which would wait for ever.
    pub fn spared(self) -> Self {
        self.state.is_spared.store(true, Ordering::Release);
        self
    }

    /// Kills it, as SIGKILL does: whatever it was doing, nothing of it reaches a server any more. What it had asked for just now may or may not be
    /// carried out.
    pub fn kill(&self) {
        self.state.kill();
    }

    /// Lets it stand still for a while, as SIGSTOP does: its connections stay open.
    pub fn freeze(&self, time: Duration) {
        self.state.moment().frozen_until = Some(Instant::now() + time);
    }

    /// Breaks its connection to the broker: what it has not acknowledged is delivered again, to whoever is there.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Sets its clock wrong by so many milliseconds.
    pub fn set_clock_wrong_by(&self, milliseconds: i64) {
        self.state.skew.store(milliseconds, Ordering::Release);
    }

    /// False once it is killed.
    pub fn is_alive(&self) -> bool {
        self.state.is_alive()
    }

    /// Returns at once while the process is alive, when it thaws if it is frozen, and never if it is dead: what a body does to the outside world
    /// comes behind this.
    pub async fn goes_on(&self) {
        self.state.goes_on().await;
    }
}

/// What workers of a simulation go by: looks and signs of life are rare, so that long waits cost little.
fn settings() -> Settings {
    Settings {
        due_interval: Duration::from_secs(10),
        heartbeat: Duration::from_secs(60),
        ..Settings::default()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.state.name).finish()
    }
}

impl State {
    /// Throws the dice for its death.
    pub(super) fn may_die(&self, world: &Shared) {
        if world.dice.happens(world.faults().dies) && !self.is_spared.load(Ordering::Acquire) {
            self.kill();
        }
    }

    fn kill(&self) {
        self.is_dead.store(true, Ordering::Release);
        self.cut();
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.is_dead.load(Ordering::Acquire)
    }

    pub(super) fn skew(&self) -> i64 {
        self.skew.load(Ordering::Acquire)
    }

    pub(super) async fn goes_on(&self) {
        loop {
            if !self.is_alive() {
                // The dead do nothing, and their tasks end with the world.
                std::future::pending::<()>().await;
            }
            let frozen_until = self.moment().frozen_until.filter(|until| *until > Instant::now());
            match frozen_until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// The connection of now: fires when it breaks.
    pub(super) fn link(&self) -> CancellationToken {
        self.moment().link.clone()
    }

    pub(super) fn cut(&self) {
        let broken = std::mem::take(&mut self.moment().link);
        broken.cancel();
    }

    fn moment(&self) -> MutexGuard<'_, Moment> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request to a server and back, with what can go wrong on the way: the process may die just before it is carried out, or just after. Between
    /// two requests nothing of a process is seen outside it, so it dies between any two awaits.
    pub(super) async fn request<T>(&self, world: &Shared, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let faults = world.faults();
        self.travel(world, faults.latency).await;
        if world.dice.happens(faults.cut) {
            self.cut();
        }
        if world.dice.happens(faults.refused) {
            return Err(Error::transient("simulated: the request did not get through"));
        }
        self.may_die(world);
        self.goes_on().await;
        let answer = operation.await;
        self.may_die(world);
        self.travel(world, faults.latency).await;
        if world.dice.happens(faults.answer_lost) {
            return Err(Error::unknown("simulated: the answer was lost"));
        }
        answer
    }

    async fn travel(&self, world: &Shared, latency: Duration) {
        self.goes_on().await;
        let time = world.dice.duration(latency);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
            self.goes_on().await;
        }
    }
}
