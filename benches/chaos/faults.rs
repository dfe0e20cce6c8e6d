//! Carrying faults out, and taking the time until everything goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret::Timestamp;
use leveret::backend::{Clock, SystemClock};
use tokio::time::sleep;

use crate::apps::APPS;
use crate::fleet::Fleet;
use crate::load::Ledger;
use crate::proxy::{Proxy, Weather};
use crate::pulses::Pulses;
use crate::schedule::{Fault, Kind};
use crate::servers::Servers;
use crate::throughput::Throughput;

/// How long a recovery is watched.
const WATCHED: Duration = Duration::from_secs(30);
/// The longest that anybody is frozen, a server is full, the network is bad.
const LONGEST_FREEZE: Duration = Duration::from_secs(12);
const LONGEST_ALARM: Duration = Duration::from_secs(6);
const LONGEST_FULL: Duration = Duration::from_secs(5);
const LONGEST_WEATHER: Duration = Duration::from_secs(5);
const LONGEST_DOWN: Duration = Duration::from_secs(2);
const LONGEST_VACANCY: Duration = Duration::from_secs(2);

/// What recoveries are measured of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// From a worker's SIGKILL until every pulse has made a turn.
    Killed,
    /// From a worker's SIGSTOP.
    Frozen,
    /// From the moment a broker is up again until as much is done as before.
    Broker,
    /// The same for Redis.
    Redis,
}

/// See the module.
pub(crate) struct Faults {
    pub(crate) servers: Arc<Servers>,
    pub(crate) broker: Proxy,
    pub(crate) redis: Proxy,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) pulses: Pulses,
    pub(crate) throughput: Throughput,
    pub(crate) ledger: Arc<Ledger>,
    /// The recoveries that were measured; `None` where nothing had recovered when nobody watched any more.
    pub(crate) recoveries: std::sync::Mutex<BTreeMap<Measure, Vec<Option<Duration>>>>,
    pub(crate) counts: std::sync::Mutex<BTreeMap<Kind, usize>>,
}

fn now() -> Timestamp {
    SystemClock.now()
}

impl Faults {
    /// Carries the fault out and returns when it is over. Alone it is measured.
    ///
    /// # Errors
    /// That a server or a process of ours cannot be handled: the run makes no sense then.
    pub(crate) async fn strike(&self, fault: Fault, is_alone: bool) -> Result<(), String> {
        let lasts = |longest: Duration| Duration::from_millis(200) + longest * fault.length / 1000;
        match fault.kind {
            Kind::KillWorker => self.kill_worker(fault, lasts(LONGEST_VACANCY), is_alone).await?,
            Kind::FreezeWorker => self.freeze_worker(fault, lasts(LONGEST_FREEZE), is_alone).await,
            Kind::RestartBroker => {
                self.restart(Measure::Broker, "stop", lasts(LONGEST_DOWN), is_alone)
                    .await?
            }
            Kind::KillBroker => {
                self.restart(Measure::Broker, "kill", lasts(LONGEST_DOWN), is_alone)
                    .await?
            }
            Kind::RestartRedis => {
                self.restart(Measure::Redis, "stop", lasts(LONGEST_DOWN), is_alone)
                    .await?
            }
            Kind::KillRedis => {
                self.restart(Measure::Redis, "kill", lasts(LONGEST_DOWN), is_alone)
                    .await?
            }
            Kind::Cut => {
                self.proxy(fault).cut(fault.share, fault.seed);
            }
            Kind::HalfClose => {
                self.proxy(fault).half_close(fault.share, fault.seed);
            }
            Kind::Swallow => {
                let proxy = self.proxy(fault);
                proxy.swallow(fault.share, fault.seed);
                sleep(lasts(LONGEST_WEATHER)).await;
                proxy.end_swallowing();
            }
            Kind::Delay => {
                let delay = Duration::from_millis(20 + fault.seed % 400);
                self.weather(fault, delay, 0, lasts(LONGEST_WEATHER)).await;
            }
            Kind::Throttle => {
                let rate = 2_000 + (fault.seed % 100_000) as u32;
                self.weather(fault, Duration::ZERO, rate, lasts(LONGEST_WEATHER)).await;
            }
            Kind::MemoryAlarm => {
                self.servers.tell("alarm-broker").await?;
                sleep(lasts(LONGEST_ALARM)).await;
                self.servers.tell("calm-broker").await?;
            }
            Kind::FullRedis => {
                self.servers.set_redis("maxmemory", "1").await?;
                sleep(lasts(LONGEST_FULL)).await;
                self.servers.set_redis("maxmemory", "0").await?;
            }
            Kind::Deploy => {
                let (build, unruly) = self.fleet.deploy(fault.target).await?;
                self.say(format_args!("{} runs build {build}", APPS[fault.target % APPS.len()]));
                unruly.into_iter().for_each(|problem| self.ledger.note_wrong(problem));
            }
        }
        let mut counts = self.counts.lock().expect("nobody panics with it");
        *counts.entry(fault.kind).or_default() += 1;
        Ok(())
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        eprintln!("chaos:     {what}");
    }

