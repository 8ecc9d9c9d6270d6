//! [`Sink`]: from a channel into a pipe.
//!
//! A message is taken from the channel only while somebody reads the pipe, and acknowledged when the pipe has
//! all of it, or, with `--ack line`, when the worker has said so. A reader that goes in the middle of a message
//! leaves it to the next one, who gets it whole.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_core::framing::FrameWriter;
use bus_core::{BytesBatch, LinkState, Pipe, Receiver, RecvTimeoutError};
use rustix::event::PollFlags;

use super::child::{Command, Ended, INPUT_GRACE};
use super::fifo::Fifo;
use super::link::{Link, NotUp, Over};
use super::pipe_end::{PipeEnd, STOPPED};
use super::registry::Links;

/// Serves a gateway that writes to a pipe, until it is over.
pub(super) fn serve(links: &Links, link: &Link) -> Result<Over, NotUp> {
    let bus = link.connect(links.address())?;
    // Before anything is made: the channel may have a receiver.
    let mut receiver = bus.raw_receiver(&link.spec.channel).open()?;
    let over = match &link.spec.pipe {
        Pipe::ToFifo(path) => {
            let fifo = link.make_fifo(path)?;
            links.keep(link)?;
            links.up(link);
            write_all(link, &mut receiver, &mut Readers { link, fifo: &fifo })
        }
        Pipe::ToCommand(text) => {
            let mut command = Command::new(link, text);
            let slot = Slot::default();
            links.keep(link)?;
            slot.put(command.start_sink()?);
            links.up(link);
            std::thread::scope(|scope| {
                let slot = &slot;
                let keeper = scope.spawn(move || {
                    keep(links, link, &mut command, slot);
                    command
                });
                let over = write_all(link, &mut receiver, &mut Workers { link, slot });
                // Whatever it was, the keeper is to see it.
                link.stop.give();
                let kept = keeper.join();
                slot.clear();
                // After a panic there the process has been ended.
                if let Ok(mut command) = kept {
                    command.end(INPUT_GRACE);
                }
                over
            })
        }
        Pipe::FromFifo(_) | Pipe::FromCommand(_) => unreachable!("a source serves those"),
    };
    Ok(over.unwrap_or_else(|over| over))
}

/// Gives the pipes to be written to, one after the other.
trait Outlets {
    /// Waits for somebody who reads.
    fn next(&mut self) -> Result<Outlet<'_>, Over>;

    /// Why there will be none any more, if that is so.
    fn over(&mut self) -> Option<Over>;
}

/// A pipe that somebody reads.
struct Outlet<'a> {
    writer: FrameWriter<PipeEnd<'a>>,
    acks: Option<Acks>,
    is_current: Box<dyn Fn() -> bool + 'a>,
}

fn write_all(link: &Link, receiver: &mut Receiver<Vec<u8>>, outlets: &mut dyn Outlets) -> Result<Over, Over> {
    let at_once = if link.spec.ack_lines { 1 } else { BATCH_MESSAGES };
    loop {
        let mut outlet = outlets.next()?;
        loop {
            if link.stop.is_given() {
                return Err(Over::Stopped);
            }
            let batch = match receiver.next_batch(at_once, Some(Instant::now() + LOOK_EVERY)) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Kicked) if link.stop.is_given() => return Err(Over::Stopped),
                Err(error) => {
                    drop(outlet);
                    return Err(outlets.over().unwrap_or_else(|| Over::Because(error.to_string())));
                }
            };
            if outlet.is_deserted() {
                // Nobody has seen it: it is kept for whoever comes.
                drop(outlet);
                outlet = outlets.next()?;
            }
            if let Err(error) = outlet.write(link, batch) {
                match error.kind() {
                    STOPPED => return Err(Over::Stopped),
                    io::ErrorKind::BrokenPipe => break,
                    _ => return Err(error.into()),
                }
            }
        }
    }
}

impl Outlet<'_> {
    fn is_deserted(&self) -> bool {
        !(self.is_current)() || self.writer.output().is_deserted()
    }

    /// Writes messages, and acknowledges those that are out whole.
    fn write(&mut self, link: &Link, batch: BytesBatch<'_>) -> io::Result<()> {
        let put = batch.iter().try_for_each(|message| self.writer.put(&message));
        let flushed = put.and_then(|()| self.writer.flush());
        let mut written = self.writer.take_written();
        let mut outcome = flushed;
        if let (Some(acks), Ok(())) = (&mut self.acks, &outcome) {
            outcome = acks.wait(link);
        }
        if self.acks.is_some() && outcome.is_err() {
            written = 0;
        }
        batch.ack_first(written);
        link.passed(written as u64);
        outcome
    }
}

/// The readers of a FIFO.
struct Readers<'a> {
    link: &'a Link,
    fifo: &'a Fifo,
}

