//! `bus completions`.

use crate::args::{CompletionsArgs, public_command};
use crate::exit::{Exit, Failure};
use crate::output;

/// Writes the completions of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut public_command(), "bus", &mut script);
    output::write(&script)
}
