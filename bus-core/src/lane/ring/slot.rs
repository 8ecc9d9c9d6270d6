//! [`Slot`]: a place in a ring whose message is written by its user, before it is sent.
//!
//! It lies apart from where other messages of the sender go, so nobody waits for it. What stands in it nobody else
//! reads, and what its length is nobody is asked: the receiver cannot write to a sender's ring at all.
#![expect(unsafe_code, reason = "bytes in the ring, for the one who writes there")]

use std::fmt;
use std::slice;

use super::places::Reserved;
use super::{NotWritten, Writer};
use crate::lane::layout::{MessageHeader, PAGE_BYTES, RECORD_BYTES, WORD_BYTES, padded};
use crate::lane::memory::Memory;
use crate::lane::region::Map;

/// A place in a ring to write into. Dropped, it is lost to its ring: whoever has it [commits](Writer::commit_slot) it
/// or [gives it back](Writer::release_slot).
pub struct Slot {
    map: Map,
    reserved: Reserved,
    header_block_bytes: u32,
    payload_bytes: u32,
}

impl<C: Memory> Writer<Map, C> {
    /// Finds a place for a message with this header block and so long a payload, and room in the window.
    ///
    /// # Errors
    /// See [`NotWritten`]; nothing is reserved then.
    pub fn reserve_slot(&mut self, header_block: &[u8], payload_bytes: u32) -> Result<Slot, NotWritten> {
        let header_block_bytes = header_block.len() as u32;
        let reserved = self.reserve_apart(RECORD_BYTES + padded(header_block_bytes) + padded(payload_bytes))?;
        let slot = Slot { map: self.data().share(), reserved, header_block_bytes, payload_bytes };
        self.data().copy_in(slot.word_at(RECORD_BYTES), header_block);
        Ok(slot)
    }

    /// Makes a message of what was written there: it comes behind all that was written until now, and is visible once
    /// it is [published](Self::publish).
    ///
    /// # Panics
    /// When the slot is another ring's, or the header says other lengths.
    pub fn commit_slot(&mut self, slot: Slot, header: &MessageHeader) {
        assert!(slot.map.is(self.data()), "a slot of this ring");
        self.commit_apart(slot.reserved, header);
    }

    /// Nothing is sent.
    pub fn release_slot(&mut self, slot: Slot) {
        if slot.map.is(self.data()) {
            self.release_apart(slot.reserved);
        }
    }
}

impl Slot {
    /// How long its header block is, in bytes.
    #[must_use]
    pub fn header_block_bytes(&self) -> u32 {
        self.header_block_bytes
    }

