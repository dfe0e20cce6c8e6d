//! A scenario: roots, a fleet of workers and what happens to them, drawn from a seed and played in a simulated world.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use leveret::backend::{DueKind, Queue, QueueDepth};
use leveret::client::Error;
use leveret::replay::{Code, CodeFuture, Execution};
use leveret::testing::{Defect, Faults, Process, World, simulate, simulate_with};
use leveret::{Client, Limits, Payload, Retention, RunningWorker, Settings, Worker, WorkflowContext};

use crate::code::{self, Journal, NEW_WORK, RUN, WORK};
use crate::invariants::{Watcher, at_once};
use crate::model::{self, Ended};
use crate::plan::{APPS, Command, Generator, Life, Raised, Root, Seen, event_value};

/// Everything that is drawn from a seed. What goes wrong in the network is drawn while it is played.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) roots: Vec<Root>,
    /// What happens to the fleet, in milliseconds from the beginning.
    pub(crate) chaos: Vec<(u64, Chaos)>,
    pub(crate) faults: Faults,
    /// How long finished instances are kept, in milliseconds.
    pub(crate) retention: Option<u64>,
    /// Workers of an app.
    pub(crate) replicas: usize,
    /// True if workers of an older build, without the new activity, are there at first.
    pub(crate) has_old_build: bool,
    /// Bytes of live workflows that a worker keeps.
    pub(crate) cache: usize,
    /// The broker's delivery timeout, in milliseconds.
    pub(crate) delivery_timeout: u64,
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
    /// All workers of an app die, and come back.
    Blackout {
        app: usize,
        back_after: u64,
    },
}

/// When everything is healed, in milliseconds.
const HEALED: u64 = 25_000;
/// How often the fleet is looked at, in milliseconds.
const LOOK_EVERY: u64 = 500;
/// Deaths at a commit; a few more may happen before they are noticed.
const MOST_DEATHS: u32 = 2;
/// What a healthy world gets to finish in.
const PATIENCE: Duration = Duration::from_secs(1800);

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
        let retention = (rng.u32(..3) == 0).then(|| rng.u64(..20_000));
        let has_old_build = rng.u32(..3) == 0;
        if rng.u32(..8) == 0 {
            return Self::of_long_bodies(seed, roots, &mut rng);
        }
        Self {
            seed,
            roots,
            chaos,
            faults,
            retention,
            replicas,
            has_old_build,
            cache,
            delivery_timeout: 1_800_000,
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
            ..Faults::default()
        };
        Self {
            seed,
            roots,
            chaos: Vec::new(),
            faults,
            retention: None,
            replicas: 2,
            has_old_build: false,
            cache: 1 << 20,
            delivery_timeout: 4_000,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            lanes: 2,
            due_interval: Duration::from_millis(500),
            parked_interval: Duration::from_secs(2),
            shutdown_grace: Duration::from_secs(2),
            retention: self.kept(),
            delivery_timeout: Duration::from_millis(self.delivery_timeout),
            limits: Limits {
                cache_bytes: self.cache,
                ..Limits::default()
            },
            ..Settings::default()
        }
    }

    fn kept(&self) -> Retention {
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
    match rng.u32(..9) {
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
        7 => Chaos::Block {
            millis: rng.u64(..8_000),
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
        cut: some(all.cut),
        dies_at_commit: some(all.dies_at_commit),
        ..all
    }
}

/// Plays a script. An error says what was wrong.
pub(crate) fn play(script: &Script, defect: Option<Defect>) -> Result<u64, String> {
    let scenario = async |world| Play::new(script, world).run().await;
    match defect {
        Some(defect) => simulate_with(defect, script.seed, scenario),
        None => simulate(script.seed, scenario),
    }
}

struct Play<'a> {
    script: &'a Script,
    world: World,
    journal: Journal,
    watcher: Watcher,
}

/// A worker's place in the fleet.
struct Slot {
    process: Process,
    worker: Option<RunningWorker>,
}

/// How one life of a root went.
struct Lived {
    ended: Ended,
    was_terminated: bool,
}

impl<'a> Play<'a> {
    fn new(script: &'a Script, world: World) -> Self {
        Self {
            script,
            world,
            // After half of the time that a message may be held a body has a lease; a while is for the way to the store.
            journal: Journal::new(Duration::from_millis(script.delivery_timeout * 3 / 4)),
            watcher: Watcher::default(),
        }
    }

