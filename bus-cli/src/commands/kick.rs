//! `bus kick`.

use serde::Serialize;

use crate::args::OrderArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::{self, printable};

/// Removes the receiver of a channel.
pub(crate) fn run(args: &OrderArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let bus_core::Kicked { pid, name } = around.connect()?.kick(&args.channel)?;
    let sentence = format!("removed {} (pid {pid}) from {}", printable(&name), args.channel);
    output::report(&Done { channel: args.channel.as_str(), pid, name }, sentence, args.json, around)
}

#[derive(Serialize)]
struct Done<'a> {
    channel: &'a str,
    pid: u32,
    name: String,
}
