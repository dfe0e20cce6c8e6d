//! Workflows as data: what a generated workflow does, step by step, and what is done to it.

use serde::{Deserialize, Serialize};

/// The apps of the simulated world, and one that does not exist.
pub(crate) const APPS: [&str; 3] = ["orders", "payments", "shipping"];
pub(crate) const NO_APP: &str = "nowhere";

/// What a workflow does. Its steps run one after the other; then it begins anew, fails, or returns what it has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// How often it continues as new before it ends.
    pub(crate) rounds: u32,
    /// True if it fails at the end.
    pub(crate) fails: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Step {
    Call(CallPlan),
    All(Vec<CallPlan>),
    Child(ChildPlan),
    /// A child that nobody waits for.
    Detached(ChildPlan),
    Timer {
        millis: u64,
    },
    Event {
        name: String,
        within: Option<u64>,
    },
    Race {
        call: CallPlan,
        millis: u64,
    },
    /// Raises an event on another instance, which does not wait for it.
    Raise {
        app: String,
        id: String,
        value: u64,
    },
    Status(u64),
    Patched,
    /// Something else when it is replayed: code that is no workflow's.
    Unsteady {
        key: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallPlan {
    pub(crate) app: String,
    /// Names the step: unique in the script, so that the bodies that run can be told apart.
    pub(crate) key: String,
    pub(crate) value: u64,
    /// The first attempt that succeeds; 0: none does, and the failure is fatal.
    pub(crate) succeeds_from: u32,
    /// Attempts that the policy allows; 1: no policy.
    pub(crate) attempts: u32,
    /// How long the body takes.
    pub(crate) millis: u64,
    pub(crate) timeout: Option<u64>,
    pub(crate) schedule_to_start: Option<u64>,
    /// True if only the newer build registers the activity.
    pub(crate) is_new: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChildPlan {
    pub(crate) app: String,
    pub(crate) id: Option<String>,
    pub(crate) plan: Plan,
    pub(crate) attempts: u32,
}

impl ChildPlan {
    /// One that is over at once.
    pub(crate) fn short(app: &str, id: Option<String>) -> Self {
        Self {
            app: app.into(),
            id,
            plan: Plan::of(vec![Step::Status(1)]),
            attempts: 1,
        }
    }
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Seen {
    Value(u64),
    /// The failure's kind.
    Failed(String),
    Many(Vec<Seen>),
    Child(Vec<Seen>),
    Event(Option<u64>),
    /// The race's winner: the call's result, or none if the timer was first.
    Race(Option<Box<Seen>>),
    Nothing,
}

/// One round's input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) plan: Plan,
    pub(crate) round: u32,
    pub(crate) seen: Vec<Seen>,
}

impl CallPlan {
    /// A call without options, whose body works at once.
    pub(crate) fn plain(app: &str, key: &str) -> Self {
        Self {
            app: app.into(),
            key: key.into(),
            value: 1,
            succeeds_from: 1,
            attempts: 1,
            millis: 0,
            timeout: None,
            schedule_to_start: None,
            is_new: false,
        }
    }

    /// How long it takes at least until it has come to something, in milliseconds. An app that does not exist needs no time to say so.
    pub(crate) fn takes_at_least(&self) -> u64 {
        if self.app == NO_APP {
            return 0;
        }
        self.timeout.map_or(self.millis, |timeout| timeout.min(self.millis))
    }

    /// How long all its attempts take at most, in milliseconds, or for ever.
    pub(crate) fn takes(&self) -> u64 {
        if self.app == NO_APP {
            return u64::MAX / 2;
        }
        // With the waits between them, none of which is longer than a second.
        u64::from(self.attempts) * self.millis + u64::from(self.attempts - 1) * 1_000
    }
}

/// Why an instance waits until everything else is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum HeldUp {
    /// It calls an app that does not exist; a call beside that one goes on.
    NoApp,
    /// Its code does not fit its history.
    Stalled,
    /// Somebody has suspended it.
    Suspended,
}

/// What goes on beside a call that waits.
pub(crate) const GOES_ON: &str = "goes on";

impl HeldUp {
    pub(crate) fn plan(self) -> Plan {
        let steps = match self {
            Self::NoApp => vec![Step::All(vec![
                CallPlan::plain(NO_APP, "waits"),
                CallPlan::plain(APPS[1], GOES_ON),
            ])],
            // Sooner or later one of them is replayed.
            Self::Stalled => (0..1000)
                .flat_map(|number| {
                    let key = format!("unsteady-{number}");
                    [Step::Unsteady { key }, Step::Timer { millis: 2_000 }]
                })
                .collect(),
            Self::Suspended => vec![Step::Timer { millis: 3_600_000 }],
        };
        Plan::of(steps)
    }
}

impl Plan {
    pub(crate) fn of(steps: Vec<Step>) -> Self {
        Self {
            steps,
            rounds: 0,
            fails: false,
        }
    }

    pub(crate) fn for_each_call(&mut self, change: &mut impl FnMut(&mut CallPlan)) {
        for step in &mut self.steps {
            match step {
                Step::Call(call) | Step::Race { call, .. } => change(call),
                Step::All(calls) => calls.iter_mut().for_each(&mut *change),
                Step::Child(child) | Step::Detached(child) => child.plan.for_each_call(change),
                _ => {}
            }
        }
    }

    /// Takes out what depends on events.
    pub(crate) fn without_events(mut self) -> Self {
        self.steps
            .retain(|step| !matches!(step, Step::Event { .. } | Step::Raise { .. }));
        for step in &mut self.steps {
            if let Step::Child(child) | Step::Detached(child) = step {
                child.plan = std::mem::replace(&mut child.plan, Plan::of(Vec::new())).without_events();
            }
        }
        self
    }

    /// The children, and theirs, whose IDs are chosen.
    pub(crate) fn named_children(&self, found: &mut Vec<(String, String)>) {
        for step in &self.steps {
            if let Step::Child(child) | Step::Detached(child) = step {
                found.extend(child.id.iter().map(|id| (child.app.clone(), id.clone())));
                child.plan.named_children(found);
            }
        }
    }

    /// True if children are started in more than one round.
    pub(crate) fn repeats_children(&self) -> bool {
        let mut children = self.steps.iter().filter_map(|step| match step {
            Step::Child(child) | Step::Detached(child) => Some(child),
            _ => None,
        });
        children.any(|child| self.rounds > 0 || child.plan.repeats_children())
    }

    /// True if it, or a child of it, waits for an event.
    pub(crate) fn waits_for_events(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Event { .. } => true,
            Step::Child(child) | Step::Detached(child) => child.plan.waits_for_events(),
            _ => false,
        })
    }

    pub(crate) fn begin(self) -> Round {
        Round {
            plan: self,
            round: 0,
            seen: Vec::new(),
        }
    }
}

