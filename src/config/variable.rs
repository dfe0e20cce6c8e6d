//! One environment variable: how its value is read, checked and shown.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::draft::Draft;
use super::value;

/// The longest time that something is kept, but for `off`.
const LONGEST_KEPT: Duration = Duration::from_secs(36_500 * 86_400);

/// An environment variable.
pub struct Variable {
    pub(super) name: &'static str,
    pub(super) sets: &'static str,
    pub(super) field: Field,
}

/// What a variable's value is, and where it goes.
pub(super) enum Field {
    Count {
        range: RangeInclusive<u64>,
        get: fn(&Draft) -> u64,
        set: fn(&mut Draft, u64),
    },
    Size {
        range: RangeInclusive<u64>,
        get: fn(&Draft) -> u64,
        set: fn(&mut Draft, u64),
    },
    Time {
        range: RangeInclusive<Duration>,
        get: fn(&Draft) -> Duration,
        set: fn(&mut Draft, Duration),
    },
    /// A time, or `off`.
    Kept {
        get: fn(&Draft) -> Option<Duration>,
        set: fn(&mut Draft, Option<Duration>),
    },
    /// Anything else: `set` says whether the text is one.
    Text {
        takes: &'static str,
        get: fn(&Draft) -> String,
        set: fn(&mut Draft, &str) -> Option<()>,
    },
    /// Like `Text`, but no message may repeat its value.
    Secret {
        takes: &'static str,
        set: fn(&mut Draft, &str) -> Option<()>,
    },
}

impl Variable {
    /// Its name, as `LEVERET_LANES`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it sets, in one sentence.
    pub fn sets(&self) -> &'static str {
        self.sets
    }

    /// Which values are right, as "a whole number from 1 to 256".
    pub fn takes(&self) -> String {
        match &self.field {
            Field::Count { range, .. } => format!("a whole number from {} to {}", range.start(), range.end()),
            Field::Size { range, .. } => {
                let (least, most) = (value::show_size(*range.start()), value::show_size(*range.end()));
                format!("a size from {least} to {most}")
            }
            Field::Time { range, .. } => {
                let (least, most) = (value::show_duration(*range.start()), value::show_duration(*range.end()));
                format!("a duration from {least} to {most}")
            }
            Field::Kept { .. } => "a duration up to 36500d, or off".into(),
            Field::Text { takes, .. } | Field::Secret { takes, .. } => (*takes).into(),
        }
    }

    /// What holds while it is not set, written as its value would be; empty if that is nothing.
    pub fn default(&self) -> String {
        self.shown(&Draft::default())
    }

    /// The draft's value.
    pub(super) fn shown(&self, draft: &Draft) -> String {
        match &self.field {
            Field::Count { get, .. } => get(draft).to_string(),
            Field::Size { get, .. } => value::show_size(get(draft)),
            Field::Time { get, .. } => value::show_duration(get(draft)),
            Field::Kept { get, .. } => get(draft).map_or_else(|| "off".into(), value::show_duration),
            Field::Text { get, .. } => get(draft),
            Field::Secret { .. } => String::new(),
        }
    }

    /// Writes a value into the draft, or tells in one line what is wrong with it.
    pub(super) fn read(&self, text: &str, draft: &mut Draft) -> Result<(), String> {
        let done = match &self.field {
            Field::Count { range, set, .. } => {
                let number = text.parse().ok().filter(|number| range.contains(number));
                number.map(|number| set(draft, number))
            }
            Field::Size { range, set, .. } => {
                let bytes = value::size(text).filter(|bytes| range.contains(bytes));
                bytes.map(|bytes| set(draft, bytes))
            }
            Field::Time { range, set, .. } => {
                let time = value::duration(text).filter(|time| range.contains(time));
                time.map(|time| set(draft, time))
            }
            Field::Kept { set, .. } if text.eq_ignore_ascii_case("off") => {
                set(draft, None);
                Some(())
            }
            Field::Kept { set, .. } => {
                let time = value::duration(text).filter(|time| *time <= LONGEST_KEPT);
                time.map(|time| set(draft, Some(time)))
            }
            Field::Text { set, .. } | Field::Secret { set, .. } => set(draft, text),
        };
        done.ok_or_else(|| self.refusal(text))
    }

    /// One line: the variable, its value if that may be told, and what would be right.
    pub(super) fn refusal(&self, text: &str) -> String {
        let example = match self.field {
            Field::Size { .. } => ", such as 65536, 64KiB, 8MiB or 1GiB",
            Field::Time { .. } | Field::Kept { .. } => ", such as 250ms, 10s, 5m, 2h or 7d",
            _ => "",
        };
        match self.field {
            Field::Secret { .. } => format!("{} is not {}", self.name, self.takes()),
            _ => {
                let shown: String = text.chars().take(80).collect();
                format!("{}={shown:?} is not {}{example}", self.name, self.takes())
            }
        }
    }
}
