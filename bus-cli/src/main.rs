//! `bus`: the shell's end of the bus. [`args`] is what can be typed, [`commands`] has a file for
//! each verb, [`exit`] says how each of them ends.

mod args;
mod commands;
mod connect;
mod exit;
mod format;
mod jsonl;
mod output;
mod printer;
mod progress;
mod signals;
mod stdio;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let command_line = args::CommandLine::parse();
    match commands::run(&command_line) {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.is_silent() {
                stdio::tell(&failure);
            }
            failure.exit.into()
        }
    }
}
