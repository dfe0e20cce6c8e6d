//! The commit protocol, checked as a model: every behaviour of a few workers, one client, one broker and one store, with a fault at any place.
//!
//! `docs/how-it-works.md` says what the protocol is. This is the same thing once more, small enough that a computer can look at *all* of its
//! behaviours: each await of the code that changes something (a commit, a publish, a cleared mark, an acknowledgement, an entry of the due-set) is a step
//! of its own, and between any two steps anybody else may take one, die, or be slow.
//!
//! - [`state`] is what the store, the broker and each process hold; [`store`] the scripts;
//! - [`client`], [`turn`], [`due`] and [`drive`] are the engine and the worker, await by await;
//! - [`model`] says which steps there are, [`properties`] what must hold: I1 to I5, and that everything comes to its end;
//! - [`mistakes`] are those that the protocol avoids. Each can be switched on, and then a property has to fail: a model that cannot fail shows nothing.
//!
//! What bounds it: one instance of one workflow (each [`Life`] leads through another part of the protocol), a number of workers, and a number of *faults*
//! in one behaviour. A fault is a crash, a lost reply, a commit that arrives late, a message that comes again, a forged result, a claim that lapses, or
//! somebody so slow that a check takes him for dead. Messages and due entries come in any order and at any time, which is no fault.
//!
//! What is left out: payloads, lanes and homes (any worker may take any message), several instances, children, bundles, leases and time limits, suspend
//! and stall, and a store that loses what it has confirmed. `tests/simulation` has these, at random. Reads that follow each other are one step, and so is a
//! read with the acknowledgement that follows from it alone.
//!
//! `LEVERET_MODEL_FAULTS=2` allows so many faults, `LEVERET_MODEL_WORKERS=3` has so many workers, `LEVERET_MODEL_LARGE=1` adds larger lives:
//!
//! ```sh
//! LEVERET_MODEL_FAULTS=2 cargo test --release --all-features --test protocol holds -- --nocapture
//! ```
//!
//! `LEVERET_MODEL_TRACE=1` prints the counterexample of each mistake.

mod client;
mod drive;
mod due;
mod mistakes;
mod model;
mod program;
mod properties;
mod sets;
mod state;
mod store;
mod turn;

use std::time::Instant;

use mistakes::Mistake;
use model::{Protocol, Step};
use program::Life;
use properties::{END, I1, I2, I3, I4, I5};
use state::{State, Wish};
use stateright::{Checker, HasDiscoveries, Model, Path};

type Size = (Life, &'static [Wish]);

const CALLED: Size = (Life::Called, &[Wish::Start(0)]);
const RAISED: Size = (Life::Raised, &[Wish::Start(0), Wish::Raise]);
const RAISED_EARLY: Size = (Life::Raised, &[Wish::Raise, Wish::Start(0)]);
const CONTINUED: Size = (Life::Continued, &[Wish::Raise, Wish::Start(0)]);
const ENDED: Size = (Life::Ended, &[Wish::Start(0), Wish::Terminate]);
const AGAIN: Size = (Life::Again, &[Wish::Start(0), Wish::Start(1)]);

/// What is checked every day.
const SIZES: [Size; 6] = [CALLED, RAISED, RAISED_EARLY, CONTINUED, ENDED, AGAIN];

/// What takes minutes.
const LARGE: [Size; 3] = [
    (Life::Continued, &[Wish::Start(0), Wish::Raise]),
    (Life::Everything, &[Wish::Start(0), Wish::Start(1)]),
    (
        Life::Everything,
        &[Wish::Raise, Wish::Start(0), Wish::Terminate, Wish::Start(1)],
    ),
];

fn number(name: &str) -> Option<u8> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, and has to be a number")),
    )
}