    /// How long its payload is, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u32 {
        self.payload_bytes
    }

    /// Its header block.
    #[must_use]
    pub fn header_block(&self) -> &[u8] {
        let from = self.map.pointer(self.word_at(RECORD_BYTES), self.header_block_bytes as usize);
        // SAFETY: as in `payload`.
        unsafe { slice::from_raw_parts(from.as_ptr(), self.header_block_bytes as usize) }
    }

    /// Its payload, as far as it is written.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let from = self.map.pointer(self.payload_word(), self.payload_bytes as usize);
        // SAFETY: within the map, which lives as long as `self`, and made of bytes whatever they are. Its place is
        // reserved: as long as the slot is neither committed nor given back, and both take it by value, the ring
        // writes and reads elsewhere. No other process can write there: the file is sealed.
        unsafe { slice::from_raw_parts(from.as_ptr(), self.payload_bytes as usize) }
    }

    /// Its payload, to be written.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let from = self.map.pointer(self.payload_word(), self.payload_bytes as usize);
        // SAFETY: as in `payload`, and `self` is borrowed alone. A receiver that reads there before it is told that
        // there is a message harms itself: it is another process, or reads words by atomics through another map.
        unsafe { slice::from_raw_parts_mut(from.as_ptr(), self.payload_bytes as usize) }
    }

    fn payload_word(&self) -> usize {
        self.word_at(RECORD_BYTES + padded(self.header_block_bytes))
    }

    fn word_at(&self, in_record: u64) -> usize {
        (PAGE_BYTES + (self.reserved.place() + in_record) as usize) / WORD_BYTES
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("payload_bytes", &self.payload_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::layout::PAGE_BYTES;
    use crate::lane::memory::tests::Heap;
    use crate::lane::region::MemoryFile;
    use crate::lane::ring::tests::header;
    use crate::lane::ring::{Bounds, Limits, Reader, Start};

    const RING_BYTES: u64 = 64 * 1024;

    struct Ring {
        file: MemoryFile,
        cursor: Heap,
    }

    impl Ring {
        fn new() -> Self {
            let file = MemoryFile::create("bus-test", PAGE_BYTES + RING_BYTES as usize).unwrap();
            Self { file, cursor: Heap::new(PAGE_BYTES) }
        }

        fn writer(&self, window_messages: u64) -> Writer<Map, &Heap> {
            let bounds = Bounds { first_bytes: 4096, ring_bytes: RING_BYTES, window_messages };
            Writer::new(self.file.map_writable().unwrap(), &self.cursor, bounds)
        }

        fn reader(&self) -> Reader<Map, &Heap> {
            let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: RING_BYTES as u32 };
            Reader::new(self.file.map_readable().unwrap(), &self.cursor, limits, 0, Start::default())
        }
    }

    fn received(reader: &mut Reader<Map, &Heap>) -> Vec<(u64, Vec<u8>)> {
        reader.look().unwrap();
        let mut received = Vec::new();
        while let Some(record) = reader.record(reader.head()).unwrap() {
            let mut payload = vec![0; record.header.payload_bytes as usize];
            reader.copy_payload(&record, &mut payload);
            received.push((record.header.sequence, payload));
            reader.acknowledge(record.next);
        }
        received
    }

    fn fill(slot: &mut Slot, sequence: u64) -> MessageHeader {
        slot.payload_mut().fill(sequence as u8);
        header(sequence, slot.header_block(), slot.payload())
    }

    #[test]
    fn messages_come_in_the_order_in_which_they_were_committed() {
        let ring = Ring::new();
        let (mut writer, mut reader) = (ring.writer(100), ring.reader());
        let mut first = writer.reserve_slot(b"", 100).unwrap();
        let mut second = writer.reserve_slot(b"head", 3000).unwrap();
        writer.write(&header(1, b"", b"between"), b"", b"between").unwrap();
        let ended = fill(&mut second, 2);
        writer.commit_slot(second, &ended);
        writer.publish();
        assert_eq!(received(&mut reader), [(1, b"between".to_vec()), (2, vec![2; 3000])]);
        let ended = fill(&mut first, 3);
        writer.commit_slot(first, &ended);
        writer.publish();
        assert_eq!(received(&mut reader), [(3, vec![3; 100])]);
    }

    #[test]
    fn a_slot_takes_its_place_in_the_window_until_it_is_given_back() {
        let ring = Ring::new();
        let mut writer = ring.writer(2);
        let slots = [writer.reserve_slot(b"", 8).unwrap(), writer.reserve_slot(b"", 8).unwrap()];
        assert_eq!(writer.reserve_slot(b"", 8).unwrap_err(), NotWritten::Full);
        assert_eq!(writer.write(&header(1, b"", b""), b"", b""), Err(NotWritten::Full));
        slots.into_iter().for_each(|slot| writer.release_slot(slot));
        writer.write(&header(1, b"", b""), b"", b"").unwrap();
    }

    #[test]
    fn memory_that_a_slot_lies_in_outlives_its_ring() {
        let ring = Ring::new();
        let mut writer = ring.writer(2);
        let mut slot = writer.reserve_slot(b"head", 8).unwrap();
        drop(writer);
        slot.payload_mut().fill(7);
        assert_eq!((slot.header_block(), slot.payload()), (&b"head"[..], &[7; 8][..]));
        ring.writer(2).release_slot(slot);
    }

    #[test]
    fn slots_go_round_the_ring_and_wait_for_a_receiver_that_is_behind() {
        let ring = Ring::new();
        let (mut writer, mut reader) = (ring.writer(1000), ring.reader());
        let (mut sequence, mut expected) = (0, 1);
        for round in 0..200_u32 {
            let mut slots = Vec::new();
            while let Ok(slot) = writer.reserve_slot(b"", 900 + round % 7 * 40) {
                slots.push(slot);
                if slots.len() > 20 {
                    break;
                }
            }
            for mut slot in slots {
                sequence += 1;
                let ended = fill(&mut slot, sequence);
                writer.commit_slot(slot, &ended);
                writer.publish();
            }
            if round % 4 != 0 {
                for (sequence, payload) in received(&mut reader) {
                    assert_eq!(
                        (sequence, payload[0], payload[payload.len() - 1]),
                        (expected, expected as u8, expected as u8)
                    );
                    expected += 1;
                }
            }
        }
        let last = received(&mut reader).pop().map_or(expected - 1, |(last, _)| last);
        assert!(sequence > 2_000 && last == sequence, "{sequence} sent, {last} come");
    }
}
