//! [`Sink`]: from a channel into a pipe.
//!
//! A message is taken from the channel only while somebody reads the pipe, and acknowledged when it is read, or, with
//! `--ack line`, when the worker has said so. What a reader leaves in the pipe when it goes, a message that it has
//! read in part included, goes whole to the next one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_core::framing::{FrameWriter, Framing, jsonl};
use bus_core::{BytesBatch, BytesItem, Headers, LinkState, Pipe, Receiver, RecvTimeoutError};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;

use super::child::{Command, Ended, INPUT_GRACE, WorkerPipes};
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
            let fifo = links.make_fifo(link, path)?;
            links.keep(link)?;
            links.up(link);
            write_all(link, &mut receiver, &mut Readers { link, fifo: &fifo })
        }
        Pipe::ToCommand(text) => {
            let mut command = Command::new(link, text);
            let slot = Slot::default();
            links.keep(link)?;
            slot.put(command.start_sink()?);
            let (over, began) = std::thread::scope(|scope| {
                let slot = &slot;
                let keeper = scope.spawn(move || {
                    // Meanwhile messages are on their way already.
                    let began = command.begins(None);
                    if began.is_ok() {
                        links.up(link);
                        keep(links, link, &mut command, slot);
                    } else {
                        link.stop.give();
                        slot.clear();
                        slot.end(Over::Stopped);
                        links.part_with(link.id);
                    }
                    (command, began)
                });
                let over = write_all(link, &mut receiver, &mut Workers { link, slot });
                // Whatever it was, the keeper is to see it.
                link.stop.give();
                let kept = keeper.join();
                slot.clear();
                // After a panic there the process has been ended.
                let Ok((mut command, began)) = kept else { return (over, Ok(())) };
                command.end(INPUT_GRACE);
                (over, began)
            });
            began?;
            over
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

    /// Writes messages, and acknowledges those that have arrived.
    fn write(&mut self, link: &Link, batch: BytesBatch<'_>) -> io::Result<()> {
        let writer = &mut self.writer;
        let mut ends = Vec::with_capacity(batch.len());
        let mut outcome = writer.output_mut().forget_lines(link);
        for message in batch.iter() {
            outcome = outcome.and_then(|()| put(link, writer, &message));
            ends.push(writer.put_bytes());
        }
        outcome = outcome.and_then(|()| writer.flush());
        // What counts is what is read.
        writer.take_written();
        let pipe = writer.output_mut();
        let arrived = if pipe.has_answers() {
            outcome = outcome.and_then(|()| pipe.wait_for_line(link));
            if outcome.is_ok() { batch.len() } else { 0 }
        } else {
            outcome = outcome.and_then(|()| pipe.wait_until_read());
            let read = pipe.read_bytes();
            ends.partition_point(|end| *end <= read)
        };
        batch.ack_first(arrived);
        link.passed(arrived as u64);
        outcome
    }
}

/// Puts a message into the form of the pipe.
fn put(link: &Link, writer: &mut FrameWriter<PipeEnd<'_>>, message: &BytesItem<'_>) -> io::Result<()> {
    if link.spec.framing != Framing::JsonLines {
        return writer.put(message);
    }
    let headers = message.headers().unwrap_or_else(|error| {
        // They must not keep the payload, and all messages behind it, from coming out.
        let info = message.info();
        link.note(format!("message {} of sender {} goes without its headers: {error}", info.sequence, info.sender));
        Headers::new()
    });
    writer.put_with(|out| jsonl::write(link.spec.channel.as_str(), &message.info(), &headers, message, out))
}

/// The readers of a FIFO.
struct Readers<'a> {
    link: &'a Link,
    fifo: &'a Fifo,
}

impl Outlets for Readers<'_> {
    fn next(&mut self) -> Result<Outlet<'_>, Over> {
        self.link.now_unless_ending(LinkState::WaitingForReader);
        let opened = self.link.persist(|| self.fifo.open_writer(&self.link.stop))?;
        let Some(pipe) = opened else { return Err(Over::Stopped) };
        self.link.now_unless_ending(LinkState::Running);
        let writer = FrameWriter::new(PipeEnd::new(pipe, &self.link.stop), &self.link.spec.framing);
        Ok(Outlet { writer, is_current: Box::new(|| true) })
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
        self.slot.note_if_deaf(self.link);
        let (run, WorkerPipes { input, output, end }) = self.slot.take()?;
        let pipe = PipeEnd::of_process(input, &self.link.stop, end, output);
        let writer = FrameWriter::new(pipe, &self.link.spec.framing);
        let slot = self.slot;
        let is_current = Box::new(move || slot.is_current(run));
        Ok(Outlet { writer, is_current })
    }

    fn over(&mut self) -> Option<Over> {
        self.slot.lock().over.take()
    }
}

/// Keeps a command running until it has ended for good.
fn keep(links: &Links, link: &Link, command: &mut Command<'_>, slot: &Slot) {
    let over = loop {
        match command.after_its_end_telling(|| slot.clear()) {
            Ok(Ended::RunAgain) => match link.persist(|| command.start_sink()) {
                Ok(pipes) => slot.put(pipes),
                Err(over) => break over,
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
    pipes: Option<WorkerPipes>,
    /// Readable when the run that goes on has ended.
    running: Option<Arc<OwnedFd>>,
    over: Option<Over>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, pipes: WorkerPipes) {
        let mut state = self.lock();
        state.runs += 1;
        state.running = Some(Arc::clone(&pipes.end));
        state.pipes = Some(pipes);
        self.changed.notify_all();
    }

    fn clear(&self) {
        let mut state = self.lock();
        (state.pipes, state.running) = (None, None);
    }

    fn end(&self, over: Over) {
        let mut state = self.lock();
        state.over.get_or_insert(over);
        self.changed.notify_all();
    }

    fn take(&self) -> Result<(u64, WorkerPipes), Over> {
        let mut state = self.lock();
        loop {
            if let Some(over) = state.over.take() {
                return Err(over);
            }
            if let Some(pipes) = state.pipes.take() {
                return Ok((state.runs, pipes));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells of a run that goes on without its pipes. Under the lock, so that no later note is overwritten.
    fn note_if_deaf(&self, link: &Link) {
        let state = self.lock();
        let has_ended = |end: &Arc<OwnedFd>| {
            let mut watched = [PollFd::new(&**end, PollFlags::IN)];
            !matches!(rustix::event::poll(&mut watched, Some(&Timespec::default())), Ok(0))
        };
        if state.pipes.is_none() && state.running.as_ref().is_some_and(|end| !has_ended(end)) {
            link.note("the worker has closed its input, or the output by which it acknowledges: messages wait until it has ended");
        }
    }

    fn is_current(&self, run: u64) -> bool {
        let state = self.lock();
        state.running.is_some() && state.runs == run
    }
}

/// How many messages are taken at once: what a reader that goes may leave to be marked as redelivered.
const BATCH_MESSAGES: usize = 64;

/// How soon a gateway that waits for messages looks whether to stop if nobody woke it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
