//! What the parts of a running worker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::Cache;
use super::counters::Counters;
use super::held_lanes::HeldLanes;
use super::in_hand::InHand;
use super::mailbox::Mailboxes;
use super::registry::Registry;
use super::room::Room;
use crate::backend::{Message, Properties, Queue, Result};
use crate::engine::Engine;
use crate::model::{AppId, BuildId, Settings, Timestamp, WorkerId};

/// See the module.
pub(super) struct Runtime {
    pub(super) app: AppId,
    pub(super) id: WorkerId,
    pub(super) build: BuildId,
    pub(super) engine: Engine,
    pub(super) registry: Registry,
    pub(super) settings: Settings,
    pub(super) mailboxes: Mailboxes,
    pub(super) cache: Cache,
    pub(super) counters: Counters,
    pub(super) in_hand: Arc<InHand>,
    /// Lanes that this worker believes to hold, and a signal for whoever waits for the first.
    pub(super) lanes: HeldLanes,
    /// How many lanes the app has, as its first worker fixed it.
    pub(super) lane_count: AtomicU16,
    /// Turns that may run at once.
    pub(super) turns: Semaphore,
    /// For those that wait for such a turn.
    pub(super) room: Arc<Room>,
    /// Activities that may run at once.
    pub(super) slots: Arc<Semaphore>,
    /// For those that wait for such a slot.
    pub(super) slot_room: Arc<Room>,
    /// Held while a message of tasks that comes again is split.
    pub(super) splits: Semaphore,
    /// Held by the one task of this worker that may be about to take the process down: it has done so before, or was there when another did.
    pub(super) suspect: Semaphore,
    /// The same for turns, which are short.
    pub(super) suspect_turn: Semaphore,
    /// Parked items that may be tried at once.
    pub(super) parked_tries: Semaphore,
    /// Every task of the worker.
    pub(super) tracker: TaskTracker,
    /// Fires first: take nothing new. The engine's own signal fires when the grace is over.
    pub(super) draining: CancellationToken,
    /// Fires with `draining`; activities' tokens are its children.
    pub(super) cancel_activities: CancellationToken,
    /// True once it is dropped rather than stopped.
    pub(super) is_abandoned: AtomicBool,
}

impl Runtime {
    /// How many lanes the app has.
    pub(super) fn lane_count(&self) -> u16 {
        self.lane_count.load(Ordering::Relaxed)
    }

    /// Now, by the store's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.engine.reckoned_now()
    }

    /// Waits, but not past the beginning of the end. False if the worker is stopping.
    pub(super) async fn pause(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => false,
            () = self.engine.backend.clock().sleep(duration) => true,
        }
    }

    /// Waits, if something else may be about to take the process down: a task, or another worker's turn.
    pub(super) async fn apart(&self) -> Option<OwnedSemaphorePermit> {
        let backend = &self.engine.backend;
        backend.apart().enter(&**backend.clock()).await
    }

    /// Puts a message that cannot be processed into the app's dead queue, with the reason and its origin beside it.
    pub(super) async fn bury(
        &self,
        body: bytes::Bytes,
        properties: &Properties,
        origin: &str,
        reason: &str,
    ) -> Result<()> {
        // Headers that do not fit into one of AMQP's frames end the connection, and the message would come again to end the next one.
        const LONGEST_REASON: usize = 1000;
        const SENDERS_HEADERS: usize = 64 * 1024;
        let mut left = SENDERS_HEADERS;
        let mut headers = vec![
            (
                "leveret-reason".to_owned(),
                reason.chars().take(LONGEST_REASON).collect(),
            ),
            ("leveret-origin".to_owned(), origin.to_owned()),
            ("leveret-at".to_owned(), self.now().as_millis().to_string()),
        ];
        headers.extend(
            properties
                .headers
                .iter()
                .filter(|(name, value)| {
                    let size = name.len() + value.len();
                    let is_kept = !name.starts_with("leveret-") && size <= left;
                    left -= if is_kept { size } else { 0 };
                    is_kept
                })
                .cloned(),
        );
        let properties = Properties {
            headers,
            ..properties.clone()
        };
        let message = Message {
            queue: Queue::Dead(self.app.clone()),
            body,
            properties,
        };
        self.counters.dead.add();
        self.engine
            .retrying("publish", || self.engine.broker().publish(message.clone()))
            .await
    }
}
