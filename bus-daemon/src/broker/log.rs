//! [`MessageLog`]: the messages of one channel, lying as they will go down the wire.
//!
//! Small messages lie one behind the other in segments, so that one write takes many; a large one
//! is a segment of its own, moved in and never copied. Messages leave mostly from the front.

use std::collections::VecDeque;
use std::io::IoSlice;

use bus_core::wire::{Flags, FrameHeader, HEADER_BYTES, Kind, ORIGIN_BYTES, Origin};

use super::account::AccountId;

/// What stands before the content of a message in the log, in bytes.
pub const PREFIX_BYTES: usize = HEADER_BYTES + ORIGIN_BYTES;

/// From this content size on a message has a segment of its own, in bytes: copying 16 KiB costs
/// about as much as the system call that it saves.
pub const LARGE_BYTES: usize = 16 * 1024;

/// What a segment of small messages holds, in bytes.
const SEGMENT_BYTES: usize = 128 * 1024;

/// Header block and payload of a message on its way into the log.
#[derive(Debug)]
pub enum Content<'a> {
    /// To be copied.
    Borrowed(&'a [u8]),
    /// To be kept: [`PREFIX_BYTES`] of room, then the content.
    Owned(Vec<u8>),
}

impl Content<'_> {
    /// The header block and payload.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(record) => &record[PREFIX_BYTES..],
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct MessageLog {
    segments: VecDeque<Segment>,
    /// Number of the first segment.
    first_segment: u64,
    entries: VecDeque<Entry>,
    /// Position of the first entry: all before it have left.
    first: u64,
    bytes: u64,
    /// Bytes of all messages that ever came.
    appended_bytes: u64,
    /// Memory of large messages that have left.
    freed: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    /// Entries that lie here.
    live: u32,
    /// One was taken out from between others.
    has_gaps: bool,
}

/// What stands before the content of a message on its way down.
fn prefix(header: &FrameHeader, origin: &[u8; ORIGIN_BYTES]) -> [u8; PREFIX_BYTES] {
    let header = FrameHeader { kind: Kind::Deliver, flags: Flags(header.flags.0 & Flags::REDELIVERED), ..*header };
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..HEADER_BYTES].copy_from_slice(&header.encode());
    prefix[HEADER_BYTES..].copy_from_slice(origin);
    prefix
}

/// Where a message lies, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    segment: u64,
    offset: u32,
    pub(super) frame_bytes: u32,
    pub(super) message_bytes: u32,
    pub(super) account: AccountId,
    pub(super) sequence: u64,
    pub(super) accepted_at_ms: u64,
}

impl MessageLog {
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all messages.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of all messages that ever came.
    pub(super) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Position of the oldest message.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Position behind the newest message.
    pub(super) fn end(&self) -> u64 {
        self.first + self.len()
    }

    pub(super) fn entry(&self, position: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(position.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Appends a message.
    pub(super) fn append(
        &mut self,
        header: &FrameHeader,
        origin: Origin,
        content: Content<'_>,
        account: AccountId,
        accepted_at_ms: u64,
    ) {
        match content {
            Content::Owned(mut record) => {
                record[..PREFIX_BYTES].copy_from_slice(&prefix(header, &origin.encode()));
                self.segments.push_back(Segment { bytes: record, live: 0, has_gaps: false });
                self.note(header, 0, account, accepted_at_ms);
            }
            Content::Borrowed(bytes) => self.append_small(header, &origin.encode(), bytes, account, accepted_at_ms),
        }
    }

    /// As [`append`](Self::append), by a copy.
    pub(super) fn append_small(
        &mut self,
        header: &FrameHeader,
        origin: &[u8; ORIGIN_BYTES],
        content: &[u8],
        account: AccountId,
        accepted_at_ms: u64,
    ) {
        let segment = self.segment_with_room(PREFIX_BYTES + content.len());
        let offset = segment.len();
        segment.extend_from_slice(&prefix(header, origin));
        segment.extend_from_slice(content);
        self.note(header, offset, account, accepted_at_ms);
    }

    /// A message lies at `offset` of the last segment.
    fn note(&mut self, header: &FrameHeader, offset: usize, account: AccountId, accepted_at_ms: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.live += 1;
        }
        let message_bytes = header.message_bytes() as u32;
        self.bytes += u64::from(message_bytes);
        self.appended_bytes += u64::from(message_bytes);
        self.entries.push_back(Entry {
            segment: self.first_segment + self.segments.len() as u64 - 1,
            offset: offset as u32,
            frame_bytes: message_bytes + PREFIX_BYTES as u32,
            message_bytes,
            account,
            sequence: header.sequence,
            accepted_at_ms,
        });
    }

    fn segment_with_room(&mut self, bytes: usize) -> &mut Vec<u8> {
        let fits = self.segments.back().is_some_and(|last| last.bytes.capacity() - last.bytes.len() >= bytes);
        if !fits {
            let bytes = Vec::with_capacity(bytes.max(SEGMENT_BYTES));
            self.segments.push_back(Segment { bytes, live: 0, has_gaps: false });
        }
        &mut self.segments.back_mut().expect("a segment was pushed where there was none").bytes
    }

    /// Takes the oldest `count` messages out, and shows each to `see`.
    pub(super) fn release(&mut self, count: u64, mut see: impl FnMut(&Entry)) {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.entries.len());
        let (mut segment, mut live, mut bytes) = (self.first_segment, 0, 0);
        for entry in self.entries.drain(..count) {
            if entry.segment != segment {
                self.segments[(segment - self.first_segment) as usize].live -= live;
                (segment, live) = (entry.segment, 0);
            }
            live += 1;
            bytes += u64::from(entry.message_bytes);
            see(&entry);
        }
        if live > 0 {
            self.segments[(segment - self.first_segment) as usize].live -= live;
        }
        self.first += count as u64;
        self.bytes -= bytes;
        self.drop_dead_segments();
    }

