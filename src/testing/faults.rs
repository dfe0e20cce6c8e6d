//! What goes wrong, how often, and the dice that decide.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A chance: 0.0 is never, 1.0 is always.
pub type Chance = f64;

/// What goes wrong between processes and their servers. The default is nothing, without delay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Longest time that a request takes on its way, and its answer on the way back.
    pub latency: Duration,
    /// A request does not get through: nothing has happened, and the caller learns so.
    pub refused: Chance,
    /// A request is carried out and its answer is lost: a commit that is in the history, a message that is in its queue.
    pub answer_lost: Chance,
    /// The publisher gives up, and the message arrives later all the same.
    pub late: Chance,
    /// How late, at most.
    pub lateness: Duration,
    /// A message is stored twice.
    pub doubled: Chance,
    /// A delivery goes to a second consumer of the queue as well; in a lane, to one that is not the active one.
    pub to_two: Chance,
    /// A delivery is overtaken by the one behind it.
    pub overtaken: Chance,
    /// Whoever asks for an app's workers is told of all but one: that one counts as gone, and its lanes as free, until it is seen again.
    pub overlooked: Chance,
    /// With a request, or an acknowledgement, the process's connection breaks: what it had not acknowledged is delivered again.
    pub cut: Chance,
    /// How long the broker takes, at most, to notice that a connection broke: until then it keeps what was not acknowledged from others. That a
    /// process died it notices at once.
    pub unnoticed: Duration,
    /// The process dies just before, or just after, something that it asked for is carried out, or a message is acknowledged.
    /// [`Process::is_alive`](super::Process::is_alive) tells.
    pub dies: Chance,
}

impl Faults {
    /// Everything goes wrong now and then, as the network and the servers of a bad day.
    pub fn bad_day() -> Self {
        Self {
            latency: Duration::from_millis(20),
            refused: 0.01,
            answer_lost: 0.02,
            late: 0.01,
            lateness: Duration::from_secs(8),
            doubled: 0.03,
            to_two: 0.03,
            overtaken: 0.05,
            overlooked: 0.1,
            cut: 0.003,
            unnoticed: Duration::from_secs(5),
            dies: 0.0015,
        }
    }

    /// Requests take their time, and nothing fails.
    pub fn slow(latency: Duration) -> Self {
        Self {
            latency,
            ..Self::default()
        }
    }
}

/// All chance of a world, in the order in which it is asked for.
pub(super) struct Dice(Mutex<fastrand::Rng>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    pub(super) fn happens(&self, chance: Chance) -> bool {
        chance > 0.0 && self.with(|rng| rng.f64()) < chance
    }

    /// Up to the longest, most often much shorter.
    pub(super) fn duration(&self, longest: Duration) -> Duration {
        if longest.is_zero() {
            return longest;
        }
        self.with(|rng| longest.mul_f64(rng.f64() * rng.f64()))
    }

    /// One of so many; 0 if there is none to choose.
    pub(super) fn one_of(&self, count: usize) -> usize {
        self.with(|rng| rng.usize(..count.max(1)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
