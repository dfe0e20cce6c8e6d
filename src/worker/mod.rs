//! The worker: hosts an app's workflows and activities.
//!
//! [`Worker`] is what users build; [`RunningWorker`] is one at work. Inside: `lanes`, `starts`, `activities`, `unrouted` and `due` take what comes,
//! `activation` and `turn` run instances, `membership` gives signs of life.

mod activation;
mod activities;
mod activity;
mod batch;
mod builder;
mod cache;
mod claimed;
mod commit;
mod consume;
mod counters;
mod deadlines;
mod delivery;
mod due;
mod gauge;
mod held_lanes;
mod hold;
mod homes;
mod http;
mod in_hand;
mod inbox;
mod lanes;
mod mailbox;
mod membership;
mod not_running;
mod parked;
mod reading;
mod registry;
mod room;
mod run;
mod running;
mod runtime;
mod signal;
mod stalling;
mod starts;
mod state;
mod turn;
mod unrouted;
mod wanted;

pub use activity::ActivityContext;
pub use builder::{Worker, WorkerError};
pub use counters::WorkerCounts;
pub use gauge::{Footprint, Gauge};
pub use running::RunningWorker;
pub use signal::shutdown_signal;