/// Names and values differ from round to round.
pub(crate) fn event_name(name: &str, round: u32) -> String {
    format!("{name}/{round}")
}

pub(crate) fn event_value(name: &str) -> u64 {
    name.bytes().map(u64::from).sum()
}

pub(crate) fn result_of(value: u64, round: u32) -> u64 {
    value * 3 + u64::from(round)
}

/// An instance that a client starts, and everything the client does to it. Lives follow each other under one instance ID.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) app: String,
    pub(crate) id: String,
    pub(crate) lives: Vec<Life>,
}

#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) plan: Plan,
    /// When it is started, in milliseconds after the life before.
    pub(crate) at: u64,
    /// True if the first who starts it dies in the middle.
    pub(crate) is_abandoned_once: bool,
    /// Events to be raised, on itself or on its children, each at a time counted from the start; some come before it.
    pub(crate) raises: Vec<Raised>,
    /// Commands to itself or to children of its, in the order of their times, which count from the start.
    pub(crate) commands: Vec<Told>,
    /// True if it is purged when it is over.
    pub(crate) is_purged: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Raised {
    pub(crate) at: u64,
    pub(crate) app: String,
    pub(crate) id: String,
    pub(crate) name: String,
    /// How often it is sent, with one message ID.
    pub(crate) times: u32,
}

/// A command, and who gets it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: u64,
    /// The child's app and ID, or nothing for the root itself.
    pub(crate) child: Option<(String, String)>,
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Command {
    Suspend,
    Resume,
    Terminate,
    /// Refused while it is active.
    Purge,
}

impl Root {
    /// True if a client may purge it before it has asked what it came to.
    pub(crate) fn is_purged_at_any_time(&self) -> bool {
        let mut told = self.lives.iter().flat_map(|life| &life.commands);
        told.any(|told| told.child.is_none() && told.command == Command::Purge)
    }
}
