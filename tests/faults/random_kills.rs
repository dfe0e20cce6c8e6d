//! Any process, at any moment: two replicas of each app and their client are killed by chance while many instances run.

use std::time::Duration;

use super::apps::{TOUR_CALLS, TOUR_RESULT};
use super::effects;
use super::inspect::{assert_histories, messages_left};
use super::soon::{PATIENCE, soon};
use super::world::World;

const TOURS: usize = 100;
const KILLS: usize = 12;

/// From one kill to the next so many bodies begin, or this time passes: a process that is killed before it has done anything shows nothing.
const BODIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(3);

/// Numbers by chance, and the same again for the same seed: <https://prng.di.unimi.it/splitmix64.c>
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

fn begun(world: &World) -> usize {
    effects::read(world.directory()).values().map(|runs| runs.begun).sum()
}

fn survives(mut world: World, roles: &str) {
    let seed = std::env::var("LEVERET_TEST_SEED").map_or_else(
        |_| uuid::Uuid::new_v4().as_u64_pair().0,
        |seed| seed.parse().expect("a number"),
    );
    println!("LEVERET_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    world.start(roles);
    let mut kills = 0;
    while kills < KILLS && !world.has_result() {
        let (before, began, more) = (begun(&world), std::time::Instant::now(), chance.below(BODIES));
        soon("progress", PATIENCE, || {
            (begun(&world) > before + more || began.elapsed() > PAUSE || world.has_result()).then_some(())
        });
        let roles = world.kill_number(chance.below(world.processes()));
        world.start(&roles);
        kills += 1;
    }
    assert_eq!(world.result(), TOUR_RESULT);
    world.stop();
    let calls = effects::read(world.directory());
    assert_eq!(calls.len(), TOURS * TOUR_CALLS);
    let again: usize = calls.values().map(|runs| runs.begun - 1).sum();
    println!("{kills} kills; {again} of {} bodies ran again", calls.len());
    world.with_backend(async |backend| {
        assert_histories(backend).await;
        assert_eq!(messages_left(backend).await, [""; 0]);
    });
}

#[test]
fn replicas_and_clients_that_are_killed_by_chance_lose_nothing() {
    let world = World::on_servers(&TOURS.to_string());
    survives(world, "orders payments shipping orders payments shipping crowd");
}

#[test]
fn an_embedded_process_that_is_killed_by_chance_loses_nothing() {
    survives(World::on_file(&TOURS.to_string()), "orders payments shipping crowd");
}
