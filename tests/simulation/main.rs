//! The whole system, simulated: thousands of seeds, each a world of its own in which everything goes wrong.
//!
//! `LEVERET_SEEDS=100000 cargo test --release --all-features --test simulation many -- --nocapture` plays that many and tells how far it is;
//! `LEVERET_SEED=17` plays that one alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod code;
mod end;
mod fleet;
mod generator;
mod invariants;
mod lost_tail;
mod memory;
mod model;
mod plan;
mod scenario;
mod script;
mod search;
mod shrink;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use leveret::testing::Defect;
use scenario::play;
use script::Script;
use search::{each, number};
use shrink::{shrink, size};

/// Plays a seed: the number of turns, or what was wrong.
fn play_seed(seed: u64, defect: Option<Defect>) -> Result<u64, String> {
    play_safely(&Script::draw(seed), defect)
}

fn play_safely(script: &Script, defect: Option<Defect>) -> Result<u64, String> {
    std::panic::catch_unwind(|| play(script, defect)).unwrap_or_else(|_| Err("it panicked".into()))
}

/// What was wrong, and how to play it again.
fn told(seed: u64, wrong: &str) -> String {
    format!(
        "seed {seed}: {wrong}\nplay it again: LEVERET_SEED={seed} cargo test --release --all-features --test simulation many\n"
    )
}

#[test]
fn many_seeds_lose_nothing() {
    if let Some(seed) = number("LEVERET_SEED") {
        // RUST_LOG=leveret=debug shows what workers and clients say.
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_ansi(false)
            .init();
        println!("{:#?}", Script::draw(seed));
        let Err(wrong) = play_seed(seed, wanted_defect()) else {
            return;
        };
        println!("{}", told(seed, &wrong));
        if std::env::var("RUST_LOG").is_ok() {
            panic!("not made smaller, as RUST_LOG is set: {wrong}");
        }
        let fails = |script: &Script| play_safely(script, wanted_defect()).err();
        let (smallest, wrong) = shrink(&Script::draw(seed), &wrong, fails);
        panic!("the smallest script that still fails:\n{smallest:#?}\n{wrong}");
    }
    let first = number("LEVERET_FIRST_SEED").unwrap_or(1);
    let seeds = number("LEVERET_SEEDS").unwrap_or(2000);
    let (turns, began) = (AtomicU64::new(0), Instant::now());
    let failed = each(first..first + seeds, |seed| {
        let played = play_seed(seed, None).map_err(|wrong| told(seed, &wrong))?;
        turns.fetch_add(played, Ordering::Relaxed);
        Ok(())
    });
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    println!("{seeds} seeds, {} turns, in {:?}", turns.into_inner(), began.elapsed());
}

/// A seed is all that a failure needs to come again: played twice, it makes the same world.
#[test]
fn a_seed_replays() {
    for seed in 1..=20 {
        let world = || scenario::footprint(&Script::draw(seed));
        let first = world();
        assert!(first.0 > 10, "seed {seed} has {} steps", first.0);
        assert_eq!(first, world(), "seed {seed}: steps, and a digest of them");
    }
}

/// Defects, and a seed that is known to find each. Code and scripts change, and then another seed may have to.
const FOUND_BY: [(Defect, u64); 25] = [
    (Defect::LostReplyIsConflict, 10),
    (Defect::TimerIsNoEffect, 47),
    (Defect::MarkedTurnIsRetired, 146),
    (Defect::MarkedTurnIsPurged, 11),
    (Defect::MarkedTurnIsReplaced, 4),
    (Defect::UnknownTaskIsDropped, 38),
    (Defect::GuardIsTheVersion, 147),
    (Defect::SecondAttemptIsDuplicate, 48),
    (Defect::EarlyEventIsLost, 36),
    (Defect::EarlyTerminateIsLost, 662),
    (Defect::StartIsDroppedFirst, 4513),
    (Defect::SeenIsForgotten, 122),
    (Defect::AcknowledgedFirst, 1),
    (Defect::PublishedFirst, 1),
    (Defect::LaneIsGuard, 1),
    (Defect::TimerIsRemovedFirst, 19),
    (Defect::LeaseIsIgnored, 38),
    (Defect::OthersMarkIsCleared, 11),
    (Defect::ParentIsPurgedFirst, 15),
    (Defect::InboxStaysUnread, 6),
    (Defect::NextExecutionIsForgotten, 10),
    (Defect::ClaimIsTakenOnce, 86),
    (Defect::TakerCreates, 57),
    (Defect::NoReceiptIsLeft, 158),
    (Defect::EndIsNotSettled, 45),
];

/// The defects that are planted are found: by the seed that is known to, or by another. With `LEVERET_SEEDS=6000` all of them are looked for from the
/// first seed on; with `LEVERET_DEFECT=LeaseIsIgnored` that one alone.
#[test]
fn planted_defects_are_found() {
    let most = number("LEVERET_SEEDS");
    let mut missed = Vec::new();
    for defect in Defect::ALL {
        if wanted_defect().is_some_and(|wanted| wanted != defect) {
            continue;
        }
        let known = FOUND_BY.iter().find(|(planted, _)| *planted == defect);
        let known = known.map(|(_, seed)| *seed).filter(|_| most.is_none());
        if known.is_some_and(|seed| play_seed(seed, Some(defect)).is_err()) {
            continue;
        }
        match first_that_finds(defect, most.unwrap_or(100)) {
            Some((seed, wrong)) => println!("{defect:?} survived {} seeds; then: {wrong}", seed - 1),
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "these were not found: {missed:?}");
}

/// A script that fails because of a planted defect gets smaller, still fails in the same way, and is a good one without the defect.
#[test]
fn a_failing_script_shrinks() {
    let (defect, seed) = (Defect::SeenIsForgotten, seed_that_finds(Defect::SeenIsForgotten));
    let script = Script::draw(seed);
    let fails = |script: &Script| play_safely(script, Some(defect)).err();
    let wrong = fails(&script).expect("the seed finds the defect");
    let (smallest, its_wrong) = shrink(&script, &wrong, fails);
    println!(
        "from {} to {}: {its_wrong}\n{smallest:#?}",
        size(&script),
        size(&smallest)
    );
    assert!(size(&smallest) < size(&script));
    assert_eq!(fails(&smallest).as_ref(), Some(&its_wrong));
    assert_eq!(its_wrong[..3], wrong[..3]);
    play_safely(&smallest, None).expect("nothing but the defect is wrong");
}

fn seed_that_finds(defect: Defect) -> u64 {
    let known = FOUND_BY.iter().find(|(planted, _)| *planted == defect);
    known.expect("every defect has its seed").1
}

/// The defect that the environment names.
fn wanted_defect() -> Option<Defect> {
    let name = std::env::var("LEVERET_DEFECT").ok()?;
    let named = Defect::ALL.into_iter().find(|defect| format!("{defect:?}") == name);
    Some(named.unwrap_or_else(|| panic!("LEVERET_DEFECT is {name:?}, and has to be one of {:?}", Defect::ALL)))
}

/// The first seed that finds the defect, and what it shows.
fn first_that_finds(defect: Defect, most: u64) -> Option<(u64, String)> {
    search::first(1..most + 1, |seed| play_seed(seed, Some(defect)).err())
}
