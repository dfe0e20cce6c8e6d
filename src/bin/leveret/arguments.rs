//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, Parser, Subcommand};

/// Finds what is stuck and what is dead in a namespace, and gets it going again.
///
/// The namespace and its servers are those of the environment, as the workers have them: LEVERET_NAMESPACE, LEVERET_AMQP_URL, LEVERET_REDIS_URL.
#[derive(Parser)]
#[command(name = "leveret", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all is well; 1 there is something to look at, or it could not be done; 2 wrong use.
docs/operations.md says what each finding means.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Proves that every instance will go on, and finds what nothing would move and what is left over. Exit code 1 if something is wrong and not repaired.
    Audit(Audit),
    /// Messages that could not be processed.
    #[command(subcommand)]
    Dead(Dead),
}

#[derive(Args)]
pub(crate) struct Audit {
    /// Drives again what is stuck, and removes what is left over.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Only instances of this app. Default: of all.
    #[arg(long, value_name = "APP", value_parser = NotEmpty::new())]
    pub(crate) app: Option<String>,
    /// Leaves alone what was scheduled less than this long ago.
    #[arg(long, value_name = "AGE", default_value = "30s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// How long to wait for a marker to come out of a queue before what may be in it is left undecided.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) patience: Duration,
    /// Audits again and again, so long after the last, until it is stopped.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) every: Option<Duration>,
    /// Serves the numbers of the last audit to Prometheus at http://ADDRESS/metrics, such as 0.0.0.0:9187. Needs --every.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Writes the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// How long to wait for the servers.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) wait: Duration,
}

#[derive(Subcommand)]
pub(crate) enum Dead {
    /// Lists them, with reason, origin and age; those that died first come first. Exit code 1 if there are any.
    List(Chosen),
    /// Shows them whole, with what is in them.
    Show(Chosen),
    /// Sends them to where they came from. One for which nobody waits any more is left alone. Exit code 1 if not all were sent.
    Retry(Chosen),
    /// Deletes them for good.
    Drop(Chosen),
}

/// Which dead letters.
#[derive(Args)]
pub(crate) struct Chosen {
    /// Their IDs, or the beginnings of them; to retry or drop, each has to name just one. Without any, all that the filters choose.
    #[arg(value_parser = NotEmpty::new())]
    pub(crate) ids: Vec<String>,
    /// Only those of this app. Default: of all.
    #[arg(long, value_name = "APP", value_parser = NotEmpty::new())]
    pub(crate) app: Option<String>,
    /// Only those that came from this queue, such as payments.activities.
    #[arg(long, value_name = "QUEUE", value_parser = NotEmpty::new())]
    pub(crate) origin: Option<String>,
    /// Only those whose reason has this text in it.
    #[arg(long, value_name = "TEXT", value_parser = NotEmpty::new())]
    pub(crate) reason: Option<String>,
    /// Only of this kind: task, start, completion, event, command, timer, "raw start" or unreadable.
    #[arg(long, value_name = "KIND", value_parser = NotEmpty::new())]
    pub(crate) kind: Option<String>,
    /// Only those that died at least this long ago, such as 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
    /// Only those that died less than this long ago.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub(crate) younger_than: Option<Duration>,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) most: usize,
    /// Retries or drops all there are: needed where neither an ID nor a filter is given.
    #[arg(long)]
    pub(crate) all: bool,
    /// Writes one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// How long to wait for the servers.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) wait: Duration,
}

impl Chosen {
    /// True if something says which.
    pub(crate) fn is_limited(&self) -> bool {
        !self.ids.is_empty()
            || self.app.is_some()
            || self.origin.is_some()
            || self.reason.is_some()
            || self.kind.is_some()
            || self.older_than.is_some()
            || self.younger_than.is_some()
    }
}

/// As the environment's variables have it: a whole number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("it is a whole number and a unit: 90s, 15m, 2h or 7d".into()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "it is a whole number and a unit: 90s, 15m, 2h or 7d".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        for wrong in [
            "",
            "15",
            "m",
            "1.5h",
            "-1s",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
