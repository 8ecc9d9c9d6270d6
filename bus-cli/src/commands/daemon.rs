//! `bus daemon`: the same as `busd`.

use crate::args::GlobalArgs;
use crate::exit::{Exit, Failure};

/// Serves a bus until it is told to stop.
pub(crate) fn run(args: &bus_daemon::Args, global: &GlobalArgs) -> Result<Exit, Failure> {
    let mut args = args.clone();
    // `bus --socket PATH daemon` is as good as `bus daemon --socket PATH`.
    if let Some(path) = &global.socket {
        args.socket = Some(path.clone());
    }
    match bus_daemon::run(args) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Failed, format!("{error:#}"))),
    }
}
