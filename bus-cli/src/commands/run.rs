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

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use bus_core::ChannelName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::consume::Ends;
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
    let signals =
        Signals::take_charge(args.output.clone()).map_err(|error| cannot("take charge of signals", &error))?;
    // Its time runs from here: connecting is part of it.
    let ends = args.input.as_ref().map(|channel| Ends::new(channel, &args.until));
    let deadline = args.until.timeout.map(|timeout| Instant::now() + timeout);
    let bus = around.connect_within(args.until.timeout)?;
    // The command is run only where both ends are to be had.
    let receiver = args.input.as_ref().map(|channel| consume::open(channel, &args.until, &bus)).transpose()?;
    let sender = args.output.as_ref().map(|channel| bus.raw_sender(channel).open()).transpose();
    let sender = sender.map_err(|error| Failure::not_opened(error, args.until.timeout))?;
    let (halted, halt) = io::pipe().map_err(|error| cannot("make a pipe", &error))?;
    let unborn = signals.unborn();
    let mut child = match spawn(args) {
        Ok(child) => child,
        Err(error) => return Ok(not_run(args, &error)),
    };
    let [command, fed, passed_on] = watch(&mut child).map_err(|error| cannot("watch the command", &error))?;
    unborn.becomes(passed_on);
    let feeding = Feeding::new(fed, halted, deadline);
    let input = child.stdin.take();
    let output = child.stdout.take().map(|output| Patient::from(File::from(OwnedFd::from(output))));
    let (fed, published, in_time) = thread::scope(|scope| {
        let (at_work, all_done) = mpsc::channel::<Infallible>();
        let feeder = receiver.zip(ends).zip(input).map(|((receiver, ends), input)| {
            let at_work = at_work.clone();
            scope.spawn(move || {
                let _at_work = at_work;
                feeding.feed(receiver, input, (args, ends))
            })
        });
        let (bus, sender) = (&bus, &sender);
        let publisher = scope.spawn(move || {
            let _at_work = at_work;
            let published = match (sender, output) {
                (Some(sender), Some(output)) => {
                    publish::publish_output(Ok(output), sender, (args, deadline), (bus, around))
                }
                _ => Ok(()),
            };
            // Where nobody reads the command any more it gets no more either: `halt` is let go of.
            published.map(|()| halt)
        });
        let in_time = await_end(&command, deadline);
        if let Some(deadline) = deadline
            && all_done.recv_timeout(rest_of(deadline) + LATE_GRACE) == Err(RecvTimeoutError::Timeout)
        {
            // A child that the command has left behind holds its output.
            let failure = late(args, "the output of ");
            stdio::tell(&failure);
            std::process::exit(failure.exit.code().into());
        }
        (feeder.map_or(Ok(()), joined), joined(publisher), in_time)
    });
    let status = child.wait();
    // Of two failures the output's is told: the input's is its consequence, or shows again.
    published.map(drop).and(fed)?;
    if !in_time.map_err(|error| cannot("wait for the command", &error))? {
        return Err(late(args, ""));
    }
    let status = status.map_err(|error| cannot("wait for the command", &error))?;
    Ok(ExitCode::from(exit_code(status)))
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until the command has ended, and ends it some time after the deadline. Whether it ended before that.
fn await_end(command: &OwnedFd, deadline: Option<Instant>) -> io::Result<bool> {
    let ends_by = |deadline: Option<Instant>| loop {
        let timeout = deadline.map(rest_of).map(feeding::timespec);
        match poll(&mut [PollFd::new(command, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error)),
        }
    };
    if ends_by(deadline)? {
        return Ok(true);
    }
    for (grace, signal) in [(INPUT_GRACE, Signal::TERM), (TERM_GRACE, Signal::KILL)] {
        if ends_by(Some(Instant::now() + grace))? {
            return Ok(false);
        }
        // It may have ended just now, which is as well.
        let _ = pidfd_send_signal(command, signal);
    }
    ends_by(None).map(|_| false)
}

