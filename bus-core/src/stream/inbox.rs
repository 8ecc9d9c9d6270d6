//! What a socket has given and nobody has used yet: bytes in, whole frames out.

use std::collections::VecDeque;
use std::io;

use crate::transport::Connection;
use crate::wire::{FrameError, FrameHeader, FrameLimits, HEADER_BYTES, Kind};

/// What is read at once at most, unless one frame needs more, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// What an inbox of small control frames needs, in bytes.
pub(crate) const CONTROL_READ_BYTES: usize = 4 * 1024;

/// How often room is made without need of a large buffer before that is given back.
const SMALL_FRAMES_MAX: u32 = 64;

/// Bytes as they come, and the frames among them.
#[derive(Debug)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The frames that are here whole, each checked once, in order from `start`.
    frames: VecDeque<Indexed>,
    /// How many bytes those frames have.
    indexed_bytes: usize,
    deliveries: usize,
    orders: usize,
    /// Frames of lanes, which are looked at when they come, and not in their turn.
    lane_news: VecDeque<(Kind, Vec<u8>)>,
    /// Frames that came over this connection after the Welcome, less those that were given back.
    received: u64,
    /// What comes next is no frame: nothing further can be read.
    fault: Option<FrameError>,
    read_bytes: usize,
    /// How often room was made since the last frame that needed more than usual.
    small_frames: u32,
    limits: FrameLimits,
}

/// A frame that is here whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed {
    pub kind: Kind,
    pub bytes: usize,
}

/// Where a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Bytes,
    Nothing,
    Closed,
}

impl Inbox {
    /// An empty one, which refuses frames over `limits`.
    #[must_use]
    pub fn new(limits: FrameLimits) -> Self {
        Self::with_read_bytes(limits, READ_BYTES)
    }