#[test]
fn the_protocol_holds_whatever_goes_wrong() {
    let workers = number("LEVERET_MODEL_WORKERS").unwrap_or(2);
    let mut runs: Vec<(Size, u8)> = Vec::new();
    match number("LEVERET_MODEL_FAULTS") {
        Some(faults) => runs.extend(SIZES.map(|size| (size, faults))),
        None => {
            runs.extend(SIZES.map(|size| (size, 1)));
            runs.extend([RAISED_EARLY, AGAIN].map(|size| (size, 2)));
        }
    }
    if number("LEVERET_MODEL_LARGE").is_some_and(|large| large > 0) {
        let faults = number("LEVERET_MODEL_FAULTS").unwrap_or(1);
        runs.extend(LARGE.map(|size| (size, faults)));
    }
    for ((life, wishes), faults) in runs {
        let began = Instant::now();
        let protocol = Protocol {
            life,
            wishes,
            workers,
            faults,
            mistake: None,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let checker = protocol
            .checker()
            .threads(threads)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        println!(
            "{life:?} {wishes:?}, {workers} workers, {faults} faults: {} states, depth {}, {:.1} s",
            checker.unique_state_count(),
            checker.max_depth(),
            began.elapsed().as_secs_f32()
        );
        let model = checker.model();
        for property in model.properties() {
            let found = checker.discovery(property.name);
            match (property.expectation.discovery_is_failure(), found) {
                (true, Some(path)) => panic!("{}\n{}", property.name, trace(path)),
                (false, None) => panic!("{life:?}: never seen: {}", property.name),
                _ => {}
            }
        }
    }
}

/// The steps of a behaviour, and the state that it ends in.
fn trace(path: Path<State, Step>) -> String {
    let last = path.last_state().clone();
    let steps = path.into_actions().into_iter().map(|step| format!("  {step:?}\n"));
    format!("{}ends in {last:#?}", steps.collect::<String>())
}

/// Each mistake, where it shows, with how many faults, and what it breaks.
const MISTAKES: [(Mistake, Size, u8, &str); 29] = [
    (Mistake::PublishedFirst, CALLED, 0, I2),
    (Mistake::AcknowledgedFirst, CALLED, 0, I2),
    (Mistake::AcknowledgedBeforeEffects, CALLED, 0, I2),
    (Mistake::TurnIsNotMarked, CALLED, 0, I2),
    (Mistake::TimerIsNoEffect, CALLED, 0, I2),
    (Mistake::MarkIsClearedFirst, CALLED, 0, I2),
    (Mistake::ConfirmedTooEarly, CALLED, 1, I2),
    (Mistake::ConfirmedOutlivesItsExecution, CONTINUED, 1, I2),
    (Mistake::OthersMarkIsCleared, RAISED, 0, I2),
    (Mistake::LostReplyIsConflict, CALLED, 1, I2),
    (Mistake::GuardIsTheVersion, CONTINUED, 0, I1),
    (Mistake::LaneIsGuard, CALLED, 0, I1),
    (Mistake::CachedStateIsBelieved, CONTINUED, 0, I2),
    (Mistake::CheckIsWrittenLast, CALLED, 0, I4),
    (Mistake::CheckIsRemovedEarly, CALLED, 0, I4),
    (Mistake::EndIsNotSettled, AGAIN, 1, END),
    (Mistake::AbsentIsForgotten, CALLED, 1, I4),
    (Mistake::TimerIsRemovedFirst, CALLED, 1, END),
    (Mistake::MarkedTurnIsDeleted, AGAIN, 0, I2),
    (Mistake::InboxStaysUnread, RAISED, 0, END),
    (Mistake::InboxIsEmptied, RAISED, 0, END),
    (Mistake::EarlyEventIsLost, RAISED_EARLY, 0, END),
    (Mistake::NextExecutionIsForgotten, CONTINUED, 0, END),
    (Mistake::SeenIsForgotten, CONTINUED, 1, I3),
    (Mistake::ExecutionIsNotCompared, CONTINUED, 0, I5),
    (Mistake::SenderIsNotCompared, CALLED, 1, I5),
    (Mistake::TakerCreates, AGAIN, 1, I3),
    (Mistake::NoReceiptIsLeft, AGAIN, 2, I3),
    (Mistake::StartIsClearedFirst, AGAIN, 0, I2),
];

#[test]
fn each_mistake_that_the_protocol_avoids_has_a_counterexample() {
    let is_told = number("LEVERET_MODEL_TRACE").is_some_and(|trace| trace > 0);
    for (mistake, (life, wishes), faults, property) in MISTAKES {
        let protocol = Protocol {
            life,
            wishes,
            workers: 2,
            faults,
            mistake: Some(mistake),
        };
        let checker = protocol
            .checker()
            .finish_when(HasDiscoveries::AnyOf([property].into()))
            .spawn_bfs()
            .join();
        let Some(path) = checker.discovery(property) else {
            panic!("{mistake:?} was not found by: {property}")
        };
        println!(
            "{mistake:?}: {property}: found in {} states",
            checker.unique_state_count()
        );
        if is_told {
            println!("{}", trace(path));
        }
    }
}
