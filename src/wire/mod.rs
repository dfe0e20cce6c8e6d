//! Messages: what travels through the queues, and how it is written as bytes.
//!
//! A message's body is a [`Bundle`]: a list of [`Item`]s for one destination, as MessagePack with named fields, so that a later release may add
//! fields. The one exception is a [`RawStart`], which any AMQP client may publish as JSON or MessagePack. JSON Schemas of all of them are in
//! `schemas/`, generated from these types.

mod bundle;
mod item;
pub(crate) mod millis;
mod raw_start;
mod read;

pub use bundle::{Bundle, DecodeError, WIRE_VERSION};
pub use item::{
    Command, CommandItem, CompletionItem, EventItem, FreshRecord, Item, ItemKind, Outcome, ParentLink, ProbeItem, Ran,
    StartItem, TaskItem, TaskRef, TimerItem, WakeItem,
};
pub use raw_start::RawStart;
pub(crate) use read::read;
