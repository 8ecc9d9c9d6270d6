//! `bus skip`.

use super::report_removed;
use crate::args::OrderArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};

/// Removes the message at the head of a channel.
pub(crate) fn run(args: &OrderArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let removed = around.connect()?.skip(&args.channel)?;
    report_removed("skipped the head of", args, removed, around)
}
