//! What an instance waits for: small enough to be written with every turn, enough for a person at 3 a.m.

use serde::{Deserialize, Serialize};

use super::{AppId, InstanceRef, Sequence, Timestamp, is_default};

/// What an instance waits for: the first few, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    /// How many things are open in all: those listed, those beyond, and those that were given up. Where it is the length of the list, nothing is missing
    /// there.
    pub total: usize,
    /// How many of them are calls that the code does not wait for any more. They go on, and are not listed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub given_up: usize,
    /// The first of them: at most [`WaitingView::SHOWN`].
    pub shown: Vec<WaitingFor>,
}

impl WaitingView {
    /// How many are listed: enough for a person, and small beside a commit.
    pub const SHOWN: usize = 16;
}

/// One thing that an instance waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WaitingFor {
    /// An activity attempt.
    Activity {
        /// Its number.
        sequence: Sequence,
        /// The app called.
        app: AppId,
        /// The activity called.
        name: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// When it was scheduled.
        since: Timestamp,
    },
    /// A child workflow.
    Child {
        /// Its number.
        sequence: Sequence,
        /// The child.
        instance: InstanceRef,
        /// The workflow called.
        workflow: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// When it was scheduled.
        since: Timestamp,
    },
    /// The pause before a call's next attempt.
    Retry {
        /// The timer's number.
        sequence: Sequence,
        /// The app called.
        app: AppId,
        /// What is called.
        name: String,
        /// The attempt that comes next.
        attempt: u32,
        /// When it comes.
        due: Timestamp,
    },
    /// A timer.
    Timer {
        /// Its number.
        sequence: Sequence,
        /// When it fires.
        due: Timestamp,
    },
    /// An external event.
    Event {
        /// Its name.
        name: String,
        /// Since when.
        since: Timestamp,
        /// Until when, if the wait has a time limit. Of several waits for the name, the one that began first counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
}

impl WaitingFor {
    /// The number of the call or timer; an event has none.
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            WaitingFor::Activity { sequence, .. }
            | WaitingFor::Child { sequence, .. }
            | WaitingFor::Retry { sequence, .. }
            | WaitingFor::Timer { sequence, .. } => Some(*sequence),
            WaitingFor::Event { .. } => None,
        }
    }
}
