//! The frames of one sender that are not acknowledged: what is sent again after a daemon's death.
//!
//! Frames lie one behind the other in chunks, ready for the socket, so that one write takes many.
//! A frame never spans two chunks. Three marks move forward: `acked <= written <= end`.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::sender::Encoded;
use crate::wire::{Flags, FrameHeader, HEADER_BYTES, Kind};

/// What a chunk holds when no single frame needs more, in bytes: several frames of 64 KiB.
const CHUNK_BYTES: usize = 256 * 1024;

/// How much memory is kept in used chunks at most, in bytes: what is acknowledged at once, a quarter
/// of a usual window.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many slices one write takes at most.
pub(super) const SLICES_MAX: usize = 16;

/// What a sender of whose messages none is on its way keeps at most for the next, in bytes.
const RESTING_BYTES_MAX: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Vec<u8>>,
    /// Used chunks, kept so that a steady flow allocates nothing: acknowledgements come for an eighth
    /// of a window at once.
    spares: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// Acknowledged bytes at the start of the first chunk.
    front: usize,
    /// Where writing goes on: a chunk and a place in it.
    written: (usize, usize),
    /// Length of each frame, and the bytes of its message, from the first unacknowledged one.
    frames: VecDeque<(u32, u32)>,
    message_bytes: u64,
    unwritten: usize,
}

/// What goes into a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) sequence: u64,
    pub(super) sent_at_ns: u64,
    pub(super) confirm: bool,
    pub(super) redelivered: bool,
    pub(super) message: &'a Encoded<'a>,
}

impl Outbox {
    /// How many frames are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes of the messages that are not acknowledged.
    pub(super) fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    /// How many frames are written whole.
    pub(super) fn written_frames(&self) -> usize {
        let (mut unwritten, mut frames) = (self.unwritten, self.frames.len());
        while unwritten > 0 && frames > 0 {
            frames -= 1;
            unwritten = unwritten.saturating_sub(self.frames[frames].0 as usize);
        }
        frames
    }

    /// Bytes that are not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Appends the frame of a message. Lengths have been checked against the limits.
    // What is handed over by memory, and read from there in other pieces than it was written, is waited for.
    #[inline(always)]
    pub(super) fn push(&mut self, outgoing: Outgoing<'_>) {
        let Encoded { codec, header_block, payload } = *outgoing.message;
        let header = FrameHeader {
            kind: Kind::Data,
            flags: Flags(
                if outgoing.confirm { Flags::CONFIRM } else { 0 }
                    | if outgoing.redelivered { Flags::REDELIVERED } else { 0 },
            ),
            codec,
            sequence: outgoing.sequence,
            sent_at_ns: outgoing.sent_at_ns,
            body_bytes: payload.len() as u32,
            header_block_bytes: header_block.len() as u32,
        };
        let frame_bytes = header.frame_bytes();
        let chunk = self.chunk_with_room(frame_bytes);
        chunk.extend_from_slice(&header.encode());
        if !header_block.is_empty() {
            chunk.extend_from_slice(header_block);
        }
        chunk.extend_from_slice(payload);
        let message_bytes = header.message_bytes();
        self.frames.push_back((frame_bytes as u32, message_bytes as u32));
        self.message_bytes += message_bytes;
        self.unwritten += frame_bytes;
    }

    fn chunk_with_room(&mut self, bytes: usize) -> &mut Vec<u8> {
        let fits = self.chunks.back().is_some_and(|chunk| chunk.capacity() - chunk.len() >= bytes);
        if !fits {
            let chunk = self.take_spare(bytes).unwrap_or_else(|| Vec::with_capacity(bytes.max(CHUNK_BYTES)));
            self.chunks.push_back(chunk);
        }
        self.chunks.back_mut().expect("a chunk was pushed where there was none")
    }

    /// The chunk that was used last, because its memory is warm; if it is large enough.
    fn take_spare(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let spare = self.spares.pop_if(|spare| spare.capacity() >= bytes)?;
        self.spare_bytes -= spare.capacity();
        Some(spare)
    }

    fn keep_spare(&mut self, mut chunk: Vec<u8>) {
        // Smaller ones stand in the way of a flow of large messages.
        while self.spares.pop_if(|spare| spare.capacity() < chunk.capacity()).is_some_and(|spare| {
            self.spare_bytes -= spare.capacity();
            true
        }) {}
        if self.spare_bytes + chunk.capacity() <= SPARE_BYTES_MAX {
            chunk.clear();
            self.spare_bytes += chunk.capacity();
            self.spares.push(chunk);
        }
    }

