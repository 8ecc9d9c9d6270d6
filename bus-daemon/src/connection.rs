//! [`Connection`]: a peer's socket: bytes in, frames out, and how much of each is under way.
//!
//! Whole frames are handed on from the shared read buffer, where they arrived. A large frame is read
//! straight into the memory in which it will be kept.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use bus_core::DaemonEnd;
use bus_core::wire::{FrameError, FrameHeader, FrameLimits, HEADER_BYTES};
use rustix::buffer::spare_capacity;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use crate::broker::{Content, Handled, LARGE_BYTES, PREFIX_BYTES};

/// Size of the read buffer that all connections share, in bytes.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;

/// What is read where the last frame was large, so that the next one is not read into the wrong
/// place, in bytes.
const PROBE_BYTES: usize = 512;

/// How much one peer is read in one turn, so that no peer keeps the others waiting, in bytes.
const TURN_BYTES: usize = 1024 * 1024;

pub(crate) struct Connection {
    stream: Stream,
    /// What was read and is not handed on: part of a frame, or frames for which there was no room.
    rest: Vec<u8>,
    large: Option<Large>,
    last_was_large: bool,
    /// The other side is gone: what it sent is read to its end.
    pub(crate) hung_up: bool,
    pub(crate) write_blocked: bool,
    pub(crate) write_closed: bool,
    /// Being closed; cut then, even if not everything could be said.
    pub(crate) close_by: Option<Instant>,
}

/// What carries the bytes. Neither ever waits.
pub(crate) enum Stream {
    Socket(OwnedFd),
    Memory(DaemonEnd),
}

/// A large frame that is being read, or waits for room.
struct Large {
    header: FrameHeader,
    /// [`PREFIX_BYTES`] of room, then what has come of the content.
    record: Vec<u8>,
}

/// How a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// There is no more at the moment.
    Drained,
    /// There may be more; this turn's share is used up.
    More,
    /// The next frame waits for room.
    Paused,
    /// The other side has closed, and everything that it sent is handed on.
    Closed,
}

