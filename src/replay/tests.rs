//! The replay layer, driven by hand: small workflows, no runtime, every history replayed from every prefix.

mod calls;
mod determinism;
mod events;
mod intake;
mod kit;
mod lifecycle;
mod programs;
mod waiting;
