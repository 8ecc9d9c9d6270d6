//! What a socket has given and nobody has used yet: bytes in, whole frames out.

use std::io;

use crate::transport::Connection;
use crate::wire::{FrameError, FrameHeader, FrameLimits};

/// What is read at once at most, unless one frame needs more, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// What an inbox of small control frames needs, in bytes.
pub(super) const CONTROL_READ_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How far [`Self::scan`] has come, from `start`.
    scanned: usize,
    read_bytes: usize,
    limits: FrameLimits,
}

/// Where a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Bytes,
    Nothing,
    Closed,
}

impl Inbox {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self::with_read_bytes(limits, READ_BYTES)
    }

    pub(super) fn with_read_bytes(limits: FrameLimits, read_bytes: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, scanned: 0, read_bytes, limits }
    }

    /// Begins with what another inbox has already read.
    pub(super) fn take_over(&mut self, early: Self) {
        self.buffer = early.buffer;
        (self.start, self.end, self.scanned) = (early.start, early.end, 0);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        (self.start, self.end, self.scanned) = (0, 0, 0);
    }

    /// Shows each whole frame once, as soon as it is here.
    pub(super) fn scan(&mut self, mut see: impl FnMut(&FrameHeader)) -> Result<(), FrameError> {
        while let Some((header, frame_bytes)) = self.frame_at(self.scanned)? {
            see(&header);
            self.scanned += frame_bytes;
        }
        Ok(())
    }

    /// What is here, from the first byte that is not used.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Header and length of the frame at `offset`, when it is here whole.
    pub(super) fn frame_at(&self, offset: usize) -> Result<Option<(FrameHeader, usize)>, FrameError> {
        let bytes = &self.bytes()[offset..];
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(header) = FrameHeader::decode(bytes, self.limits)? else { return Ok(None) };
        let frame_bytes = header.frame_bytes();
        Ok((bytes.len() >= frame_bytes).then_some((header, frame_bytes)))
    }

    /// Lets the first `bytes` go.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.scanned = self.scanned.saturating_sub(bytes);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Reads what is there, once.
    pub(super) fn fill(&mut self, connection: &Connection) -> io::Result<Fill> {
        self.make_room();
        match connection.receive(&mut self.buffer[self.end..]) {
            Ok(bytes) => Ok(self.filled(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Fill::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Reads, and waits for the first byte.
    pub(super) fn fill_blocking(&mut self, connection: &Connection) -> io::Result<Fill> {
        self.make_room();
        connection.receive_blocking(&mut self.buffer[self.end..]).map(|bytes| self.filled(bytes))
    }

    fn filled(&mut self, bytes: usize) -> Fill {
        self.end += bytes;
        if bytes == 0 { Fill::Closed } else { Fill::Bytes }
    }

    /// Makes room behind what is here: for the frame that has begun, and at least half a reading.
    fn make_room(&mut self) {
        let begun = match FrameHeader::decode(self.bytes(), self.limits) {
            Ok(Some(header)) => header.frame_bytes(),
            Ok(None) | Err(_) => 0,
        };
        let needed = begun.max(self.end - self.start + self.read_bytes / 2);
        if self.buffer.len() - self.start >= needed {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let wanted = needed.max(self.read_bytes);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.buffer.len() > 4 * self.read_bytes && wanted <= self.read_bytes {
            // One large frame must not keep its memory for ever.
            self.buffer.truncate(self.read_bytes.max(self.end));
            self.buffer.shrink_to_fit();
        }
    }
}
