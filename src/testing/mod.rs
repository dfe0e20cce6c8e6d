//! A world to test workflows in: real workers and clients on a simulated broker, store and clock, in one thread and on virtual time.
//!
//! Waiting costs little: when all wait, time jumps to what is due next. Every choice follows from a seed: what
//! fails once fails again with its seed. [`Faults`] says what goes wrong between the processes and their servers; a [`Process`] can be killed,
//! frozen, cut off, and given a wrong clock.
//!
//! Beneath the faults is the memory backend, which passes the same conformance suite as RabbitMQ and Redis.

mod broker;
mod clock;
mod fake;
mod faults;
mod process;
mod store;
mod world;

pub use crate::fault::Defect;
pub use fake::Fake;
pub use faults::{Chance, Faults};
pub use process::Process;
pub use world::{Observed, World, simulate, simulate_with};
