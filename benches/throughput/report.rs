//! What the rounds came to.

use std::path::Path;

use serde::Serialize;

use crate::options::Options;
use crate::picture::{Curve, draw};
use crate::process::{ByHand, Ran};

/// Processor time, in cores, and calls.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) broker: f64,
    pub(crate) redis: f64,
    /// The driver's, then those of the others.
    pub(crate) processes: Vec<f64>,
    /// Scripts in Redis, of a workflow.
    pub(crate) scripts: f64,
    /// Messages that the broker received, of a workflow.
    pub(crate) messages: f64,
    /// How often a workflow was in memory when something came for it; none for the floor.
    pub(crate) live: Option<f64>,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// Workflows a second.
    pub(crate) rate: f64,
    pub(crate) p50_micros: u64,
    pub(crate) p99_micros: u64,
    pub(crate) cost: Cost,
}

impl Measured {
    pub(crate) fn new(ran: &Ran, cost: Cost) -> Self {
        let mut micros = ran.micros.clone();
        micros.sort_unstable();
        let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize];
        Self {
            rate: micros.len() as f64 / ran.seconds,
            p50_micros: at(0.5),
            p99_micros: at(0.99),
            cost,
        }
    }
}

/// In the order in which they are told. Those after the second are compared with it.
const SIDES: [&str; 8] = [
    "floor", "leveret", "bundled", "kept", "workers", "apps", "half", "audited",
];

#[derive(Serialize)]
struct Row {
    side: &'static str,
    in_flight: usize,
    #[serde(flatten)]
    measured: Measured,
}

/// All rounds.
#[derive(Serialize)]
pub(crate) struct Report {
    workload: &'static str,
    /// Calls of a workflow: the floor's, and Leveret's.
    calls: [u32; 2],
    payload_bytes: usize,
    fsync: &'static str,
    queues: &'static str,
    cores: usize,
    rows: Vec<Row>,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let report = Self {
            workload: options.workload.name(),
            calls: [
                options.workload.floor_steps(options.steps),
                options.workload.calls(options.steps),
            ],
            payload_bytes: options.payload,
            fsync: options.fsync.name(),
            queues: "quorum",
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rows: Vec::new(),
        };
        println!(
            "floor: series of {} remote activities; leveret: {}, {} calls; {} B each; {} queues, appendfsync {}; {} cores for all; {} rounds in turns",
            report.calls[0],
            report.workload,
            report.calls[1],
            report.payload_bytes,
            report.queues,
            report.fsync,
            report.cores,
            options.rounds
        );
        println!(
            "in flight  side     workflows/s (min-max)    p50 / p99 ms      cores: broker  redis  driver  others   scripts  messages  live"
        );
        report
    }

    pub(crate) fn add(&mut self, side: &'static str, in_flight: usize, measured: Measured) {
        self.rows.push(Row {
            side,
            in_flight,
            measured,
        });
    }

    /// The rates as a picture.
    pub(crate) fn draw(&self, path: &Path) -> Result<(), String> {
        let curve = |name| {
            let loads: std::collections::BTreeSet<usize> = self.rows.iter().map(|row| row.in_flight).collect();
            let points = loads.into_iter().map(|load| (load, self.rates(name, load)));
            let points = points.filter_map(|(load, rates)| Some((load, rates?)));
            Curve {
                name,
                points: points.collect(),
            }
        };
        let curves: Vec<Curve> = SIDES.into_iter().map(curve).collect();
        let [floor, ours] = self.calls;
        let title = format!(
            "{}: {ours} calls a workflow (the floor: a series of {floor}), {} B, {} queues, appendfsync {}, {} cores",
            self.workload, self.payload_bytes, self.queues, self.fsync, self.cores
        );
        let picture = draw(&title, &curves);
        std::fs::write(path, picture).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Median, least and most of the rounds.
    fn rates(&self, side: &str, in_flight: usize) -> Option<[f64; 3]> {
        let rates = || self.of(side, in_flight).into_iter().map(|round| round.rate);
        let least = rates().min_by(f64::total_cmp)?;
        let most = rates().max_by(f64::total_cmp)?;
        Some([median(rates()), least, most])
    }

    fn of(&self, side: &str, in_flight: usize) -> Vec<&Measured> {
        let rows = self.rows.iter();
        rows.filter(|row| row.side == side && row.in_flight == in_flight)
            .map(|row| &row.measured)
            .collect()
    }

    /// Prints what so many in flight came to.
    pub(crate) fn tell(&self, in_flight: usize) {
        let mut rates = Vec::new();
        for side in SIDES {
            let rounds = self.of(side, in_flight);
            let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(|round| value(round)));
            let Some([rate, least, most]) = self.rates(side, in_flight) else {
                continue;
            };
            println!(
                "{in_flight:>9}  {side:<8} {rate:>8.0} ({least:.0}-{most:.0})  {:>10.1} / {:.1}  {:>18.2}  {:>5.2}  {:>6.2}  {:>6.2}  {:>8.1}  {:>8.1}  {}",
                of(|round| round.p50_micros as f64 / 1000.0),
                of(|round| round.p99_micros as f64 / 1000.0),
                of(|round| round.cost.broker),
                of(|round| round.cost.redis),
                of(|round| round.cost.processes.first().copied().unwrap_or_default()),
                of(|round| round.cost.processes.iter().skip(1).sum()),
                of(|round| round.cost.scripts),
                of(|round| round.cost.messages),
                match rounds.iter().any(|round| round.cost.live.is_some()) {
                    true => format!("{:>5.1}%", 100.0 * of(|round| round.cost.live.unwrap_or(1.0))),
                    false => String::new(),
                },
            );
            rates.push((side, rate, of(|round| round.p50_micros as f64)));
        }
        let [(_, floor, floors_p50), (_, leveret, p50), others @ ..] = &rates[..] else {
            return;
        };
        println!(
            "           ratio    {:>8.2} of the floor's calls a second, {:.2} of its p50",
            leveret * f64::from(self.calls[1]) / (floor * f64::from(self.calls[0])),
            p50 / floors_p50
        );
        for (side, rate, its_p50) in others {
            let calls = if ByHand::named(side) {
                self.calls[0]
            } else {
                self.calls[1]
            };
            println!(
                "           {side:<8} {:>8.2} of Leveret's calls a second, {:.2} of its p50",
                rate * f64::from(calls) / (leveret * f64::from(self.calls[1])),
                its_p50 / p50
            );
        }
    }

    /// The median rate of the rounds so far.
    pub(crate) fn rate(&self, side: &str, in_flight: usize) -> f64 {
        self.rates(side, in_flight).map_or(f64::NAN, |[median, ..]| median)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = serde_json::to_string_pretty(self).map_err(|error| problem(&error))?;
        std::fs::write(path, text).map_err(|error| problem(&error))
    }
}
