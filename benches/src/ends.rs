//! The two ends of a channel as the traffic sees them, whoever carries it.

use std::io::{IoSlice, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bus_core::{Address, Bus, Receiver, Sender, Waiting};
use serde::{Deserialize, Serialize};

use crate::relay::{HEADER_BYTES, READ_BYTES, RECEIVER, SENDER, header, payload_bytes};

/// Who carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Route {
    /// The floor.
    Relay,
    /// The stream route through a daemon.
    Bus,
    /// A lane beside the daemon.
    Lane(Waits),
}

/// How both ends of a lane wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Waits {
    /// As they do when nothing is said.
    Usual,
    Spinning,
    Sleeping,
}

impl From<Waits> for Waiting {
    fn from(waits: Waits) -> Self {
        match waits {
            Waits::Usual => Self::default(),
            Waits::Spinning => Self::Spin,
            Waits::Sleeping => Self::Sleep,
        }
    }
}

/// Channels that a scenario uses, by number: the relay knows no names.
pub(crate) type Channel = u8;

/// The end that sends.
pub(crate) enum Outlet {
    Relay(RelaySender),
    Bus(Box<Sender<Vec<u8>>>),
}

impl Outlet {
    pub(crate) fn open(route: Route, socket: &Path, channel: Channel) -> Result<Self> {
        match route {
            Route::Relay => Ok(Self::Relay(RelaySender::connect(socket, channel)?)),
            Route::Bus => Ok(Self::Bus(Box::new(bus(socket)?.raw_sender(name(channel)).no_lane().open()?))),
            Route::Lane(waits) => {
                let sender = bus(socket)?.raw_sender(name(channel)).lane().waiting(waits.into());
                Ok(Self::Bus(Box::new(sender.open()?)))
            }
        }
    }

    /// Writes the message before it returns.
    pub(crate) fn send(&mut self, payload: &[u8]) -> Result<()> {
        match self {
            Self::Relay(sender) => sender.send(payload),
            Self::Bus(sender) => Ok(sender.outgoing().send_bytes(payload, None)?),
        }
    }

    /// May keep the message back until the buffer is full.
    pub(crate) fn feed(&mut self, payload: &[u8]) -> Result<()> {
        match self {
            Self::Relay(sender) => sender.feed(payload),
            Self::Bus(sender) => Ok(sender.outgoing().feed_bytes(payload, None)?),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Self::Relay(sender) => sender.flush(),
            Self::Bus(sender) => Ok(sender.flush()?),
        }
    }
}

/// The end that receives.
pub(crate) enum Inlet {
    Relay(RelayReceiver),
    Bus(Receiver<Vec<u8>>),
}

impl Inlet {
    pub(crate) fn open(route: Route, socket: &Path, channel: Channel) -> Result<Self> {
        match route {
            Route::Relay => Ok(Self::Relay(RelayReceiver::connect(socket, channel)?)),
            Route::Bus => Ok(Self::Bus(bus(socket)?.raw_receiver(name(channel)).standby().open()?)),
            Route::Lane(waits) => {
                Ok(Self::Bus(bus(socket)?.raw_receiver(name(channel)).standby().waiting(waits.into()).open()?))
            }
        }
    }

    /// Waits for the next message, takes it as a value and gives it to `look`.
    pub(crate) fn take<R>(&mut self, look: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        match self {
            Self::Relay(receiver) => look(receiver.next()?),
            Self::Bus(receiver) => look(&receiver.recv()?),
        }
    }

    /// Waits for the next messages, and gives each of those that have come to `look` where it lies.
    pub(crate) fn borrow_batch(&mut self, mut look: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self {
            Self::Relay(receiver) => {
                look(receiver.next()?)?;
                while receiver.holds_another() {
                    look(receiver.next()?)?;
                }
            }
            Self::Bus(receiver) => {
                let batch = receiver.next_batch(BATCH_MESSAGES, None)?;
                for message in batch.iter() {
                    look(&message)?;
                }
                batch.ack();
            }
        }
        Ok(())
    }
}

/// How many messages are taken at once at most.
const BATCH_MESSAGES: usize = 256;

/// Connects to the daemon at `socket`.
pub(crate) fn bus(socket: &Path) -> Result<Bus> {
    Ok(Bus::connect_to(&Address::new(socket)?)?)
}

/// The relay's channels as names.
pub(crate) fn name(channel: Channel) -> String {
    format!("bench-{channel}")
}

fn connect(socket: &Path, direction: u8, channel: Channel) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("no relay at {}", socket.display()))?;
    stream.write_all(&[direction, channel])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// From this length on a payload is written from where it lies: a copy would cost more than the
/// second slice of a vectored write.
const GATHERED_MAX_BYTES: usize = 16 * 1024;

/// Sends frames to a relay.
pub(crate) struct RelaySender {
    stream: UnixStream,
    batch: Vec<u8>,
}

impl RelaySender {
    fn connect(socket: &Path, channel: Channel) -> Result<Self> {
        Ok(Self { stream: connect(socket, SENDER, channel)?, batch: Vec::with_capacity(READ_BYTES) })
    }

    fn send(&mut self, payload: &[u8]) -> Result<()> {
        if payload.len() > GATHERED_MAX_BYTES {
            return self.write_through(payload);
        }
        self.gather(payload);
        self.flush()
    }

    fn feed(&mut self, payload: &[u8]) -> Result<()> {
        if payload.len() > GATHERED_MAX_BYTES {
            self.flush()?;
            return self.write_through(payload);
        }
        if self.batch.len() + HEADER_BYTES + payload.len() > READ_BYTES {
            self.flush()?;
        }
        self.gather(payload);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.batch)?;
        self.batch.clear();
        Ok(())
    }

    fn gather(&mut self, payload: &[u8]) {
        self.batch.extend_from_slice(&header(payload.len()));
        self.batch.extend_from_slice(payload);
    }

    fn write_through(&mut self, payload: &[u8]) -> Result<()> {
        let header = header(payload.len());
        let written = self.stream.write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)])?;
        ensure!(written >= HEADER_BYTES, "the relay's socket took {written} bytes of a header");
        Ok(self.stream.write_all(&payload[written - HEADER_BYTES..])?)
    }
}

/// Receives frames from a relay.
pub(crate) struct RelayReceiver {
    stream: UnixStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl RelayReceiver {
    fn connect(socket: &Path, channel: Channel) -> Result<Self> {
        Ok(Self { stream: connect(socket, RECEIVER, channel)?, buffer: vec![0; READ_BYTES], start: 0, end: 0 })
    }

    fn next(&mut self) -> Result<&[u8]> {
        let frame_bytes = loop {
            let held = &self.buffer[self.start..self.end];
            let frame_bytes = held.first_chunk().map_or(HEADER_BYTES, |header| HEADER_BYTES + payload_bytes(header));
            if held.len() >= frame_bytes {
                break frame_bytes;
            }
            self.read(frame_bytes)?;
        };
        let payload = self.start + HEADER_BYTES..self.start + frame_bytes;
        self.start += frame_bytes;
        Ok(&self.buffer[payload])
    }

    /// Whether the next message is here whole.
    fn holds_another(&self) -> bool {
        let held = &self.buffer[self.start..self.end];
        held.first_chunk().is_some_and(|header| held.len() >= HEADER_BYTES + payload_bytes(header))
    }

    /// Reads more behind what is held, which is less than a frame of `frame_bytes`.
    fn read(&mut self, frame_bytes: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < frame_bytes {
            self.buffer.resize(frame_bytes, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.end..])?;
        ensure!(count > 0, "the relay hung up");
        self.end += count;
        Ok(())
    }
}
