//! Which faults come, drawn from the seed alone.

use std::time::Duration;

/// A sort of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL of a worker; another takes its place after a while.
    KillWorker,
    /// SIGSTOP of a worker, SIGCONT later.
    FreezeWorker,
    /// An orderly end of RabbitMQ, and its start.
    RestartBroker,
    /// SIGKILL of RabbitMQ, and its start.
    KillBroker,
    /// An orderly end of Redis, and its start.
    RestartRedis,
    /// SIGKILL of Redis, and its start.
    KillRedis,
    /// Connections are cut.
    Cut,
    /// What passes is late.
    Delay,
    /// What passes is slow.
    Throttle,
    /// One direction of a connection is closed; the other lives on for a while.
    HalfClose,
    /// One direction of a connection takes what is sent and passes nothing on; then it is cut. What was answered meanwhile is lost.
    Swallow,
    /// RabbitMQ has no memory left and blocks who publishes.
    MemoryAlarm,
    /// Redis is full and refuses to write.
    FullRedis,
    /// The workers of an app stop in order, one by one, and a build with one more activity takes their places.
    Deploy,
}

impl Kind {
    pub(crate) const ALL: [Kind; 14] = [
        Kind::KillWorker,
        Kind::FreezeWorker,
        Kind::RestartBroker,
        Kind::KillBroker,
        Kind::RestartRedis,
        Kind::KillRedis,
        Kind::Cut,
        Kind::Delay,
        Kind::Throttle,
        Kind::HalfClose,
        Kind::Swallow,
        Kind::MemoryAlarm,
        Kind::FullRedis,
        Kind::Deploy,
    ];

    /// As options and reports call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::KillWorker => "kill-worker",
            Kind::FreezeWorker => "freeze-worker",
            Kind::RestartBroker => "restart-broker",
            Kind::KillBroker => "kill-broker",
            Kind::RestartRedis => "restart-redis",
            Kind::KillRedis => "kill-redis",
            Kind::Cut => "cut",
            Kind::Delay => "delay",
            Kind::Throttle => "throttle",
            Kind::HalfClose => "half-close",
            Kind::Swallow => "swallow",
            Kind::MemoryAlarm => "memory-alarm",
            Kind::FullRedis => "full-redis",
            Kind::Deploy => "deploy",
        }
    }

    /// How often it is drawn once all kinds have come: those that take long come less often.
    fn weight(self) -> usize {
        match self {
            Kind::KillWorker => 6,
            Kind::FreezeWorker | Kind::Cut | Kind::HalfClose | Kind::Swallow => 3,
            Kind::RestartRedis | Kind::KillRedis | Kind::Delay | Kind::Throttle | Kind::FullRedis => 2,
            Kind::RestartBroker | Kind::KillBroker | Kind::MemoryAlarm | Kind::Deploy => 1,
        }
    }

    /// True if the two make no sense side by side: both are about the same server.
    fn excludes(self, other: Kind) -> bool {
        let server = |kind| match kind {
            Kind::RestartBroker | Kind::KillBroker | Kind::MemoryAlarm => 1,
            Kind::RestartRedis | Kind::KillRedis | Kind::FullRedis => 2,
            Kind::Cut | Kind::Delay | Kind::Throttle | Kind::HalfClose | Kind::Swallow => 3,
            Kind::KillWorker | Kind::FreezeWorker | Kind::Deploy => 4,
        };
        server(self) == server(other) && self != Kind::KillWorker
    }
}

/// A fault with what was drawn for it. What each number is for, the fault says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Who is hit: a worker, an app, one of the two proxies.
    pub(crate) target: usize,
    /// How many quarters of the connections are hit, 1 to 4.
    pub(crate) share: u8,
    /// How long it lasts, of what is its longest, in thousandths.
    pub(crate) length: u32,
    /// Where connections are drawn from.
    pub(crate) seed: u64,
}

/// What comes at a time: one fault, or two side by side, and a pause.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) faults: Vec<Fault>,
    pub(crate) pause: Duration,
}

/// The endless row of rounds of a seed: first each kind once, in any order, then kinds by chance.
pub(crate) struct Schedule {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    first: Vec<Kind>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, kinds: &[Kind]) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut first = kinds.to_vec();
        random.shuffle(&mut first);
        Self {
            random,
            kinds: kinds.to_vec(),
            first,
        }
    }

    /// True while kinds are left that have not come yet.
    pub(crate) fn has_new_kinds(&self) -> bool {
        !self.first.is_empty()
    }

    fn kind(&mut self) -> Kind {
        let all: usize = self.kinds.iter().map(|kind| kind.weight()).sum();
        let mut pick = self.random.usize(..all);
        let drawn = self.kinds.iter().find(|kind| {
            let is_it = pick < kind.weight();
            pick = pick.wrapping_sub(kind.weight());
            is_it
        });
        *drawn.expect("there are kinds")
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        Fault {
            kind,
            target: self.random.usize(..1 << 16),
            share: self.random.u8(1..=4),
            length: self.random.u32(..=1000),
            seed: self.random.u64(..),
        }
    }

    pub(crate) fn next_round(&mut self) -> Round {
        let is_first = self.has_new_kinds();
        let kind = match self.first.pop() {
            Some(kind) => kind,
            None => self.kind(),
        };
        let mut faults = vec![self.fault(kind)];
        // One at a time can be measured; two find what one does not.
        if !is_first && self.random.u8(..10) < 4 {
            let beside = self.kind();
            if !kind.excludes(beside) {
                let fault = self.fault(beside);
                faults.push(fault);
            }
        }
        let pause = Duration::from_millis(self.random.u64(500..3_000));
        Round { faults, pause }
    }
}
