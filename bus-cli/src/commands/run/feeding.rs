//! [`Feeding`]: from a channel into the input of a command.
//!
//! A message is acknowledged when the command has read it out of its pipe, so whatever ends the command, the rest
//! comes again: what lies in the pipe, and a message that it has read in part. The kernel does not tell when a pipe is
//! read, so it is asked again and again, less and less often the longer it takes.

use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use bus_core::{BytesBatch, Receiver};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread};

use super::cannot;
use crate::args::RunArgs;
use crate::commands::consume::{self, Ends, Next};
use crate::exit::Failure;
use crate::printer::Printer;

/// Feeds the command.
pub(super) struct Feeding {
    /// Readable once the command has ended.
    command: OwnedFd,
    /// Hung up when no more is to be fed.
    halted: PipeReader,
    /// Until when a command may take to read what it is given.
    deadline: Option<Instant>,
}

impl Feeding {
    pub(super) fn new(command: OwnedFd, halted: PipeReader, deadline: Option<Instant>) -> Self {
        Self { command, halted, deadline }
    }

    /// Until one of the ends that were asked for, or the command's. Its input is closed then, and the seat free.
    pub(super) fn feed(
        self,
        mut receiver: Receiver<Vec<u8>>,
        input: ChildStdin,
        (args, mut ends): (&RunArgs, Ends),
    ) -> Result<(), Failure> {
        let channel = receiver.channel().clone();
        let input = CommandInput::new(input, &self).map_err(|error| cannot("write to the command", &error))?;
        let mut printer = Printer::framed(input, &channel, &args.framing);
        ends.begin_silence();
        while ends.more_wanted() {
            let goes_on = self.wait_for_message(&receiver, ends.next_at());
            if !goes_on.map_err(|error| cannot("wait for messages", &error))? {
                return Ok(());
            }
            let none_came = match receiver.next_batch(ends.at_most(BATCH_MESSAGES), Some(Instant::now())) {
                Ok(batch) => {
                    match give(batch, &mut printer) {
                        (read, Ok(())) => ends.came(read)?,
                        (read, Err(error)) if error.kind() == io::ErrorKind::TimedOut => ends.came(read)?,
                        // It has enough, or is gone.
                        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                        (_, Err(error)) => return Err(cannot("write to the command", &error)),
                    }
                    continue;
                }
                Err(error) => error,
            };
            match ends.without_message(none_came, &receiver)? {
                Next::Wait => {}
                Next::End => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits for a message, until `deadline` at most; `false` when nothing is to be fed any more.
    fn wait_for_message(&self, receiver: &Receiver<Vec<u8>>, deadline: Option<Instant>) -> io::Result<bool> {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Ok(self.wait_for(receiver.readiness()?, PollFlags::IN, timeout)?.is_some())
    }

    /// Waits for the command, until the deadline at most.
    fn wait_for_command(&self, pipe: &ChildStdin, flags: PollFlags, pause: Option<Duration>) -> io::Result<PollFlags> {
        let rest = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest.is_some_and(|rest| rest.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = pause.into_iter().chain(rest).min();
        self.wait_for(pipe.as_fd(), flags, timeout)?.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// What it is ready for, or `None` when nothing is to be fed any more.
    fn wait_for(
        &self,
        what: BorrowedFd<'_>,
        flags: PollFlags,
        timeout: Option<Duration>,
    ) -> io::Result<Option<PollFlags>> {
        let timeout = timeout.map(timespec);
        let mut polled = [
            PollFd::from_borrowed_fd(what, flags),
            PollFd::from_borrowed_fd(self.command.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.halted.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let goes_on = polled[1..].iter().all(|end| end.revents().is_empty());
        Ok(goes_on.then(|| polled[0].revents()))
    }
}

/// Writes messages, and acknowledges those that the command has read. Returns how many.
fn give(batch: BytesBatch<'_>, printer: &mut Printer<CommandInput<'_>>) -> (u64, io::Result<()>) {
    let mut ends = Vec::with_capacity(batch.len());
    let mut given = Ok(());
    for message in batch.iter() {
        given = given.and_then(|()| printer.print(&message, || message.info(), || consume::headers(&message)));
        ends.push(printer.printed_bytes());
    }
    given = given.and_then(|()| printer.flush());
    // What counts is what is read.
    printer.take_written();
    let input = printer.output_mut();
    given = given.and_then(|()| input.wait_until_read());
    let read_bytes = input.read_bytes();
    let read = ends.partition_point(|end| *end <= read_bytes);
    batch.ack_first(read);
    (read as u64, given)
}

/// The command's input. A child that the command leaves behind may hold the pipe open and never read: the
/// command's own end ends the writing.
struct CommandInput<'a> {
    pipe: ChildStdin,
    feeding: &'a Feeding,
    /// How many bytes the pipe has taken.
    written: u64,
}

impl<'a> CommandInput<'a> {
    fn new(pipe: ChildStdin, feeding: &'a Feeding) -> io::Result<Self> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe, feeding, written: 0 })
    }

    /// How many bytes of what was written are read. Without a reader it stays so.
    fn read_bytes(&self) -> u64 {
        ioctl_fionread(&self.pipe).map_or(0, |unread| self.written.saturating_sub(unread))
    }

    /// Waits until everything is read, or nobody is there who could.
    fn wait_until_read(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while self.read_bytes() < self.written {
            let pause = (begun.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            if !self.feeding.wait_for_command(&self.pipe, PollFlags::empty(), Some(pause))?.is_empty() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }
}

impl Write for CommandInput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.feeding.wait_for_command(&self.pipe, PollFlags::OUT, None)?;
                }
                Ok(written) => {
                    self.written += written as u64;
                    return Ok(written);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// How many messages are written together at most: what a command that ends may leave to be marked as redelivered.
const BATCH_MESSAGES: usize = 64;

/// About what a command that is there takes.
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);

/// How late it is seen at most that a slow command has read.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
