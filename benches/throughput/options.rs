//! What the command line asks for.

use std::path::PathBuf;

use crate::workload::Workload;

pub(crate) const HELP: &str = "\
cargo bench --bench throughput -- [OPTIONS]

  --in-flight N,N,..   workflows in flight (1,64,512)
  --workload NAME      series (default): activities of another app, one after the other; local: of its own app; parallel: all at once;
                       children: a child on another app that has a child; hops: one activity on each of five apps; events: it waits for
                       one, which the client raises; apps: a series on any of three apps with ten activities each, and then of --apps.
                       The floor's workflow is a series of three, or of --steps beside a series.
                       Without the floor: loop: what a step costs in a series of --steps, beside one of 100; sleepers: --count of
                       them wait for an event, what they take of memory, and how fast they start and, all woken at once, end
  --steps N            activities of a workflow (3; of a loop 10000)
  --payload BYTES      what each carries (100)
  --rounds N           rounds of each, floor and Leveret in turns (5)
  --count N            workflows a round; by default some seconds' worth
  --fsync POLICY       Redis's appendfsync: everysec (default) or always
  --workers N          rounds of Leveret with so many processes of each app, too (1: none)
  --half               rounds of Leveret at half of the rate that it came to, too: what its latency is when it is not full
  --apps N             with the workload apps: how many the others are (100)
  --kill               with the workload loop: one series, whose worker is killed half-way; how soon another has gone on
  --bundle N           items that share a message of Leveret's at most (its default)
  --limits             rounds of two more loops by hand, too: bundled, the floor whose items share messages; and kept, the same that keeps
                       in Redis what Leveret keeps, by the same scripts
  --audit              rounds of Leveret while the namespace is audited over and over, too
  --json FILE          also writes all rounds to FILE
  --svg FILE           also draws the rates by how many are in flight
  --short              a few workflows: fails on lost ones alone";

/// Steps that a loop has at least whose worker is to be killed.
const LEAST_KILLED: u32 = 10_000;

/// How Redis syncs its append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Everysec,
    Always,
}

impl Fsync {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fsync::Everysec => "everysec",
            Fsync::Always => "always",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) in_flight: Vec<usize>,
    pub(crate) workload: Workload,
    pub(crate) steps: u32,
    pub(crate) payload: usize,
    pub(crate) rounds: usize,
    pub(crate) count: Option<usize>,
    pub(crate) fsync: Fsync,
    pub(crate) workers: usize,
    pub(crate) half: bool,
    pub(crate) apps: Option<u32>,
    pub(crate) kill: bool,
    pub(crate) bundle: Option<usize>,
    pub(crate) limits: bool,
    pub(crate) audit: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
}

pub(crate) enum Asked {
    Run(Options),
    Help,
}

impl Options {
    /// # Errors
    /// One line: what is wrong, and what would be right.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut options = Self {
            in_flight: vec![1, 64, 512],
            workload: Workload::Series,
            steps: 3,
            payload: 100,
            rounds: 5,
            count: None,
            fsync: Fsync::Everysec,
            workers: 1,
            half: false,
            apps: None,
            kill: false,
            bundle: None,
            limits: false,
            audit: false,
            json: None,
            svg: None,
        };
        let (mut steps, mut short) = (None, false);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--in-flight" => {
                    let numbers = value()?;
                    let numbers = numbers.split(',').map(|text| number(&word, text, 1, 100_000));
                    options.in_flight = numbers.collect::<Result<_, _>>()?;
                }
                "--workload" => options.workload = workload(&value()?)?,
                "--steps" => steps = Some(number(&word, &value()?, 1, 100_000)? as u32),
                "--payload" => options.payload = number(&word, &value()?, 1, 8 << 20)?,
                "--rounds" => options.rounds = number(&word, &value()?, 1, 1000)?,
                "--count" => options.count = Some(number(&word, &value()?, 1, 10_000_000)?),
                "--fsync" => {
                    options.fsync = match value()?.as_str() {
                        "everysec" => Fsync::Everysec,
                        "always" => Fsync::Always,
                        other => return Err(format!("--fsync is {other:?}: everysec or always")),
                    }
                }
                "--workers" => options.workers = number(&word, &value()?, 1, 64)?,
                "--half" => options.half = true,
                "--apps" => options.apps = Some(number(&word, &value()?, 1, 1000)? as u32),
                "--kill" => options.kill = true,
                "--bundle" => options.bundle = Some(number(&word, &value()?, 1, 10_000)?),
                "--limits" => options.limits = true,
                "--audit" => options.audit = true,
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--short" | "--test" => short = true,
                // Cargo says so to every bench.
                "--bench" => {}
                "--help" | "-h" => return Ok(Asked::Help),
                other => return Err(format!("{other:?} is no option")),
            }
        }
        let usual = if options.workload == Workload::Loop { 10_000 } else { 3 };
        options.steps = steps.unwrap_or(usual);
        options.refuse_what_is_not_played()?;
        if short {
            options.in_flight = vec![1, 32];
            options.rounds = 1;
            options.count = Some(100);
            options.workers = 2;
            options.half = true;
            options.limits = true;
            options.audit = true;
        }
        Ok(Asked::Run(options))
    }

    fn refuse_what_is_not_played(&self) -> Result<(), String> {
        let name = self.workload.name();
        let (has_rounds, is_loop, has_apps) = (
            self.workload.has_rounds(),
            self.workload == Workload::Loop,
            self.workload == Workload::Apps,
        );
        let refused = [
            ("--workers", self.workers > 1 && (!has_rounds || has_apps)),
            ("--half", self.half && !has_rounds),
            ("--bundle", self.bundle.is_some() && !has_rounds),
            ("--limits", self.limits && !has_rounds),
            ("--audit", self.audit && !has_rounds),
            ("--json", self.json.is_some() && !has_rounds),
            ("--svg", self.svg.is_some() && !has_rounds),
            ("--kill", self.kill && !is_loop),
            ("--apps", self.apps.is_some() && !has_apps),
        ];
        match refused.into_iter().find(|(_, is_refused)| *is_refused) {
            Some((option, _)) => Err(format!("{option} is not played with the workload {name}")),
            None if self.kill && self.steps < LEAST_KILLED => Err(format!(
                "--steps is {}: with --kill at least {LEAST_KILLED}, so that the loop outlives the coming and going of workers",
                self.steps
            )),
            None => Ok(()),
        }
    }

    /// Workflows of one round, each with so many calls.
    pub(crate) fn count(&self, in_flight: usize, calls: u32) -> usize {
        let usual = match in_flight {
            1 => 300,
            few if few < 256 => 4_000,
            _ => 12_000.max(in_flight * 4),
        };
        // As many calls as that has with three each.
        self.count.unwrap_or((usual * 3 / calls as usize).max(in_flight))
    }
}

fn workload(name: &str) -> Result<Workload, String> {
    let named = Workload::ALL.into_iter().find(|workload| workload.name() == name);
    named.ok_or_else(|| {
        let known: Vec<_> = Workload::ALL.into_iter().map(Workload::name).collect();
        format!("--workload is {name:?}: one of {}", known.join(", "))
    })
}

fn number(option: &str, text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or(format!("{option} is {text:?}: a whole number from {least} to {most}"))
}
