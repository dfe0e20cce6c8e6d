//! What came of it: a table for people, JSON for others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::Measure;
use crate::jobs::{Job, Shape};
use crate::load::{Ledger, Stage};
use crate::options::Options;
use crate::schedule::Kind;

/// Everything that is told.
pub(crate) struct Report {
    pub(crate) options: Options,
    /// From the first fault to the last.
    pub(crate) lasted: Duration,
    pub(crate) faults: BTreeMap<Kind, usize>,
    pub(crate) started: usize,
    pub(crate) finished: usize,
    pub(crate) purged: usize,
    pub(crate) shapes: Vec<(Shape, usize)>,
    /// Bodies that have begun.
    pub(crate) bodies: usize,
    /// Calls of which one has ended.
    pub(crate) calls: usize,
    pub(crate) poison: usize,
    /// Run tokens that nobody takes away; they lapse within a day.
    pub(crate) run_tokens: usize,
    /// Confirmed, and gone.
    pub(crate) lost: Vec<String>,
    /// Confirmed, and not over.
    pub(crate) stuck: Vec<String>,
    /// Done twice, or with two results in history.
    pub(crate) doubled: Vec<String>,
    /// Everything else that must not be.
    pub(crate) wrong: Vec<String>,
    pub(crate) recoveries: BTreeMap<Measure, Vec<Option<Duration>>>,
    /// The longest that a job took.
    pub(crate) longest_job: Duration,
    /// From the last fault to the end of the last job.
    pub(crate) drained: Duration,
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        [&self.lost, &self.stuck, &self.doubled, &self.wrong]
            .into_iter()
            .all(Vec::is_empty)
    }

    /// The table, on standard output.
    pub(crate) fn print(&self) {
        println!(
            "seed {}, fsync {}, {} workflows at a time, {:.0} s of faults",
            self.options.seed,
            self.options.fsync.name(),
            self.options.in_flight,
            self.lasted.as_secs_f64()
        );
        println!();
        println!("| fault | times |\n|---|---:|");
        for (kind, times) in &self.faults {
            println!("| {} | {times} |", kind.name());
        }
        println!("| all | {} |", self.faults.values().sum::<usize>());
        println!();
        println!("| what | how many |\n|---|---:|");
        println!("| workflows started, each confirmed | {} |", self.started);
        println!("| workflows that ended as they had to | {} |", self.finished);
        println!("| instances purged meanwhile | {} |", self.purged);
        println!("| activity calls | {} |", self.calls);
        println!("| bodies begun for them | {} |", self.bodies);
        println!(
            "| messages that nobody can read, put in and found among the dead | {} |",
            self.poison
        );
        println!(
            "| run tokens of killed tries, left to lapse within a day | {} |",
            self.run_tokens
        );
        println!("| **lost** | {} |", self.lost.len());
        println!("| **stuck** | {} |", self.stuck.len());
        println!("| **doubled** | {} |", self.doubled.len());
        println!("| otherwise wrong | {} |", self.wrong.len());
        println!();
        println!("| recovery | times | median | longest | target | met |\n|---|---:|---:|---:|---:|---:|");
        for (measure, times) in &self.recoveries {
            let row = Row::of(*measure, times);
            println!(
                "| {} | {} | {} | {} | {:?} | {} of {} |",
                row.what,
                times.len(),
                shown(row.median),
                shown(row.longest),
                row.target,
                row.met,
                times.len()
            );
        }
        println!();
        println!(
            "the longest job took {:.1} s; the last one ended {:.1} s after the last fault",
            self.longest_job.as_secs_f64(),
            self.drained.as_secs_f64()
        );
        for (what, list) in [
            ("lost", &self.lost),
            ("stuck", &self.stuck),
            ("doubled", &self.doubled),
            ("wrong", &self.wrong),
        ] {
            for line in list.iter().take(50) {
                println!("{what}: {line}");
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        let recoveries = self.recoveries.iter().map(|(measure, times)| {
            let row = Row::of(*measure, times);
            let seconds: Vec<_> = times.iter().map(|took| took.map(|took| took.as_secs_f64())).collect();
            json!({ "what": row.what, "target": row.target.as_secs_f64(), "met": row.met, "seconds": seconds })
        });
        let faults: BTreeMap<_, _> = self.faults.iter().map(|(kind, times)| (kind.name(), times)).collect();
        let shapes: BTreeMap<_, _> = self.shapes.iter().map(|(shape, jobs)| (shape.name(), jobs)).collect();
        json!({
            "seed": self.options.seed,
            "fsync": self.options.fsync.name(),
            "in_flight": self.options.in_flight,
            "seconds": self.lasted.as_secs_f64(),
            "faults": faults,
            "workflows": { "started": self.started, "finished": self.finished, "purged": self.purged, "by_shape": shapes },
            "activities": { "calls": self.calls, "bodies": self.bodies },
            "poison": self.poison,
            "run_tokens": self.run_tokens,
            "lost": self.lost,
            "stuck": self.stuck,
            "doubled": self.doubled,
            "wrong": self.wrong,
            "recoveries": recoveries.collect::<Vec<_>>(),
            "longest_job": self.longest_job.as_secs_f64(),
            "drained": self.drained.as_secs_f64(),
        })
    }
}

/// A line of the table of recoveries. A time that nobody waited for is longer than any.
struct Row {
    what: &'static str,
    target: Duration,
    median: Option<Duration>,
    longest: Option<Duration>,
    met: usize,
}

impl Row {
    fn of(measure: Measure, times: &[Option<Duration>]) -> Self {
        let (what, target) = match measure {
            Measure::Killed => ("a worker was killed: all instances went on", Duration::from_secs(1)),
            Measure::Frozen => ("a worker was frozen: all instances went on", crate::apps::HEARTBEAT * 3),
            Measure::Broker => ("RabbitMQ is up again: full throughput", Duration::from_secs(5)),
            Measure::Redis => ("Redis is up again: full throughput", Duration::from_secs(5)),
        };
        let mut sorted = times.to_vec();
        sorted.sort_by_key(|took| took.unwrap_or(Duration::MAX));
        Self {
            what,
            target,
            median: sorted.get(sorted.len() / 2).copied().flatten(),
            longest: sorted.last().copied().flatten(),
            met: times.iter().flatten().filter(|took| **took <= target).count(),
        }
    }
}

fn shown(took: Option<Duration>) -> String {
    took.map_or("never seen".into(), |took| format!("{:.2} s", took.as_secs_f64()))
}

/// Who was confirmed and has not ended.
pub(crate) fn open_jobs(ledger: &Ledger) -> Vec<(Job, Stage)> {
    let mut jobs = ledger.jobs();
    jobs.retain(|(_, stage)| *stage != Stage::Right);
    jobs
}