    /// Takes the message at `position` out, which no receiver was sent; those behind it move up by
    /// one, also when it is the first: positions count what was sent.
    pub(super) fn remove(&mut self, position: u64) -> Option<Entry> {
        let index = usize::try_from(position.checked_sub(self.first)?).ok()?;
        let entry = self.entries.remove(index)?;
        self.forget(&entry);
        Some(entry)
    }

    /// Takes out every message from `position` on for which `goes` says so.
    pub(super) fn remove_where(&mut self, position: u64, mut goes: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let kept = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        let rest = self.entries.split_off(kept);
        let mut gone = Vec::new();
        for entry in rest {
            if goes(&entry) {
                self.forget(&entry);
                gone.push(entry);
            } else {
                self.entries.push_back(entry);
            }
        }
        gone
    }

    fn forget(&mut self, entry: &Entry) {
        self.bytes -= u64::from(entry.message_bytes);
        let segment = &mut self.segments[(entry.segment - self.first_segment) as usize];
        segment.live -= 1;
        segment.has_gaps = true;
        self.drop_dead_segments();
    }

    fn drop_dead_segments(&mut self) {
        while self.segments.len() > 1 && self.segments[0].live == 0 {
            self.drop_first_segment();
        }
        if self.segments.len() == 1
            && let Some(only) = self.segments.front_mut().filter(|only| only.live == 0)
        {
            if only.bytes.capacity() != SEGMENT_BYTES {
                self.freed.extend(self.segments.pop_front().map(|segment| segment.bytes));
                self.first_segment += 1;
            } else {
                only.bytes.clear();
                only.has_gaps = false;
            }
        }
    }

    /// A used segment of the common size goes to the back, where it is written next: a steady flow
    /// allocates nothing.
    fn drop_first_segment(&mut self) {
        let Some(mut segment) = self.segments.pop_front() else { return };
        self.first_segment += 1;
        let last_is_spare = self.segments.back().is_some_and(|last| last.live == 0 && last.bytes.is_empty());
        let last_is_full =
            self.segments.back().is_some_and(|last| last.bytes.capacity() - last.bytes.len() < SEGMENT_BYTES / 4);
        if segment.bytes.capacity() == SEGMENT_BYTES && last_is_full && !last_is_spare {
            segment.bytes.clear();
            segment.has_gaps = false;
            self.segments.push_back(segment);
        } else if segment.bytes.capacity() != SEGMENT_BYTES {
            self.freed.push(segment.bytes);
        }
    }

    /// The memory of large messages that have left since this was asked last.
    pub(super) fn freed(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.freed.drain(..)
    }

    /// Gives memory back that an empty log still holds.
    pub(super) fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.first_segment += self.segments.len() as u64;
            self.segments.clear();
            self.entries.shrink_to(64);
        }
    }

    fn frame(&self, entry: &Entry) -> &[u8] {
        let segment = &self.segments[(entry.segment - self.first_segment) as usize];
        &segment.bytes[entry.offset as usize..entry.offset as usize + entry.frame_bytes as usize]
    }

    /// The frame at `position`.
    pub(super) fn frame_at(&self, position: u64) -> Option<&[u8]> {
        self.entry(position).map(|entry| self.frame(entry))
    }

    /// The frames of `from..to` without the first `offset` bytes, as few slices: at most `most` in `out`.
    pub(super) fn slices<'a>(&'a self, from: u64, to: u64, offset: usize, most: usize, out: &mut Vec<IoSlice<'a>>) {
        let index = |position: u64| (position.max(self.first) - self.first) as usize;
        let (mut at, end) = (index(from), index(to).min(self.entries.len()));
        let mut skip = offset;
        while at < end && out.len() < most {
            let first = &self.entries[at];
            let segment = &self.segments[(first.segment - self.first_segment) as usize];
            let behind = if segment.has_gaps { at + 1 } else { self.behind_segment(first.segment).min(end) };
            let last = &self.entries[behind - 1];
            let bytes = &segment.bytes[first.offset as usize + skip..(last.offset + last.frame_bytes) as usize];
            out.push(IoSlice::new(bytes));
            (at, skip) = (behind, 0);
        }
    }

    /// Index of the first entry behind a segment.
    fn behind_segment(&self, segment: u64) -> usize {
        self.entries.partition_point(|entry| entry.segment <= segment)
    }

    /// Counts attempts of the message at `position`, and marks it as redelivered.
    pub(super) fn count_attempts(&mut self, position: u64, attempts: u32) {
        self.patch(position, |frame| {
            let at = HEADER_BYTES + ORIGIN_BYTES - 4;
            let mut field = [0; 4];
            field.copy_from_slice(&frame[at..at + 4]);
            let attempt = u32::from_le_bytes(field).saturating_add(attempts);
            frame[at..at + 4].copy_from_slice(&attempt.to_le_bytes());
            frame[FrameHeader::FLAGS_AT] |= Flags::REDELIVERED;
        });
    }

    fn patch(&mut self, position: u64, change: impl FnOnce(&mut [u8])) {
        let Some(entry) = self.entry(position).copied() else { return };
        let segment = &mut self.segments[(entry.segment - self.first_segment) as usize];
        change(&mut segment.bytes[entry.offset as usize..entry.offset as usize + entry.frame_bytes as usize]);
    }
}