/// Takes one frame, or an error after which nothing more can be read.
pub(crate) type Handle<'h> = dyn for<'a> FnMut(Result<(FrameHeader, Content<'a>), FrameError>) -> Handled<'a> + 'h;

impl Connection {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            large: None,
            last_was_large: false,
            hung_up: false,
            write_blocked: false,
            write_closed: false,
            close_by: None,
        }
    }

    /// Reads and hands on what has come, up to this turn's share.
    pub(crate) fn read(&mut self, buffer: &mut [u8], limits: FrameLimits, handle: &mut Handle<'_>) -> Read {
        if !self.rest.is_empty() || self.large.is_some() {
            let begun = self.rest.len();
            buffer[..begun].copy_from_slice(&self.rest);
            self.rest.clear();
            if let Some(outcome) = self.hand_on(buffer, begun, limits, handle) {
                return outcome;
            }
        }
        let mut read_bytes = 0;
        while read_bytes < TURN_BYTES {
            let begun = self.rest.len();
            let (asked, got) = match &mut self.large {
                Some(large) => {
                    let missing = large.missing();
                    (missing, self.stream.receive_into(&mut large.record, missing))
                }
                None => {
                    let end = if self.last_was_large { begun + PROBE_BYTES } else { buffer.len() };
                    buffer[..begun].copy_from_slice(&self.rest);
                    (end - begun, self.stream.receive(&mut buffer[begun..end]))
                }
            };
            let bytes = match got {
                Ok(0) => return Read::Closed,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Drained,
                Err(_) => return Read::Closed,
            };
            read_bytes += bytes;
            let filled = if self.large.is_some() { 0 } else { begun + bytes };
            self.rest.clear();
            if let Some(outcome) = self.hand_on(buffer, filled, limits, handle) {
                return outcome;
            }
            if bytes < asked && !self.hung_up {
                return Read::Drained;
            }
        }
        Read::More
    }

    /// Hands on what is whole: the large frame, then those in the buffer. Keeps the rest.
    fn hand_on(&mut self, buffer: &[u8], filled: usize, limits: FrameLimits, handle: &mut Handle<'_>) -> Option<Read> {
        if let Some(large) = self.large.take() {
            if large.missing() > 0 {
                self.large = Some(large);
                return None;
            }
            let Large { header, record } = large;
            match handle(Ok((header, Content::Owned(record)))) {
                Handled::Taken => {}
                Handled::NotNow(Content::Owned(record)) => {
                    self.large = Some(Large { header, record });
                    self.rest.extend_from_slice(&buffer[..filled]);
                    return Some(Read::Paused);
                }
                Handled::NotNow(Content::Borrowed(_)) => return Some(Read::Closed),
            }
        }
        let mut bytes = &buffer[..filled];
        while !bytes.is_empty() {
            let header = match FrameHeader::decode(bytes, limits) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    let _ = handle(Err(error));
                    return Some(Read::Drained);
                }
            };
            let frame_bytes = header.frame_bytes();
            let is_large = frame_bytes - HEADER_BYTES >= LARGE_BYTES && header.kind.carries_message();
            self.last_was_large = is_large;
            if bytes.len() < frame_bytes {
                if is_large {
                    self.large = Some(Large::begin(header, &bytes[HEADER_BYTES..]));
                    bytes = &[];
                }
                break;
            }
            match handle(Ok((header, Content::Borrowed(&bytes[HEADER_BYTES..frame_bytes])))) {
                Handled::Taken => bytes = &bytes[frame_bytes..],
                Handled::NotNow(_) => {
                    self.rest.extend_from_slice(bytes);
                    return Some(Read::Paused);
                }
            }
        }
        self.rest.extend_from_slice(bytes);
        None
    }

    /// Writes what fits, and returns how much that was.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        match self.stream.send(slices) {
            Ok(bytes) => {
                let asked: usize = slices.iter().map(|slice| slice.len()).sum();
                self.write_blocked = bytes < asked;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.write_blocked = true;
                0
            }
            Err(_) => {
                // What it has sent is still read; the end of that closes the connection.
                self.write_closed = true;
                0
            }
        }
    }

    /// What the kernel can be asked to watch.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        match &self.stream {
            Stream::Socket(socket) => Some(socket.as_raw_fd()),
            Stream::Memory(_) => None,
        }
    }
}

impl Stream {
    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(retry_on_intr(|| sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags))?)
            }
            Self::Memory(memory) => memory.send(slices),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => Ok(retry_on_intr(|| recv(socket, &mut *buffer, RecvFlags::DONTWAIT))?.1),
            Self::Memory(memory) => memory.receive(buffer),
        }
    }

    /// Appends what has come to a record that has exactly `missing` bytes of room.
    fn receive_into(&self, record: &mut Vec<u8>, missing: usize) -> io::Result<usize> {
        debug_assert!(record.capacity() - record.len() >= missing);
        match self {
            Self::Socket(socket) => Ok(retry_on_intr(|| recv(socket, spare_capacity(record), RecvFlags::DONTWAIT))?.1),
            Self::Memory(memory) => {
                let begun = record.len();
                record.resize(begun + missing, 0);
                let received = memory.receive(&mut record[begun..]);
                record.truncate(begun + received.as_ref().copied().unwrap_or(0));
                received
            }
        }
    }
}

impl Large {
    /// Room for the whole frame: address space until the bytes come, so that a false length costs
    /// no memory.
    fn begin(header: FrameHeader, content: &[u8]) -> Self {
        let mut record = Vec::with_capacity(PREFIX_BYTES + header.frame_bytes() - HEADER_BYTES);
        record.resize(PREFIX_BYTES, 0);
        record.extend_from_slice(content);
        Self { header, record }
    }

    fn missing(&self) -> usize {
        PREFIX_BYTES + self.header.frame_bytes() - HEADER_BYTES - self.record.len()
    }
}