    async fn run(self) -> Result<u64, String> {
        self.watcher.watch(&self.world);
        self.world.set_faults(self.script.faults.clone());
        let roots = join_all(self.script.roots.iter().map(|root| self.drive(root)));
        let mut fleet = BTreeMap::new();
        let fleet_runs = async {
            self.rule(&mut fleet).await;
            // Healed: from here on everything comes to its end.
            tokio::time::timeout(PATIENCE, self.all_is_over()).await
        };
        let within = tokio::time::timeout(PATIENCE * 2, async { tokio::join!(roots, fleet_runs) }).await;
        if let Some(wrong) = self.watcher.wrong() {
            return Err(wrong);
        }
        let Ok((lived, Ok(()))) = within else {
            return Err(format!("not over after {PATIENCE:?}:\n{}", self.what_is_left().await));
        };
        for (root, lives) in self.script.roots.iter().zip(lived) {
            let lives = lives.map_err(|problem| format!("{}: {problem}", root.id))?;
            for (life, lived) in root.lives.iter().zip(lives) {
                self.judge(life, &lived)
                    .map_err(|problem| format!("{}: {problem}", root.id))?;
            }
        }
        self.replays().await?;
        self.nothing_is_left().await?;
        self.purged_stay_away()?;
        for slot in fleet.values_mut() {
            if let Some(worker) = slot.worker.take() {
                worker.stop().await;
            }
        }
        match self.watcher.wrong().or_else(|| self.journal.wrong()) {
            Some(wrong) => Err(wrong),
            None => Ok(self.watcher.turns()),
        }
    }

    // --- the fleet

    /// Starts the workers and lets happen to them what the script says; in the end all are up and well.
    async fn rule(&self, fleet: &mut BTreeMap<(usize, usize), Slot>) {
        let mut born = 0;
        for app in 0..APPS.len() {
            for replica in 0..self.script.replicas {
                let is_old = self.script.has_old_build && replica == 0;
                fleet.insert((app, replica), self.hire(app, &mut born, is_old).await);
            }
        }
        let began = tokio::time::Instant::now();
        let mut back: Vec<(u64, (usize, usize))> = Vec::new();
        let mut events = self.script.chaos.iter().copied().peekable();
        let (mut look, mut deaths) = (0, 0);
        loop {
            look += LOOK_EVERY;
            back.sort_unstable();
            let next_event = events.peek().map(|(at, _)| *at);
            let next_back = back.first().map(|(at, _)| *at);
            let at = next_event.into_iter().chain(next_back).fold(look, u64::min);
            if at >= HEALED && next_back.is_none() {
                break;
            }
            tokio::time::sleep_until(began + Duration::from_millis(at)).await;
            for (place, _) in fleet.extract_if(.., |_, slot| !slot.process.is_alive()) {
                back.push((at + 1 + self.script.seed % 3_000, place));
                deaths += 1;
            }
            if deaths >= MOST_DEATHS {
                // No task is to be taken for a killer.
                self.world.set_faults(Faults {
                    dies_at_commit: 0.0,
                    ..self.script.faults.clone()
                });
            }
            if next_back == Some(at) {
                let (_, place) = back.remove(0);
                let slot = self.hire(place.0, &mut born, false).await;
                fleet.insert(place, slot);
            } else if let Some((_, event)) = events.next() {
                self.happen(at, event, fleet, &mut back, &mut born).await;
            }
        }
        self.world.set_faults(Faults::slow(Duration::from_millis(2)));
        let dead: Vec<_> = fleet.extract_if(.., |_, slot| !slot.process.is_alive()).collect();
        for (place, _) in dead {
            let slot = self.hire(place.0, &mut born, false).await;
            fleet.insert(place, slot);
        }
        for slot in fleet.values() {
            slot.process.set_clock_wrong_by(0);
        }
    }

