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

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        eprintln!("{}", arguments::GREETING);
        return ExitCode::from(2);
    };
    logs::to_stderr("error");
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
