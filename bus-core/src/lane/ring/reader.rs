//! [`Reader`]: the receiver's end of a ring. It believes nothing that it reads.

use super::ahead::{AHEAD_BYTES, LINE_WORDS, ahead_of};
use super::{Broken, SleepsAt, Start};
use crate::lane::layout::{Fixed, MessageHeader, NOBODY, PAGE_BYTES, RECORD_BYTES, WORD_BYTES, cursor, data, padded};
use crate::lane::memory::{Fence, Memory};

/// The receiver's end.
///
/// It keeps no place of its own: whoever uses it walks by [`Position`], from one [`Record`] to the next.
#[derive(Debug)]
pub struct Reader<D, C> {
    data: D,
    cursor: C,
    limits: Limits,
    generation: u64,
    /// How far the sender had published when it was last looked at.
    tail: u64,
    head: Position,
    taken: u64,
    /// The epoch that was last rung for.
    rung: u64,
    waits: u64,
}

/// What a record is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the ring is, in bytes.
    pub ring_bytes: u64,
    /// Largest message: payload and header block, in bytes.
    pub message_max_bytes: u32,
}

/// Somewhere between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it, since the lane began.
    pub logical: u64,
    /// Where in the ring.
    pub place: u64,
    /// Messages before it.
    pub messages: u64,
}

/// A message without a header block, as numbers that a loop keeps in registers.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// See [`MessageHeader::sequence`].
    pub sequence: u64,
    /// See [`MessageHeader::stamp_ns`].
    pub stamp_ns: u64,
    /// See [`MessageHeader::payload_bytes`].
    pub payload_bytes: u32,
    /// Where the next begins.
    pub next: Position,
}

/// A message in the ring. Its lengths are checked; its content may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What its sender says of it.
    pub header: MessageHeader,
    /// Where the next begins: where this one ends.
    pub next: Position,
}

impl<D: Memory, C: Memory> Reader<D, C> {
    /// Begins to read where an earlier receiver ended, if there was one.
    pub fn new(data: D, cursor: C, limits: Limits, generation: u64, start: Start) -> Self {
        assert!(data.words() * WORD_BYTES >= PAGE_BYTES + limits.ring_bytes as usize, "the ring is in its file");
        let head = Position { logical: start.logical, place: start.place, messages: start.messages };
        let mut reader =
            Self { data, cursor, limits, generation, tail: head.logical, head, taken: 0, rung: 0, waits: 0 };
        reader.acknowledge(head);
        reader
    }

    /// Looks how far the sender has published.
    ///
    /// # Errors
    /// When that is not possible.
    #[inline]
    pub fn look(&mut self) -> Result<(), Broken> {
        let tail = self.data.load(data::TAIL);
        // Pairs with (T) in the writer: the records before this tail are seen.
        self.data.fence(Fence::Acquire);
        if tail < self.tail
            || !tail.is_multiple_of(WORD_BYTES as u64)
            || tail - self.head.logical > self.limits.ring_bytes
        {
            return Err(Broken::Tail);
        }
        self.tail = tail;
        Ok(())
    }

    /// The file that it reads.
    pub fn data(&self) -> &D {
        &self.data
    }

    /// How far the sender had published when it was last looked at, in logical bytes.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// How far is acknowledged.
    pub fn head(&self) -> Position {
        self.head
    }

    /// The message at a position; `None` when it was not published at the last look.
    ///
    /// # Errors
    /// When what stands there is no record, or not one that can lie there.
    #[inline]
    pub fn record(&self, mut at: Position) -> Result<Option<Record>, Broken> {
        let begin = at.logical;
        loop {
            let rest = self.tail.saturating_sub(at.logical);
            if rest == 0 {
                // A jump is published with the record behind it. Alone it would be jumped again for ever.
                return if at.logical == begin { Ok(None) } else { Err(Broken::Record) };
            }
            match self.fixed(at, rest)? {
                // Each takes something off what is left, so this ends.
                Fixed::Jump(place) if place < self.limits.ring_bytes => {
                    at = Position { logical: at.logical + RECORD_BYTES, place, ..at };
                }
                Fixed::Jump(_) => return Err(Broken::Record),
                Fixed::Message(header) => return self.message(header, at, rest).map(Some),
            }
        }
    }

