//! [`Connection`]: a peer's socket: bytes in, frames out, and how much of each is under way.
//!
//! Whole frames are handed on from the shared read buffer, where they arrived. A large frame is read
//! straight into the memory in which it will be kept. When the other side is gone, or is to be, what
//! its socket still holds can be taken in, so that the socket is closed and the frames wait here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use bus_core::DaemonEnd;
use bus_core::wire::{FrameError, FrameHeader, FrameLimits, HEADER_BYTES};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, send, sendmsg,
};

use crate::broker::{Announced, Content, Handled, LARGE_BYTES};
use crate::large_frame::{LargeContent, LargeFrame, Received};
use crate::passing::let_descriptors_pass;

/// Size of the read buffer that all connections share, in bytes.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;

/// How much is read at once of a peer that has not shown to have more, in bytes. A long reading keeps
/// pace with a sender of small messages one by one, and the two are in each other's way in the kernel
/// (measured: sending costs 957 ns with readings of up to 256 KiB, and 847 ns with these).
const READING_BYTES: usize = 16 * 1024;

/// Whoever has a KiB read faster than this had it there before: more is read at once. What a sender
/// writes meanwhile, one message after the other, takes some 10 us.
const BULK_PACE: Duration = Duration::from_micros(1);

/// What is read where the last frame was large, so that the next one is not read into the wrong
/// place, in bytes.
const PROBE_BYTES: usize = 512;

/// How much one peer is read in one turn, so that no peer keeps the others waiting, in bytes.
const TURN_BYTES: usize = 256 * 1024;

/// How many descriptors are passed at once, at most.
const DESCRIPTORS_MAX: usize = 5;

/// What the rest of an idle connection may keep allocated, in bytes.
const KEPT_BYTES: usize = 4 * 1024;

pub(crate) struct Connection {
    stream: Stream,
    rest: Rest,
    large: Option<LargeFrame>,
    last_was_large: bool,
    /// The last reading brought as much as it asked for.
    was_full: bool,
    /// Descriptors come with what is read next; those that came.
    expects_descriptors: bool,
    descriptors: Vec<OwnedFd>,
    /// How much is read at once.
    reading_bytes: usize,
    /// The other side sends no more: what it sent is read to its end.
    pub(crate) hung_up: bool,
    /// The other side is gone altogether, and nothing can be added to what it has sent.
    pub(crate) deserted: bool,
    pub(crate) write_blocked: bool,
    /// Since when its socket has taken nothing.
    pub(crate) blocked_at: Option<Instant>,
    pub(crate) write_closed: bool,
    /// Being closed; cut then, even if not everything could be said.
    pub(crate) close_by: Option<Instant>,
    /// Bytes of half a frame that was forgotten.
    forgotten_bytes: usize,
}

/// What carries the bytes. None of them ever waits.
pub(crate) enum Stream {
    Socket(OwnedFd),
    Memory(DaemonEnd),
    /// Closed, and what it held is read.
    Closed,
}

/// What was read and is not handed on: part of a frame, or frames that wait.
#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    /// How much of it is handed on.
    handed_on: usize,
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

/// How much a reading brought, how much it asked for, and what ends the turn.
type Reading = (usize, usize, Option<Read>);

/// Where what is read goes.
pub(crate) trait Sink {
    /// Takes as many whole frames from the start of `bytes` as it can without a decision. Returns how
    /// many bytes they are.
    fn run(&mut self, bytes: &[u8]) -> usize;

    /// The header of a frame has come whose content is large, and not here.
    fn announced(&mut self, header: &FrameHeader) -> Announced;

    /// Memory of this length for the content of a large frame.
    fn record(&mut self, bytes: usize) -> Vec<u8>;

    /// Takes one frame.
    fn frame<'a>(&mut self, header: &FrameHeader, content: Content<'a>) -> Handled<'a>;

    /// So much was read from the socket.
    fn brought(&mut self, bytes: usize);

    /// Nothing more can be read.
    fn malformed(&mut self, error: FrameError);
}

