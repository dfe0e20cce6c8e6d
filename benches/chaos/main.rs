//! Chaos on the real thing: private RabbitMQ and Redis, workers of three apps, a load of mixed workflows, and faults drawn from a seed.
//!
//! ```sh
//! cargo bench --bench chaos -- --seconds 1800 --seed 7 --fsync always
//! ```
//!
//! Afterwards everything that was confirmed must have happened, once, and nothing may be left over; see `docs/chaos.md`. The exit code is 0 if that
//! is so, 1 if it is not (the logs are then kept), 2 for options that make no sense.
//!
//! The program is its own worker: with [`worker::APP`] in its environment it hosts that app and nothing else.

mod apps;
mod checks;
mod effects;
mod faults;
mod fleet;
mod jobs;
mod load;
mod options;
mod poison;
mod proxy;
mod pulses;
mod remains;
mod report;
mod scene;
mod schedule;
mod servers;
mod throughput;
mod worker;

/// What the fault tests look at, with the bounds of their waits: shared with `tests/faults`.
#[allow(dead_code)]
#[path = "../../tests/faults/inspect.rs"]
mod inspect;
#[allow(dead_code)]
#[path = "../../tests/faults/soon.rs"]
mod soon;

use std::process::ExitCode;

use options::{Asked, Options};

fn main() -> ExitCode {
    if std::env::var_os(worker::APP).is_some() {
        return worker::main();
    }
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("chaos: {problem}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(scene::play(options))
}
