//! `bus run`: a command between channels.
//!
//! ```text
//!   --in ── receiver ── feed (a thread) ── pipe ── CMD ── pipe ── publish ── sender ── --out
//! ```
//!
//! Neither direction waits for the other: a command that writes while it is written to blocks nobody for good,
//! and a full channel is felt by the command's `write`.

use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use bus_core::{Bus, Receiver};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::consume::{self, BATCH_MESSAGES, Ends, Next};
use super::publish;
use crate::args::RunArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::printer::Printer;
use crate::stdio::{self, Patient};

/// Runs the command to its end.
pub(crate) fn run(args: &RunArgs, around: &Surroundings) -> Result<ExitCode, Failure> {
    if args.input.is_none() && args.until.is_any() {
        return Err(Failure::new(Exit::Usage, "what ends the input of CMD, and --standby, need --in CHANNEL"));
    }
    // Before the command is there: from its first moment on signals are its own.
    let signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| Failure::io("cannot take charge of signals", &error))?;
    let bus = around.connect()?;
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
    let feeding = Feeding { command, halted };
    let input = child.stdin.take();
    let output = child.stdout.take().map(|output| Patient::from(File::from(OwnedFd::from(output))));
    let (fed, published, status) = thread::scope(|scope| {
        let feeder = receiver.zip(input).map(|(receiver, input)| {
            let bus = &bus;
            scope.spawn(move || feeding.feed(receiver, input, args, bus))
        });
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

/// Feeds the command.
struct Feeding {
    /// Readable once the command has ended.
    command: OwnedFd,
    /// Hung up when no more is to be fed.
    halted: PipeReader,
}

impl Feeding {
    /// Until one of the ends that were asked for, or the command's. Its input is closed then, and the seat free.
    fn feed(
        self,
        mut receiver: Receiver<Vec<u8>>,
        input: ChildStdin,
        args: &RunArgs,
        bus: &Bus,
    ) -> Result<(), Failure> {
        let channel = receiver.channel().clone();
        let input = CommandInput::new(input, &self).map_err(|error| cannot("write to the command", &error))?;
        let mut printer = Printer::framed(input, &channel, &args.framing);
        let mut ends = Ends::new(&channel, &args.until);
        while ends.more_wanted() {
            let goes_on = self.wait_for_message(&receiver, ends.next_at());
            if !goes_on.map_err(|error| cannot("wait for messages", &error))? {
                return Ok(());
            }
            let batch = match receiver.next_batch(ends.at_most(BATCH_MESSAGES), Some(Instant::now())) {
                Ok(batch) => batch,
                Err(error) => match ends.without_message(error, bus)? {
                    Next::Wait => continue,
                    Next::End => return Ok(()),
                },
            };
            match consume::write_out(batch, &mut printer) {
                (written, Ok(())) => ends.came(written)?,
                // It has enough, or is gone.
                (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                (_, Err(error)) => return Err(cannot("write to the command", &error)),
            }
        }
        Ok(())
    }

    /// Waits for a message, until `deadline` at most; `false` when nothing is to be fed any more.
    fn wait_for_message(&self, receiver: &Receiver<Vec<u8>>, deadline: Option<Instant>) -> io::Result<bool> {
        self.wait_for(receiver.readiness()?, PollFlags::IN, deadline)
    }

    fn wait_for(&self, what: BorrowedFd<'_>, flags: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        let mut polled = [
            PollFd::from_borrowed_fd(what, flags),
            PollFd::from_borrowed_fd(self.command.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.halted.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(polled[1..].iter().all(|end| end.revents().is_empty())),
            Err(error) => Err(error.into()),
        }
    }
}

/// The command's input. A child that the command leaves behind may hold the pipe open and never read: the
/// command's own end ends the writing.
struct CommandInput<'a> {
    pipe: ChildStdin,
    feeding: &'a Feeding,
}

impl<'a> CommandInput<'a> {
    fn new(pipe: ChildStdin, feeding: &'a Feeding) -> io::Result<Self> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe, feeding })
    }
}

impl Write for CommandInput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.feeding.wait_for(self.pipe.as_fd(), PollFlags::OUT, None)? {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cannot(what: impl fmt::Display, error: &io::Error) -> Failure {
    Failure::io(format_args!("cannot {what}"), error)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
