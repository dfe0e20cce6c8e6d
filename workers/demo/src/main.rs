//! The demo: the three example services in one process, on one file; and a client for those that run as processes of their own.

mod arguments;
mod history;
mod host;
mod outcome;
mod paint;
mod plan;
mod problem;
mod progress;
mod table;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        eprintln!("{}", arguments::GREETING);
        return ExitCode::from(2);
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error,lapin=off"));
    let has_colours = paint::wanted(std::io::stderr().is_terminal());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours)
        .init();
    let ended = match command {
        Command::Demo(arguments) => host::demo(arguments).await,
        Command::Submit(arguments) => host::submit(arguments).await,
        Command::History(arguments) => history::show(arguments).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("leveret-demo: {problem}");
            ExitCode::from(problem.exit_code())
        }
    }
}
