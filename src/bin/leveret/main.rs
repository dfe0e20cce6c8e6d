//! The operator's command: what is stuck, what is dead, and what to do about it.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 all is well, 1 there is something to look at (or the servers could not be asked), 2 the command
//! cannot mean anything as it was given.

mod arguments;
mod audit;
mod connect;
mod dead;
mod output;
mod problem;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    output::log_to_stderr();
    let done = match arguments.command {
        Command::Audit(arguments) => audit::run(arguments).await,
        Command::Dead(command) => dead::run(command).await,
    };
    match done {
        Ok(findings) => ExitCode::from(u8::from(findings)),
        Err(problem) => {
            eprintln!("leveret: {problem}");
            ExitCode::from(problem.exit_code())
        }
    }
}

/// Help and version are wanted; everything else is wrong use, told in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that has gone away has seen enough.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprintln!("leveret: say what to do (see leveret --help)");
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let told: Vec<_> = told.filter(|line| !line.is_empty()).collect();
    let told = told.join(" ");
    eprintln!(
        "leveret: {} (see leveret --help)",
        told.strip_prefix("error: ").unwrap_or(&told)
    );
    ExitCode::from(2)
}