    async fn happen(
        &self,
        at: u64,
        event: Chaos,
        fleet: &mut BTreeMap<(usize, usize), Slot>,
        back: &mut Vec<(u64, (usize, usize))>,
        born: &mut u32,
    ) {
        match event {
            Chaos::Kill {
                app,
                replica,
                back_after,
            } => {
                if let Some(slot) = fleet.remove(&(app, replica)) {
                    slot.process.kill();
                    back.push((at + back_after, (app, replica)));
                }
            }
            Chaos::Blackout { app, back_after } => {
                for replica in 0..self.script.replicas {
                    if let Some(slot) = fleet.remove(&(app, replica)) {
                        slot.process.kill();
                        back.push((at + back_after, (app, replica)));
                    }
                }
            }
            Chaos::Freeze { app, replica, millis } => {
                if let Some(slot) = fleet.get(&(app, replica)) {
                    slot.process.freeze(Duration::from_millis(millis));
                }
            }
            Chaos::Cut { app, replica } => {
                if let Some(slot) = fleet.get(&(app, replica)) {
                    slot.process.cut();
                }
            }
            Chaos::Skew { app, replica, millis } => {
                if let Some(slot) = fleet.get(&(app, replica)) {
                    slot.process.set_clock_wrong_by(millis);
                }
            }
            Chaos::Deploy { app, replica } => {
                if let Some(mut slot) = fleet.remove(&(app, replica)) {
                    if let Some(worker) = slot.worker.take() {
                        // One that dies meanwhile never ends.
                        let _ = tokio::time::timeout(Duration::from_secs(30), worker.stop()).await;
                        slot.process.kill();
                    }
                    fleet.insert((app, replica), self.hire(app, born, false).await);
                }
            }
            Chaos::Block { millis } => self.world.block_publishers(Duration::from_millis(millis)),
        }
    }

    async fn hire(&self, app: usize, born: &mut u32, is_old: bool) -> Slot {
        loop {
            let hired = self.try_to_hire(app, born, is_old);
            // One that dies before it is up never ends; one whose servers do not answer takes a while.
            if let Ok(slot) = tokio::time::timeout(Duration::from_secs(120), hired).await {
                return slot;
            }
        }
    }

    async fn try_to_hire(&self, app: usize, born: &mut u32, is_old: bool) -> Slot {
        *born += 1;
        let process = self.world.process(format!("{}-{born}", APPS[app]));
        let body = || {
            let (process, journal) = (process.clone(), self.journal.clone());
            move |ctx, work| {
                let (process, journal) = (process.clone(), journal.clone());
                async move { code::work(&process, &journal, ctx, work).await }
            }
        };
        let mut worker = Worker::new(APPS[app], process.backend())
            .settings(self.script.settings())
            .build_id(if is_old { "old" } else { "new" })
            .workflow(code::workflow(APPS[app]), code::run)
            .activity(code::activity(APPS[app], WORK), body());
        if !is_old {
            worker = worker.activity(code::activity(APPS[app], NEW_WORK), body());
        }
        // It may wait for servers that do not answer; the others go on meanwhile.
        let worker = worker.start().await.expect("nothing is wrong with the worker");
        Slot {
            process,
            worker: Some(worker),
        }
    }

    // --- the clients

    fn client(&self) -> Client {
        self.client_of(&self.world.process("client").spared())
    }

    fn client_of(&self, process: &Process) -> Client {
        Client::builder(process.backend())
            .retention(self.script.kept())
            .patience(Duration::from_secs(5))
            .build()
    }

