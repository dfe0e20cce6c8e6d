//! Drawing roots from a seed.

use crate::plan::{APPS, CallPlan, ChildPlan, Command, Life, NO_APP, Plan, Raised, Root, Step, Told, event_name};

/// Draws roots from a seed.
pub(crate) struct Generator<'a> {
    pub(crate) rng: &'a mut fastrand::Rng,
    /// Keys handed out.
    pub(crate) keys: u32,
}

impl Generator<'_> {
    pub(crate) fn root(&mut self, number: usize) -> Root {
        let app = self.app();
        let id = format!("root-{number}");
        let lives = 1 + self.rng.usize(..5) / 3;
        let lives = (0..lives).map(|_| self.life(&app, &id)).collect();
        Root { app, id, lives }
    }

    fn life(&mut self, app: &str, id: &str) -> Life {
        let mut raises = Vec::new();
        let plan = self.plan(app, Some(id), 2, &mut raises);
        let mut commands = self.commands(None, 5);
        let mut children = Vec::new();
        plan.named_children(&mut children);
        for child in children {
            commands.extend(self.commands(Some(child), 8));
        }
        commands.sort_by_key(|told| told.at);
        Life {
            plan,
            at: self.rng.u64(..3_000),
            is_abandoned_once: self.one_in(6),
            raises,
            commands,
            is_purged: self.one_in(3),
        }
    }

    /// Commands to one instance: of each kind one in so many.
    fn commands(&mut self, child: Option<(String, String)>, one_in: u32) -> Vec<Told> {
        let mut commands = Vec::new();
        if self.one_in(one_in) {
            // Often before its first turn.
            let [within, after] = if self.one_in(3) { [300, 300] } else { [8_000, 6_000] };
            let at = self.rng.u64(..within);
            commands.push((at, Command::Suspend));
            commands.push((at + self.rng.u64(..after), Command::Resume));
        }
        if self.one_in(one_in) {
            commands.push((self.rng.u64(..10_000), Command::Terminate));
        }
        if self.one_in(one_in) {
            commands.push((self.rng.u64(..15_000), Command::Purge));
        }
        let told = |(at, command)| Told {
            at,
            child: child.clone(),
            command,
        };
        commands.into_iter().map(told).collect()
    }

    /// A plan for an instance; only one whose ID is known can wait for events from outside.
    fn plan(&mut self, app: &str, id: Option<&str>, depth: u32, raises: &mut Vec<Raised>) -> Plan {
        if self.one_in(20) {
            // One that does nothing but begin anew, more often than an activation lets it.
            return Plan {
                steps: vec![Step::Status(1)],
                rounds: self.rng.u32(..30),
                fails: false,
            };
        }
        let rounds = if self.one_in(5) { 1 + self.rng.u32(..3) } else { 0 };
        let count = 1 + self.rng.usize(..4);
        let steps = (0..count).map(|_| self.step(app, id, rounds, depth, raises)).collect();
        Plan {
            steps,
            rounds,
            fails: self.one_in(10),
        }
    }

    fn step(&mut self, app: &str, id: Option<&str>, rounds: u32, depth: u32, raises: &mut Vec<Raised>) -> Step {
        match self.rng.u32(..20) {
            0..=5 => Step::Call(self.call()),
            6..=7 => {
                let calls = (0..2 + self.rng.usize(..4)).map(|_| self.call()).collect();
                Step::All(calls)
            }
            8..=9 if depth > 0 => Step::Child(self.child(rounds, depth, raises)),
            10 if depth > 0 => Step::Detached(self.child(rounds, depth, raises)),
            11..=12 => Step::Timer {
                millis: self.rng.u64(..5_000),
            },
            13..=15 if id.is_some() => {
                let name = self.key();
                let id = id.unwrap_or_default();
                let within = self.one_in(3).then(|| self.rng.u64(..4_000));
                for round in 0..=rounds {
                    raises.push(Raised {
                        at: self.rng.u64(..8_000),
                        app: app.into(),
                        id: id.into(),
                        name: event_name(&name, round),
                        times: 1 + self.rng.u32(..3) / 2,
                    });
                }
                Step::Event { name, within }
            }
            16 => Step::Race {
                call: self.call(),
                millis: self.rng.u64(..3_000),
            },
            17 => Step::Raise {
                app: self.app(),
                id: format!("root-{}", self.rng.u32(..8)),
                value: self.rng.u64(..1000),
            },
            18 => Step::Status(self.rng.u64(..1000)),
            19 => Step::Patched,
            _ => Step::Call(self.call()),
        }
    }

    fn call(&mut self) -> CallPlan {
        let is_hopeless = self.one_in(12);
        let goes_nowhere = self.one_in(25);
        let attempts = if goes_nowhere || self.one_in(3) {
            2 + self.rng.u32(..3)
        } else {
            1
        };
        CallPlan {
            app: if goes_nowhere { NO_APP.into() } else { self.app() },
            key: self.key(),
            value: self.rng.u64(..1000),
            succeeds_from: if is_hopeless { 0 } else { 1 + self.rng.u32(..8) / 6 },
            attempts,
            millis: if self.one_in(4) { self.rng.u64(..2_000) } else { 0 },
            timeout: self.one_in(10).then(|| 500 + self.rng.u64(..4_000)),
            schedule_to_start: self.one_in(10).then(|| 500 + self.rng.u64(..4_000)),
            is_new: self.one_in(6),
        }
    }

    /// A child of a parent that has so many more rounds.
    fn child(&mut self, rounds: u32, depth: u32, raises: &mut Vec<Raised>) -> ChildPlan {
        let app = self.app();
        let id = self.one_in(2).then(|| format!("child-{}", self.key()));
        // An event that the first round's child, or its first attempt, has taken is not there for the second.
        let plan = if rounds == 0 {
            self.plan(&app, id.as_deref(), depth - 1, raises)
        } else {
            self.plan(&app, None, depth - 1, &mut Vec::new()).without_events()
        };
        let is_repeatable = !plan.waits_for_events();
        ChildPlan {
            attempts: if is_repeatable && self.one_in(4) { 2 } else { 1 },
            app,
            id,
            plan,
        }
    }

    fn app(&mut self) -> String {
        APPS[self.rng.usize(..APPS.len())].into()
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("k{}", self.keys)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(..count) == 0
    }
}
