//! Everything that is drawn from a seed: roots, a fleet of workers, and what happens to them. Data, so that it can be made smaller.

use std::collections::BTreeSet;
use std::time::Duration;

use leveret::testing::Faults;
use leveret::{Limits, Retention, Settings};

use crate::generator::Generator;
use crate::plan::{APPS, ChildPlan, Command, HeldUp, Root, Step};

/// Everything that is drawn from a seed. What goes wrong in the network is drawn while it is played.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) roots: Vec<Root>,
    /// What happens to the fleet, in milliseconds from the beginning.
    pub(crate) chaos: Vec<(u64, Chaos)>,
    pub(crate) faults: Faults,
    /// Why one instance waits until everything else is over.
    pub(crate) held_up: Option<HeldUp>,
    /// How long finished instances are kept, in milliseconds.
    pub(crate) retention: Option<u64>,
    /// Workers of an app.
    pub(crate) replicas: usize,
    /// An app whose first workers come so late, in milliseconds.
    pub(crate) late_app: Option<(usize, u64)>,
    /// True if workers of an older build, without the new activity, are there at first.
    pub(crate) has_old_build: bool,
    /// Bytes of live workflows that a worker keeps.
    pub(crate) cache: usize,
    /// The broker's delivery timeout, in milliseconds.
    pub(crate) delivery_timeout: u64,
    /// Messages that a consumer gets at a time.
    pub(crate) prefetch: u16,
    /// Most items of a message.
    pub(crate) bundle_items: usize,
    /// True if nothing goes wrong, so that the model knows more of what has to come.
    pub(crate) is_calm: bool,
}

/// Something that happens to one worker of an app, or to the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chaos {
    /// SIGKILL, and a new one after a while.
    Kill {
        app: usize,
        replica: usize,
        back_after: u64,
    },
    Freeze {
        app: usize,
        replica: usize,
        millis: u64,
    },
    Cut {
        app: usize,
        replica: usize,
    },
    Skew {
        app: usize,
        replica: usize,
        millis: i64,
    },
    /// It stops in order, and one of the newest build comes.
    Deploy {
        app: usize,
        replica: usize,
    },
    Block {
        millis: u64,
    },
    /// One queue of an app takes nothing.
    BlockQueue {
        app: usize,
        queue: usize,
        millis: u64,
    },
    /// The servers fail over: for a while many requests do not get through, and of others the answer is lost. No data is.
    FailOver {
        millis: u64,
    },
    /// All workers of an app die, and come back.
    Blackout {
        app: usize,
        back_after: u64,
    },
}

/// When everything is healed, in milliseconds.
pub(crate) const HEALED: u64 = 25_000;

/// A delivery timeout that bodies outlast, in milliseconds.
const SHORT_HOLD: u64 = 4_000;

