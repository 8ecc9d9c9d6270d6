//! `bus delete`.

use super::report_removed;
use crate::args::OrderArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};

/// Removes a channel, what it holds and its ends.
pub(crate) fn run(args: &OrderArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let removed = around.connect()?.delete(&args.channel)?;
    report_removed("deleted", args, removed, around)
}