    /// What to write next, as slices: how many, and whether that is all.
    pub(super) fn unwritten_slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> (usize, bool) {
        let (first, offset) = self.written;
        let mut count = 0;
        for (index, chunk) in self.chunks.iter().enumerate().skip(first).take(SLICES_MAX) {
            let rest = if index == first { &chunk[offset..] } else { &chunk[..] };
            if !rest.is_empty() {
                slices[count] = IoSlice::new(rest);
                count += 1;
            }
        }
        (count, self.chunks.len() - first.min(self.chunks.len()) <= SLICES_MAX)
    }

    /// What to write next, where that is all in one chunk.
    pub(super) fn unwritten_in_one(&self) -> Option<&[u8]> {
        let (first, offset) = self.written;
        if first + 1 == self.chunks.len() { self.chunks.back().map(|chunk| &chunk[offset..]) } else { None }
    }

    /// Moves the written mark by `bytes`.
    pub(super) fn wrote(&mut self, mut bytes: usize) {
        self.unwritten -= bytes;
        if self.unwritten == 0 && self.written.0 + 1 == self.chunks.len() {
            self.written.1 += bytes;
            return;
        }
        while bytes > 0 {
            let rest = self.chunks[self.written.0].len() - self.written.1;
            if bytes < rest {
                self.written.1 += bytes;
                return;
            }
            bytes -= rest;
            if self.written.0 + 1 == self.chunks.len() {
                self.written.1 = self.chunks[self.written.0].len();
                return;
            }
            self.written = (self.written.0 + 1, 0);
        }
    }

    /// Lets the first `count` frames go.
    pub(super) fn acknowledge(&mut self, count: usize) {
        for _ in 0..count {
            let Some((frame_bytes, message_bytes)) = self.frames.pop_front() else { return };
            self.message_bytes -= u64::from(message_bytes);
            self.release(frame_bytes as usize);
        }
    }

    fn release(&mut self, frame_bytes: usize) {
        // A chunk that was filled to its end stays in front until the first frame of the next goes.
        while self.front == self.chunks[0].len() && self.chunks.len() > 1 {
            self.drop_front();
        }
        self.front += frame_bytes;
        if self.front == self.chunks[0].len() {
            if self.chunks.len() > 1 {
                self.drop_front();
            } else {
                self.rest();
            }
        }
    }

    fn drop_front(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.keep_spare(chunk);
        }
        self.front = 0;
        self.written = match self.written {
            (0, _) => (0, 0),
            (chunk, offset) => (chunk - 1, offset),
        };
    }

    /// Nothing is here: there may be nothing for long, and the memory is kept for one usual message.
    fn rest(&mut self) {
        (self.front, self.written) = (0, (0, 0));
        self.chunks.truncate(1);
        self.chunks.retain(|chunk| chunk.capacity() <= RESTING_BYTES_MAX);
        self.chunks.iter_mut().for_each(Vec::clear);
        self.spares.truncate(1);
        self.spares.retain(|spare| spare.capacity() <= CHUNK_BYTES);
        self.spare_bytes = self.spares.iter().map(Vec::capacity).sum();
    }

    /// Takes the last frame back. `false` when a part of it is written.
    pub(super) fn withdraw_last(&mut self) -> bool {
        let Some(&(frame_bytes, message_bytes)) = self.frames.back() else { return false };
        if self.unwritten < frame_bytes as usize {
            return false;
        }
        self.frames.pop_back();
        self.unwritten -= frame_bytes as usize;
        self.message_bytes -= u64::from(message_bytes);
        if self.frames.is_empty() {
            self.rest();
            return true;
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        chunk.truncate(chunk.len() - frame_bytes as usize);
        if chunk.is_empty() {
            self.chunks.pop_back();
            if self.written.0 == last {
                self.written = (last - 1, self.chunks[last - 1].len());
            }
        }
        true
    }

    /// Marks every frame that was written, if only in part, as sent before, and all as unwritten: a
    /// new connection begins.
    pub(super) fn rewind(&mut self) {
        let written = self.written;
        self.written = (0, self.front);
        self.unwritten = 0;
        let mut at = (0, self.front);
        for (frame_bytes, _) in &self.frames {
            if at.1 == self.chunks[at.0].len() {
                at = (at.0 + 1, 0);
            }
            if at < written {
                self.chunks[at.0][at.1 + FrameHeader::FLAGS_AT] |= Flags::REDELIVERED;
            }
            at.1 += *frame_bytes as usize;
            self.unwritten += *frame_bytes as usize;
        }
    }

    /// Every frame that is not acknowledged, from the oldest.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = (0, self.front);
        self.frames.iter().map(move |(frame_bytes, _)| {
            if at.1 == self.chunks[at.0].len() {
                at = (at.0 + 1, 0);
            }
            let frame = &self.chunks[at.0][at.1..at.1 + *frame_bytes as usize];
            at.1 += *frame_bytes as usize;
            frame
        })
    }
}

