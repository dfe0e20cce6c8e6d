//! The run: servers, processes, and rounds of both sides in turns.

use std::path::Path;

use deadpool_redis::redis;
use leveret::Client;

use crate::leveret_side;
use crate::options::Options;
use crate::process::{ByHand, Counts, Part, Process, Ran, Round, Scene};
use crate::report::{Cost, Measured, Report};
use crate::servers::Servers;
use crate::usage::{cpu_seconds, noted};
use crate::whole_load;
use crate::workload::Workload;

/// Workflows before the first round: connections are open then, scripts known, activities known to be short.
pub(crate) const WARM_UP: Round = Round {
    in_flight: 32,
    count: 200,
    steps: 3,
    part: Part::Whole,
    pace: None,
};

/// Apps that those with many are compared with.
const FEW_APPS: u32 = 3;
/// How many those are, by default.
const MANY_APPS: u32 = 100;

/// The processes of one side: the first one drives.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) processes: Vec<Process>,
}

impl Side {
    pub(crate) async fn start(name: &'static str, roles: &[&'static str], scene: &Scene) -> Result<Self, String> {
        let mut processes = Vec::new();
        for role in roles {
            processes.push(Process::start(role, scene).await?);
        }
        Ok(Self { name, processes })
    }

    pub(crate) async fn stop(self) {
        for process in self.processes {
            process.stop().await;
        }
    }
}

/// What has been used since the servers were started.
struct Meters {
    broker: f64,
    redis: f64,
    /// Each process of the side.
    side: Vec<f64>,
    scripts: u64,
    messages: u64,
    counts: Counts,
}

pub(crate) struct Bench<'a> {
    pub(crate) servers: &'a Servers,
    directory: &'a Path,
}

/// The processes of Leveret's side: the client drives.
pub(crate) const LEVERET: [&str; 3] = ["leveret-client", "leveret-caller", "leveret-target"];

impl Bench<'_> {
    async fn read(&self, side: &mut Side) -> Result<Meters, String> {
        let mut counts = Counts::default();
        // The first one drives.
        for worker in &mut side.processes[1..] {
            let its = worker.counts().await?;
            counts.live += its.live;
            counts.replayed += its.replayed;
        }
        let server = |name| noted(self.directory, name).map_or(0.0, cpu_seconds);
        Ok(Meters {
            broker: server("LEVERET_TEST_BROKER_PID"),
            redis: server("LEVERET_TEST_REDIS_PID"),
            side: side
                .processes
                .iter()
                .map(|process| process.id().map_or(0.0, cpu_seconds))
                .collect(),
            scripts: self.scripts().await?,
            messages: self.servers.messages().await?,
            counts,
        })
    }

    /// Scripts that Redis has run. (Of other commands it does not tell which were called by scripts.)
    pub(crate) async fn scripts(&self) -> Result<u64, String> {
        self.calls("eval").await
    }

    /// Calls that Redis has carried out, by clients and by scripts, of commands whose name begins like that.
    pub(crate) async fn calls(&self, command: &str) -> Result<u64, String> {
        let problem = |error: redis::RedisError| format!("INFO: {error}");
        let mut connection = self.servers.redis().await.map_err(problem)?;
        let mut info = redis::cmd("INFO");
        let stats: String = info
            .arg("commandstats")
            .query_async(&mut connection)
            .await
            .map_err(problem)?;
        let name = format!("cmdstat_{command}");
        let calls = stats.lines().filter(|line| line.starts_with(&name)).filter_map(|line| {
            let calls = line.split_once("calls=")?.1.split_once(',')?.0;
            calls.parse::<u64>().ok()
        });
        Ok(calls.sum())
    }

    async fn round(&self, side: &mut Side, round: Round) -> Result<Measured, String> {
        // What is noted of a workflow after its end is part of what it costs.
        let before = self.read(side).await?;
        let name = side.name;
        let ran: Ran = side.processes[0]
            .run(round)
            .await
            .map_err(|problem| format!("{name}: {problem}"))?;
        let after = self.read(side).await?;
        let cores = |before: f64, after: f64| (after - before) / ran.seconds;
        let sides = before.side.iter().zip(&after.side);
        Ok(Measured::new(
            &ran,
            Cost {
                broker: cores(before.broker, after.broker),
                redis: cores(before.redis, after.redis),
                processes: sides.map(|(before, after)| cores(*before, *after)).collect(),
                scripts: (after.scripts - before.scripts) as f64 / round.count as f64,
                messages: (after.messages - before.messages) as f64 / round.count as f64,
                live: share(
                    after.counts.live - before.counts.live,
                    after.counts.replayed - before.counts.replayed,
                ),
            },
        ))
    }
}

/// The share of the former; none of nothing.
fn share(some: u64, others: u64) -> Option<f64> {
    let all = some + others;
    (all > 0).then(|| some as f64 / all as f64)
}

pub(crate) async fn run(options: &Options) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let servers = Servers::start(directory.path(), options.fsync).await?;
    let measured = measure(options, &servers, directory.path()).await;
    servers.stop().await;
    measured
}

