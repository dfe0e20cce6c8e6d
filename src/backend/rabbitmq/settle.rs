//! Acknowledgements of one subscription, batched.
//!
//! Whoever processed a delivery only leaves word here; a task of the subscription tells the broker. The finished prefix goes out at once as one
//! *multiple* acknowledgement; what is finished past a gap goes out singly, a moment later, so that one slow message holds up no other's slot.
//! Nothing is awaited by the caller, because an acknowledgement that is lost does no harm: the message comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::link::Loss;
use crate::backend::Acknowledge;

/// How long what is finished past a gap waits for the gap to close. Together with a busy machine's delay it stays below 100 ms.
const GAP_PATIENCE: Duration = Duration::from_millis(50);
/// Wishes that are taken up together.
const BATCH: usize = 256;
/// Longest time to close a channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to become of a delivery.
enum Wish {
    Ack(u64),
    Requeue(u64),
}

/// Leaves word for the settling task. Bounded by the prefetch: each delivery is settled once.
pub(super) struct Settler(mpsc::UnboundedSender<Wish>);

impl Acknowledge for Settler {
    fn ack(&self, tag: u64) {
        // The task is gone when its connection is: the broker hands the message out again, and there is nobody to tell.
        let _ = self.0.send(Wish::Ack(tag));
    }

    fn requeue(&self, tag: u64) {
        let _ = self.0.send(Wish::Requeue(tag));
    }
}

/// The task that settles the deliveries of one channel, and owns that channel's end.
pub(super) struct Settling {
    channel: Channel,
    /// Held until the channel is closed: dropping the last handle of a live consumer makes the client library send a cancel of its own, and if
    /// that fails on a closing channel it takes the whole connection down.
    _consumer: lapin::Consumer,
    wishes: mpsc::UnboundedReceiver<Wish>,
    window: Window,
    loss: Loss,
    /// Fires when the subscription was dropped: settle what is known, and close.
    stop: CancellationToken,
}

impl Settling {
    pub(super) fn new(
        channel: Channel,
        consumer: lapin::Consumer,
        loss: Loss,
        stop: CancellationToken,
    ) -> (Settler, Self) {
        let (sender, wishes) = mpsc::unbounded_channel();
        let settling = Self {
            channel,
            _consumer: consumer,
            wishes,
            window: Window::default(),
            loss,
            stop,
        };
        (Settler(sender), settling)
    }

    /// Runs until the subscription was dropped, or was cancelled and all its deliveries are settled or dropped, or the connection is gone.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let overdue = self.window.overdue_at();
            tokio::select! {
                biased;
                () = self.loss.happened() => return,
                () = self.stop.cancelled() => break,
                taken = self.wishes.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    let requeued = self.note(&mut batch);
                    self.send(Vec::new(), requeued).await;
                }
                () = async { sleep_until(overdue.unwrap_or_else(Instant::now)).await }, if overdue.is_some() => {
                    let past_gap = self.window.take_past_gap();
                    self.send(past_gap, Vec::new()).await;
                }
            }
        }
        self.wishes.close();
        while self.wishes.recv_many(&mut batch, BATCH).await > 0 {
            let requeued = self.note(&mut batch);
            self.send(Vec::new(), requeued).await;
        }
        let past_gap = self.window.take_past_gap();
        self.send(past_gap, Vec::new()).await;
        // What is unsettled goes back to its queue with the channel.
        let closed = timeout(CLOSE_TIMEOUT, self.channel.close(200, "done".into())).await;
        tracing::trace!(?closed, "subscription closed");
    }

    /// Takes a batch of wishes in; answers which tags to hand back.
    fn note(&mut self, batch: &mut Vec<Wish>) -> Vec<u64> {
        let now = Instant::now();
        let mut requeued = Vec::new();
        for wish in batch.drain(..) {
            match wish {
                Wish::Ack(tag) => self.window.ack(tag, now),
                Wish::Requeue(tag) if self.window.requeue(tag) => requeued.push(tag),
                Wish::Requeue(_) => {}
            }
        }
        requeued
    }

    /// Sends these returns, the finished prefix and these single acknowledgements, all at once: the client library queues a frame when its future
    /// is first polled, so that awaiting one after the other would cost a round through its I/O thread each.
    async fn send(&mut self, single: Vec<u64>, requeued: Vec<u64>) {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let nacks = join_all(requeued.into_iter().map(|tag| self.channel.basic_nack(tag, options)));
        let prefix = self.window.take_prefix().map(|tag| (tag, true));
        let acks = prefix.into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        let acks = join_all(acks.map(|(tag, multiple)| self.channel.basic_ack(tag, BasicAckOptions { multiple })));
        let sent = async {
            // The returns first: the prefix counts them as settled, and would acknowledge them with all that is below its last tag.
            let (nacks, acks) = futures_util::future::join(nacks, acks).await;
            nacks.into_iter().chain(acks).collect::<lapin::Result<()>>()
        };
        // No timeout: the client library rejects what it could not write once the connection is dead, and the heartbeat says when it is.
        tokio::select! {
            biased;
            () = self.loss.happened() => {}
            sent = sent => if let Err(error) = sent {
                tracing::debug!(%error, "an acknowledgement was lost: the message comes again");
            }
        }
    }
}

