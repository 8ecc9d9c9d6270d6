//! `busd`: the daemon as a program. Exit codes: 0 orderly end, 1 error, 2 usage.

use std::io::{ErrorKind, Write};
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
    let args = match Cli::try_parse() {
        Ok(cli) => cli.args,
        Err(told) => return tell(&told),
    };
    match bus_daemon::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format_args!("{error:#}")),
    }
}

/// Writes the help or the version that was asked for, or what is wrong with what was typed.
fn tell(told: &clap::Error) -> ExitCode {
    match told.print() {
        Err(error) if !told.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            fail(format_args!("cannot write: {error}"))
        }
        // Where an error cannot be told, the exit code says it.
        Ok(()) | Err(_) => {
            if told.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

fn fail(why: std::fmt::Arguments<'_>) -> ExitCode {
    // A closed stderr is no second error.
    let _ = writeln!(std::io::stderr(), "busd: {why}");
    ExitCode::FAILURE
}
