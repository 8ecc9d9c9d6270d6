//! `bus completions`.

use clap::CommandFactory as _;

use crate::args::{CommandLine, CompletionsArgs};
use crate::exit::{Exit, Failure};
use crate::output;

/// Writes the completions of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "bus", &mut script);
    output::write(&script)
}