impl Outlets for Readers<'_> {
    fn next(&mut self) -> Result<Outlet<'_>, Over> {
        self.link.now_unless_ending(LinkState::WaitingForReader);
        let Some(pipe) = self.fifo.open_writer(&self.link.stop)? else { return Err(Over::Stopped) };
        self.link.now_unless_ending(LinkState::Running);
        let writer = FrameWriter::new(PipeEnd::new(pipe, &self.link.stop), &self.link.spec.framing);
        Ok(Outlet { writer, acks: None, is_current: Box::new(|| true) })
    }

    fn over(&mut self) -> Option<Over> {
        None
    }
}

/// The runs of a command.
struct Workers<'a> {
    link: &'a Link,
    slot: &'a Slot,
}

impl Outlets for Workers<'_> {
    fn next(&mut self) -> Result<Outlet<'_>, Over> {
        let (run, input, output) = self.slot.take()?;
        let writer = FrameWriter::new(PipeEnd::new(input, &self.link.stop), &self.link.spec.framing);
        let slot = self.slot;
        let is_current = Box::new(move || slot.is_current(run));
        Ok(Outlet { writer, acks: output.map(|output| Acks { output, lines: 0 }), is_current })
    }

    fn over(&mut self) -> Option<Over> {
        self.slot.lock().over.take()
    }
}

/// Keeps a command running until it has ended for good.
fn keep(links: &Links, link: &Link, command: &mut Command<'_>, slot: &Slot) {
    let over = loop {
        match command.after_its_end_telling(|| slot.clear()) {
            Ok(Ended::RunAgain) => match command.start_sink() {
                Ok(pipes) => slot.put(pipes),
                Err(error) => break Over::Because(error.text),
            },
            Ok(Ended::ForGood(reason)) => break Over::Because(reason),
            Err(over) => break over,
        }
    };
    slot.end(over);
    // Whoever waits for a message need not wait any more.
    links.part_with(link.id);
}

/// Where the pipes of a run are laid down for whoever writes to them.
#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

#[derive(Default)]
struct SlotState {
    runs: u64,
    pipes: Option<(File, Option<File>)>,
    is_running: bool,
    over: Option<Over>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, pipes: (File, Option<File>)) {
        let mut state = self.lock();
        state.runs += 1;
        (state.pipes, state.is_running) = (Some(pipes), true);
        self.changed.notify_all();
    }

    fn clear(&self) {
        let mut state = self.lock();
        (state.pipes, state.is_running) = (None, false);
    }

    fn end(&self, over: Over) {
        let mut state = self.lock();
        state.over.get_or_insert(over);
        self.changed.notify_all();
    }

    fn take(&self) -> Result<(u64, File, Option<File>), Over> {
        let mut state = self.lock();
        loop {
            if let Some(over) = state.over.take() {
                return Err(over);
            }
            if let Some((input, output)) = state.pipes.take() {
                return Ok((state.runs, input, output));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_current(&self, run: u64) -> bool {
        let state = self.lock();
        state.is_running && state.runs == run
    }
}

/// The lines by which a worker acknowledges.
struct Acks {
    output: File,
    /// That came and acknowledge nothing yet.
    lines: u64,
}

impl Acks {
    /// Waits for the line that acknowledges the message that was written last. Also after the order to stop, for
    /// a while: what was worked on is not to be worked on again.
    fn wait(&mut self, link: &Link) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        let mut give_up_at = None;
        while self.lines == 0 {
            match (&self.output).read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(bytes) => self.lines += newlines(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let timeout = match link.stop.is_given() {
                        true => Some(
                            ACK_PATIENCE
                                .min(give_up_at.get_or_insert(now + ACK_PATIENCE).saturating_duration_since(now)),
                        ),
                        false => None,
                    };
                    match timeout {
                        Some(Duration::ZERO) => return Err(STOPPED.into()),
                        // The order is given and would wake at once: only the output counts now.
                        Some(left) => wait_for(&self.output, left)?,
                        None => drop(link.stop.wait_or([(self.output.as_fd(), PollFlags::IN)], None)?),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.lines > 1 {
            link.refuse(&format_args!("the worker wrote {} lines for one message: one acknowledges it", self.lines));
        }
        self.lines = 0;
        Ok(())
    }
}

fn wait_for(output: &File, patience: Duration) -> io::Result<()> {
    let timeout = rustix::time::Timespec::try_from(patience).unwrap_or_default();
    let mut watched = [rustix::event::PollFd::new(output, PollFlags::IN)];
    match rustix::event::poll(&mut watched, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// How many messages are taken at once: what a reader that goes may leave to be marked as redelivered.
const BATCH_MESSAGES: usize = 64;

/// How soon a gateway that waits for messages looks whether to stop if nobody woke it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a worker may still acknowledge after the order to stop.
const ACK_PATIENCE: Duration = Duration::from_millis(500);
