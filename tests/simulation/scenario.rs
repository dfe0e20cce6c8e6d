//! A scenario: a script played in a simulated world.

use std::time::Duration;

use futures_util::future::join_all;
use leveret::testing::{Defect, World, simulate, simulate_with};

use crate::code::Journal;
use crate::fleet::Fleet;
use crate::invariants::Watcher;
use crate::memory::Memory;
use crate::script::Script;

/// What a world gets to finish in.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Plays a script. An error says what was wrong.
pub(crate) fn play(script: &Script, defect: Option<Defect>) -> Result<u64, String> {
    let scenario = async |world| Play::new(script, world).run().await;
    match defect {
        Some(defect) => simulate_with(defect, script.seed, scenario),
        None => simulate(script.seed, scenario),
    }
}

/// Plays a script, and tells how many steps it had that servers saw, with a digest of what each was.
pub(crate) fn footprint(script: &Script) -> (u64, u64) {
    simulate(script.seed, async |world| {
        let play = Play::new(script, world);
        let watcher = play.watcher.clone();
        // What it comes to is no matter here.
        let _ = play.run().await;
        watcher.footprint()
    })
}

/// A script that is being played.
pub(crate) struct Play<'a> {
    pub(crate) script: &'a Script,
    pub(crate) world: World,
    pub(crate) journal: Journal,
    pub(crate) watcher: Watcher,
}

impl<'a> Play<'a> {
    fn new(script: &'a Script, world: World) -> Self {
        Self {
            script,
            world,
            // After half of the time that a message may be held a body has a lease; a while is for the way to the store.
            journal: Journal::new(Duration::from_millis(script.delivery_timeout / 2 + 250)),
            watcher: Watcher::default(),
        }
    }

    async fn run(self) -> Result<u64, String> {
        let watcher = self.watcher.clone();
        let played = self.play().await;
        // A gauge has its worker, which has the world, which has the watcher: none of them would ever go.
        watcher.with_memory(|memory| *memory = Memory::default());
        played
    }

    async fn play(self) -> Result<u64, String> {
        self.watcher.with_memory(|memory| memory.allow(self.script));
        self.watcher.watch(&self.world, self.script);
        self.world.set_faults(self.script.faults.clone());
        let roots = join_all(self.script.roots.iter().map(|root| self.drive(root)));
        let mut fleet = Fleet::new(&self);
        let played = async {
            let (held_up, lived, ()) = tokio::join!(self.hold_up(), roots, fleet.rule());
            self.let_go(held_up).await?;
            // Healed: from here on everything comes to its end.
            self.all_is_over().await;
            Ok::<_, String>(lived)
        };
        let within = tokio::select! {
            biased;
            within = tokio::time::timeout(PATIENCE, played) => within,
            () = self.something_is_wrong() => return Err(self.watcher.wrong().unwrap_or_default()),
        };
        if let Some(wrong) = self.watcher.wrong() {
            return Err(wrong);
        }
        let Ok(lived) = within else {
            return Err(format!("not over after {PATIENCE:?}:\n{}", self.what_is_left().await));
        };
        let lived = lived?;
        for (root, lives) in self.script.roots.iter().zip(lived) {
            let lives = lives.map_err(|problem| format!("{}: {problem}", root.id))?;
            for (number, (life, lived)) in root.lives.iter().zip(lives).enumerate() {
                self.judge(number, life, &lived)
                    .map_err(|problem| format!("{}: {problem}", root.id))?;
            }
        }
        self.nothing_is_left().await?;
        self.purged_stay_away()?;
        fleet.stop().await;
        match self.watcher.wrong().or_else(|| self.journal.wrong()) {
            Some(wrong) => Err(wrong),
            None => Ok(self.watcher.turns()),
        }
    }

    /// Returns when an invariant is broken: there is no use in going on.
    async fn something_is_wrong(&self) {
        while self.watcher.wrong().is_none() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
