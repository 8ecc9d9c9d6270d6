//! `bus run`: a command between channels.
//!
//! ```text
//!   --in ── receiver ── feed (a thread) ── pipe ── CMD ── pipe ── publish ── sender ── --out
//! ```
//!
//! Neither direction waits for the other: a command that writes while it is written to blocks nobody for good,
//! and a full channel is felt by the command's `write`. What the command has not read out of its pipe is not
//! acknowledged: see [`feeding`].

mod feeding;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{consume, publish};
use crate::args::RunArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::stdio::{self, Patient};
use feeding::Feeding;

/// Runs the command to its end.
pub(crate) fn run(args: &RunArgs, around: &Surroundings) -> Result<ExitCode, Failure> {
    if args.input.is_none() && args.until.is_any() {
        return Err(Failure::new(Exit::Usage, "what ends the input of CMD, and --standby, need --in CHANNEL"));
    }
    if let Some(channel) = args.input.as_ref().filter(|channel| Some(*channel) == args.output.as_ref()) {
        let text = format!(
            "--in and --out are both {channel}: what the command wrote would be fed to it again, for ever: name another channel"
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    // Before the command is there: from its first moment on signals are its own.
    let signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| Failure::io("cannot take charge of signals", &error))?;
    let bus = around.connect_within(args.until.timeout)?;
    // The command is run only where both ends are to be had.
    let receiver = args.input.as_ref().map(|channel| consume::open(channel, &args.until, &bus)).transpose()?;
    let sender = args.output.as_ref().map(|channel| bus.raw_sender(channel).open()).transpose()?;
    let (halted, halt) = io::pipe().map_err(|error| cannot("make a pipe", &error))?;
    let mut child = match spawn(args) {
        Ok(child) => child,
        Err(error) => return Ok(not_run(args, &error)),
    };
    let (command, passed_on) = watch(&mut child).map_err(|error| cannot("watch the command", &error))?;
    pass_signals_on(signals, passed_on);
    let feeding = Feeding::new(command, halted);
    let input = child.stdin.take();
    let output = child.stdout.take().map(|output| Patient::from(File::from(OwnedFd::from(output))));
    let (fed, published, status) = thread::scope(|scope| {
        let feeder =
            receiver.zip(input).map(|(receiver, input)| scope.spawn(move || feeding.feed(receiver, input, args)));
        let published = match (&sender, output) {
            (Some(sender), Some(output)) => publish::publish_output(Ok(output), sender, args, (&bus, around)),
            _ => Ok(()),
        };
        if published.is_err() {
            // Nobody reads the command any more: it gets no more either.
            drop(halt);
        }
        let status = child.wait();
        let fed =
            feeder.map_or(Ok(()), |feeder| feeder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (fed, published, status)
    });
    // Of two failures the output's is told: the input's is its consequence, or shows again.
    published.and(fed)?;
    let status = status.map_err(|error| cannot("wait for the command", &error))?;
    Ok(ExitCode::from(exit_code(status)))
}

fn spawn(args: &RunArgs) -> io::Result<Child> {
    let (program, arguments) = args.command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let joined = |is_joined: bool| if is_joined { Stdio::piped() } else { Stdio::inherit() };
    let mut command = Command::new(program);
    command.args(arguments).stdin(joined(args.input.is_some())).stdout(joined(args.output.is_some()));
    command.spawn()
}

/// What is readable once the command has ended, twice. A command that cannot be watched is not left behind.
fn watch(child: &mut Child) -> io::Result<(OwnedFd, OwnedFd)> {
    let watched = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(io::Error::from);
    let watched = watched.and_then(|command| Ok((command.try_clone()?, command)));
    if watched.is_err() {
        // Either fails only when there is nothing to be done.
        let _ = child.kill();
        let _ = child.wait();
    }
    watched
}

/// The command is not there, or is none: the exit codes of a shell.
fn not_run(args: &RunArgs, error: &io::Error) -> ExitCode {
    let program = args.command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    stdio::tell(format_args!("cannot run {program}: {error}"));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// As a shell tells it: 128 and the number of the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// SIGTERM is for the command, whose end ends everything. Ctrl-C it gets from the terminal by itself.
fn pass_signals_on(mut signals: Signals, command: OwnedFd) {
    let pass = move || {
        for _ in signals.forever().filter(|signal| *signal == SIGTERM) {
            // It may have ended just now, which is as well.
            let _ = pidfd_send_signal(&command, Signal::TERM);
        }
    };
    if let Err(error) = thread::Builder::new().name("bus-signals".into()).spawn(pass) {
        stdio::tell(format_args!("signals are not passed on: {error}"));
    }
}

fn cannot(what: impl fmt::Display, error: &io::Error) -> Failure {
    Failure::io(format_args!("cannot {what}"), error)
}
