//! How much is done at a time: samples of the bytes of effects that processes have noted.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::effects;

const EVERY: Duration = Duration::from_millis(250);
/// What is compared is what was done in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// What is full throughput is the median of the windows of so much time; of all that were looked at before a fault, the best one.
const BEFORE: Duration = Duration::from_secs(15);
/// Throughput is back when a window has this part of the median.
const PART: f64 = 0.8;
const KEPT: Duration = Duration::from_secs(120);

/// The samples of the last minutes.
#[derive(Clone)]
pub(crate) struct Throughput {
    directory: PathBuf,
    samples: Arc<Mutex<VecDeque<(Instant, u64)>>>,
    /// The best median so far.
    best: Arc<AtomicU64>,
}

impl Throughput {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            samples: Arc::default(),
            best: Arc::default(),
        }
    }

    /// Takes samples until the end.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.take_sample();
            tokio::time::sleep(EVERY).await;
        }
    }

    fn take_sample(&self) {
        let bytes = effects::bytes(&self.directory);
        let now = Instant::now();
        let mut samples = self.samples();
        samples.push_back((now, bytes));
        while samples.front().is_some_and(|(at, _)| now - *at > KEPT) {
            samples.pop_front();
        }
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<(Instant, u64)>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done in each window that ended between the two moments: its end, and bytes.
    fn windows(&self, from: Instant, to: Instant) -> Vec<(Instant, u64)> {
        let samples = self.samples();
        let ends = samples.iter().filter(|(at, _)| *at > from && *at <= to);
        ends.filter_map(|(end, bytes)| {
            let begin = end.checked_sub(WINDOW)?;
            let (_, before) = samples.iter().rev().find(|(at, _)| *at <= begin)?;
            Some((*end, bytes - before))
        })
        .collect()
    }

    /// What is full throughput, as of a moment. The outages of earlier faults do not make it less: a median in the middle of them counts for nothing.
    /// `None` if nothing was done yet.
    pub(crate) fn usual(&self, until: Instant) -> Option<u64> {
        let from = until.checked_sub(BEFORE).unwrap_or(until);
        let mut sizes: Vec<_> = self.windows(from, until).into_iter().map(|(_, size)| size).collect();
        sizes.sort_unstable();
        let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
        let best = self.best.fetch_max(median, Ordering::Relaxed).max(median);
        (best > 0).then_some(best)
    }

    /// How long after a moment the first window began in which as much was done as usual; `None` if none did within the patience.
    pub(crate) async fn is_back(&self, since: Instant, usual: u64, patience: Duration) -> Option<Duration> {
        let enough = (usual as f64 * PART) as u64;
        loop {
            let windows = self.windows(since + WINDOW, Instant::now());
            if let Some((end, _)) = windows.into_iter().find(|(_, size)| *size >= enough) {
                return Some((end - WINDOW).duration_since(since));
            }
            if since.elapsed() > patience {
                return None;
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