    fn proxy(&self, fault: Fault) -> &Proxy {
        if fault.target.is_multiple_of(2) {
            &self.broker
        } else {
            &self.redis
        }
    }

    async fn weather(&self, fault: Fault, delay: Duration, rate: u32, lasts: Duration) {
        let proxy = self.proxy(fault);
        let share = fault.share;
        proxy.set_weather(Weather { share, delay, rate });
        sleep(lasts).await;
        proxy.set_weather(Weather::default());
    }

    async fn kill_worker(&self, fault: Fault, vacancy: Duration, is_alone: bool) -> Result<(), String> {
        let mut place = self.fleet.place(fault.target).await;
        let name = place.name().to_owned();
        place.kill().await;
        let since = now();
        if is_alone {
            self.watch(Measure::Killed, &name, since).await;
        }
        sleep(vacancy).await;
        self.fleet.fill(&mut place)
    }

    async fn freeze_worker(&self, fault: Fault, lasts: Duration, is_alone: bool) {
        let place = self.fleet.place(fault.target).await;
        let since = now();
        place.signal("-STOP").await;
        // Of those that are short nobody notices; the others last until all have noticed.
        let is_long = fault.seed.is_multiple_of(2);
        if is_alone && is_long {
            self.watch(Measure::Frozen, place.name(), since).await;
        } else {
            sleep(lasts).await;
        }
        place.signal("-CONT").await;
    }

    /// Waits until every pulse has made a turn since then.
    async fn watch(&self, measure: Measure, name: &str, since: Timestamp) {
        let waited = self.pulses.all_go_on(since, WATCHED).await;
        match waited {
            Ok(took) => self.say(format_args!("without {name}: all instances went on after {took:?}")),
            Err(left) => self.say(format_args!(
                "without {name}: {left} instances do not go on within {WATCHED:?}"
            )),
        }
        self.note(measure, waited.ok());
    }

    async fn restart(&self, measure: Measure, how: &str, down: Duration, is_alone: bool) -> Result<(), String> {
        let server = match measure {
            Measure::Redis => "redis",
            _ => "broker",
        };
        let usual = self.throughput.usual(Instant::now());
        if (measure, how) == (Measure::Redis, "kill") {
            self.servers.let_redis_write().await?;
        }
        self.servers.tell(&format!("{how}-{server}")).await?;
        sleep(down).await;
        match measure {
            Measure::Redis => self.servers.start_redis().await?,
            _ => self.servers.tell("start-broker").await?,
        }
        let up = Instant::now();
        if is_alone && let Some(usual) = usual {
            let back = self.throughput.is_back(up, usual, WATCHED).await;
            self.say(format_args!("{server} is up: as much is done as before after {back:?}"));
            self.note(measure, back);
        }
        Ok(())
    }

    fn note(&self, measure: Measure, took: Option<Duration>) {
        let mut recoveries = self.recoveries.lock().expect("nobody panics with it");
        recoveries.entry(measure).or_default().push(took);
    }
}
