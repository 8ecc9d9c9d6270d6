//! [`Source`]: from a pipe into a channel.
//!
//! It reads as much as the pipe has, and sends what is there whole. All but the last half a mebibyte is accepted by
//! the channel before it reads on, so what it has taken from the pipe and cannot hand on at its end is bounded. While
//! the channel has no room it does not read, so the pipe fills and its writer waits.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bus_core::framing::{FrameReader, Framing, ReadError, jsonl};
use bus_core::{Codec, FlushError, Headers, Obstacle, Pipe, SendTimeoutError, Sender, Ticket, limits};
use rustix::event::PollFlags;

use super::child::{Command, Ended, Run};
use super::fifo::Fifo;
use super::link::{Link, NotUp, Over};
use super::registry::Links;

/// See the [module](self).
pub(super) struct Source<'a> {
    reader: FrameReader<File>,
    outlet: Outlet<'a>,
    /// What was sent and may not be accepted.
    on_its_way: Option<Ticket>,
    /// Bytes that were sent since then.
    since_bytes: usize,
    /// Messages that were read whole, and for which there was no room at the end.
    unsent: u64,
    /// How much of what lies in the pipe is still read after the order to stop, or after a command's end.
    rest_bytes: Option<u64>,
}

/// The end at the channel.
struct Outlet<'a> {
    link: &'a Link,
    sender: Sender<Vec<u8>>,
    /// Who writes to the pipe, where that is a command: its end is seen also while there is no room.
    command: Option<Command<'a>>,
    /// When to look again whether to stop, while there is no room.
    look_at: Instant,
    /// How long a long message is left to come into the socket: what the last ones took.
    long_takes: Duration,
    /// When what is left is given up, once the order to stop was seen.
    give_up_at: Option<Instant>,
}

/// Serves a gateway that reads from a pipe, until it is over.
pub(super) fn serve(links: &Links, link: &Link) -> Result<Over, NotUp> {
    let bus = link.connect(links.address())?;
    // Before anything is made: the channel may refuse it.
    let sender = bus.raw_sender(&link.spec.channel).open()?;
    // Attached to it, the channel is there; without an answer the usual limit will do.
    let limit = bus.show(&link.spec.channel).map_or(limits::MESSAGE_MAX_BYTES, |info| info.message_max_bytes);
    let over = match &link.spec.pipe {
        Pipe::FromFifo(path) => {
            let fifo = links.make_fifo(link, path)?;
            let mut source = Source::open(link, sender, limit, fifo.open_reader()?, None);
            links.keep(link)?;
            links.up(link);
            let over = source.follow_writers(&fifo);
            source.end(links, over)
        }
        Pipe::FromCommand(text) => {
            let mut command = Command::new(link, text);
            links.keep(link)?;
            let output = command.start_source()?;
            command.begins(Some(output.as_fd()))?;
            let mut source = Source::open(link, sender, limit, output, Some(command));
            links.up(link);
            let over = source.follow_runs();
            source.end_command(&over);
            source.end(links, over)
        }
        Pipe::ToFifo(_) | Pipe::ToCommand(_) => unreachable!("a sink serves those"),
    };
    Ok(over.unwrap_or_else(|over| over))
}

impl<'a> Source<'a> {
    fn open(link: &'a Link, sender: Sender<Vec<u8>>, limit: u32, input: File, command: Option<Command<'a>>) -> Self {
        let reader = FrameReader::new(input, &link.spec.framing, limit as usize);
        let outlet =
            Outlet { link, sender, command, look_at: Instant::now(), long_takes: LOOK_EVERY, give_up_at: None };
        Self { reader, outlet, on_its_way: None, since_bytes: 0, unsent: 0, rest_bytes: None }
    }

    /// One writer, or several at once, after the other. When the last of them has left, the FIFO is opened anew:
    /// the old descriptor would be at its end for ever, and say so again and again. Before it is closed, so
    /// that nothing is lost that a writer wrote between.
    fn follow_writers(&mut self, fifo: &Fifo) -> Result<Over, Over> {
        loop {
            while !self.wait_for_input()? {}
            if self.outlet.link.stop.is_given() && self.rest_bytes() == NOBODY_WROTE {
                // The end of nobody's bytes would be a message where all bytes to the end are one.
                return Err(Over::Stopped);
            }
            self.read_to_end()?;
            let input = self.outlet.link.persist(|| fifo.open_reader())?;
            // Whoever came meanwhile is heard by either: it is one pipe.
            self.reader.restart();
            *self.reader.input_mut() = input;
            // That nobody can come any more is logged.
            let _ = fifo.gone();
        }
    }

    /// One run of a command after the other.
    fn follow_runs(&mut self) -> Result<Over, Over> {
        loop {
            self.read_to_end()?;
            let Some(command) = &mut self.outlet.command else { return Err(Over::Stopped) };
            match command.after_its_end()? {
                Ended::ForGood(reason) => return Ok(Over::Because(reason)),
                Ended::RunAgain => {
                    let input = self.outlet.link.persist(|| command.start_source())?;
                    self.reader.restart();
                    self.rest_bytes = None;
                    *self.reader.input_mut() = input;
                }
            }
        }
    }

