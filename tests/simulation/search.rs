//! Many seeds on all processors, with progress.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, and has to be a number")),
    )
}

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Calls the function with each number, on all processors; what it says is wrong is told at once and given back.
pub(crate) fn each(numbers: std::ops::Range<u64>, play: impl Fn(u64) -> Result<(), String> + Sync) -> Vec<String> {
    let (next, done, is_over) = (AtomicU64::new(numbers.start), AtomicU64::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Vec::new());
    let (count, began) = (numbers.end - numbers.start, Instant::now());
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..processors())
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= numbers.end {
                            return;
                        }
                        if let Err(wrong) = play(number) {
                            println!("{wrong}");
                            failed.lock().unwrap().push(wrong);
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let teller = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(TELL_EVERY);
                let (done, spent) = (done.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
                let rate = done as f64 / spent;
                let left = Duration::from_secs_f64((count - done) as f64 / rate.max(0.001));
                let failures = failed.lock().unwrap().len();
                println!(
                    "{done} of {count} seeds, {rate:.1}/s, {} left, {failures} failed",
                    clock(left)
                );
            }
        });
        for player in players {
            player.join().expect("a player catches what panics");
        }
        is_over.store(true, Ordering::Relaxed);
        teller.thread().unpark();
    });
    failed.into_inner().unwrap()
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The smallest of the numbers for which the function finds something, and what it finds.
pub(crate) fn first<T: Send>(
    numbers: std::ops::Range<u64>,
    find: impl Fn(u64) -> Option<T> + Sync,
) -> Option<(u64, T)> {
    let (next, found) = (AtomicU64::new(numbers.start), Mutex::new(None::<(u64, T)>));
    std::thread::scope(|scope| {
        for _ in 0..processors() {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = found.lock().unwrap().as_ref().is_some_and(|(first, _)| *first < number);
                    if is_late || number >= numbers.end {
                        return;
                    }
                    if let Some(something) = find(number) {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(first, _)| *first > number) {
                            *found = Some((number, something));
                        }
                        return;
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}
