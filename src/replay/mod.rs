//! Replay: `(history, events) -> Turn`, and nothing else.
//!
//! This layer decides what a workflow does next. It knows no runtime, no broker, no store, no clock and no source of randomness; what time it is
//! stands in the turn. So the same history gives the same decisions on every machine, after every restart (I8).

pub mod history;
