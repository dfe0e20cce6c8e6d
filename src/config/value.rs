//! Durations and sizes as people write them: `250ms`, `7d`, `8MiB`.

use std::time::Duration;

/// Units of time in milliseconds, the longest first.
const TIMES: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// Units of size in bytes, the largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// A whole number and its unit, times the unit. `None` if it is not that, or too large.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that leaves a whole number.
fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    match units
        .iter()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => zero.into(),
    }
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_millis)
}

pub(super) fn show_duration(duration: Duration) -> String {
    show(duration.as_millis().try_into().unwrap_or(u64::MAX), &TIMES, "0s")
}

pub(super) fn size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES, "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_a_number_and_a_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        for (text, bytes) in [
            ("8MiB", 8 << 20),
            ("65535", 65_535),
            ("64KiB", 64 << 10),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("8mib"), Some(8 << 20));
        assert_eq!((show_duration(Duration::ZERO), show_size(0)), ("0s".into(), "0".into()));
    }

    #[test]
    fn nothing_is_guessed() {
        for bad in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "1.5s",
            "10x",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        // 8 MB: a million or 2^20 bytes?
        for bad in ["", "MiB", "8MB", "8 MiB", "-1", "1e6"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
