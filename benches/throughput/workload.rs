//! What a workflow does.

use serde::{Deserialize, Serialize};

/// What each of Leveret's workflows does. The floor's is a series in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Activities of another app, one after the other.
    Series,
    /// The same, of its own app.
    Local,
    /// Activities of another app, all at once.
    Parallel,
    /// A child on another app, which has a child on the first one.
    Children,
    /// An activity on each of five apps, one after the other.
    Hops,
    /// No call: it waits for an event, which the client raises.
    Events,
    /// A series, each step of it on any of so many apps, which have ten activities each.
    Apps,
    /// A series in one workflow, so long that its history shows: how much more does a step cost then?
    Loop,
    /// No call: a great many wait for an event, and all of them get it at once.
    Sleepers,
}

impl Workload {
    pub(crate) const ALL: [Self; 9] = [
        Self::Series,
        Self::Local,
        Self::Parallel,
        Self::Children,
        Self::Hops,
        Self::Events,
        Self::Apps,
        Self::Loop,
        Self::Sleepers,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Local => "local",
            Self::Parallel => "parallel",
            Self::Children => "children",
            Self::Hops => "hops",
            Self::Events => "events",
            Self::Apps => "apps",
            Self::Loop => "loop",
            Self::Sleepers => "sleepers",
        }
    }

    /// Calls of a workflow: activities, children, or events that it gets.
    pub(crate) fn calls(self, steps: u32) -> u32 {
        match self {
            Self::Series | Self::Local | Self::Parallel | Self::Apps | Self::Loop => steps,
            Self::Events | Self::Sleepers => 1,
            Self::Children => 2,
            Self::Hops => 5,
        }
    }

    /// False for what is played as one whole, not in rounds beside the floor's.
    pub(crate) fn has_rounds(self) -> bool {
        !matches!(self, Self::Loop | Self::Sleepers)
    }

    /// Steps of the floor's workflow beside it.
    pub(crate) fn floor_steps(self, steps: u32) -> u32 {
        if self == Self::Series { steps } else { 3 }
    }
}
