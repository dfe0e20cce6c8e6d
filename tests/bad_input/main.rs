//! Bad input: whatever comes in from outside is taken or refused; nothing panics, what is taken can be processed, and a refusal says what was wrong.
//!
//! Inputs are random bytes and text, and valid ones with something changed: bytes, or a node of their tree (a field left out, renamed, doubled, of another
//! type, too large). Each is drawn from a seed, so that one number plays it again. This is neither cargo-fuzz, which needs a nightly compiler, nor proptest,
//! whose strategies are slower than what they test here and whose shrinking nobody misses where one change makes the input.
//!
//! `LEVERET_FUZZ_INPUTS=1000000 cargo test --release --all-features --test bad_input -- --nocapture` gives each target so many;
//! `LEVERET_FUZZ_SEED=17` plays one. The names of keys and queues, which are not public, have the like beside them in `src/backend`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bytes;
mod clients;
mod environment;
mod histories;
mod ids;
mod messages;
mod raw_starts;
mod runner;
#[path = "../samples/mod.rs"]
mod samples;
mod tree;
mod workers;