impl Connection {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            rest: Rest::default(),
            large: None,
            last_was_large: false,
            was_full: false,
            expects_descriptors: false,
            descriptors: Vec::new(),
            reading_bytes: READING_BYTES,
            hung_up: false,
            deserted: false,
            write_blocked: false,
            blocked_at: None,
            write_closed: false,
            close_by: None,
            forgotten_bytes: 0,
        }
    }

    /// Writes `bytes` and descriptors with the first of them; to a connection that was sent nothing yet.
    ///
    /// # Errors
    /// What the system says: no descriptor can be passed, or there is no room.
    pub(crate) fn send_descriptors(&self, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let Stream::Socket(socket) = &self.stream else { return Err(io::ErrorKind::Unsupported.into()) };
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Descriptors may come with what is read next, and nothing else is to be on its way.
    pub(crate) fn expect_descriptors(&mut self) {
        self.expects_descriptors = true;
        self.let_descriptors_pass(true);
    }

    fn let_descriptors_pass(&self, pass: bool) {
        // Where it fails they come without that, or do not come and are missed.
        if let Stream::Socket(socket) = &self.stream
            && let Err(error) = let_descriptors_pass(socket, pass)
        {
            tracing::debug!(%error, pass, "could not change whether descriptors may be passed");
        }
    }

    /// Those that came.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    fn receive_descriptors(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Stream::Socket(socket) = &self.stream else { return self.stream.receive(buffer) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags))
            .inspect_err(|_| {
                // Nothing has come yet.
                self.expects_descriptors = true;
            })?;
        self.let_descriptors_pass(false);
        // Those that are too many the kernel has closed.
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                self.descriptors.extend(passed);
            }
        }
        Ok(received.bytes)
    }

    /// Reads and hands on what has come, up to this turn's share.
    pub(crate) fn read(&mut self, buffer: &mut [u8], limits: FrameLimits, sink: &mut dyn Sink) -> Read {
        if let Some(outcome) = self.hand_on_held(limits, sink) {
            return outcome;
        }
        if self.is_closed() {
            // Half a frame may be left, and of any length.
            return Read::Closed;
        }
        let mut read_bytes = 0;
        while read_bytes < TURN_BYTES {
            let reading = match self.large.is_some() {
                true => self.read_large(buffer, limits, sink),
                false => self.read_frames(buffer, limits, sink),
            };
            let (bytes, asked, outcome) = match reading {
                Ok(reading) => reading,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Drained,
                Err(_) => return Read::Closed,
            };
            if bytes == 0 {
                return Read::Closed;
            }
            read_bytes += bytes;
            sink.brought(bytes);
            if let Some(outcome) = outcome {
                return outcome;
            }
            if bytes < asked && !self.hung_up {
                return Read::Drained;
            }
        }
        Read::More
    }

    /// One reading into the buffer. Returns how much came, how much was asked for, and what ends the turn.
    fn read_frames(&mut self, buffer: &mut [u8], limits: FrameLimits, sink: &mut dyn Sink) -> io::Result<Reading> {
        let begun = self.rest.len();
        let most = if self.last_was_large { PROBE_BYTES } else { self.reading_bytes };
        let end = buffer.len().min(begun + most);
        buffer[..begun].copy_from_slice(self.rest.bytes());
        // The clock costs as much as a small message: it is read where the reading before was full.
        let (asked, began) = (end - begun, self.was_full.then(Instant::now));
        let bytes = match std::mem::take(&mut self.expects_descriptors) {
            false => self.stream.receive(&mut buffer[begun..end])?,
            true => self.receive_descriptors(&mut buffer[begun..end])?,
        };
        self.was_full = bytes == asked;
        match (self.was_full, began) {
            (true, Some(began)) if began.elapsed() < BULK_PACE * (bytes / 1024) as u32 => {
                self.reading_bytes = buffer.len().min(2 * self.reading_bytes);
            }
            (true, Some(_)) => self.reading_bytes = READING_BYTES,
            (false, _) if bytes < self.reading_bytes / 4 => self.reading_bytes = READING_BYTES,
            (true, None) | (false, _) => {}
        }
        let filled = &buffer[..begun + bytes];
        let (taken, outcome) = self.hand_on(filled, limits, sink);
        self.rest.hold(&filled[taken..]);
        Ok((bytes, asked, outcome))
    }

    /// One reading into a large frame.
    fn read_large(&mut self, buffer: &mut [u8], limits: FrameLimits, sink: &mut dyn Sink) -> io::Result<Reading> {
        let Some(large) = &mut self.large else { return Ok((0, 0, None)) };
        let Received { bytes, asked, beyond } = large.receive(&self.stream, buffer, PROBE_BYTES)?;
        let mut outcome = self.hand_on_large(sink);
        let mut taken = 0;
        if outcome.is_none() {
            (taken, outcome) = self.hand_on(&buffer[..beyond], limits, sink);
        }
        self.rest.hold(&buffer[taken..beyond]);
        Ok((bytes, asked, outcome))
    }

    /// Hands on what was read earlier, as far as it is whole.
    fn hand_on_held(&mut self, limits: FrameLimits, sink: &mut dyn Sink) -> Option<Read> {
        if let Some(outcome) = self.hand_on_large(sink) {
            return Some(outcome);
        }
        let mut rest = std::mem::take(&mut self.rest);
        let (taken, outcome) = self.hand_on(rest.bytes(), limits, sink);
        rest.let_go(taken);
        self.rest = rest;
        outcome
    }

    /// Hands on the large frame, if it is whole.
    fn hand_on_large(&mut self, sink: &mut dyn Sink) -> Option<Read> {
        let LargeFrame { header, content } = self.large.take_if(|large| large.missing() == 0)?;
        let handled = match content {
            LargeContent::Kept { record, .. } => sink.frame(&header, Content::Owned(record)),
            LargeContent::Skipped { .. } => sink.frame(&header, Content::Borrowed(&[])),
        };
        let content = match handled {
            Handled::Taken => return None,
            Handled::NotNow(Content::Owned(record)) => LargeContent::Kept { filled: record.len(), record },
            Handled::NotNow(Content::Borrowed(_)) => LargeContent::Skipped { missing: 0 },
        };
        self.large = Some(LargeFrame { header, content });
        Some(Read::Paused)
    }

    /// Hands on the frames that are whole. Returns how much that was; the rest is to be kept.
    fn hand_on(&mut self, bytes: &[u8], limits: FrameLimits, sink: &mut dyn Sink) -> (usize, Option<Read>) {
        let mut taken = 0;
        while taken < bytes.len() {
            taken += sink.run(&bytes[taken..]);
            let rest = &bytes[taken..];
            let header = match FrameHeader::decode(rest, limits) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    sink.malformed(error);
                    return (bytes.len(), Some(Read::Drained));
                }
            };
            let frame_bytes = header.frame_bytes();
            self.last_was_large = frame_bytes - HEADER_BYTES >= LARGE_BYTES;
            let Some(content) = rest.get(HEADER_BYTES..frame_bytes) else {
                if !self.last_was_large || self.is_closed() {
                    break;
                }
                self.large = match sink.announced(&header) {
                    Announced::Keep => {
                        let record = sink.record(LargeFrame::record_bytes(&header));
                        Some(LargeFrame::keep(header, &rest[HEADER_BYTES..], record))
                    }
                    Announced::Skip => Some(LargeFrame::skip(header, &rest[HEADER_BYTES..])),
                    Announced::NotNow => return (taken, Some(Read::Paused)),
                };
                taken = bytes.len();
                break;
            };
            match sink.frame(&header, Content::Borrowed(content)) {
                Handled::Taken => taken += frame_bytes,
                Handled::NotNow(_) => return (taken, Some(Read::Paused)),
            }
        }
        (taken, None)
    }

    /// Takes in what the socket holds at this moment, and closes it. Half a frame is forgotten. Returns
    /// how many bytes wait now: no more than a socket holds, and the frame that waited before them.
    pub(crate) fn hang_up(&mut self, buffer: &mut [u8]) -> u64 {
        let mut pending = self.stream.pending_bytes();
        while pending > 0 {
            let got = match &mut self.large {
                Some(large) if large.missing() > 0 => large.receive(&self.stream, buffer, 0).map(|got| got.bytes),
                _ => self.rest.receive(&self.stream, pending),
            };
            match got {
                Ok(bytes) if bytes > 0 => pending = pending.saturating_sub(bytes),
                Ok(_) | Err(_) => break,
            }
        }
        if let Some(large) = self.large.take_if(|large| large.missing() > 0) {
            self.forgotten_bytes = large.received_bytes();
        }
        self.rest.bytes.shrink_to_fit();
        self.stream = Stream::Closed;
        (self.write_closed, self.write_blocked) = (true, false);
        let large_bytes = self.large.as_ref().map_or(0, LargeFrame::held_bytes);
        (self.rest.len() + large_bytes) as u64
    }

    /// Writes what fits, and returns how much that was.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        match self.stream.send(slices) {
            Ok(bytes) => {
                let asked: usize = slices.iter().map(|slice| slice.len()).sum();
                self.write_blocked = bytes < asked;
                self.blocked_at = self.write_blocked.then(Instant::now);
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.write_blocked = true;
                self.blocked_at.get_or_insert_with(Instant::now);
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
            Stream::Memory(_) | Stream::Closed => None,
        }
    }

    /// Whether nothing of what it holds can be handed on any more: half a frame, and no rest to come.
    pub(crate) fn is_spent(&self, limits: FrameLimits) -> bool {
        let whole = match FrameHeader::decode(self.rest.bytes(), limits) {
            Ok(Some(header)) => header.frame_bytes() <= self.rest.len(),
            Ok(None) => false,
            Err(_) => true,
        };
        self.is_closed() && self.large.is_none() && !whole
    }

    /// Bytes of a frame whose end has not come.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        let large_bytes = self.large.as_ref().map_or(0, LargeFrame::received_bytes);
        self.forgotten_bytes + self.rest.len() + large_bytes
    }

    /// Whether the client is in this process.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.stream, Stream::Memory(_))
    }

    /// Whether its socket was closed by [`Self::hang_up`].
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.stream, Stream::Closed)
    }

    /// Asks whether a client in this process is gone: the kernel tells of the others.
    pub(crate) fn look_for_client(&mut self) {
        if let Stream::Memory(memory) = &self.stream {
            let gone = memory.send(&[]).is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
            self.deserted |= gone;
        }
    }
}

