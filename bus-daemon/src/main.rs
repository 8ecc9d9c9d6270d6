//! `busd`: the daemon as a program. Exit codes: 0 orderly end, 1 error, 2 usage.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Serves a bus at a local socket until it is told to end.
#[derive(Parser)]
#[command(name = "busd", version)]
struct Cli {
    #[command(flatten)]
    args: bus_daemon::Args,
}

fn main() -> ExitCode {
    match bus_daemon::run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr is no second error.
            let _ = writeln!(std::io::stderr(), "busd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
