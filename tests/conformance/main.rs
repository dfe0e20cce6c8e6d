//! What Leveret promises, shown by whole workers and clients on each backend.
//!
//! A behaviour is a function of a [`harness::Harness`] and is named by what it shows; `suite!` makes a test of each, once a backend. Nothing here
//! sleeps or asserts how fast something is: tests wait for signals, with a patience that a loaded machine does not exhaust.
//! Scenarios and rows are those of docs/scenarios.md.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod between;
mod harness;
#[path = "../log/mod.rs"]
mod log;
mod programs;
#[allow(dead_code, reason = "written for the tests of RabbitMQ; these need its cut alone")]
#[path = "../backends/rabbitmq/proxy.rs"]
mod proxy;

mod audit;
mod bounds;
mod calls_across_apps;
mod children;
mod code_changes;
mod cost;
mod cut_connection;
mod damage;
mod dead_letters;
mod deleted_by_hand;
mod due;
mod duplicates;
mod earlier_executions;
mod events_and_timers;
mod failures_across_apps;
mod failures_and_retries;
mod held_effects;
mod held_up;
mod leftovers;
mod lifecycle;
mod limits;
mod logs;
mod lost_state;
mod management;
mod missing_targets;
mod raw_starts;
mod readiness;
mod replicas;
mod retention;
mod running_activities;
mod time_limits;
mod users;

mod backends;
