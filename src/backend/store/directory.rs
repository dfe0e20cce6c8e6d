//! Index of instances, and the apps with their workers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::model::{AppId, BuildId, InstanceRef, Lane, MessageId, Status, Timestamp, WorkerId};

/// Which instances to list. The store may return more than match (its statuses are hints); it never leaves one out that matches.
#[derive(Clone, Debug)]
pub struct IndexFilter {
    /// The app.
    pub app: AppId,
    /// Only these statuses; empty is all.
    pub statuses: Vec<Status>,
    /// Only those created at or after this time.
    pub created_from: Option<Timestamp>,
    /// Only those created before this time.
    pub created_before: Option<Timestamp>,
}

/// A page of the index.
#[derive(Clone, Debug, Default)]
pub struct IndexPage {
    /// Instances with the records that they have now.
    pub instances: Vec<(InstanceRef, Record)>,
    /// Pass this to get the next page; `None` at the end. A page may be empty and still have a next.
    pub next: Option<String>,
}

/// An app that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its ID.
    pub id: AppId,
    /// Its number of lanes, fixed for ever.
    pub lanes: u16,
    /// When a worker of it last gave a sign of life.
    pub last_seen: Option<Timestamp>,
}

/// A live worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its ID.
    pub id: WorkerId,
    /// Its app.
    pub app: AppId,
    /// Its code.
    pub build: BuildId,
    /// Workflows that it has registered.
    pub workflows: Vec<String>,
    /// Activities that it has registered.
    pub activities: Vec<String>,
    /// Lanes that it holds.
    pub lanes: Vec<Lane>,
    /// When it started.
    pub started_at: Timestamp,
    /// Its last sign of life.
    pub beat_at: Timestamp,
    /// The host name, for people.
    #[serde(default)]
    pub host: String,
    /// True once it stops: it takes nothing new, and no lane is its own any more.
    #[serde(default)]
    pub is_draining: bool,
    /// What it has in hand; `None` if its release does not say.
    #[serde(default)]
    pub holds: Option<Holding>,
}

/// What a worker has in hand: what has come out of a queue, and is neither done with nor handed back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Only what it has had for this long is told, in milliseconds.
    pub for_millis: u64,
    /// The derived message IDs of tasks, completions, timers and starts ([`crate::wire::Item::identity`]).
    pub items: Vec<MessageId>,
    /// How many there are beyond those.
    pub more: usize,
    /// The latest markers that came to it ([`crate::wire::ProbeItem::marker`]).
    pub markers: Vec<MessageId>,
}

impl Holding {
    /// Most items that are told.
    pub const ITEMS: usize = 512;
    /// Most markers that are told.
    pub const MARKERS: usize = 64;
}

impl WorkerInfo {
    /// Written as MessagePack.
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec_named(self)
            .expect("a worker's entry holds only values that MessagePack can write")
            .into()
    }

    /// Read from MessagePack; `None` if it is not one (an older release's).
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes).ok()
    }
}
