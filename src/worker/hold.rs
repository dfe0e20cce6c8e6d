//! What a running task is held by: its message, and, once that would take too long, a lease.
//!
//! The broker takes a message back that is not acknowledged for too long. So at half of that time the task is written into the due-set as a lease, the
//! message is acknowledged, and the lease is renewed for as long as the task is here. If it lapses, another worker takes the task over. A task that has to
//! wait for its turn gets a lease at once: its message would keep a place in the prefetch from others.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::claimed::Claimed;
use super::delivery::Ticket;
use super::run::{Run, Wait};
use super::runtime::Runtime;
use crate::backend::{DueEntry, DueOutcome, Result, When};
use crate::engine::{LeaseEntry, encode, lease_key};
use crate::model::Timestamp;
use crate::wire::TaskItem;

/// How often a task's caller is asked whether it still wants the result.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A lease lapses after so many heartbeats: as soon as a worker that gives no sign of life counts as gone.
const LEASE_HEARTBEATS: u32 = 3;

/// See the module.
pub(super) struct Hold {
    runtime: Arc<Runtime>,
    /// The message, until a lease stands for it.
    ticket: Option<Ticket>,
    lease: Option<Lease>,
    since: Timestamp,
}

struct Lease {
    /// The entry. What keeps it may be dropped in the middle of a renewal.
    entry: Claimed,
    /// False for one that was taken over and has only the due loop's claim.
    is_renewed: bool,
}

impl Hold {
    /// A task that came in a message.
    pub(super) fn message(runtime: &Arc<Runtime>, ticket: Ticket) -> Self {
        Self {
            runtime: runtime.clone(),
            ticket: Some(ticket),
            lease: None,
            since: runtime.now(),
        }
    }

    /// A task whose lease had lapsed, as the due loop has claimed it.
    pub(super) fn lease(runtime: &Arc<Runtime>, entry: DueEntry) -> Self {
        Self {
            runtime: runtime.clone(),
            ticket: None,
            lease: Some(Lease {
                entry: Claimed::new(entry),
                is_renewed: false,
            }),
            since: runtime.now(),
        }
    }

