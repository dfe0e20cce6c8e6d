//! The client on the memory backend, without any worker: where a test needs what a worker does, it commits the turn itself.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod fixture;
mod list;
mod look;
mod purge;
mod start;
mod steer;