    /// A root's lives, one after the other.
    async fn drive(&self, root: &Root) -> Result<Vec<Lived>, String> {
        let mut lives = Vec::new();
        for (number, life) in root.lives.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(life.at)).await;
            lives.push(self.live(root, number, life).await?);
        }
        Ok(lives)
    }

    async fn live(&self, root: &Root, number: usize, life: &Life) -> Result<Lived, String> {
        let request = format!("{}-{number}", root.id);
        let start = |client: &Client| {
            client
                .start_named::<Vec<Seen>>(&root.app, RUN, life.plan.clone().begin())
                .id(&root.id)
                .request_id(&request)
        };
        if number == 0 {
            // Some events come before the instance does.
            join_all(
                life.raises
                    .iter()
                    .filter(|raised| raised.at < 500)
                    .map(|raised| self.raise(raised, &request)),
            )
            .await;
        }
        if life.is_abandoned_once {
            let process = self.world.process("doomed");
            let started = start(&self.client_of(&process));
            let _ = tokio::time::timeout(Duration::from_millis(life.at % 200), started.into_future()).await;
            process.kill();
        }
        let client = self.client();
        let run = insist(|| start(&client).into_future())
            .await
            .map_err(|error| format!("its start: {error}"))?;
        let raises = life.raises.iter().filter(|raised| number > 0 || raised.at >= 500);
        let raises = join_all(raises.map(async |raised| {
            tokio::time::sleep(Duration::from_millis(raised.at)).await;
            self.raise(raised, &request).await;
        }));
        let commands = self.command(root, life, &run);
        let result = async {
            loop {
                match run.result().within(Duration::from_secs(600)).await {
                    Ok(seen) => return Ok(Ended::Completed(seen)),
                    Err(Error::Failed(failure)) => return Ok(Ended::Failed(failure.kind)),
                    Err(Error::Terminated { .. }) => return Ok(Ended::Terminated),
                    // Kept for a shorter time than a slow client takes to ask.
                    Err(Error::NotFound { .. } | Error::RunGone { .. }) if self.script.retention.is_some() => {
                        return Err(None);
                    }
                    Err(error) if error.retryable() == leveret::backend::Retryable::Permanent => {
                        return Err(Some(format!("its result: {error}")));
                    }
                    Err(_) => {}
                }
            }
        };
        let (_, was_terminated, ended) = tokio::join!(raises, commands, result);
        let ended = match ended {
            Ok(ended) => ended,
            Err(Some(problem)) => return Err(problem),
            Err(None) if was_terminated => Ended::Terminated,
            // Nobody can say how it ended; the journal still speaks.
            Err(None) => return Err("its outcome was not kept for as long as promised".into()),
        };
        if life.is_purged {
            if life.is_abandoned_once {
                let process = self.world.process("doomed");
                let instance = self.client_of(&process).handle(code::instance(&root.app, &root.id));
                let _ =
                    tokio::time::timeout(Duration::from_millis(life.at % 300), instance.purge().into_future()).await;
                process.kill();
            }
            loop {
                match insist(|| run.handle().purge().into_future()).await {
                    Ok(_) | Err(Error::NotFound { .. } | Error::RunGone { .. }) => break,
                    // A child of it is active still.
                    Err(Error::StillActive { .. }) => tokio::time::sleep(Duration::from_secs(1)).await,
                    Err(error) => return Err(format!("its purge: {error}")),
                }
            }
            let left = self
                .watcher
                .descendants(&self.world, &code::instance(&root.app, &root.id));
            // Those of a life that was replaced are nobody's children.
            let is_whole = self.script.retention.is_none() && root.lives[..number].iter().all(|life| life.is_purged);
            if let Some(left) = left.first().filter(|_| is_whole) {
                return Err(format!("it was purged, and its child {left} is there"));
            }
        }
        Ok(Lived { ended, was_terminated })
    }

    async fn raise(&self, raised: &Raised, request: &str) {
        let client = self.client();
        let instance = client.handle(code::instance(&raised.app, &raised.id));
        for _ in 0..raised.times {
            let raise = || {
                instance
                    .raise_named(&raised.name, event_value(&raised.name))
                    .message_id(format!("{request}/{}", raised.name))
                    .into_future()
            };
            // One that is over already needs no event.
            let _ = insist(raise).await;
        }
    }

    /// True if a terminate was sent.
    async fn command(&self, root: &Root, life: &Life, run: &leveret::Run<Vec<Seen>>) -> bool {
        let client = self.client();
        let instance = client.handle(code::instance(&root.app, &root.id)).of_run(run.run_id());
        let (mut before, mut was_terminated) = (0, false);
        for (at, command) in &life.commands {
            tokio::time::sleep(Duration::from_millis(at - before)).await;
            before = *at;
            // One that is over already cannot be told anything.
            let _ = match command {
                Command::Suspend => insist(|| instance.suspend("a while").into_future()).await,
                Command::Resume => insist(|| instance.resume("enough").into_future()).await,
                Command::Terminate => insist(|| instance.terminate("enough").into_future()).await,
            };
            was_terminated |= *command == Command::Terminate;
        }
        was_terminated
    }

    // --- the end

    /// Returns when no instance is active, and no message waits.
    async fn all_is_over(&self) {
        loop {
            if self.active().is_empty() && self.waiting_messages() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    fn active(&self) -> Vec<(leveret::InstanceRef, leveret::backend::Record)> {
        let store = self.world.servers().store();
        let known = self.watcher.known().into_iter();
        known
            .filter_map(|instance| {
                let record = at_once(store.record(&instance))?;
                let is_active = !record.status.is_terminal() || !record.marks.is_empty();
                is_active.then_some((instance, record))
            })
            .collect()
    }

    fn waiting_messages(&self) -> u64 {
        self.depths().into_iter().map(|(_, depth)| depth.messages).sum()
    }

    fn depths(&self) -> Vec<(Queue, QueueDepth)> {
        let broker = self.world.servers().broker();
        let app = |app: &&str| leveret::AppId::new(app).expect("an app of ours");
        let queues = APPS.iter().map(app).flat_map(|app| {
            [
                Queue::Workflows(app.clone()),
                Queue::Activities(app.clone()),
                Queue::Events(app.clone(), 0),
                Queue::Events(app, 1),
            ]
        });
        queues
            .chain([Queue::Unrouted])
            .filter_map(|queue| {
                let depth = at_once(broker.depth(&queue))?;
                Some((queue, depth))
            })
            .collect()
    }

    async fn what_is_left(&self) -> String {
        let mut text = String::new();
        for (queue, depth) in self.depths().into_iter().filter(|(_, depth)| depth.messages > 0) {
            let _ = writeln!(
                text,
                "{queue}: {} messages wait, {} consumers",
                depth.messages, depth.consumers
            );
        }
        let client = self.world.client();
        for (instance, record) in self.active() {
            let info = client.handle(instance.clone()).get().await;
            let waiting = info.map(|info| info.waiting.to_string()).unwrap_or_default();
            let _ = writeln!(
                text,
                "{instance}: {}, marks {:?}, version {}, lane {:?}, waiting for {waiting}",
                record.status, record.marks, record.version, record.lane
            );
        }
        text
    }

    fn judge(&self, life: &Life, lived: &Lived) -> Result<(), String> {
        if lived.was_terminated && lived.ended == Ended::Terminated {
            return Ok(());
        }
        model::check(&life.plan, &lived.ended)?;
        let mut calls = Vec::new();
        model::calls_of(&life.plan, 1, &mut calls);
        for (key, round, most) in calls {
            let have = self.journal.calls(&key, round);
            if have > most {
                return Err(format!(
                    "step {key} of round {round} was called {have} times, and {most} is the most"
                ));
            }
        }
        Ok(())
    }

    /// I8: every history that is left gives the same decisions again.
    async fn replays(&self) -> Result<(), String> {
        let (store, client) = (self.world.servers().store(), self.world.client());
        for instance in self.watcher.known() {
            let Some(record) = at_once(store.record(&instance)) else {
                continue;
            };
            let turns = client
                .handle(instance.clone())
                .history()
                .await
                .map_err(|error| error.to_string())?;
            let mut execution = Execution::new(
                instance.clone(),
                record.execution,
                Arc::new(PlanCode),
                &Limits::default(),
            );
            for turn in &turns {
                execution
                    .replay(turn)
                    .map_err(|stuck| format!("I8: {instance}: {stuck}"))?;
            }
        }
        Ok(())
    }

    /// No timer, lease, parked item, check, dead letter or active instance is left.
    async fn nothing_is_left(&self) -> Result<(), String> {
        // Late messages, and the checks of what they woke, take a while.
        for _ in 0..180 {
            if self.first_left().is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.first_left().map_or(Ok(()), Err)
    }

    /// What was purged in the end has not come back.
    fn purged_stay_away(&self) -> Result<(), String> {
        let store = self.world.servers().store();
        let purged = self
            .script
            .roots
            .iter()
            .filter(|root| root.lives.last().is_some_and(|life| life.is_purged));
        for root in purged {
            if at_once(store.record(&code::instance(&root.app, &root.id))).is_some() {
                return Err(format!("{} was purged and is there again", root.id));
            }
        }
        Ok(())
    }

    fn first_left(&self) -> Option<String> {
        let (store, broker) = (self.world.servers().store(), self.world.servers().broker());
        if let Some((instance, record)) = self.active().first() {
            return Some(format!("{instance} is {} after the end", record.status));
        }
        for app in APPS {
            let app = leveret::AppId::new(app).expect("an app of ours");
            for kind in [DueKind::Timer, DueKind::Lease, DueKind::Parked, DueKind::Check] {
                let left = at_once(store.due_entries(&app, kind, 10));
                if !left.is_empty() {
                    return Some(format!("left over in app {app}: {left:?}"));
                }
            }
            let dead = at_once(broker.depth(&Queue::Dead(app.clone())));
            if dead.is_some_and(|dead| dead.messages > 0) {
                return Some(format!("app {app} has dead letters"));
            }
        }
        None
    }
}

/// The code of plans, for replaying.
struct PlanCode;

impl Code for PlanCode {
    fn begin(&self, ctx: WorkflowContext, input: Payload) -> CodeFuture {
        Box::pin(async move { Payload::encode(&code::run(ctx, input.decode()?).await?) })
    }
}

/// Asks until there is an answer that will not change by asking again.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
            Err(error)
                if error.retryable() != leveret::backend::Retryable::Permanent
                    && !matches!(error, Error::StillActive { .. }) =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer,
        }
    }
}
