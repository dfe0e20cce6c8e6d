//! What every broker and every store must do, and each backend's run of it.
//!
//! `broker_suite` and `store_suite` are functions over the traits; a backend's file makes a fresh one for each test and calls them all.

// A behaviour is a test, though clippy's own exception knows only functions that are marked as one.
#![allow(clippy::unwrap_used)]

mod broker_suite;
mod embedded;
#[path = "../log/mod.rs"]
mod log;
mod memory;
mod rabbitmq;
mod redis;
mod store_suite;
