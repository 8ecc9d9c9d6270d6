//! The floor: the least that a ring in shared memory must do.
//!
//! ```text
//!   data    word 0  tail, messages      from word 512  slots of one length: stamp, payload
//!   cursor  word 0  head, messages
//! ```
//!
//! It believes its peer, knows one length, and is never full for less than all of its slots. What it shares
//! with a lane: a stamp on each message, a fence behind each, and the words that both are made of.

use anyhow::Result;
use bus_core::lane::layout::{PAGE_BYTES, WORD_BYTES};
use bus_core::lane::memory::{Fence, Memory as _};

use super::ends::{RingReader, RingWriter};
use super::files::{Maps, Size};

const TAIL: usize = 0;
const HEAD: usize = 0;

/// Where the slots lie.
#[derive(Clone, Copy)]
struct Slots {
    words: usize,
    count: u64,
}

/// Words of a line of the cache: slots begin at one.
const LINE: usize = 64 / WORD_BYTES;

/// Word of the first slot.
const FIRST: usize = PAGE_BYTES / WORD_BYTES;

impl Slots {
    fn of(size: Size) -> Self {
        let words = (1 + size.payload_bytes.div_ceil(WORD_BYTES)).next_multiple_of(LINE);
        Self { words, count: (size.ring_bytes / WORD_BYTES / words) as u64 }
    }

    /// The slot behind the one at `word`.
    #[inline]
    fn next(self, word: usize) -> usize {
        let next = word + self.words;
        if next == FIRST + self.words * self.count as usize { FIRST } else { next }
    }
}

/// The sender's end.
pub(crate) struct Writer {
    maps: Maps,
    slots: Slots,
    word: usize,
    written: u64,
    /// How many were read when the head was last looked at.
    read: u64,
}

impl Writer {
    pub(crate) fn new(maps: Maps, size: Size) -> Self {
        Self { maps, slots: Slots::of(size), word: FIRST, written: 0, read: 0 }
    }
}

impl RingWriter for Writer {
    #[inline]
    fn put(&mut self, stamp_ns: u64, payload: &[u8]) -> Result<bool> {
        let Maps { data, cursor } = &self.maps;
        if self.written - self.read == self.slots.count {
            self.read = cursor.load(HEAD);
            // Pairs with the reader's release: what was in the slot is read.
            cursor.fence(Fence::Acquire);
            if self.written - self.read == self.slots.count {
                return Ok(false);
            }
        }
        data.store(self.word, stamp_ns);
        data.copy_in(self.word + 1, payload);
        self.word = self.slots.next(self.word);
        self.written += 1;
        // Whoever sees the tail sees the slot.
        data.fence(Fence::Release);
        data.store_in_sight(TAIL, self.written);
        Ok(true)
    }
}

/// The receiver's end.
pub(crate) struct Reader {
    maps: Maps,
    slots: Slots,
    word: usize,
    read: u64,
    /// How many were written when the tail was last looked at.
    written: u64,
}

impl Reader {
    pub(crate) fn new(maps: Maps, size: Size) -> Self {
        Self { maps, slots: Slots::of(size), word: FIRST, read: 0, written: 0 }
    }
}

impl RingReader for Reader {
    #[inline]
    fn look(&mut self) -> Result<u64> {
        self.written = self.maps.data.load(TAIL);
        // Pairs with the writer's release.
        self.maps.data.fence(Fence::Acquire);
        Ok(self.written)
    }

    #[inline]
    fn position(&self) -> u64 {
        self.read
    }

    #[inline]
    fn stamp(&mut self) -> Result<Option<u64>> {
        Ok((self.read < self.written).then(|| self.maps.data.load(self.word)))
    }

    #[inline(never)]
    fn take(&mut self, payload: &mut [u8]) -> Result<()> {
        self.maps.data.copy_out(self.word + 1, payload);
        self.word = self.slots.next(self.word);
        self.read += 1;
        // Whoever sees the head may write to the slot.
        self.maps.cursor.fence(Fence::Release);
        self.maps.cursor.store(HEAD, self.read);
        Ok(())
    }
}
