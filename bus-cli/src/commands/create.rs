//! `bus create`.

use serde::Serialize;

use crate::args::CreateArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output;

/// Declares a channel.
pub(crate) fn run(args: &CreateArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let channel = args.channel.as_str();
    let created = around.connect()?.create(channel, args.options())?;
    let sentence = match created {
        true => format!("created {channel}"),
        false => format!("{channel} is declared already, with these options"),
    };
    output::report(&Done { channel, created }, sentence, args.json, around)
}

#[derive(Serialize)]
struct Done<'a> {
    channel: &'a str,
    /// `false`: it was declared before, with the same options.
    created: bool,
}