    pub(super) fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// Acknowledges the message although nothing is done yet: for a planted defect.
    pub(super) fn let_go_of_message(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.done();
        }
    }

    /// Keeps the task ours while it is here, and fires the token when nobody wants the result. Never returns: it runs beside the task.
    pub(super) async fn keep(&mut self, run: &Run, cancelled: &CancellationToken) {
        let runtime = self.runtime.clone();
        let message_time = runtime.settings.delivery_timeout / 2;
        let lease_time = message_time.min(runtime.settings.heartbeat * LEASE_HEARTBEATS);
        let mut waiting = run.wait.subscribe();
        loop {
            let wait = *waiting.borrow_and_update();
            if self.needs_lease(message_time, lease_time, wait) {
                match Box::pin(self.renew(run, lease_time, wait)).await {
                    Ok(true) if wait == Wait::Over => run.confirmed.notify_one(),
                    Ok(true) => {}
                    Ok(false) => {
                        warn!(activity = %run.task.name, caller = %run.task.caller.instance, "a task's lease was taken over by another worker, which runs it again");
                        self.lease = None;
                        run.lost.cancel();
                        cancelled.cancel();
                        return std::future::pending().await;
                    }
                    Err(error) => {
                        warn!(activity = %run.task.name, %error, "a long activity's lease was not renewed; it may be run again")
                    }
                }
            }
            let renewal = if self.is_leased() {
                lease_time / 3
            } else {
                message_time / 3
            };
            let tick = ASK_EVERY.min(renewal).max(Duration::from_millis(1));
            tokio::select! {
                biased;
                () = runtime.engine.backend.clock().sleep(tick) => {}
                // Its sender is the run, which outlives this.
                _ = waiting.changed() => continue,
            }
            if let Ok(true) = run.is_unwanted().await {
                cancelled.cancel();
            }
        }
    }

    fn needs_lease(&self, message_time: Duration, lease_time: Duration, wait: Wait) -> bool {
        let now = self.runtime.now();
        match &self.lease {
            // A third of it is over.
            Some(lease) => {
                wait == Wait::Over || !lease.is_renewed || lease.entry.entry().due.since(now) <= lease_time * 2 / 3
            }
            // Without a ticket the lease was lost.
            None => self.ticket.is_some() && (wait != Wait::No || now.since(self.since) >= message_time),
        }
    }

    /// Writes or moves the lease. False if it is another's by now.
    async fn renew(&mut self, run: &Run, lease_time: Duration, wait: Wait) -> Result<bool> {
        let runtime = self.runtime.clone();
        let (engine, app) = (&runtime.engine, &runtime.app);
        let key = lease_key(&run.task.message_id());
        match &mut self.lease {
            Some(lease) => {
                // Counted from each try: after an outage of the store the time of the first is past.
                let entry = &mut lease.entry;
                let due = engine
                    .retrying("settle due", || {
                        let due = runtime.now() + lease_time;
                        let moved = entry.move_to(due);
                        async move { engine.store().settle_due(app, &moved).await.map(|()| due) }
                    })
                    .await?;
                lease.entry.has_moved_to(due);
                lease.is_renewed = true;
                // Only a lease that was still ours has moved.
                let entry = lease.entry.entry();
                return self.is_stored(&entry).await;
            }
            None => {
                let payload = encode(&LeaseEntry {
                    task: TaskItem::clone(&run.task),
                });
                // A body that runs takes the lease from a task that waits, and never the other way round.
                let when = if wait == Wait::No { When::Set } else { When::Sooner };
                let entry = engine
                    .retrying("schedule", || {
                        let entry = DueEntry {
                            key: key.clone(),
                            due: runtime.now() + lease_time,
                            payload: payload.clone(),
                        };
                        async move {
                            engine.store().schedule(app, std::slice::from_ref(&entry), when).await?;
                            Ok(entry)
                        }
                    })
                    .await?;
                if wait != Wait::No && !self.is_stored(&entry).await? {
                    return Ok(false);
                }
                self.lease = Some(Lease {
                    entry: Claimed::new(entry),
                    is_renewed: true,
                });
                // A crash before this line leaves both the lease and the message; the message's next taker finds the lease and lets it go.
                if let Some(ticket) = self.ticket.take() {
                    ticket.done();
                }
            }
        }
        Ok(true)
    }

    /// True if the lease in the store is this one: a lease is told from another's by its time.
    async fn is_stored(&self, lease: &DueEntry) -> Result<bool> {
        let engine = &self.runtime.engine;
        let stored = engine
            .retrying("due entry", || engine.store().due_entry(&self.runtime.app, &lease.key))
            .await?;
        Ok(stored.is_some_and(|stored| stored.due == lease.due))
    }

    /// The task is done with: its message and its lease go.
    pub(super) async fn settle(mut self) {
        if let Some(lease) = self.lease.take() {
            Box::pin(self.remove(lease)).await;
        }
        if let Some(ticket) = self.ticket.take() {
            ticket.done();
        }
    }

    async fn remove(&self, lease: Lease) {
        let settled = lease.entry.settled(DueOutcome::Remove);
        let engine = &self.runtime.engine;
        if let Err(error) = engine
            .retrying("settle due", || engine.store().settle_due(&self.runtime.app, &settled))
            .await
        {
            debug!(%error, "a finished lease was not removed; it lapses, and its result is known then");
        }
    }

    /// Somebody else is to have the task: a lease lapses now, and a message goes back with the ticket.
    pub(super) async fn hand_back(mut self) {
        let Some(lease) = self.lease.take() else { return };
        let now = self.runtime.now();
        if let Err(error) = self
            .runtime
            .engine
            .store()
            .settle_due(&self.runtime.app, &lease.entry.settled(DueOutcome::Again(now)))
            .await
        {
            debug!(%error, "a lease was not handed back; it lapses by itself");
        }
    }
}
