//! `bus`: the shell's end of the bus. [`args`] is what can be typed, [`commands`] has a file for
//! each verb, [`exit`] says how each of them ends.

mod args;
mod commands;
mod connect;
mod exit;
mod format;
mod output;
mod printer;
mod progress;
mod signals;
mod stdio;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    let ended = match args::CommandLine::try_parse() {
        Ok(command_line) => commands::run(&command_line),
        Err(told) => tell(&told).map(ExitCode::from),
    };
    ended.unwrap_or_else(|failure| {
        if !failure.is_silent() {
            stdio::tell(&failure);
        }
        failure.exit.into()
    })
}

/// Writes the help or the version that was asked for, or what is wrong with what was typed.
fn tell(told: &clap::Error) -> Result<Exit, Failure> {
    if told.use_stderr() {
        // Where it cannot be told, the exit code says it.
        let _ = told.print();
        return Ok(Exit::Usage);
    }
    match told.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the output", &error))
        }
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}
