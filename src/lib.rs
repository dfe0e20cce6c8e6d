//! Leveret: durable workflows that span applications, on RabbitMQ and Redis, or on one file.

pub mod backend;
pub mod client;
pub mod config;
mod engine;
mod fault;
mod model;
mod probes;
pub mod replay;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;
mod worker;

pub use client::{Client, Instance, OnConflict, Run};
pub use model::*;
pub use replay::{
    All, Call, Child, Compensations, Either, EventWait, First, Handle, Timer, WorkflowContext, all, first, race,
};
pub use worker::{
    ActivityContext, Footprint, Gauge, RunningWorker, Worker, WorkerCounts, WorkerError, shutdown_signal,
};

/// The code in the guides is compiled by `cargo test --doc`.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/first-two-apps.md")]
    struct FirstTwoApps;
    #[cfg(all(feature = "rabbitmq", feature = "redis"))]
    #[doc = include_str!("../docs/configuration.md")]
    struct Configuration;
    #[cfg(feature = "testing")]
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
}
