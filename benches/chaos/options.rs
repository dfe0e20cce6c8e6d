//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use crate::schedule::Kind;

pub(crate) const HELP: &str = "\
usage: cargo bench --bench chaos -- [OPTIONS]

  --seconds N              how long faults go on (default 120); each kind comes at least once, if that takes longer
  --seed N                 what the faults and the load are drawn from (default: by chance, and printed)
  --fsync everysec|always  how Redis syncs its file (default: drawn from the seed)
  --faults KIND,...        these alone (default: all)
  --in-flight N            workflows that are under way at a time (default 64)
  --json FILE              write the report there as well
  --keep                   keep the logs of a run that went well, too
  --short                  the form that CI runs: 60 s, 32 workflows at a time
  --help                   this";

/// When Redis syncs its append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Everysec,
    Always,
}

impl Fsync {
    /// As Redis calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fsync::Everysec => "everysec",
            Fsync::Always => "always",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Faults go on for so long.
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) fsync: Fsync,
    /// The kinds of faults that are drawn.
    pub(crate) kinds: Vec<Kind>,
    /// Workflows under way at a time.
    pub(crate) in_flight: usize,
    /// Where the report goes as JSON.
    pub(crate) json: Option<PathBuf>,
    /// True if the logs stay in any case.
    pub(crate) keep: bool,
}

/// What the user wants.
pub(crate) enum Asked {
    Run(Options),
    Help,
}

impl Options {
    /// Reads the arguments. What cargo adds by itself (`--bench`) says nothing.
    ///
    /// # Errors
    /// One line that names the wrong argument and what it takes.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut options = Self {
            time: Duration::from_secs(120),
            seed: fastrand::u64(..),
            fsync: Fsync::Always,
            kinds: Kind::ALL.to_vec(),
            in_flight: 64,
            json: None,
            keep: false,
        };
        let mut fsync = None;
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (name, mut inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = |takes: &str| {
                let given = inline.take().or_else(|| arguments.next());
                given.ok_or_else(|| format!("{name} takes {takes}"))
            };
            match name.as_str() {
                "--bench" => {}
                "--help" | "-h" => return Ok(Asked::Help),
                "--short" => (options.time, options.in_flight) = (Duration::from_secs(60), 32),
                "--keep" => options.keep = true,
                "--seconds" => options.time = Duration::from_secs(number(&name, &value("seconds")?, 1..=86_400)?),
                "--seed" => options.seed = number(&name, &value("a number")?, 0..=u64::MAX)?,
                "--in-flight" => options.in_flight = number(&name, &value("a number")?, 1..=10_000)? as usize,
                "--json" => options.json = Some(value("a file")?.into()),
                "--fsync" => {
                    fsync = match value("everysec or always")?.as_str() {
                        "everysec" => Some(Fsync::Everysec),
                        "always" => Some(Fsync::Always),
                        other => return Err(format!("--fsync {other}: it is everysec or always")),
                    }
                }
                "--faults" => options.kinds = kinds(&value("kinds of faults with commas between")?)?,
                other => return Err(format!("there is no option {other}")),
            }
            if let Some(value) = inline {
                return Err(format!("{name} takes no value, and {value:?} is one"));
            }
        }
        let drawn = if options.seed.is_multiple_of(2) {
            Fsync::Everysec
        } else {
            Fsync::Always
        };
        options.fsync = fsync.unwrap_or(drawn);
        Ok(Asked::Run(options))
    }
}

fn number(name: &str, text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!(
            "{name} {text}: it takes a whole number from {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn kinds(text: &str) -> Result<Vec<Kind>, String> {
    let named = |name: &str| {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.into_iter().map(Kind::name).collect();
            format!(
                "--faults {name}: there is no such fault; there are {}",
                known.join(", ")
            )
        })
    };
    text.split(',').map(named).collect()
}
