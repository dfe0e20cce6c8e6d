//! Leveret: durable workflows that span applications, on RabbitMQ and Redis, or on one file.

pub mod backend;
mod model;
pub mod replay;
pub mod wire;

pub use model::*;

/// The result of user code: any error becomes a [`Failure`] through `?`.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
