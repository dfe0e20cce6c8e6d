//! Plays many inputs, each from a seed of its own, on all processors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fastrand::Rng;

/// Inputs of a target unless `LEVERET_FUZZ_INPUTS` says otherwise: a second's worth.
const INPUTS: u64 = 3000;
/// Inputs that a thread takes at a time; `batch` is told of each lot, so that it can make what they share.
const LOT: u64 = 500;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, and has to be a number")),
    )
}

/// What became of an input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Taken,
    Refused,
}

/// Plays a target's inputs one by one.
pub(crate) fn play(target: &str, check: impl Fn(&mut Rng) -> Fate + Sync) {
    play_lots(target, || (), |(), rng| check(rng));
}

/// The same for seeds that make so many inputs each.
pub(crate) fn play_worlds(target: &str, inputs_each: u64, check: impl Fn(&mut Rng) -> Fate + Sync) {
    play_seeds(target, inputs().div_ceil(inputs_each), || (), |(), rng| check(rng));
}

/// The same for inputs that share something, which is made anew for each lot.
pub(crate) fn play_lots<S>(
    target: &str,
    share: impl Fn() -> S + Sync,
    check: impl Fn(&mut S, &mut Rng) -> Fate + Sync,
) {
    play_seeds(target, inputs(), share, check);
}

fn inputs() -> u64 {
    number("LEVERET_FUZZ_INPUTS").unwrap_or(INPUTS)
}

fn play_seeds<S>(
    target: &str,
    seeds: u64,
    share: impl Fn() -> S + Sync,
    check: impl Fn(&mut S, &mut Rng) -> Fate + Sync,
) {
    if let Some(seed) = number("LEVERET_FUZZ_SEED") {
        check(&mut share(), &mut Rng::with_seed(seed));
        return;
    }
    let first = number("LEVERET_FUZZ_FIRST_SEED").unwrap_or(1);
    let (next, taken, began) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let wrong = Mutex::new(None);
    let lot_size = LOT.min(seeds.div_ceil(10));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let lot = next.fetch_add(lot_size, Ordering::Relaxed);
                    if lot >= seeds || wrong.lock().unwrap().is_some() {
                        return;
                    }
                    let mut shared = share();
                    for seed in (lot..seeds.min(lot + lot_size)).map(|number| first + number) {
                        let mut rng = Rng::with_seed(seed);
                        match catch_unwind(AssertUnwindSafe(|| check(&mut shared, &mut rng))) {
                            Ok(Fate::Taken) => drop(taken.fetch_add(1, Ordering::Relaxed)),
                            Ok(Fate::Refused) => {}
                            Err(_) => {
                                wrong.lock().unwrap().get_or_insert(seed);
                                return;
                            }
                        }
                    }
                    let (tenth, done) = (seeds.div_ceil(10), lot + lot_size);
                    if seeds > INPUTS && lot / tenth != done / tenth {
                        let spent = began.elapsed().as_secs_f32();
                        println!("{target}: {done} of {seeds}, {spent:.0} s");
                    }
                }
            });
        }
    });
    if let Some(seed) = wrong.into_inner().unwrap() {
        panic!(
            "{target}: seed {seed}: play it again: LEVERET_FUZZ_SEED={seed} cargo test --all-features --test bad_input {target}"
        );
    }
    let taken = taken.into_inner();
    println!(
        "{target}: {seeds} seeds, {taken} taken, {:.1} s",
        began.elapsed().as_secs_f32()
    );
    assert!(
        taken > 0 && taken < seeds,
        "{target}: some are taken and some refused: {taken} of {seeds}"
    );
}
