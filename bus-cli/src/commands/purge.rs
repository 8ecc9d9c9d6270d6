//! `bus purge`.

use super::report_removed;
use crate::args::OrderArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};

/// Removes what a channel holds.
pub(crate) fn run(args: &OrderArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let removed = around.connect()?.purge(&args.channel)?;
    report_removed("purged", args, removed, around)
}