fn rest_of(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn late(args: &RunArgs, what: &str) -> Failure {
    Failure::new(Exit::Timeout, format!("the time passed before {what}{} had ended", program(args)))
}

fn spawn(args: &RunArgs) -> io::Result<Child> {
    let (program, arguments) = args.command.split_first().ok_or(io::ErrorKind::NotFound)?;
    let joined = |is_joined: bool| if is_joined { Stdio::piped() } else { Stdio::inherit() };
    let mut command = Command::new(program);
    command.args(arguments).stdin(joined(args.input.is_some())).stdout(joined(args.output.is_some()));
    command.spawn()
}

/// What is readable once the command has ended, three times. A command that cannot be watched is not left behind.
fn watch(child: &mut Child) -> io::Result<[OwnedFd; 3]> {
    let watched = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(io::Error::from);
    let watched = watched.and_then(|command| Ok([command.try_clone()?, command.try_clone()?, command]));
    if watched.is_err() {
        // Either fails only when there is nothing to be done.
        let _ = child.kill();
        let _ = child.wait();
    }
    watched
}

/// The command is not there, or is none: the exit codes of a shell.
fn not_run(args: &RunArgs, error: &io::Error) -> ExitCode {
    stdio::tell(format_args!("cannot run {}: {error}", program(args)));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

fn program(args: &RunArgs) -> Cow<'_, str> {
    args.command.first().map(|program| program.to_string_lossy()).unwrap_or_default()
}

/// As a shell tells it: 128 and the number of the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// What becomes of signals. Before the command is there they end this process. From its first moment on they are the
/// command's, whose end ends everything: SIGTERM is passed on, Ctrl-C it gets from the terminal by itself. What it has
/// written may have no room in its channel then: that has some seconds, or until the next signal.
struct Signals {
    command: Arc<Mutex<Option<OwnedFd>>>,
}

impl Signals {
    fn take_charge(output: Option<ChannelName>) -> io::Result<Self> {
        let mut incoming = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let command = Arc::new(Mutex::new(None::<OwnedFd>));
        let passed_on = Arc::clone(&command);
        thread::Builder::new().name("bus-signals".into()).spawn(move || {
            let mut has_been_told = false;
            for signal in incoming.forever() {
                let exit = if signal == SIGINT { Exit::Interrupted } else { Exit::Terminated };
                let command = passed_on.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(command) = &*command else { std::process::exit(exit.code().into()) };
                let is_told_again = std::mem::replace(&mut has_been_told, true);
                if is_told_again && ends_within(command, Duration::ZERO) {
                    leave_output(output.as_ref(), exit);
                }
                if signal == SIGTERM {
                    // It may have ended just now, which is as well.
                    let _ = pidfd_send_signal(command, Signal::TERM);
                }
                let (command, output) = (command.try_clone(), output.clone());
                thread::spawn(move || {
                    if command.is_ok_and(|command| ends_within(&command, END_PATIENCE)) {
                        thread::sleep(LATE_GRACE);
                        leave_output(output.as_ref(), exit);
                    }
                });
            }
        })?;
        Ok(Self { command })
    }

    /// Signals wait until it is known whose they are.
    fn unborn(&self) -> Unborn<'_> {
        Unborn(self.command.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A command that is about to be started.
struct Unborn<'a>(MutexGuard<'a, Option<OwnedFd>>);

impl Unborn<'_> {
    fn becomes(mut self, command: OwnedFd) {
        *self.0 = Some(command);
    }
}

fn cannot(what: impl fmt::Display, error: &io::Error) -> Failure {
    Failure::io(format_args!("cannot {what}"), error)
}

/// Whether a command comes to its end; by its pidfd, which is readable then.
fn ends_within(command: &OwnedFd, patience: Duration) -> bool {
    let timeout = feeding::timespec(patience);
    matches!(poll(&mut [PollFd::new(command, PollFlags::IN)], Some(&timeout)), Ok(1))
}

/// The command was told to end and has, and what it had written has no room.
fn leave_output(output: Option<&ChannelName>, exit: Exit) -> ! {
    if let Some(channel) = output {
        stdio::tell(format_args!("{channel}: not all that the command had written was accepted: is the channel full?"));
    }
    std::process::exit(exit.code().into())
}

/// How long a command may take to end after a signal, if what it leaves is to be left soon after.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long after the deadline a command has to end at the end of its input.
const INPUT_GRACE: Duration = Duration::from_secs(2);

/// How long it has to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// How long after the deadline and the command's end the rest of its output may take.
const LATE_GRACE: Duration = Duration::from_secs(3);