impl Rest {
    fn len(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.handed_on..]
    }

    /// Holds `bytes`, in the place of what it held.
    fn hold(&mut self, bytes: &[u8]) {
        self.handed_on = 0;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.shrink();
    }

    fn let_go(&mut self, bytes: usize) {
        self.handed_on += bytes;
        if self.len() <= KEPT_BYTES {
            self.bytes.drain(..self.handed_on);
            self.handed_on = 0;
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.bytes.len() <= KEPT_BYTES && self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(self.bytes.len());
        }
    }

    /// Appends what a stream has, up to `most` bytes.
    fn receive(&mut self, stream: &Stream, most: usize) -> io::Result<usize> {
        let begun = self.bytes.len();
        self.bytes.resize(begun + most, 0);
        let received = stream.receive(&mut self.bytes[begun..]);
        self.bytes.truncate(begun + received.as_ref().copied().unwrap_or(0));
        received
    }
}

impl Stream {
    /// How many bytes have come and are not read, at least; with a client in this process, at most.
    fn pending_bytes(&self) -> usize {
        match self {
            Self::Socket(socket) => {
                rustix::io::ioctl_fionread(socket).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
            }
            Self::Memory(_) => READ_BUFFER_BYTES,
            Self::Closed => 0,
        }
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(retry_on_intr(|| match slices {
                    // Most writes; without the header of a vectored one.
                    [slice] => send(socket, slice, flags),
                    slices => sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags),
                })?)
            }
            Self::Memory(memory) => memory.send(slices),
            Self::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => Ok(retry_on_intr(|| recv(socket, &mut *buffer, RecvFlags::DONTWAIT))?.1),
            Self::Memory(memory) => memory.receive(buffer),
            Self::Closed => Ok(0),
        }
    }

    /// Reads what there is into several places, one after the other.
    pub(crate) fn receive_vectored(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => {
                let mut control = RecvAncillaryBuffer::default();
                Ok(retry_on_intr(|| recvmsg(socket, slices, &mut control, RecvFlags::DONTWAIT))?.bytes)
            }
            Self::Memory(memory) => {
                let mut received = 0;
                for slice in slices {
                    let bytes = match memory.receive(slice) {
                        Err(_) if received > 0 => 0,
                        result => result?,
                    };
                    received += bytes;
                    if bytes < slice.len() {
                        break;
                    }
                }
                Ok(received)
            }
            Self::Closed => Ok(0),
        }
    }
}
