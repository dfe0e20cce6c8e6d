//! The backends without servers: a [`Store`](super::Store) and a [`Broker`](super::Broker) over ordered keys and values.
//!
//! Both are written once, as functions on a [`Transaction`](kv::Transaction); an [`Engine`](engine::Engine) makes each such function atomic and
//! answers when its effects are durable. There are two engines: memory, for tests and examples, and one file with a single writer that commits
//! whatever has gathered at once.
//!
//! The invariant of this module: **what was answered is stored, and nothing is known only to memory** except who consumes which queue, what they
//! hold unsettled, and who waits for an instance. A process that ends takes just these with it.

mod broker;
#[cfg(feature = "embedded")]
mod embedded;
mod engine;
mod key;
mod kv;
mod memory;
mod open;
#[cfg(feature = "testing")]
mod replica;
mod store;

#[cfg(feature = "testing")]
pub(crate) use replica::Replica;
