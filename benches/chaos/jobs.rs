//! What is run: jobs of many shapes, whose outcome follows from what they are given. Plain data and arithmetic; nothing here knows of Leveret.

use serde::{Deserialize, Serialize};

use crate::apps::APPS;

/// What a workflow does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// Activities one after the other, on one app after the other.
    Chain,
    /// Many activities at once, on all apps; a timer; one more.
    Fan,
    /// A child on the next app, which has one on the next; and one that nobody waits for.
    Family,
    /// Timers with activities between.
    Timers,
    /// Waits for events.
    Events,
    /// Activities that fail as planned and are retried, and one that is hopeless.
    Stubborn,
    /// Continue-as-new, with an event that is carried along to the last generation.
    Generations,
    /// Steps that are undone because the last one fails.
    Saga,
    /// Activities that take their time: one with heartbeats and time limits, one that lives on its lease.
    Long,
    /// Is suspended and resumed by its client while it works.
    Held,
    /// Waits for ever, as its child does, and is terminated.
    Ended,
    /// A chain that is started by a plain AMQP message.
    Raw,
    /// Calls an activity that only a newer build has.
    Newest,
}

impl Shape {
    pub(crate) const ALL: [Shape; 13] = [
        Shape::Chain,
        Shape::Fan,
        Shape::Family,
        Shape::Timers,
        Shape::Events,
        Shape::Stubborn,
        Shape::Generations,
        Shape::Saga,
        Shape::Long,
        Shape::Held,
        Shape::Ended,
        Shape::Raw,
        Shape::Newest,
    ];

    /// The workflow's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::Chain => "chain",
            Shape::Fan => "fan",
            Shape::Family => "family",
            Shape::Timers => "timers",
            Shape::Events => "events",
            Shape::Stubborn => "stubborn",
            Shape::Generations => "generations",
            Shape::Saga => "saga",
            Shape::Long => "long",
            Shape::Held => "held",
            Shape::Ended => "ended",
            Shape::Raw => "raw",
            Shape::Newest => "newest",
        }
    }
}

/// A workflow's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The instance ID, which begins the names of all its steps.
    pub(crate) id: String,
    pub(crate) shape: Shape,
    /// The number of its app.
    pub(crate) home: usize,
    /// How long, wide or deep.
    pub(crate) size: u64,
    pub(crate) value: u64,
    /// Continue-as-new generations that came before.
    #[serde(default)]
    pub(crate) generation: u64,
}

/// How a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed(u64),
    /// With a failure of this kind.
    Failed(String),
    Terminated,
}

/// The kind of failure that a saga ends with, and that a hopeless activity has.
pub(crate) const HOPELESS: &str = "Hopeless";
/// What an event carries.
pub(crate) const fn event_value(number: u64) -> u64 {
    100 + number
}
/// The last generation waits for it.
pub(crate) const CARRIED: u64 = 77;

/// What an activity makes of a value.
pub(crate) fn worked(value: u64) -> u64 {
    (value * 3 + 1) % 1_000_003
}

impl Job {
    /// A job of the shape, its size and value drawn.
    pub(crate) fn draw(shape: Shape, number: usize, random: &mut fastrand::Rng) -> Self {
        let sizes = match shape {
            Shape::Chain | Shape::Raw | Shape::Held => 3..=6,
            Shape::Fan => 4..=16,
            Shape::Family | Shape::Timers => 1..=3,
            Shape::Events | Shape::Stubborn => 1..=4,
            Shape::Generations => 2..=8,
            Shape::Saga => 1..=3,
            Shape::Long | Shape::Ended | Shape::Newest => 1..=1,
        };
        Self {
            id: format!("{}-{number}", shape.name()),
            shape,
            home: random.usize(..APPS.len()),
            size: random.u64(sizes),
            value: random.u64(..1_000),
            generation: 0,
        }
    }

    /// The name of a step: no two calls of a run have the same.
    pub(crate) fn step(&self, step: impl std::fmt::Display) -> String {
        format!("{}/{step}", self.id)
    }

    /// The child's job: on the next app, one step less deep.
    pub(crate) fn child(&self) -> Self {
        Self {
            id: format!("{}.c", self.id),
            home: (self.home + 1) % APPS.len(),
            size: self.size - 1,
            value: worked(self.value),
            ..self.clone()
        }
    }

    /// The job of the child that nobody waits for.
    pub(crate) fn detached(&self) -> Self {
        Self {
            id: format!("{}.d", self.id),
            shape: Shape::Chain,
            home: (self.home + 2) % APPS.len(),
            size: 2,
            ..self.clone()
        }
    }

    /// What it has to come to.
    pub(crate) fn outcome(&self) -> Outcome {
        let chain = |value, steps| (0..steps).fold(value, |value, _| worked(value));
        Outcome::Completed(match self.shape {
            Shape::Chain | Shape::Raw | Shape::Held | Shape::Timers => chain(self.value, self.size),
            Shape::Fan => {
                let sum: u64 = (0..self.size).map(|number| worked(self.value + number)).sum();
                worked(sum)
            }
            Shape::Family => match self.size {
                0 => worked(self.value),
                _ => match self.child().outcome() {
                    Outcome::Completed(value) => worked(self.value) + value,
                    other => return other,
                },
            },
            Shape::Events => worked(self.value + (0..self.size).map(event_value).sum::<u64>()),
            Shape::Stubborn => worked(worked(self.value)),
            Shape::Generations => chain(self.value, self.size + 1) + CARRIED,
            Shape::Saga => return Outcome::Failed(HOPELESS.into()),
            Shape::Long => worked(worked(self.value)),
            Shape::Ended => return Outcome::Terminated,
            Shape::Newest => worked(self.value),
        })
    }

    /// The steps whose activities must have run, each as one call: those of its children as well.
    pub(crate) fn steps(&self) -> Vec<String> {
        let numbered = |count: u64| (0..count).map(|number| self.step(number)).collect::<Vec<_>>();
        match self.shape {
            Shape::Chain | Shape::Raw | Shape::Held | Shape::Timers => numbered(self.size),
            Shape::Fan => numbered(self.size + 1),
            Shape::Family if self.size == 0 => [numbered(1), self.detached().steps()].concat(),
            Shape::Family => [numbered(1), self.child().steps()].concat(),
            Shape::Events | Shape::Newest => numbered(1),
            Shape::Stubborn => numbered(3),
            Shape::Generations => numbered(self.size + 1),
            Shape::Saga => {
                let undone = (0..self.size).map(|number| self.step(format!("undo-{number}")));
                numbered(self.size + 1).into_iter().chain(undone).collect()
            }
            Shape::Long => numbered(2),
            // It may be ended before it has done anything.
            Shape::Ended => Vec::new(),
        }
    }
}