    /// What [`record`](Self::record) gives for nearly all, and short enough for a loop: a message that stands just there.
    /// `None` for everything else.
    #[inline]
    pub fn record_just_there(&self, at: Position) -> Option<Record> {
        let rest = self.tail.saturating_sub(at.logical);
        match self.fixed(at, rest) {
            Ok(Fixed::Message(header)) => self.message(header, at, rest).ok(),
            Ok(Fixed::Jump(_)) | Err(_) => None,
        }
    }

    /// A message that stands just there, has no header block, and begins with this word, as nearly all do that follow one
    /// another. `None` for everything else.
    // What is called here is inlined wherever this is: by memory, numbers that were stored one by one and are loaded
    // together have to wait until they are there.
    #[inline(always)]
    pub fn plain(&self, at: Position, first_word: u64) -> Option<Plain> {
        let rest = self.tail.saturating_sub(at.logical);
        let last = self.limits.ring_bytes.saturating_sub(RECORD_BYTES);
        if rest < RECORD_BYTES || at.place > last || !at.place.is_multiple_of(WORD_BYTES as u64) {
            return None;
        }
        let [first, sequence, stamp_ns, lengths] = self.data.load_four(word_of(at.place));
        let payload_bytes = u32::try_from(lengths).ok()?;
        let bytes = RECORD_BYTES + padded(payload_bytes);
        let fits = payload_bytes <= self.limits.message_max_bytes
            && bytes <= rest
            && at.place + bytes <= self.limits.ring_bytes;
        if first != first_word || !fits {
            return None;
        }
        let next =
            Position { logical: at.logical + bytes, place: at.place + bytes, messages: at.messages.wrapping_add(1) };
        Some(Plain { sequence, stamp_ns, payload_bytes, next })
    }

    /// Copies the payload of such a message out.
    #[inline(always)]
    pub fn copy_plain(&self, plain: &Plain, payload: &mut [u8]) {
        assert!(payload.len() <= plain.payload_bytes as usize);
        self.data.copy_out(word_of(plain.next.place - padded(plain.payload_bytes)), payload);
    }

    /// Fetches the first lines of what stands at a position, all at once: else its payload would be asked for when its
    /// header is here.
    #[inline]
    pub fn fetch(&self, at: Position) {
        // Where this receiver begins is not always of its own making.
        if at.place < self.limits.ring_bytes {
            let word = word_of(at.place);
            (0..LINES_FIRST).for_each(|line| self.data.will_load(word + line * LINE_WORDS));
        }
    }

    /// Fetches the lines of messages that stand from `next` on, where one of `record_bytes` has ended, if they are as long,
    /// and published.
    #[inline]
    pub fn fetch_ahead(&self, next: Position, record_bytes: u64) {
        if self.tail.saturating_sub(next.logical) >= AHEAD_BYTES + record_bytes {
            let (ahead, lines) = ahead_of(next.place, record_bytes);
            (0..lines).for_each(|line| self.data.will_load(ahead + line * LINE_WORDS));
        }
    }

    /// What stands at a position before `rest` bytes that are published.
    #[inline]
    fn fixed(&self, at: Position, rest: u64) -> Result<Fixed, Broken> {
        let last = self.limits.ring_bytes.saturating_sub(RECORD_BYTES);
        if rest < RECORD_BYTES || at.place > last || !at.place.is_multiple_of(WORD_BYTES as u64) {
            return Err(Broken::Record);
        }
        Fixed::decode(self.data.load_four(word_of(at.place))).map_err(|_| Broken::Record)
    }

