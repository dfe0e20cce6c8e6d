//! The world: the servers' true state, and what all processes share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::broker::{Mirrors, publish_later};
use super::clock::VirtualClock;
use super::faults::{Dice, Faults};
use super::process::Process;
use crate::backend::{
    Backend, Broker, Clock, Commit, Committed, Create, Created, Error, Message, Queue, Record, Replica, Result, Store,
};
use crate::engine::check_key;
use crate::fault::{Defect, plant};
use crate::model::{InstanceRef, Namespace, Timestamp, random};

/// A broker and a store, and the processes around them. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Shared>);

/// See [`World`].
pub(super) struct Shared {
    pub(super) namespace: Namespace,
    /// The servers as they are, without faults.
    pub(super) servers: Backend,
    replica: Replica,
    pub(super) clock: VirtualClock,
    pub(super) dice: Dice,
    pub(super) mirrors: Mirrors,
    faults: RwLock<Faults>,
    /// Until then the broker takes no messages.
    blocked_until: Mutex<Option<Instant>>,
    blocked_queues: Mutex<HashMap<Queue, Instant>>,
    observer: RwLock<Option<Observer>>,
}

type Observer = Arc<dyn Fn(&World, &Observed<'_>) + Send + Sync>;

/// Something that has just happened at a server.
#[non_exhaustive]
pub enum Observed<'a> {
    /// A turn was to be committed.
    Commit {
        /// What was asked for.
        commit: &'a Commit,
        /// What the store did.
        result: Committed,
    },
    /// An instance was to be created.
    Create {
        /// What was asked for.
        create: &'a Create,
        /// What the store did.
        result: &'a Created,
    },
    /// A message was stored in a queue, or among the unrouted.
    Published {
        /// Where it goes.
        queue: &'a Queue,
        /// Its body.
        body: &'a [u8],
    },
    /// A message was acknowledged.
    Acknowledged {
        /// The queue that it was in.
        queue: &'a Queue,
        /// Its body.
        body: &'a [u8],
    },
    /// Something else was asked of the store.
    Request {
        /// The name of the [`Store`] method.
        name: &'static str,
        /// The instance that it may have changed.
        instance: Option<&'a InstanceRef>,
    },
}

/// Like [`simulate`], with a defect built into workers and clients, for the simulation to find: a simulation that does not is not worth much.
pub fn simulate_with<T>(defect: Defect, seed: u64, scenario: impl AsyncFnOnce(World) -> T) -> T {
    /// Takes the defect out, whatever happens.
    struct Planted;
    impl Drop for Planted {
        fn drop(&mut self) {
            plant(None);
        }
    }
    let _planted = Planted;
    plant(Some(defect));
    simulate(seed, scenario)
}

/// Runs a future in a new world: one thread, virtual time, every choice from the seed.
///
/// ```
/// use leveret::testing::simulate;
/// use leveret::{Worker, Workflow, WorkflowContext};
/// use std::time::Duration;
///
/// const WAIT: Workflow<u32, u32> = Workflow::new("orders", "wait");
///
/// let answer = simulate(7, async |world| {
///     let worker = Worker::new("orders", world.process("orders-1").backend())
///         .workflow(WAIT, async |ctx: WorkflowContext, n: u32| {
///             ctx.timer(Duration::from_secs(7 * 24 * 3600)).await?;
///             Ok::<_, leveret::Failure>(n)
///         })
///         .start()
///         .await
///         .unwrap();
///     let answer = world.client().start(WAIT, 42).await.unwrap().result().await.unwrap();
///     worker.stop().await;
///     answer
/// });
/// assert_eq!(answer, 42);
/// ```
///
/// # Panics
/// If it is called within an async runtime, or if the future panics.
pub fn simulate<T>(seed: u64, scenario: impl AsyncFnOnce(World) -> T) -> T {
    random::seed_thread(Some(seed));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread needs nothing that could be missing");
    let value = runtime.block_on(async { scenario(World::new(seed)).await });
    drop(runtime);
    random::seed_thread(None);
    value
}

