//! Every bound of the system, in one place, with its unit.

use std::time::Duration;

/// The bounds that keep memory and messages finite. All can be set; the defaults suit services of ordinary size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload (input, output, event, details) in bytes: 8 MiB.
    pub payload_bytes: usize,
    /// Most items in one message: 128. Eight times as many in one to a lane, and of tasks that are over at once (in less than a millisecond): workers share
    /// tasks and starts among them by the message, and a lane has one reader.
    pub bundle_items: usize,
    /// A message takes no further item that would bring it past this many bytes: 256 KiB. A single larger item still travels, alone.
    pub bundle_bytes: usize,
    /// Raised events that may wait in an instance's inbox: 10,000. Completions and timers always fit.
    pub inbox_events: usize,
    /// Events that one turn takes at most; what is left waits for the next: 1,000.
    pub turn_events: usize,
    /// A history of this many events is warned of: 50,000.
    pub history_events: u64,
    /// Bytes of live workflows that a worker keeps in memory: 128 MiB (estimated from the payloads and the code's futures that they hold).
    pub cache_bytes: usize,
    /// Continue-as-new generations that one activation runs before it yields to other instances: 20.
    pub generations: u32,
    /// Redeliveries with which an activity or a turn may take its process down before it is stopped: 5.
    pub crashes: u32,
    /// How long a request ID, an event's message ID or a message for an absent instance is remembered: 1 h.
    pub dedup_window: Duration,
}

impl Limits {
    /// So many times [`bundle_items`](Self::bundle_items) go into a message that need not be shared among workers.
    pub(crate) const MANY: usize = 8;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: 8 << 20,
            bundle_items: 128,
            bundle_bytes: 256 << 10,
            inbox_events: 10_000,
            turn_events: 1_000,
            history_events: 50_000,
            cache_bytes: 128 << 20,
            generations: 20,
            crashes: 5,
            dedup_window: Duration::from_secs(3600),
        }
    }
}