/// Audits the namespace again and again; what it finds that is amiss is a failure.
async fn audit_on(client: &Client) -> String {
    loop {
        match client.audit().await {
            Ok(report) if report.findings.is_empty() => {}
            Ok(report) => return format!("the audit finds that something is amiss: {report:#?}"),
            Err(error) => return format!("audit: {error}"),
        }
    }
}

/// The processes of a loop that is written by hand.
async fn by_hand(which: ByHand, scene: &Scene) -> Result<Side, String> {
    let scene = Scene {
        by_hand: which,
        ..scene.clone()
    };
    Side::start(which.name(), &["floor-driver", "floor-target"], &scene).await
}

async fn measure(options: &Options, servers: &Servers, directory: &Path) -> Result<(), String> {
    let scene = Scene {
        amqp: servers.amqp_url(servers.broker_port),
        redis: servers.redis_url(servers.redis_port),
        namespace: "bench".into(),
        workload: options.workload,
        payload: options.payload,
        apps: FEW_APPS,
        bundle: options.bundle,
        by_hand: ByHand::Floor,
    };
    let bench = Bench { servers, directory };
    match options.workload {
        Workload::Loop if options.kill => return whole_load::a_killed_loop(&bench, options, &scene).await,
        Workload::Loop => return whole_load::a_long_loop(&bench, options, &scene).await,
        Workload::Sleepers => return whole_load::sleepers(&bench, options, &scene).await,
        _ => {}
    }
    let mut floor = by_hand(ByHand::Floor, &scene).await?;
    let mut leveret = Side::start("leveret", &LEVERET, &scene).await?;
    // In a namespace of its own, so that the others' rounds are not theirs.
    let many = Scene {
        namespace: "bench-many".into(),
        ..scene.clone()
    };
    let mut others = Vec::new();
    if options.workload == Workload::Apps {
        let apps = options.apps.unwrap_or(MANY_APPS);
        others.push(Side::start("apps", &LEVERET, &Scene { apps, ..many }).await?);
    } else if options.workers > 1 {
        let callers = std::iter::repeat_n(LEVERET[1], options.workers);
        let targets = std::iter::repeat_n(LEVERET[2], options.workers);
        let roles: Vec<_> = std::iter::once(LEVERET[0]).chain(callers).chain(targets).collect();
        others.push(Side::start("workers", &roles, &many).await?);
    }
    let mut limits = Vec::new();
    if options.limits {
        for which in [ByHand::Bundled, ByHand::Kept] {
            limits.push(by_hand(which, &scene).await?);
        }
    }
    let auditor = match options.audit {
        true => Some(Client::new(leveret_side::backend(&scene).await?)),
        false => None,
    };
    let mut report = Report::new(options);
    let rounds = async {
        for side in [&mut floor, &mut leveret]
            .into_iter()
            .chain(&mut others)
            .chain(&mut limits)
        {
            let calls = options.workload.calls(options.steps) as usize;
            let round = Round {
                count: (WARM_UP.count * 3 / calls).max(1),
                steps: options.steps,
                ..WARM_UP
            };
            bench.round(side, round).await?;
        }
        for in_flight in &options.in_flight {
            let of = |calls| Round {
                in_flight: *in_flight,
                count: options.count(*in_flight, calls),
                steps: options.steps,
                ..WARM_UP
            };
            let floors = of(options.workload.floor_steps(options.steps));
            let ours = of(options.workload.calls(options.steps));
            for _ in 0..options.rounds {
                // In turns: the machine drifts, and both drift with it.
                let measured = bench.round(&mut floor, floors).await?;
                report.add(floor.name, *in_flight, measured);
                let measured = bench.round(&mut leveret, ours).await?;
                report.add(leveret.name, *in_flight, measured);
                for (side, round) in [(&mut others, ours), (&mut limits, floors)] {
                    for side in side {
                        let measured = bench.round(side, round).await?;
                        report.add(side.name, *in_flight, measured);
                    }
                }
                if let Some(auditor) = &auditor {
                    let measured = tokio::select! {
                        measured = bench.round(&mut leveret, ours) => measured?,
                        problem = audit_on(auditor) => return Err(problem),
                    };
                    report.add("audited", *in_flight, measured);
                }
            }
            if options.half {
                let pace = report.rate(leveret.name, *in_flight) / 2.0;
                let half = Round {
                    pace: Some(pace),
                    ..ours
                };
                for _ in 0..options.rounds {
                    let measured = bench.round(&mut leveret, half).await?;
                    report.add("half", *in_flight, measured);
                }
            }
            report.tell(*in_flight);
        }
        Ok::<_, String>(())
    };
    let done = rounds.await;
    for side in [floor, leveret].into_iter().chain(others).chain(limits) {
        side.stop().await;
    }
    done?;
    if let Some(path) = &options.svg {
        report.draw(path)?;
    }
    match &options.json {
        Some(path) => report.write(path),
        None => Ok(()),
    }
}
