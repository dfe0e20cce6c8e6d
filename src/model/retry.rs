//! Retry policies: a pure function from a failed attempt to the wait before the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Failure;

/// When a failed call is tried again.
///
/// ```
/// use leveret::Retry;
/// use std::time::Duration;
/// let retry = Retry::times(5).first(Duration::from_secs(1)).factor(2.0).cap(Duration::from_secs(30)).not_on("CardDeclined");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Retry {
    /// The most attempts, the first included; `None` is no limit.
    attempts: Option<u32>,
    first: Duration,
    factor: f64,
    cap: Option<Duration>,
    total: Option<Duration>,
    /// Up to this fraction of a wait is taken off at random, 0 to 1.
    jitter: f64,
    only: Vec<String>,
    never: Vec<String>,
}

impl Retry {
    /// At most `attempts` attempts in all (1 is no retry), first after 1 s, each wait twice the last.
    pub fn times(attempts: u32) -> Self {
        Self {
            attempts: Some(attempts.max(1)),
            first: Duration::from_secs(1),
            factor: 2.0,
            cap: None,
            total: None,
            jitter: 0.0,
            only: Vec::new(),
            never: Vec::new(),
        }
    }

    /// No limit on attempts; waits grow to 1 min unless [`cap`](Self::cap) says otherwise.
    pub fn forever() -> Self {
        Self {
            attempts: None,
            cap: Some(Duration::from_secs(60)),
            ..Self::times(1)
        }
    }

    /// The wait after the first attempt.
    pub fn first(mut self, wait: Duration) -> Self {
        self.first = wait;
        self
    }

    /// What each wait is multiplied by for the next; values below 1 count as 1.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        self
    }

    /// The longest wait.
    pub fn cap(mut self, longest: Duration) -> Self {
        self.cap = Some(longest);
        self
    }

    /// No further attempt is scheduled to begin later than this after the first was scheduled.
    pub fn total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Takes up to this fraction (0 to 1) off each wait, at random, so that many callers do not come back together.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = if fraction.is_finite() {
            fraction.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self
    }

    /// Retries only failures of the kinds named with this; may be repeated.
    pub fn only_on(mut self, kind: impl Into<String>) -> Self {
        self.only.push(kind.into());
        self
    }

    /// Does not retry failures of this kind; may be repeated.
    pub fn not_on(mut self, kind: impl Into<String>) -> Self {
        self.never.push(kind.into());
        self
    }

    /// The wait without jitter, in seconds. Multiplied step by step, because `powi` may round differently on another platform, and a replay there
    /// would then decide differently at the edge of the total time.
    fn grown(&self, attempt: u32, longest: f64) -> f64 {
        let mut wait = self.first.as_secs_f64();
        for _ in 1..attempt {
            let next = wait * self.factor;
            if wait >= longest || next == wait {
                break;
            }
            wait = next;
        }
        wait.min(longest)
    }

    /// The wait before the attempt after `attempt` (counted from 1), or `None` if there is to be none.
    ///
    /// `elapsed` is the time since the first attempt was scheduled, `random` a number in 0..1 for the jitter.
    pub fn next_wait(&self, attempt: u32, elapsed: Duration, failure: &Failure, random: f64) -> Option<Duration> {
        let exhausted = self.attempts.is_some_and(|most| attempt >= most);
        let unlisted = !self.only.is_empty() && !self.only.contains(&failure.kind);
        if failure.fatal || exhausted || unlisted || self.never.contains(&failure.kind) {
            return None;
        }
        let longest = self.cap.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT).as_secs_f64();
        let grown = self.grown(attempt, longest);
        let wait = Duration::from_secs_f64(grown * (1.0 - self.jitter * random.clamp(0.0, 1.0)));
        match self.total {
            Some(total) if elapsed + wait > total => None,
            _ => Some(wait),
        }
    }
}

/// However a policy grows, a wait is at most a year: beyond it nothing but overflow is to be had.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure::new("Flaky", "try again")
    }

    fn waits(retry: &Retry, count: u32) -> Vec<Option<u64>> {
        (1..=count)
            .map(|attempt| {
                retry
                    .next_wait(attempt, Duration::ZERO, &failure(), 0.0)
                    .map(|wait| wait.as_millis() as u64)
            })
            .collect()
    }

    #[test]
    fn waits_grow_to_the_cap_and_end_with_the_attempts() {
        let retry = Retry::times(5)
            .first(Duration::from_millis(100))
            .cap(Duration::from_millis(300));
        assert_eq!(waits(&retry, 5), [Some(100), Some(200), Some(300), Some(300), None]);
    }

    #[test]
    fn a_fatal_or_excluded_failure_is_not_retried() {
        let retry = Retry::times(5).not_on("Flaky");
        assert_eq!(retry.next_wait(1, Duration::ZERO, &failure(), 0.0), None);
        assert_eq!(
            Retry::times(5).next_wait(1, Duration::ZERO, &failure().fatal(), 0.0),
            None
        );
        assert_eq!(
            Retry::times(5)
                .only_on("Other")
                .next_wait(1, Duration::ZERO, &failure(), 0.0),
            None
        );
        assert!(
            Retry::times(5)
                .only_on("Flaky")
                .next_wait(1, Duration::ZERO, &failure(), 0.0)
                .is_some()
        );
    }

    #[test]
    fn the_total_time_bounds_the_next_attempt() {
        let retry = Retry::forever()
            .first(Duration::from_secs(10))
            .total(Duration::from_secs(15));
        assert!(retry.next_wait(1, Duration::from_secs(5), &failure(), 0.0).is_some());
        assert_eq!(retry.next_wait(1, Duration::from_secs(6), &failure(), 0.0), None);
    }

    #[test]
    fn endless_growth_does_not_overflow() {
        let retry = Retry {
            cap: None,
            ..Retry::forever()
        };
        assert!(retry.next_wait(u32::MAX, Duration::ZERO, &failure(), 0.0).is_some());
    }
}