const _: () = assert!(FrameHeader::FLAGS_AT < HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;
    use proptest::prelude::*;

    fn push(outbox: &mut Outbox, sequence: u64, payload: &[u8]) {
        outbox.push(Outgoing {
            sequence,
            sent_at_ns: 0,
            confirm: false,
            redelivered: false,
            message: &Encoded { codec: Codec::Raw, header_block: b"", payload },
        });
    }

    fn write(outbox: &mut Outbox, bytes: usize, wire: &mut Vec<u8>) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (count, _) = outbox.unwritten_slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let bytes = bytes.min(all.len());
        wire.extend_from_slice(&all[..bytes]);
        outbox.wrote(bytes);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Write(usize),
        Acknowledge(usize),
        /// A new connection begins, and so many are known to have arrived, written again or not.
        Rewind(usize),
        Withdraw,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => prop_oneof![0..200_usize, 0..200_000_usize].prop_map(Step::Push),
            4 => (0..400_000_usize).prop_map(Step::Write),
            4 => (0..10_usize).prop_map(Step::Acknowledge),
            1 => (0..10_usize).prop_map(Step::Rewind),
            1 => Just(Step::Withdraw),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn writes_every_frame_whole_and_in_order(steps in steps()) {
            let mut outbox = Outbox::default();
            let mut next = 1_u64;
            let mut unacked: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
            // What a peer has read since the last rewind, and from which sequence on.
            let (mut wire, mut from) = (Vec::new(), 1_u64);
            for step in steps {
                match step {
                    Step::Push(size) => {
                        let payload = vec![next as u8; size];
                        push(&mut outbox, next, &payload);
                        unacked.push_back((next, payload));
                        next += 1;
                    }
                    Step::Write(bytes) => write(&mut outbox, bytes, &mut wire),
                    Step::Acknowledge(count) => {
                        let whole = whole_frames(&wire, from);
                        let acked = from + whole;
                        let mut done = 0;
                        while done < count && unacked.front().is_some_and(|(sequence, _)| *sequence < acked) {
                            unacked.pop_front();
                            done += 1;
                        }
                        outbox.acknowledge(done);
                    }
                    Step::Rewind(known) => {
                        let known = known.min(unacked.len());
                        unacked.drain(..known);
                        outbox.acknowledge(known);
                        outbox.rewind();
                        wire.clear();
                        from = unacked.front().map_or(next, |(sequence, _)| *sequence);
                    }
                    Step::Withdraw => {
                        if !unacked.is_empty() && from + whole_frames(&wire, from) < next {
                            // As in use: where a part of it is written the connection goes first.
                            if !outbox.withdraw_last() {
                                outbox.rewind();
                                wire.clear();
                                from = unacked.front().map_or(next, |(sequence, _)| *sequence);
                                prop_assert!(outbox.withdraw_last());
                            }
                            unacked.pop_back();
                            next -= 1;
                        }
                    }
                }
                prop_assert_eq!(outbox.len(), unacked.len());
                let sizes: u64 = unacked.iter().map(|(_, payload)| payload.len() as u64).sum();
                prop_assert_eq!(outbox.message_bytes(), sizes);
                for (frame, (_, payload)) in outbox.frames().zip(&unacked) {
                    prop_assert_eq!(&frame[HEADER_BYTES..], &payload[..]);
                }
            }
            while outbox.unwritten() > 0 {
                write(&mut outbox, usize::MAX, &mut wire);
            }
            prop_assert_eq!(from + whole_frames(&wire, from), next);
        }
    }

    fn whole_frames(mut wire: &[u8], from: u64) -> u64 {
        let limits = crate::wire::FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: 0 };
        let mut count = 0;
        while let Ok(Some(header)) = FrameHeader::decode(wire, limits) {
            let Some(rest) = wire.get(header.frame_bytes()..) else { break };
            assert_eq!(header.sequence, from + count);
            wire = rest;
            count += 1;
        }
        count
    }
}