    #[inline]
    fn message(&self, header: MessageHeader, at: Position, rest: u64) -> Result<Record, Broken> {
        let message_bytes = u64::from(header.payload_bytes) + u64::from(header.header_block_bytes);
        let bytes = header.record_bytes();
        if message_bytes > u64::from(self.limits.message_max_bytes)
            || bytes > rest
            || at.place + bytes > self.limits.ring_bytes
        {
            return Err(Broken::Record);
        }
        let next =
            Position { logical: at.logical + bytes, place: at.place + bytes, messages: at.messages.wrapping_add(1) };
        Ok(Record { header, next })
    }

    /// Copies the header block out.
    pub fn copy_header_block(&self, record: &Record, block: &mut [u8]) {
        assert!(block.len() <= record.header.header_block_bytes as usize);
        self.data.copy_out(word_of(record.place() + RECORD_BYTES), block);
    }

    /// Copies the payload out, or the first of it.
    #[inline]
    pub fn copy_payload(&self, record: &Record, payload: &mut [u8]) {
        assert!(payload.len() <= record.header.payload_bytes as usize);
        self.data.copy_out(word_of(record.payload_place()), payload);
    }

    /// The payload as words, to be read one after the other.
    pub fn payload(&self, record: &Record) -> Payload<'_, D> {
        let word = word_of(record.payload_place());
        Payload { data: &self.data, word, bytes: record.header.payload_bytes as usize, part: [0; 8], in_part: 0 }
    }

    /// Says that so many messages may have been handed out, before they are. `false` when the sender honours
    /// another receiver: then they are not to be handed out.
    pub fn claim(&mut self, messages: u64) -> bool {
        if messages > self.taken {
            self.taken = messages;
            // Pairs with (G) in the writer: the sender sees this, or it is seen to have turned.
            self.cursor.store_in_sight(cursor::TAKEN, messages);
        }
        self.is_honoured()
    }

    /// Says that no more than so many messages were handed out, and none will be any more: what was claimed beyond that
    /// nobody has seen.
    pub fn end_claim(&mut self, messages: u64) {
        if messages < self.taken {
            self.taken = messages;
            self.cursor.store(cursor::TAKEN, messages);
        }
    }

    /// Whether the sender says that everything which it sent before by its stream is acknowledged.
    pub fn stream_is_settled(&self) -> bool {
        self.data.load(data::SETTLED) == 1
    }

    /// How many messages the sender says to have published.
    pub fn published(&self) -> u64 {
        self.data.load(data::MESSAGES)
    }

    /// How many messages may have been handed out.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the sender honours this receiver, or has not heard of it yet.
    #[inline]
    pub fn is_honoured(&self) -> bool {
        self.data.load(data::GENERATION) <= self.generation
    }

    /// Whether others have gone on from where this receiver stands: another one reads, and what lay there may be
    /// written over, or the sender sends it by other ways.
    pub fn is_anothers(&self) -> bool {
        self.data.load(data::READER) > self.generation || self.data.load(data::GENERATION) == NOBODY
    }

    /// Whether the sender honours this receiver also now that something was read: if so, nobody has written over that.
    #[inline]
    pub fn is_still_honoured(&self) -> bool {
        // Pairs with (G) in the writer: whoever has read what was written after a turn sees the turn.
        self.data.fence(Fence::Acquire);
        self.is_honoured()
    }

    /// Says how often the head was given back.
    pub fn give_back(&mut self, times: u32) {
        self.cursor.store(cursor::GIVEN_BACK, u64::from(times) | self.head.messages << 32);
    }

    /// Says that what is acknowledged next its user has seen.
    #[inline]
    pub fn say_seen(&self) {
        self.cursor.store(cursor::ACKNOWLEDGES, 1);
    }

    /// Acknowledges everything before a position.
    #[inline]
    pub fn acknowledge(&mut self, through: Position) {
        self.head = through;
        // The slot that does not belong to the head that stands there: whoever finds this receiver dead finds
        // one of the two whole.
        let slot = (!self.cursor.load(cursor::HEAD) & 1) as usize;
        // (P) Whoever sees this slot change sees that the head had left it.
        self.cursor.fence(Fence::Release);
        self.cursor.store(cursor::SLOTS + 2 * slot, through.place);
        self.cursor.store(cursor::SLOTS + 2 * slot + 1, through.messages);
        // (H) Whoever sees the head sees its slot, and what was read before it is read.
        self.cursor.fence(Fence::Release);
        self.cursor.store(cursor::HEAD, through.logical | slot as u64);
    }

    /// Whether the sender waits for room, and nobody has rung for that yet. Without
    /// [`settle_looks`](Self::settle_looks) before it, a sender that begins to wait now may be missed.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        let epoch = self.data.load(data::WAITING);
        epoch != 0 && std::mem::replace(&mut self.rung, epoch) != epoch
    }

    /// Between a store and a look that must not miss whoever stores at the same time: pairs with (S) and (R)
    /// in the writer.
    #[inline]
    pub fn settle_looks(&self) {
        self.cursor.fence(Fence::Sequential);
    }

    /// Says that the receiver waits, and where. It looks once more, after [`settle_looks`](Self::settle_looks),
    /// before it sleeps.
    pub fn begin_wait(&mut self, at: SleepsAt) {
        self.waits += 1;
        self.cursor.store(cursor::WAITING, self.waits << 1 | u64::from(at == SleepsAt::Word));
    }

    /// What stands where the sender wakes this receiver, for it to sleep on; `None` when it is woken already.
    pub fn unwoken(&self) -> Option<u64> {
        let woken = self.data.load(data::WOKEN);
        (woken != (self.waits << 1 | 1)).then_some(woken)
    }

    /// Whether the sender ran on this processor when it woke this receiver last.
    pub fn was_woken_from(&self, processor: usize) -> bool {
        self.data.load(data::WOKEN_FROM) == processor as u64 + 1
    }

    /// It does not wait any more.
    pub fn end_wait(&mut self) {
        self.cursor.store(cursor::WAITING, 0);
    }
}