impl Script {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let roots = 1 + rng.usize(..6);
        let mut generator = Generator { rng: &mut rng, keys: 0 };
        let roots = (0..roots).map(|number| generator.root(number)).collect();
        let replicas = 1 + rng.usize(..3);
        // Fewer deaths than a task may have: none is to be taken for a killer.
        let mut deaths = 2;
        let mut chaos: Vec<_> = (0..rng.usize(..12))
            .map(|_| (rng.u64(..HEALED - 5_000), draw_chaos(&mut rng, replicas, &mut deaths)))
            .collect();
        chaos.sort_by_key(|(at, _)| *at);
        let faults = match rng.u32(..4) {
            0 => Faults::slow(Duration::from_millis(5)),
            1 => Faults::bad_day(),
            2 => some_of(Faults::bad_day(), &mut rng),
            _ => Faults {
                latency: Duration::from_millis(1 + rng.u64(..300)),
                ..some_of(Faults::bad_day(), &mut rng)
            },
        };
        let cache = if rng.bool() { 1 << 20 } else { 0 };
        let held_up = match rng.u32(..8) {
            0..=1 => Some(HeldUp::NoApp),
            // What is kept live is not replayed.
            2 if cache == 0 => Some(HeldUp::Stalled),
            3 => Some(HeldUp::Suspended),
            _ => None,
        };
        // Often so short that a child is gone before its parent is looked at again.
        let longest = if rng.bool() { 2_000 } else { 20_000 };
        let retention = (rng.u32(..3) == 0).then(|| rng.u64(..longest));
        let has_old_build = rng.u32(..3) == 0;
        match rng.u32(..12) {
            0 => return Self::of_long_bodies(seed, roots, &mut rng),
            1 => return Self::of_short_lives(seed, roots, &mut rng),
            2 => return Self::of_timers(seed, roots, &mut rng),
            3 => return Self::of_a_calm_day(seed, roots, held_up),
            _ => {}
        }
        let late_app = (rng.u32(..5) == 0).then(|| (rng.usize(..APPS.len()), 2_000 + rng.u64(..12_000)));
        Self {
            seed,
            roots,
            chaos,
            faults,
            held_up,
            retention,
            replicas,
            late_app,
            has_old_build,
            cache,
            delivery_timeout: 1_800_000,
            prefetch: [2, 8, 256][(seed % 3) as usize],
            bundle_items: [2, 128][(seed % 2) as usize],
            is_calm: false,
        }
    }

    /// Bodies that run for longer than their messages may be held, and a broker that delivers again and again; nobody dies, and the store is well. So a
    /// body that runs under a lease runs alone.
    fn of_long_bodies(seed: u64, mut roots: Vec<Root>, rng: &mut fastrand::Rng) -> Self {
        for life in roots.iter_mut().flat_map(|root| &mut root.lives) {
            life.plan.for_each_call(&mut |call| {
                call.millis = 2_000 + rng.u64(..8_000);
                call.timeout = None;
            });
        }
        let faults = Faults {
            latency: Duration::from_millis(2),
            cut: 0.01,
            unnoticed: Duration::from_secs(4),
            ..Faults::default()
        };
        Self {
            seed,
            roots,
            chaos: Vec::new(),
            faults,
            held_up: None,
            retention: None,
            replicas: 2,
            late_app: None,
            has_old_build: false,
            cache: 1 << 20,
            delivery_timeout: SHORT_HOLD,
            prefetch: 256,
            bundle_items: 128,
            is_calm: false,
        }
    }

    /// Children that are over soon and gone when they are over, and parents whose only worker dies when it has just started them.
    fn of_short_lives(seed: u64, mut roots: Vec<Root>, rng: &mut fastrand::Rng) -> Self {
        for (number, root) in roots.iter_mut().enumerate() {
            root.lives.truncate(1);
            for life in &mut root.lives {
                life.plan.steps = (0..4)
                    .map(|child| {
                        let id = Some(format!("short-{number}-{child}"));
                        Step::Child(ChildPlan::short(APPS[rng.usize(..APPS.len())], id))
                    })
                    .collect();
            }
        }
        let faults = Faults {
            latency: Duration::from_millis(1 + rng.u64(..30)),
            dies: 0.007,
            ..Faults::default()
        };
        Self {
            seed,
            roots,
            chaos: Vec::new(),
            faults,
            held_up: None,
            retention: Some(rng.u64(..500)),
            replicas: 1,
            late_app: None,
            has_old_build: false,
            cache: 1 << 20,
            delivery_timeout: 1_800_000,
            prefetch: 256,
            bundle_items: 128,
            is_calm: false,
        }
    }

    /// Workflows that wait for nothing but timers, so that no message ever finds them, and whose workers die.
    fn of_timers(seed: u64, roots: Vec<Root>, rng: &mut fastrand::Rng) -> Self {
        let mut script = Self::of_short_lives(seed, roots, rng);
        for life in script.roots.iter_mut().flat_map(|root| &mut root.lives) {
            for step in &mut life.plan.steps {
                *step = Step::Timer {
                    millis: rng.u64(..1_000),
                };
            }
        }
        script
    }

    /// Nothing goes wrong, nobody is told anything but to end, and all workers are up before the first workflow starts.
    fn of_a_calm_day(seed: u64, mut roots: Vec<Root>, held_up: Option<HeldUp>) -> Self {
        for root in &mut roots {
            root.lives[0].at += 5_000;
            for life in &mut root.lives {
                let is_end = |command| matches!(command, Command::Terminate | Command::Purge);
                life.commands.retain(|told| is_end(told.command));
                life.is_abandoned_once = false;
            }
        }
        Self {
            seed,
            roots,
            chaos: Vec::new(),
            faults: Faults::slow(Duration::from_millis(5)),
            held_up,
            retention: None,
            replicas: 2,
            late_app: None,
            has_old_build: false,
            cache: if held_up == Some(HeldUp::Stalled) { 0 } else { 1 << 20 },
            delivery_timeout: 1_800_000,
            prefetch: 256,
            bundle_items: 128,
            is_calm: true,
        }
    }

    /// True if bodies run for longer than their messages may be held, and under leases.
    pub(crate) fn has_long_bodies(&self) -> bool {
        self.delivery_timeout == SHORT_HOLD
    }

    /// The children that somebody is told to end.
    pub(crate) fn ended_children(&self) -> BTreeSet<String> {
        let lives = self.roots.iter().flat_map(|root| &root.lives);
        let told = lives.flat_map(|life| &life.commands);
        told.filter(|told| told.command == Command::Terminate)
            .filter_map(|told| Some(told.child.as_ref()?.1.clone()))
            .collect()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            lanes: 2,
            due_interval: Duration::from_millis(500),
            parked_interval: Duration::from_secs(2),
            shutdown_grace: Duration::from_secs(2),
            retention: self.kept(),
            delivery_timeout: Duration::from_millis(self.delivery_timeout),
            prefetch: self.prefetch,
            limits: Limits {
                cache_bytes: self.cache,
                bundle_items: self.bundle_items,
                ..Limits::default()
            },
            ..Settings::default()
        }
    }

    pub(crate) fn kept(&self) -> Retention {
        let time = self.retention.map(Duration::from_millis);
        Retention {
            completed: time,
            failed: time,
            terminated: time,
        }
    }
}

