//! [`Source`]: from a pipe into a channel.
//!
//! It reads as much as the pipe has, and sends what is there whole. All but the last half a mebibyte is accepted by
//! the channel before it reads on, so what it has taken from the pipe and cannot hand on at its end is bounded. While
//! the channel has no room it does not read, so the pipe fills and its writer waits.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bus_core::framing::{FrameReader, ReadError};
use bus_core::{FlushError, Pipe, SendTimeoutError, Sender, Ticket, limits};
use rustix::event::PollFlags;

use super::child::{Command, Ended};
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
}

/// The end at the channel.
struct Outlet<'a> {
    link: &'a Link,
    sender: Sender<Vec<u8>>,
    /// When to look again whether to stop, while there is no room.
    look_at: Instant,
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
            let fifo = link.make_fifo(path)?;
            let mut source = Source::open(link, sender, limit, fifo.open_reader()?);
            links.keep(link)?;
            links.up(link);
            let over = source.follow_writers(|| fifo.open_reader());
            source.end(links);
            over
        }
        Pipe::FromCommand(text) => {
            let mut command = Command::new(link, text);
            links.keep(link)?;
            let mut source = Source::open(link, sender, limit, command.start_source()?);
            links.up(link);
            let over = source.follow_runs(&mut command);
            source.end(links);
            command.end(Duration::ZERO);
            over
        }
        Pipe::ToFifo(_) | Pipe::ToCommand(_) => unreachable!("a sink serves those"),
    };
    Ok(over.unwrap_or_else(|over| over))
}

impl<'a> Source<'a> {
    fn open(link: &'a Link, sender: Sender<Vec<u8>>, limit: u32, input: File) -> Self {
        let reader = FrameReader::new(input, &link.spec.framing, limit as usize);
        let outlet = Outlet { link, sender, look_at: Instant::now(), give_up_at: None };
        Self { reader, outlet, on_its_way: None, since_bytes: 0 }
    }

    /// One writer, or several at once, after the other. When the last of them has left, the FIFO is opened anew:
    /// the old descriptor would be at its end for ever, and say so again and again. Before it is closed, so
    /// that nothing is lost that a writer wrote between.
    fn follow_writers(&mut self, reopen: impl Fn() -> io::Result<File>) -> Result<Over, Over> {
        loop {
            while !self.wait_for_input()? {}
            self.read_to_end()?;
            self.reader.restart();
            *self.reader.input_mut() = reopen()?;
        }
    }

    /// One run of a command after the other.
    fn follow_runs(&mut self, command: &mut Command<'_>) -> Result<Over, Over> {
        loop {
            self.read_to_end()?;
            match command.after_its_end()? {
                Ended::ForGood(reason) => return Ok(Over::Because(reason)),
                Ended::RunAgain => {
                    self.reader.restart();
                    *self.reader.input_mut() = command.start_source().map_err(|error| Over::Because(error.text))?;
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
            if self.outlet.link.stop.is_given() {
                return Err(Over::Stopped);
            }
            match self.reader.read_more() {
                Ok(()) => {}
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Nobody would write the rest meanwhile.
                    self.settle()?;
                    while !self.wait_for_input()? {}
                }
                Err(error) => return Err(Over::Because(error.to_string())),
            }
        }
    }

    fn send_ready(&mut self) -> Result<(), Over> {
        let (mut sent, mut bytes) = (0, 0);
        let sending = loop {
            match self.reader.next_ready() {
                Ok(Some(message)) => {
                    bytes += message.len();
                    match self.outlet.feed(message) {
                        Ok(taken) => sent += u64::from(taken),
                        Err(over) => break Err(over),
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

    /// Waits until there is something to read, a writer's end included.
    fn wait_for_input(&mut self) -> Result<bool, Over> {
        let link = self.outlet.link;
        let [ready] = link.stop.wait_or([(self.reader.input().as_fd(), PollFlags::IN)], None)?;
        if link.stop.is_given() { Err(Over::Stopped) } else { Ok(!ready.is_empty()) }
    }

    /// What it has sent is seen through, for a while; what then is not accepted is counted and told.
    fn end(&mut self, links: &Links) {
        let Outlet { link, sender, .. } = &self.outlet;
        let bytes = self.reader.unread_bytes();
        if bytes > 0 {
            link.note(format!("{bytes} bytes were read and are no message: their writer had not ended it"));
            tracing::warn!(link = %link, bytes, "the end of a message did not come before the gateway's end");
        }
        if sender.flush_deadline(Instant::now() + PATIENCE).is_ok() {
            return;
        }
        links.part_with(link.id);
        if let Err(FlushError::Disconnected { refused }) = sender.flush_deadline(Instant::now() + PATIENCE)
            && refused > 0
        {
            link.note(format!("{refused} messages were read and not accepted: the channel had no room for them"));
            tracing::warn!(link = %link, refused, "messages were read, and the channel had no room for them");
        }
    }
}

impl Outlet<'_> {
    /// Sends a message, which may stay in the buffer. `false` when the channel does not take it.
    fn feed(&mut self, message: &[u8]) -> Result<bool, Over> {
        loop {
            match self.sender.outgoing().feed_bytes(message, Some(self.look_at)) {
                Ok(()) => return Ok(true),
                Err(SendTimeoutError::Timeout(())) => self.look()?,
                Err(error @ SendTimeoutError::Disconnected(())) => return Err(Over::Because(error.to_string())),
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
        self.look_at = now + LOOK_EVERY;
        Ok(())
    }
}

/// How much is sent before what was sent before it must be accepted. With less, the gateway and the daemon would
/// take turns.
const ON_ITS_WAY_BYTES: usize = 256 * 1024;

/// How long a gateway that is to end tries to hand on what it has read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How soon a gateway that waits for room sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