    /// Reads until all writers have left; what the last of them wrote last is a message.
    fn read_to_end(&mut self) -> Result<(), Over> {
        loop {
            self.send_ready()?;
            if self.reader.has_ended() {
                return self.settle();
            }
            let is_stopped = self.outlet.link.stop.is_given();
            // Somebody who has left the group of a command may hold its pipe for ever.
            let is_cut_off = matches!(self.outlet.look_at_command(), Some(Run::Over));
            if (is_stopped || is_cut_off) && self.rest_bytes() == 0 {
                return self.leave_writers(is_stopped);
            }
            let before = self.reader.unread_bytes();
            match self.reader.read_more() {
                Ok(()) => {
                    // At its end, too, it goes on.
                    let read = self.reader.unread_bytes().saturating_sub(before).max(1);
                    self.rest_bytes = self.rest_bytes.map(|rest| rest.saturating_sub(read as u64));
                }
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_stopped || is_cut_off {
                        return self.leave_writers(is_stopped);
                    }
                    // Nobody would write the rest meanwhile.
                    self.settle()?;
                    while !self.wait_for_input()? {}
                }
                Err(error) => return Err(Over::Because(error.to_string())),
            }
        }
    }

    /// All is read, and there is somebody who could write more.
    fn leave_writers(&mut self, is_stopped: bool) -> Result<(), Over> {
        if is_stopped {
            return Err(Over::Stopped);
        }
        self.reader.end();
        self.send_ready()?;
        self.settle()
    }

    /// What lies in the pipe when the order to stop is seen was written before it, and is taken; more is not.
    fn rest_bytes(&mut self) -> u64 {
        let unread = || rustix::io::ioctl_fionread(self.reader.input()).unwrap_or(0);
        // With one more the end is seen.
        *self.rest_bytes.get_or_insert_with(|| unread() + 1)
    }

    /// Ends a command; what it wrote meanwhile is read, if it was told to end.
    fn end_command(&mut self, over: &Result<Over, Over>) {
        if let Some(command) = &mut self.outlet.command {
            command.end(Duration::ZERO);
        }
        if let Err(Over::Stopped) = over {
            self.rest_bytes = None;
            if !self.reader.has_ended() {
                // It has been told already why it is over.
                let _ = self.read_to_end();
            }
        }
    }

    fn send_ready(&mut self) -> Result<(), Over> {
        let (mut sent, mut bytes) = (0, 0);
        let is_json = self.outlet.link.spec.framing == Framing::JsonLines;
        let sending = loop {
            let number = self.reader.count() + 1;
            match self.reader.next_ready() {
                Ok(Some(message)) => {
                    bytes += message.len();
                    let taken =
                        if is_json { self.outlet.feed_line(message, number) } else { self.outlet.feed(message) };
                    match taken {
                        Ok(taken) => sent += u64::from(taken),
                        Err(over) => {
                            self.unsent += 1;
                            break Err(over);
                        }
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    self.outlet.link.refuse(&error);
                    self.reader.skip_message();
                }
            }
        };
        self.outlet.link.passed(sent);
        if sending.is_err() {
            while let Ok(Some(_)) = self.reader.next_ready() {
                self.unsent += 1;
            }
        }
        sending?;
        self.outlet.sender.push_buffered();
        self.since_bytes += bytes;
        if self.since_bytes < ON_ITS_WAY_BYTES {
            return Ok(());
        }
        self.since_bytes = 0;
        match self.on_its_way.replace(self.outlet.sender.ticket()) {
            Some(before) => self.outlet.settle(&before),
            None => Ok(()),
        }
    }

    /// Waits until everything that was sent is accepted.
    fn settle(&mut self) -> Result<(), Over> {
        (self.on_its_way, self.since_bytes) = (None, 0);
        self.outlet.settle(&self.outlet.sender.ticket())
    }

    /// Waits until there is something to read, a writer's end included, the order to stop is given, or the command
    /// has come further.
    fn wait_for_input(&mut self) -> Result<bool, Over> {
        let (link, input) = (self.outlet.link, self.reader.input());
        let pipe = (input.as_fd(), PollFlags::IN);
        let Some(command) = &mut self.outlet.command else {
            let [ready] = link.stop.wait_or([pipe], None)?;
            return Ok(!ready.is_empty() || link.stop.is_given());
        };
        let timeout = match command.look() {
            Run::Running => None,
            Run::Ending(until) => Some(until.saturating_duration_since(Instant::now())),
            Run::Over => return Ok(true),
        };
        let end: Option<BorrowedFd<'_>> = command.end_to_watch();
        let [ready, _] = match end {
            Some(end) => link.stop.wait_or([pipe, (end, PollFlags::IN)], timeout)?,
            None => link.stop.wait_or([pipe], timeout).map(|[ready]| [ready, PollFlags::empty()])?,
        };
        Ok(!ready.is_empty() || link.stop.is_given())
    }

    /// What it has sent is seen through, for a while; what then is not accepted is counted and told.
    fn end(&mut self, links: &Links, over: Result<Over, Over>) -> Result<Over, Over> {
        let Outlet { link, sender, .. } = &self.outlet;
        let mut lost = Vec::new();
        let bytes = self.reader.unread_bytes();
        if bytes > 0 {
            lost.push(format!("{bytes} bytes were read and are no message: their writer had not ended it"));
        }
        let mut unsent = self.unsent;
        if sender.flush_deadline(Instant::now() + PATIENCE).is_err() {
            links.part_with(link.id);
            if let Err(FlushError::Disconnected { refused, .. }) = sender.flush_deadline(Instant::now() + PATIENCE) {
                unsent += refused as u64;
            }
        }
        if unsent > 0 {
            lost.push(format!("{unsent} messages were read and not accepted: the channel had no room for them"));
        }
        // At the latest: until it is closed more may come.
        let unread = rustix::io::ioctl_fionread(self.reader.input()).unwrap_or(0);
        if unread > 0 {
            lost.push(format!("{unread} bytes lay in the pipe and were not read"));
        }
        if lost.is_empty() {
            return over;
        }
        let lost = lost.join("; ");
        tracing::warn!(%link, "not handed on: {lost}");
        match over {
            Ok(Over::Because(reason)) | Err(Over::Because(reason)) => Ok(Over::Because(format!("{reason}; {lost}"))),
            Ok(Over::Stopped) | Err(Over::Stopped) => {
                link.note(lost);
                Ok(Over::Stopped)
            }
        }
    }
}