impl World {
    fn new(seed: u64) -> Self {
        let namespace = Namespace::new("simulation").expect("the name fits");
        let clock = VirtualClock::begin();
        let (servers, replica) = Replica::of_new_backend(namespace.clone(), Arc::new(clock));
        Self(Arc::new(Shared {
            servers,
            replica,
            namespace,
            clock,
            dice: Dice::new(seed),
            mirrors: Mirrors::default(),
            faults: RwLock::default(),
            blocked_until: Mutex::default(),
            blocked_queues: Mutex::default(),
            observer: RwLock::default(),
        }))
    }

    /// A new process.
    pub fn process(&self, name: impl Into<String>) -> Process {
        Process::new(self.0.clone(), name.into())
    }

    /// A client without faults.
    pub fn client(&self) -> crate::Client {
        crate::Client::new(self.0.servers.clone())
    }

    /// The servers as they are, without faults: for looking at the state.
    pub fn servers(&self) -> &Backend {
        &self.0.servers
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// True if something will look at the instance again, whatever is lost (I4).
    ///
    /// # Errors
    /// None, as the store has no faults here.
    pub async fn has_check(&self, instance: &InstanceRef, record: &Record) -> Result<bool> {
        let key = check_key(instance, &record.origin.request);
        Ok(self.0.store().due_entry(&instance.app, &key).await?.is_some())
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.0.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// For so long the broker takes no messages, as under a memory alarm, and says so; it still delivers.
    pub fn block_publishers(&self, time: Duration) {
        *self.0.blocked_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
    }

    /// For so long one queue takes no messages, as one that is full or has lost its majority: it refuses them, or does not say anything.
    pub fn block_queue(&self, queue: Queue, time: Duration) {
        let mut blocked = self.0.blocked_queues.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.insert(queue, Instant::now() + time);
    }

    /// The store's replica gets everything that was written up to now; until the next call it lags behind.
    pub fn replicate(&self) {
        self.0.replica.catch_up();
    }

    /// The store fails over to its replica: what was written since the last [`replicate`](Self::replicate) is lost, although it was answered. No
    /// framework can hide that; `docs/guarantees.md` says what it costs.
    pub fn lose_tail(&self) {
        self.0.replica.promote();
    }

    /// Has the function called after everything that happens at the servers.
    pub fn observe(&self, observer: impl Fn(&World, &Observed<'_>) + Send + Sync + 'static) {
        *self.0.observer.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(observer));
    }
}

impl Shared {
    pub(super) fn broker(&self) -> &dyn Broker {
        &**self.servers.broker()
    }

    /// Stores a message.
    pub(super) async fn publish(self: &Arc<Self>, message: Message) -> Result<()> {
        self.broker().publish(message.clone()).await?;
        let Message { queue, body, .. } = &message;
        self.observed(&Observed::Published { queue, body });
        Ok(())
    }

    pub(super) fn store(&self) -> &dyn Store {
        &**self.servers.store()
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until when the broker blocks publishers, if it does.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        let until = *self.blocked_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }

    /// Waits while the broker blocks publishers, or while their queue takes nothing.
    ///
    /// # Errors
    /// Transient if the queue refuses.
    pub(super) async fn unblocked(self: &Arc<Self>, message: &Message) -> Result<()> {
        while let Some(until) = self.blocked_until() {
            tokio::time::sleep_until(until).await;
        }
        loop {
            let until = {
                let blocked = self.blocked_queues.lock().unwrap_or_else(PoisonError::into_inner);
                blocked
                    .get(&message.queue)
                    .copied()
                    .filter(|until| *until > Instant::now())
            };
            match until {
                Some(_) if self.dice.happens(0.5) => {
                    return Err(Error::transient("simulated: the queue refuses the message"));
                }
                Some(until) => {
                    if self.dice.happens(0.5) {
                        // The broker has it, and stores it when the queue is well, whether or not its publisher still waits.
                        publish_later(self.clone(), message.clone(), until - Instant::now());
                    }
                    tokio::time::sleep_until(until).await;
                }
                None => return Ok(()),
            }
        }
    }

    pub(super) fn observed(self: &Arc<Self>, event: &Observed<'_>) {
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(observer) = observer {
            observer(&World(self.clone()), event);
        }
    }
}