    pub(crate) fn with_read_bytes(limits: FrameLimits, read_bytes: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            frames: VecDeque::new(),
            indexed_bytes: 0,
            deliveries: 0,
            orders: 0,
            lane_news: VecDeque::new(),
            received: 0,
            fault: None,
            read_bytes,
            small_frames: 0,
            limits,
        }
    }

    /// Begins with what another inbox has already read.
    pub(crate) fn take_over(&mut self, early: Self) {
        *self = Self {
            buffer: early.buffer,
            start: early.start,
            end: early.end,
            ..Self::with_read_bytes(self.limits, self.read_bytes)
        };
        self.index();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.start, self.end, self.indexed_bytes) = (0, 0, 0);
        (self.deliveries, self.orders, self.fault) = (0, 0, None);
        self.frames.clear();
    }

    /// Frames that came over this connection after the Welcome, less those that were given back, and how many are here.
    pub(crate) fn received(&self) -> (u64, u64) {
        (self.received, self.frames.len() as u64)
    }

    /// Whether frames of lanes have come that nobody has looked at.
    pub(crate) fn has_lane_news(&self) -> bool {
        !self.lane_news.is_empty()
    }

    /// The next frame of lanes that nobody has looked at: its kind and its body.
    pub(crate) fn next_lane_news(&mut self) -> Option<(Kind, Vec<u8>)> {
        self.lane_news.pop_front()
    }

    /// How many messages are here whole.
    pub fn deliveries(&self) -> usize {
        self.deliveries
    }

    /// Whether an order is here that is not to wait behind messages: `Recall` or `Closing`.
    pub fn has_order(&self) -> bool {
        self.orders > 0
    }

    /// Whether what comes next is no frame.
    pub fn is_broken(&self) -> bool {
        self.fault.is_some()
    }

    /// The first frame, if it is here whole.
    pub fn front(&self) -> Result<Option<Indexed>, FrameError> {
        match (self.frames.front(), self.fault) {
            (Some(frame), _) => Ok(Some(*frame)),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(None),
        }
    }

    /// The bytes of the first frame; empty when there is none.
    pub fn front_bytes(&self) -> &[u8] {
        let bytes = self.frames.front().map_or(0, |frame| frame.bytes);
        &self.buffer[self.start..self.start + bytes]
    }

    /// All frames that are here whole, with their bytes.
    pub fn frames(&self) -> impl Iterator<Item = (Kind, &[u8])> {
        let mut at = self.start;
        self.frames.iter().map(move |frame| {
            let bytes = &self.buffer[at..at + frame.bytes];
            at += frame.bytes;
            (frame.kind, bytes)
        })
    }

    /// Lets the first frame go.
    pub fn pop_front(&mut self) {
        let Some(frame) = self.frames.pop_front() else { return };
        self.start += frame.bytes;
        self.indexed_bytes -= frame.bytes;
        match frame.kind {
            Kind::Deliver => self.deliveries -= 1,
            Kind::Recall | Kind::Closing => self.orders -= 1,
            _ => {}
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Lets the first frame go as if it had not come: its daemon sends it again, or has removed it.
    pub(crate) fn give_front_back(&mut self) {
        if !self.frames.is_empty() {
            self.received -= 1;
            self.pop_front();
        }
    }

    /// Takes in what has come some other way than by a connection.
    pub fn take_in(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.make_room();
            let (part, rest) = bytes.split_at(bytes.len().min(self.buffer.len() - self.end));
            self.buffer[self.end..][..part.len()].copy_from_slice(part);
            self.filled(part.len());
            bytes = rest;
        }
    }

    /// Reads what is there, once.
    pub(crate) fn fill(&mut self, connection: &Connection) -> io::Result<Fill> {
        self.make_room();
        match connection.receive(&mut self.buffer[self.end..]) {
            Ok(bytes) => Ok(self.filled(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Fill::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Reads, and waits for the first byte.
    pub(crate) fn fill_blocking(&mut self, connection: &Connection) -> io::Result<Fill> {
        self.make_room();
        connection.receive_blocking(&mut self.buffer[self.end..]).map(|bytes| self.filled(bytes))
    }

    fn filled(&mut self, bytes: usize) -> Fill {
        self.end += bytes;
        self.index();
        if bytes == 0 { Fill::Closed } else { Fill::Bytes }
    }

    /// Checks the frames that have become whole.
    fn index(&mut self) {
        while self.fault.is_none() {
            let rest = &self.buffer[self.start + self.indexed_bytes..self.end];
            let header = match FrameHeader::decode(rest, self.limits) {
                Ok(Some(header)) => header,
                Ok(None) => return,
                Err(fault) => {
                    // No bytes at all are no fault.
                    self.fault = Some(fault).filter(|_| !rest.is_empty());
                    return;
                }
            };
            let bytes = header.frame_bytes();
            if rest.len() < bytes {
                return;
            }
            self.frames.push_back(Indexed { kind: header.kind, bytes });
            self.received += 1;
            let start = self.start + self.indexed_bytes + HEADER_BYTES;
            self.indexed_bytes += bytes;
            match header.kind {
                Kind::LaneGiven | Kind::SenderGone | Kind::LaneSkip => {
                    let body = self.buffer[start..start + header.body_bytes as usize].to_vec();
                    self.lane_news.push_back((header.kind, body));
                }
                Kind::Deliver => self.deliveries += 1,
                Kind::Recall | Kind::Closing => self.orders += 1,
                _ => {}
            }
        }
    }

    /// Makes room behind what is here: for the frame that has begun, and at least half a reading.
    fn make_room(&mut self) {
        let begun = match FrameHeader::decode(&self.buffer[self.start + self.indexed_bytes..self.end], self.limits) {
            Ok(Some(header)) => header.frame_bytes(),
            Ok(None) | Err(_) => 0,
        };
        let here = self.end - self.start;
        let needed = (self.indexed_bytes + begun).max(here + self.read_bytes / 2);
        if self.buffer.len() - self.start >= needed {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, here);
        let wanted = needed.max(self.read_bytes);
        if wanted > self.read_bytes {
            self.small_frames = 0;
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.buffer.len() > self.read_bytes {
            // One large frame must not keep its memory for ever, and many keep it warm.
            self.small_frames += 1;
            if self.small_frames > SMALL_FRAMES_MAX {
                self.buffer.truncate(self.read_bytes.max(self.end));
                self.buffer.shrink_to_fit();
            }
        }
    }
}
