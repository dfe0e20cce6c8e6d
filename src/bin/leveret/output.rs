//! What is written, and where.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::problem::Problem;

/// Warnings go to stderr, and whatever else `RUST_LOG` asks for.
pub(crate) fn log_to_stderr() {
    // RabbitMQ's client library reports as errors what is expected and handled: docs/configuration.md, "Logs".
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,lapin=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_coloured(std::io::stderr().is_terminal()))
        .init();
}

/// Whether to paint what goes there: <https://no-color.org>.
pub(crate) fn is_coloured(is_terminal: bool) -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !is_refused
}

/// The text in bold, if stdout is for a person.
pub(crate) fn bold(text: &str) -> String {
    match is_coloured(std::io::stdout().is_terminal()) {
        true => format!("\x1b[1m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// Writes a line of data.
pub(crate) fn line(text: &str) -> Result<(), Problem> {
    writeln!(std::io::stdout().lock(), "{text}").or_else(|error| match error.kind() {
        // Whoever read has seen enough.
        std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        _ => Err(error.into()),
    })
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Problem> {
    let text =
        serde_json::to_string(value).map_err(|error| Problem::Failed(format!("cannot write it as JSON: {error}")))?;
    line(&text)
}

/// Rows in columns.
pub(crate) fn table(rows: &[Vec<String>]) -> Result<(), Problem> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let text = cells.collect::<Vec<_>>().join("  ");
        let text = text.trim_end();
        line(&if number == 0 { bold(text) } else { text.to_owned() })?;
    }
    Ok(())
}

/// A duration in its two largest units: `2d 3h`.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(3);
    let (unit, name) = units[first];
    let mut text = format!("{}{name}", seconds / unit);
    if let Some((next, name)) = units.get(first + 1)
        && seconds % unit / next > 0
    {
        text += &format!(" {}{name}", seconds % unit / next);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (93_600, "1d 2h"),
            (86_405, "1d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