fn draw_chaos(rng: &mut fastrand::Rng, replicas: usize, deaths: &mut u32) -> Chaos {
    let (app, replica) = (rng.usize(..APPS.len()), rng.usize(..replicas));
    match rng.u32(..11) {
        0..=2 if *deaths > 0 => {
            *deaths -= 1;
            Chaos::Kill {
                app,
                replica,
                back_after: rng.u64(..8_000),
            }
        }
        3 if *deaths > 0 => {
            *deaths -= 1;
            Chaos::Blackout {
                app,
                back_after: rng.u64(..10_000),
            }
        }
        4 => Chaos::Freeze {
            app,
            replica,
            millis: rng.u64(..20_000),
        },
        5 => Chaos::Cut { app, replica },
        6 => Chaos::Skew {
            app,
            replica,
            millis: rng.i64(-60_000..60_000),
        },
        8 => Chaos::FailOver {
            millis: rng.u64(..4_000),
        },
        7 => Chaos::Block {
            millis: rng.u64(..8_000),
        },
        9 => Chaos::BlockQueue {
            app,
            queue: rng.usize(..4),
            millis: rng.u64(..20_000),
        },
        _ => Chaos::Deploy { app, replica },
    }
}

/// Each fault is there or not.
fn some_of(all: Faults, rng: &mut fastrand::Rng) -> Faults {
    let mut some = |chance: f64| if rng.bool() { chance * 2.0 } else { 0.0 };
    Faults {
        refused: some(all.refused),
        answer_lost: some(all.answer_lost),
        late: some(all.late),
        doubled: some(all.doubled),
        to_two: some(all.to_two),
        overtaken: some(all.overtaken),
        overlooked: some(all.overlooked),
        cut: some(all.cut),
        dies: some(all.dies),
        ..all
    }
}
