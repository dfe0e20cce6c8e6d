//! The whole system, simulated: thousands of seeds, each a world of its own in which everything goes wrong.
//!
//! `LEVERET_SEEDS=100000 cargo test --release --all-features --test simulation many` plays that many; `LEVERET_SEED=17` plays that one alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod code;
mod invariants;
mod model;
mod plan;
mod scenario;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use leveret::testing::Defect;
use scenario::{Script, play};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, and has to be a number")),
    )
}

/// Plays a seed: the number of turns, or what was wrong and how to play it again.
fn play_seed(seed: u64) -> Result<u64, String> {
    let script = Script::draw(seed);
    match std::panic::catch_unwind(|| play(&script, None)) {
        Ok(Ok(turns)) => Ok(turns),
        Ok(Err(wrong)) => Err(format!("seed {seed}: {wrong}\n{}\n", again(seed))),
        Err(_) => Err(format!("seed {seed} panicked\n{}\n", again(seed))),
    }
}

fn again(seed: u64) -> String {
    format!("play it again: LEVERET_SEED={seed} cargo test --release --all-features --test simulation many")
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
        if let Err(wrong) = play_seed(seed) {
            panic!("{wrong}");
        }
        return;
    }
    let seeds = number("LEVERET_SEEDS").unwrap_or(1000);
    let first = number("LEVERET_FIRST_SEED").unwrap_or(1);
    let (next, turns, began) = (AtomicU64::new(first), AtomicU64::new(0), Instant::now());
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match play_seed(seed) {
                        Ok(played) => drop(turns.fetch_add(played, Ordering::Relaxed)),
                        Err(wrong) => failed.lock().unwrap().push(wrong),
                    }
                    let done = seed - first + 1;
                    if done.is_multiple_of(1000) {
                        println!("{done} of {seeds} seeds in {:?}", began.elapsed());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    println!("{seeds} seeds, {} turns, in {:?}", turns.into_inner(), began.elapsed());
}

/// Defects, and a seed that is known to find each. Code and scripts change, and then another seed may have to.
const FOUND_BY: [(Defect, u64); 16] = [
    (Defect::LostReplyIsConflict, 1),
    (Defect::TimerIsNoEffect, 13),
    (Defect::MarkedTurnIsDeleted, 496),
    (Defect::GuardIsTheVersion, 28),
    (Defect::SecondAttemptIsDuplicate, 155),
    (Defect::EarlyEventIsLost, 1),
    (Defect::SeenIsForgotten, 15),
    (Defect::AcknowledgedFirst, 1),
    (Defect::PublishedFirst, 1),
    (Defect::LaneIsGuard, 3),
    (Defect::TimerIsRemovedFirst, 5),
    (Defect::OthersMarkIsCleared, 2),
    (Defect::ParentIsPurgedFirst, 29),
    (Defect::InboxStaysUnread, 1),
    (Defect::ClaimIsTakenOnce, 60),
    (Defect::TakerCreates, 6),
];

/// The defects that are planted are found: by the seed that is known to, or by another. With `LEVERET_SEEDS=3000` all of them are looked for from the
/// first seed on.
#[test]
fn planted_defects_are_found() {
    let most = number("LEVERET_SEEDS");
    let defects: Vec<(Defect, Option<u64>)> = match most {
        Some(_) => Defect::ALL.into_iter().map(|defect| (defect, None)).collect(),
        None => FOUND_BY
            .into_iter()
            .map(|(defect, seed)| (defect, Some(seed)))
            .collect(),
    };
    let most = most.unwrap_or(100);
    let found_by = |(defect, known): (Defect, Option<u64>)| {
        known.into_iter().chain(1..=most).find(|seed| {
            let script = Script::draw(*seed);
            !matches!(std::panic::catch_unwind(|| play(&script, Some(defect))), Ok(Ok(_)))
        })
    };
    let next = Mutex::new(defects.into_iter());
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(wanted) = next.lock().unwrap().next() else {
                        return;
                    };
                    match found_by(wanted) {
                        Some(seed) => println!("{:?}: found by seed {seed}", wanted.0),
                        None => missed.lock().unwrap().push(wanted.0),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "in {most} seeds these were not found: {missed:?}");
}
