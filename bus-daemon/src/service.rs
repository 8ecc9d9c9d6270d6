//! [`run`]: the daemon as a foreground service, from the command line to its exit code.

use std::io::Write;

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::Args;
use crate::logging;
use crate::signals::Signals;

/// Serves until a signal, an idle exit or an error ends it.
///
/// ```
/// use bus_daemon::Args;
///
/// bus_daemon::run(Args { check_config: true, socket: Some("/run/bus/bus.sock".into()), ..Args::default() })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Whatever kept the daemon from starting, or made it stop: each names the thing, the figure and
/// what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    let config = args.settings()?;
    if args.check_config {
        // A closed stdout still leaves the exit code.
        let _ = writeln!(std::io::stdout(), "the settings are valid");
        return Ok(());
    }
    logging::start(args.log, args.log_format);
    if args.detached {
        detach().context("cannot leave the session")?;
    }
    raise_descriptor_limit();
    // Before the socket is bound: a signal from here on removes it again.
    let signals = Signals::of_process().context("cannot take over the signals")?;

    crate::Daemon::foreground(config, signals)?;
    Ok(())
}

/// Makes the daemon independent of the terminal and the folder of the program that started it.
fn detach() -> Result<(), Errno> {
    match rustix::process::setsid() {
        // Leader of a process group already: whoever started us has seen to it.
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    rustix::process::chdir("/")
}

/// Every connection is a descriptor, and the soft limit of 1,024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = ?current, to = ?maximum, "descriptor limit raised"),
        Err(errno) => tracing::warn!(limit = ?current, %errno, "descriptor limit not raised"),
    }
}