/// Which deliveries of a channel are finished. Tags count from 1 without gaps, as the channel has one consumer.
///
/// Its size is bounded by the prefetch: what is settled is kept as ranges, and between two ranges there is at least one unsettled delivery.
#[derive(Default)]
struct Window {
    /// Everything up to this tag is settled.
    floor: u64,
    /// Acknowledged by the user, and the broker does not know yet.
    finished: BTreeSet<u64>,
    /// When the oldest of `finished` came.
    since: Option<Instant>,
    /// Settled past a gap: first tag to last tag of each range.
    settled: BTreeMap<u64, u64>,
}

impl Window {
    fn ack(&mut self, tag: u64, now: Instant) {
        if !self.is_settled(tag) && self.finished.insert(tag) {
            self.since.get_or_insert(now);
        }
    }

    /// Takes the tag as handed back; false if it was finished or handed back before.
    fn requeue(&mut self, tag: u64) -> bool {
        let open = !self.is_settled(tag) && !self.finished.contains(&tag);
        if open {
            self.settle(tag);
        }
        open
    }

    /// The tag to acknowledge with everything below it, if the prefix grew.
    fn take_prefix(&mut self) -> Option<u64> {
        let mut last = None;
        loop {
            let next = self.floor + 1;
            if self.finished.remove(&next) {
                self.floor = next;
                // Only a tag that is open at the broker may be named to it, so not one that was handed back.
                last = Some(next);
            } else if let Some(end) = self.settled.remove(&next) {
                self.floor = end;
            } else {
                break;
            }
        }
        if self.finished.is_empty() {
            self.since = None;
        }
        last
    }

    /// The tags to acknowledge singly.
    fn take_past_gap(&mut self) -> Vec<u64> {
        self.since = None;
        let tags: Vec<u64> = std::mem::take(&mut self.finished).into_iter().collect();
        for tag in &tags {
            self.settle(*tag);
        }
        tags
    }

    /// When what is finished past a gap has waited long enough.
    fn overdue_at(&self) -> Option<Instant> {
        self.since.map(|since| since + GAP_PATIENCE)
    }

    fn is_settled(&self, tag: u64) -> bool {
        tag <= self.floor
            || self
                .settled
                .range(..=tag)
                .next_back()
                .is_some_and(|(_, end)| tag <= *end)
    }

    /// Adds a tag to the ranges and joins it with its neighbours.
    fn settle(&mut self, tag: u64) {
        let end = self.settled.remove(&(tag + 1)).unwrap_or(tag);
        match self.settled.range_mut(..tag).next_back() {
            Some((_, before)) if *before + 1 == tag => *before = end,
            _ => {
                self.settled.insert(tag, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(window: &mut Window, tags: impl IntoIterator<Item = u64>) {
        for tag in tags {
            window.ack(tag, Instant::now());
        }
    }

    #[test]
    fn the_finished_prefix_goes_out_as_one() {
        let mut window = Window::default();
        acked(&mut window, [2, 1, 3, 5]);
        assert_eq!(window.take_prefix(), Some(3));
        assert_eq!(window.take_prefix(), None);
        acked(&mut window, [4]);
        assert_eq!(window.take_prefix(), Some(5));
        assert_eq!(window.overdue_at(), None);
    }

    #[test]
    fn what_is_finished_past_a_gap_goes_out_singly_and_once() {
        let mut window = Window::default();
        acked(&mut window, [2, 3]);
        assert_eq!(window.take_prefix(), None);
        assert!(window.overdue_at().is_some());
        assert_eq!(window.take_past_gap(), [2, 3]);
        assert_eq!(window.overdue_at(), None);
        acked(&mut window, [2, 3]);
        assert!(window.take_past_gap().is_empty());
        acked(&mut window, [1]);
        assert_eq!(
            window.take_prefix(),
            Some(1),
            "2 and 3 are settled: naming them would be an error"
        );
        acked(&mut window, [4]);
        assert_eq!(window.take_prefix(), Some(4));
    }

    #[test]
    fn a_delivery_is_settled_once_whatever_is_asked() {
        let mut window = Window::default();
        assert!(window.requeue(1));
        assert!(!window.requeue(1));
        acked(&mut window, [1]);
        assert_eq!(window.take_prefix(), None);
        acked(&mut window, [2]);
        assert!(!window.requeue(2));
        assert_eq!(window.take_prefix(), Some(2));
    }

    #[test]
    fn a_long_gap_costs_no_memory() {
        let mut window = Window::default();
        for tag in 2..10_000 {
            acked(&mut window, [tag]);
            window.take_past_gap();
        }
        assert_eq!(window.settled.len(), 1);
        assert!(window.finished.is_empty());
        acked(&mut window, [1]);
        assert_eq!(window.take_prefix(), Some(1));
        assert_eq!(window.floor, 9_999);
    }

    #[test]
    fn ranges_join_in_any_order() {
        let mut window = Window::default();
        for tag in [7, 3, 5, 4, 6] {
            window.settle(tag);
        }
        assert_eq!(window.settled, BTreeMap::from([(3, 7)]));
        assert!(window.is_settled(5) && !window.is_settled(2) && !window.is_settled(8));
    }
}
