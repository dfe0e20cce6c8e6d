//! The operator's command as a person runs it: the built binary, on RabbitMQ and Redis.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod audit;
mod dead;
mod place;
mod use_of_it;
