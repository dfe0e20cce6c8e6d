//! Replay: `(history, events) -> Turn`, and nothing else.
//!
//! This layer decides what a workflow does next. It knows no runtime, no broker, no store, no clock and no source of randomness; what time it is
//! stands in the turn. So the same history gives the same decisions on every machine, after every restart (I8).
//!
//! [`history`] is what is stored. [`Execution`] runs a workflow's code against it: [`Execution::replay`] for turns that are stored,
//! [`Execution::advance`] for what is new. [`WorkflowContext`] is the code's side.

mod answers;
mod arrivals;
mod calls;
mod combinators;
mod comparison;
mod compensation;
mod context;
mod events;
mod execution;
mod handle;
pub mod history;
mod intake;
mod machine;
mod open;
mod quiet;
mod scheduling;
mod seen;
mod slots;
#[cfg(test)]
mod tests;
mod waiting;

pub use calls::{Call, Child, EventWait, Timer};
pub use combinators::{All, Either, First, all, first, race};
pub use compensation::Compensations;
pub use context::WorkflowContext;
pub(crate) use execution::panic_text;
pub use execution::{Code, CodeFuture, Execution, Stuck};
pub use handle::Handle;
pub use intake::Intake;
