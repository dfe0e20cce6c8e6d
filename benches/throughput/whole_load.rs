//! Loads that are one whole, and are not rounds beside the floor's: a long loop, and very many who wait.

use std::time::{Duration, Instant};

use deadpool_redis::redis;

use crate::leveret_side;
use crate::measure::{Bench, LEVERET, Side, WARM_UP};
use crate::options::Options;
use crate::process::{Part, Process, Ran, Round, Scene};
use crate::usage::{cpu_seconds, memory};

/// Steps of the series that a loop is compared with.
const SHORT_LOOP: u32 = 100;
/// What each commit calls once, to tell what is left in the inbox. (So does what is parked there with a bound, which no load here is.)
const APPENDED: &str = "llen";
/// Turns that are read at a time.
const PAGE: u32 = 1000;
/// Sleepers that are started side by side.
const SIDE_BY_SIDE: usize = 512;

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What each process holds, and the most that it held.
fn told_memory(side: &Side) -> String {
    let told = side.processes.iter().zip(LEVERET).map(|(process, role)| {
        let [now, most] = process.id().map_or([0; 2], memory);
        format!("{role} {:.0} MiB (at most {:.0})", mib(now), mib(most))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// What a step costs in a series of so many, beside one of a hundred, in turns.
pub(crate) async fn a_long_loop(bench: &Bench<'_>, options: &Options, scene: &Scene) -> Result<(), String> {
    let mut side = Side::start("leveret", &LEVERET, scene).await?;
    let measured = loop_rounds(bench, options, &mut side).await;
    side.stop().await;
    measured
}

async fn loop_rounds(bench: &Bench<'_>, options: &Options, side: &mut Side) -> Result<(), String> {
    let one = |steps, count| Round {
        in_flight: 1,
        count,
        steps,
        part: Part::Whole,
        pace: None,
    };
    side.processes[0].run(WARM_UP).await?;
    let mut ratios = Vec::new();
    for _ in 0..options.rounds {
        let mut micros = Vec::new();
        // About a tenth of the long one's steps.
        let few = (options.steps / SHORT_LOOP / 10).max(1) as usize;
        for (steps, count) in [(SHORT_LOOP, few), (options.steps, 1), (SHORT_LOOP, few)] {
            let calls = bench.scripts().await?;
            let ran = side.processes[0].run(one(steps, count)).await?;
            let done = f64::from(steps) * count as f64;
            let calls = (bench.scripts().await? - calls) as f64 / done;
            let each = ran.seconds * 1e6 / done;
            println!("series of {steps:>6}: {each:>7.0} us a step, {calls:.1} scripts in Redis a step");
            micros.push(each);
        }
        let ratio = micros[1] / ((micros[0] + micros[2]) / 2.0);
        println!(
            "a step of a series of {} costs {ratio:.2} of one of {SHORT_LOOP}; {}",
            options.steps,
            told_memory(side)
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median of {} rounds: {:.2}", ratios.len(), ratios[ratios.len() / 2]);
    Ok(())
}

/// A long loop whose worker is killed half-way, while another one is up.
pub(crate) async fn a_killed_loop(bench: &Bench<'_>, options: &Options, scene: &Scene) -> Result<(), String> {
    let mut side = Side::start("leveret", &LEVERET, scene).await?;
    let measured = kill_half_way(bench, options, scene, &mut side).await;
    side.stop().await;
    measured
}

/// A loop, from outside: how many turns its history has.
struct Watched {
    connection: redis::aio::MultiplexedConnection,
    meta: String,
}

impl Watched {
    async fn turns(&mut self) -> Result<u32, String> {
        let mut state = redis::cmd("HGET");
        let state = state
            .arg(&self.meta)
            .arg("state")
            .query_async(&mut self.connection)
            .await;
        let state: String = state.map_err(|error| format!("HGET: {error}"))?;
        // The execution, then its version.
        let version = state.split(' ').nth(1).and_then(|version| version.parse().ok());
        version.ok_or_else(|| format!("a state without a version: {state}"))
    }

    /// Returns when the history has so many turns, and when that was.
    async fn until(&mut self, turns: u32) -> Result<(u32, Instant), String> {
        const LONGEST_PAUSE: Duration = Duration::from_secs(60);
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let now = self.turns().await?;
            if now >= turns {
                return Ok((now, Instant::now()));
            }
            if now > last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > LONGEST_PAUSE {
                return Err(format!("the loop has stood still at step {now} for {LONGEST_PAUSE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Microseconds a step, from one number of turns to another.
    async fn cost(&mut self, from: u32, to: u32) -> Result<f64, String> {
        let (first, began) = self.until(from).await?;
        let (last, ended) = self.until(to).await?;
        Ok(ended.duration_since(began).as_secs_f64() * 1e6 / f64::from(last - first))
    }
}

async fn kill_half_way(bench: &Bench<'_>, options: &Options, scene: &Scene, side: &mut Side) -> Result<(), String> {
    side.processes[0].run(WARM_UP).await?;
    let mut watched = Watched {
        connection: bench.servers.redis().await.map_err(|error| format!("Redis: {error}"))?,
        meta: format!("lv:{{{}/main/{}}}:meta", scene.namespace, leveret_side::sleeper(0)),
    };
    let start = Round {
        in_flight: 1,
        count: 1,
        steps: options.steps,
        part: Part::Start,
        pace: None,
    };
    side.processes[0].run(start).await?;
    let tenth = (options.steps / 10).min(2_000);
    let early = watched.cost(SHORT_LOOP.min(tenth), tenth).await?;
    println!("steps up to {tenth}: {early:.0} us each; {}", told_memory(side));
    let half = options.steps / 2;
    let middle = watched.cost(half - tenth, half).await?;
    println!("steps up to {half}: {middle:.0} us each; {}", told_memory(side));
    // It takes over half of the lanes; the loop's may be among them.
    side.processes.push(Process::start(LEVERET[1], scene).await?);
    let callers = [1, 3];
    let mut used = Vec::new();
    for _ in 0..2 {
        used.push(callers.map(|nth| side.processes[nth].id().map_or(0.0, cpu_seconds)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let busy = if used[1][0] - used[0][0] >= used[1][1] - used[0][1] {
        callers[0]
    } else {
        callers[1]
    };
    let reads = bench.calls("hmget").await?;
    side.processes.swap_remove(busy).kill().await?;
    let killed = Instant::now();
    let left = watched.turns().await?;
    let (_, on) = watched.until(left + 2).await?;
    let reads = bench.calls("hmget").await? - reads;
    if reads < u64::from(left / PAGE) {
        return Err("the worker that was killed is not the one that had the loop: nobody has read its history".into());
    }
    println!(
        "its worker was killed at step {left}: the next step but one was there {:.2} s later, after {reads} reads of fields (a page of up to {PAGE} turns is one, or with the record two)",
        on.duration_since(killed).as_secs_f64()
    );
    // Its last turn has no step.
    let late = watched.cost(options.steps - tenth, options.steps + 1).await?;
    println!(
        "steps up to {}: {late:.0} us each, {:.2} of one of the first {tenth}; {}",
        options.steps,
        late / early,
        told_memory(side)
    );
    Ok(())
}

/// So many wait for an event, get it all at once, and end.
pub(crate) async fn sleepers(bench: &Bench<'_>, options: &Options, scene: &Scene) -> Result<(), String> {
    let mut side = Side::start("leveret", &LEVERET, scene).await?;
    let measured = put_to_sleep_and_wake(bench, options, &mut side).await;
    side.stop().await;
    measured
}

async fn put_to_sleep_and_wake(bench: &Bench<'_>, options: &Options, side: &mut Side) -> Result<(), String> {
    let count = options.count.unwrap_or(100_000);
    let before = redis_memory(bench).await?;
    for (part, done) in [(Part::Start, "started"), (Part::Wake, "woken")] {
        let round = Round {
            in_flight: SIDE_BY_SIDE,
            count,
            steps: 1,
            part,
            pace: None,
        };
        let began = Instant::now();
        let turns = bench.calls(APPENDED).await?;
        let asked: Ran = side.processes[0].run(round).await?;
        // Each has one turn for this part of its life.
        let taken = until_called(bench, APPENDED, turns + count as u64)
            .await?
            .duration_since(began)
            .as_secs_f64();
        // What is noted of a turn after its commit is in the memory that is told of.
        tokio::time::sleep(Duration::from_secs(5)).await;
        println!(
            "{count} {done}: asked for at {:.0}/s, all done at {:.0}/s; {}",
            count as f64 / asked.seconds,
            count as f64 / taken,
            told_memory(side)
        );
        let each = (redis_memory(bench).await? as f64 - before as f64) / count as f64;
        println!("Redis holds {each:.0} bytes for each of them");
    }
    Ok(())
}

async fn redis_memory(bench: &Bench<'_>) -> Result<u64, String> {
    let problem = |error: redis::RedisError| format!("INFO: {error}");
    let mut connection = bench.servers.redis().await.map_err(problem)?;
    let mut info = redis::cmd("INFO");
    let info: String = info.arg("memory").query_async(&mut connection).await.map_err(problem)?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| "INFO does not tell used_memory".into())
}

/// When Redis had carried out so many calls of a command.
async fn until_called(bench: &Bench<'_>, command: &str, calls: u64) -> Result<Instant, String> {
    const LOOKED_EVERY: Duration = Duration::from_millis(100);
    /// As long as a round that comes no further.
    const STANDSTILL: Duration = Duration::from_secs(60);
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = bench.calls(command).await?;
        if now >= calls {
            return Ok(Instant::now());
        }
        if now > last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > STANDSTILL {
            return Err(format!("{} turns have not come for {STANDSTILL:?}", calls - now));
        }
        tokio::time::sleep(LOOKED_EVERY).await;
    }
}