impl Outlet<'_> {
    /// Sends the message of a line of JSON. `false` when it is none, or the channel does not take it.
    fn feed_line(&mut self, line: &[u8], number: u64) -> Result<bool, Over> {
        match jsonl::parse(line) {
            Ok(message) => self.feed_with(&message.payload, &message.headers, message.codec),
            Err(error) => {
                self.link.refuse(&format_args!("line {number} is no message: {error}"));
                Ok(false)
            }
        }
    }

    /// Sends a message. `false` when the channel does not take it.
    fn feed(&mut self, message: &[u8]) -> Result<bool, Over> {
        self.feed_with(message, &Headers::new(), None)
    }

    /// It may stay in the buffer.
    fn feed_with(&mut self, payload: &[u8], headers: &Headers, codec: Option<Codec>) -> Result<bool, Over> {
        if payload.len() > LONG_BYTES {
            self.look_later();
        }
        loop {
            let outgoing = self.sender.outgoing();
            let outgoing = if let Some(codec) = codec { outgoing.codec(codec) } else { outgoing };
            let outgoing = if headers.is_empty() { outgoing } else { outgoing.headers(headers) };
            match outgoing.feed_bytes(payload, Some(self.look_at)) {
                Ok(()) => return Ok(true),
                Err(SendTimeoutError::Timeout(())) => {
                    self.look()?;
                    if matches!(self.sender.obstacle(), Some(Obstacle::Unread { .. })) {
                        // A part of it was in the socket, perhaps, and it begins anew: with more time, or it would for ever.
                        self.long_takes = (self.long_takes * 2).min(LONG_TAKES_MAX);
                        self.look_later();
                    }
                }
                Err(error @ SendTimeoutError::Disconnected(())) => {
                    let why = self.sender.obstacle().map_or_else(|| error.to_string(), |why| why.to_string());
                    return Err(Over::Because(why));
                }
                Err(error) => {
                    self.link.refuse(&error);
                    return Ok(false);
                }
            }
        }
    }

    fn settle(&mut self, ticket: &Ticket) -> Result<(), Over> {
        loop {
            match self.sender.wait(ticket, Some(self.look_at)) {
                Ok(()) => return Ok(()),
                Err(FlushError::Unknown(_)) => self.look()?,
                Err(error) => return Err(Over::Because(error.to_string())),
            }
        }
    }

    /// There was no room: whether to go on waiting.
    fn look(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        if self.link.stop.is_given() {
            let give_up_at = *self.give_up_at.get_or_insert(now + PATIENCE);
            if give_up_at <= now {
                return Err(Over::Stopped);
            }
        }
        self.look_at_command();
        self.look_at = now + LOOK_EVERY;
        Ok(())
    }

    /// A long message has the time that it takes before there is another look.
    fn look_later(&mut self) {
        if self.give_up_at.is_none() {
            self.look_at = self.look_at.max(Instant::now() + self.long_takes);
        }
    }

    /// How far the command has come, if it is one.
    fn look_at_command(&mut self) -> Option<Run> {
        self.command.as_mut().map(Command::look)
    }
}

/// How much is sent before what was sent before it must be accepted. With less, the gateway and the daemon would
/// take turns.
const ON_ITS_WAY_BYTES: usize = 256 * 1024;

/// What is to be read of an empty pipe: its end.
const NOBODY_WROTE: u64 = 1;

/// How long a gateway that is to end tries to hand on what it has read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How soon a gateway that waits for room sees that it is to end, or that its command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// From which length on a message may be in the socket in part, in bytes.
const LONG_BYTES: usize = 32 * 1024;

/// How long a message may take at most to come into the socket, before it begins anew.
const LONG_TAKES_MAX: Duration = Duration::from_secs(2);