impl Record {
    /// Where it begins, in the ring.
    fn place(&self) -> u64 {
        self.next.place - self.header.record_bytes()
    }

    /// Where its payload begins, in the ring.
    pub(in crate::lane) fn payload_place(&self) -> u64 {
        self.next.place - padded(self.header.payload_bytes)
    }
}

/// How many lines of a message are fetched as soon as it is there: a record of 64 bytes lies in two or three.
const LINES_FIRST: usize = 3;

#[inline]
fn word_of(place: u64) -> usize {
    (PAGE_BYTES + place as usize) / WORD_BYTES
}

/// The payload of a message, read once from its first byte to its last.
#[derive(Debug)]
pub struct Payload<'a, D> {
    data: &'a D,
    word: usize,
    bytes: usize,
    /// A word of which a part was read.
    part: [u8; 8],
    in_part: usize,
}

impl<D: Memory> std::io::Read for Payload<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(self.bytes);
        let (buffer, mut done) = (&mut buffer[..wanted], 0);
        while done < wanted {
            if self.in_part > 0 {
                let count = self.in_part.min(wanted - done);
                let from = WORD_BYTES - self.in_part;
                buffer[done..done + count].copy_from_slice(&self.part[from..from + count]);
                (self.in_part, done) = (self.in_part - count, done + count);
                continue;
            }
            let whole = (wanted - done) / WORD_BYTES;
            if whole > 0 {
                self.data.copy_out(self.word, &mut buffer[done..done + whole * WORD_BYTES]);
                (self.word, done) = (self.word + whole, done + whole * WORD_BYTES);
            } else {
                self.part = self.data.load(self.word).to_ne_bytes();
                (self.word, self.in_part) = (self.word + 1, WORD_BYTES);
            }
        }
        self.bytes -= wanted;
        Ok(wanted)
    }
}
