//! Throughput beside a floor: series of remote activities, by Leveret and by a loop written by hand, on the same private RabbitMQ and Redis, in turns.
//!
//! ```sh
//! cargo bench --bench throughput -- --in-flight 1,64,512 --rounds 5 --json out.json
//! ```
//!
//! The floor ([`floor`]) has no framework: one message an item, one fenced commit a turn. Every figure of Leveret's stands beside the floor's of the same
//! run, because machines drift: only ratios compare. `--short` is the form that CI runs: it fails on lost or wrong workflows, never on speed.
//!
//! The program is its own workers: with [`process::ROLE`] in its environment it is one of them.

mod floor;
mod kept;
mod leveret_side;
mod measure;
mod options;
mod picture;
mod process;
mod report;
mod usage;
mod whole_load;
mod workload;

/// The private servers, as chaos starts them.
#[allow(dead_code)]
#[path = "../chaos/servers.rs"]
mod servers;

use std::process::ExitCode;

use options::{Asked, Options};

/// Small allocations by the million: the system's allocator takes twice as long for them. The floor has it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(process::ROLE) {
        return process::play(&role);
    }
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("throughput: {problem}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let measured = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(measure::run(&options)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("throughput: {problem}");
            ExitCode::FAILURE
        }
    }
}
