//! [`Writer`]: the sender's end of a ring.

use super::ahead::{LINE_WORDS, ahead_of};
use super::marks::Marks;
use super::places::{Growth, Places, Reserved, Room};
use super::{Broken, Limits, Position, Reader, SleepsAt, Start};
use crate::lane::layout::{Fixed, MessageHeader, PAGE_BYTES, RECORD_BYTES, WORD_BYTES, cursor, data};
use crate::lane::memory::{Fence, Memory, Nothing};

/// The sender's end. What it writes is visible once it is [published](Self::publish).
#[derive(Debug)]
pub struct Writer<D, C> {
    data: D,
    cursor: C,
    places: Places,
    /// Messages written, published or not.
    messages: u64,
    /// Messages that the receiver had acknowledged when it was last looked at.
    acknowledged: u64,
    /// How far it had, in logical bytes: the end of a record that was written here, whatever it says.
    head: u64,
    marks: Marks,
    /// Some receiver's user has acknowledged something.
    seen: bool,
    /// Where the present receiver began.
    start: Start,
    window_messages: u64,
    /// The epoch that was last rung for.
    rung: u64,
    waits: u64,
}

/// How large a ring is, and how much may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How much of it is used at first, in bytes.
    pub first_bytes: u64,
    /// How long it is, in bytes.
    pub ring_bytes: u64,
    /// How many messages may be unacknowledged.
    pub window_messages: u64,
}

/// What of the head is no position: positions are whole words.
const SLOT_BITS: u64 = 7;

/// Why a message is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWritten {
    /// The window is used up, in bytes or in messages.
    Full,
    /// The ring is full as long as it is, and [is not to grow](Growth::Withheld).
    Short,
    /// It is larger than the ring.
    TooLarge,
    /// The receiver has written what no receiver writes.
    Broken(Broken),
}

impl<D: Memory, C: Memory> Writer<D, C> {
    /// Begins to write to an empty ring.
    pub fn new(data: D, cursor: C, bounds: Bounds) -> Self {
        assert!(data.words() * WORD_BYTES >= PAGE_BYTES + bounds.ring_bytes as usize, "the ring is in its file");
        Self {
            data,
            cursor,
            places: Places::new(bounds.first_bytes, bounds.ring_bytes),
            messages: 0,
            acknowledged: 0,
            head: 0,
            marks: Marks::new(bounds.ring_bytes),
            seen: false,
            start: Start::default(),
            window_messages: bounds.window_messages,
            rung: 0,
            waits: 0,
        }
    }

    /// Goes on where another that was sent for years has come to, with nothing in the ring.
    #[cfg(test)]
    pub(super) fn begin_at(&mut self, start: Start) {
        self.places.begin_at(start.logical, start.place);
        (self.messages, self.acknowledged, self.head, self.start) =
            (start.messages, start.messages, start.logical, start);
        self.marks.begin_at(start.logical);
        self.show_believed(start.place);
        self.publish();
    }

    /// Writes one message. Nobody sees it before it is published.
    ///
    /// # Errors
    /// See [`NotWritten`]; nothing was written then.
    #[inline]
    pub fn write(&mut self, header: &MessageHeader, header_block: &[u8], payload: &[u8]) -> Result<(), NotWritten> {
        debug_assert_eq!(header.payload_bytes as usize, payload.len());
        debug_assert_eq!(header.header_block_bytes as usize, header_block.len());
        let at = self.reserve(header.record_bytes())?;
        if !header_block.is_empty() {
            self.data.copy_in(at + RECORD_BYTES as usize / WORD_BYTES, header_block);
        }
        self.data.copy_in(at + header.payload_at() as usize / WORD_BYTES, payload);
        self.commit(header);
        Ok(())
    }

    /// Whether there is room for a record of so many bytes where the last one ended.
    #[inline]
    pub fn fits(&self, record_bytes: u64) -> bool {
        self.places.fits(record_bytes) && !self.window_is_used_up()
    }

    /// Finds room for a record of so many bytes. Returns its word.
    #[inline]
    pub fn reserve(&mut self, record_bytes: u64) -> Result<usize, NotWritten> {
        if !self.fits(record_bytes) {
            self.make_room(record_bytes)?;
        }
        Ok((PAGE_BYTES + self.places.place() as usize) / WORD_BYTES)
    }

    /// Ends a record whose content lies where it was [reserved](Self::reserve).
    #[inline]
    pub fn commit(&mut self, header: &MessageHeader) {
        self.put(&Fixed::Message(*header));
        self.places.wrote(header.record_bytes());
        self.fetch_ahead(header.record_bytes());
        self.messages += 1;
        self.marks.note(self.places.tail(), self.messages);
    }

    /// Fetches the lines in which messages will lie that come later, if they are as long as this one.
    #[inline]
    fn fetch_ahead(&self, record_bytes: u64) {
        let (ahead, lines) = ahead_of(self.places.place(), record_bytes);
        (0..lines).for_each(|line| self.data.will_store(ahead + line * LINE_WORDS));
    }

    #[inline]
    fn put(&self, fixed: &Fixed) {
        let at = (PAGE_BYTES + self.places.place() as usize) / WORD_BYTES;
        for (index, word) in fixed.encode().into_iter().enumerate() {
            self.data.store(at + index, word);
        }
    }

    #[cold]
    fn make_room(&mut self, record_bytes: u64) -> Result<(), NotWritten> {
        self.look()?;
        if self.window_is_used_up() {
            return Err(NotWritten::Full);
        }
        match self.places.find(self.head, record_bytes) {
            Room::Here => Ok(()),
            Room::At(place) => {
                self.put(&Fixed::Jump(place));
                self.places.jumped(place, record_bytes);
                Ok(())
            }
            // Also what the other end has not seen yet is in the way.
            Room::None => Err(self.no_room()),
        }
    }

    fn no_room(&self) -> NotWritten {
        let is_empty = self.head == self.places.tail() && self.places.reserved() == 0;
        match is_empty {
            _ if self.places.is_held_short() => NotWritten::Short,
            true => NotWritten::TooLarge,
            false => NotWritten::Full,
        }
    }

    /// What is to become of the ring from now on when it is full.
    #[inline]
    pub fn set_growth(&mut self, growth: Growth) {
        self.places.set_growth(growth);
    }

    #[inline]
    fn window_is_used_up(&self) -> bool {
        self.messages + self.places.reserved() as u64 - self.acknowledged >= self.window_messages
    }

    /// Finds room for a record that is written before it is sent. Others may be sent meanwhile.
    ///
    /// # Errors
    /// See [`NotWritten`]; nothing is reserved then.
    pub(super) fn reserve_apart(&mut self, record_bytes: u64) -> Result<Reserved, NotWritten> {
        if !self.window_is_used_up()
            && let Some(reserved) = self.places.reserve_here(record_bytes)
        {
            return Ok(reserved);
        }
        self.look()?;
        if self.window_is_used_up() {
            return Err(NotWritten::Full);
        }
        self.places.reserve(self.head, record_bytes).ok_or_else(|| self.no_room())
    }

    /// Ends a record whose content lies in a place of its own: it comes behind all that was written until now.
    pub(super) fn commit_apart(&mut self, reserved: Reserved, header: &MessageHeader) {
        assert_eq!(reserved.bytes(), header.record_bytes(), "the record is as long as its place");
        self.put(&Fixed::Jump(reserved.place()));
        self.places.jumped_to(reserved);
        self.commit(header);
    }

    /// Gives a place back in which nothing was sent.
    pub(super) fn release_apart(&mut self, reserved: Reserved) {
        self.places.release(reserved);
    }

    /// Messages that have a place, and are not sent.
    pub fn reserved(&self) -> u64 {
        self.places.reserved() as u64
    }

    /// Whether the sender has said that it waits.
    pub fn waits(&self) -> bool {
        self.data.load(data::WAITING) != 0
    }

    /// Looks how far the receiver has acknowledged.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn look(&mut self) -> Result<(), NotWritten> {
        let seen = self.cursor_now();
        if self.cursor.is_revoked() {
            // The next one begins where it stood when it lost its place, and needs what it lets go of since.
            return Ok(());
        }
        let Some((head, messages)) = seen? else { return Ok(()) };
        self.believe(head, messages);
        self.note_seen();
        Ok(())
    }

    fn believe(&mut self, head: u64, messages: u64) {
        if head == self.head {
            return;
        }
        (self.head, self.acknowledged) = (head, messages);
        self.marks.forget(head);
        self.show_believed(self.place_of(head));
    }

    /// Says how far the receiver is believed, so that others can tell whether it lied once it is gone: from there on they
    /// find this end's records.
    fn show_believed(&self, place: u64) {
        let slot = (!self.data.load(data::BELIEVED) & 1) as usize;
        // As a receiver does with its cursor, (P) and (H).
        self.data.fence(Fence::Release);
        self.data.store(data::BELIEVED + 1 + 2 * slot, place);
        self.data.store(data::BELIEVED + 2 + 2 * slot, self.acknowledged);
        self.data.fence(Fence::Release);
        self.data.store(data::BELIEVED, self.head | slot as u64);
        // (B) Whoever sees what is written over this end's records sees that they were given away.
        self.data.fence(Fence::Release);
    }

    fn place_of(&self, logical: u64) -> u64 {
        self.places.place_of(logical).unwrap_or_else(|| self.places.place())
    }

    /// How far the receiver has acknowledged, in logical bytes and in messages; `None` before it has begun.
    ///
    /// A payload may look like records and the receiver may point into it: so no head is believed, and what lies before
    /// it given away, but where a record ends that this end has written. It walks over those from the last mark before it,
    /// or from the head that was believed last: from there on all is intact, and nobody else can write there. So nothing
    /// is lost behind the last true head, and a lie costs a short walk, and duplicates.
    fn cursor_now(&self) -> Result<Option<(u64, u64)>, NotWritten> {
        let word = self.cursor.load(cursor::HEAD);
        if word == 0 && self.head == self.start.logical {
            return Ok(None);
        }
        // Pairs with (H) in the reader: what the slot says belongs to this head, or to a later one.
        self.cursor.fence(Fence::Acquire);
        let (logical, slot) = (word & !SLOT_BITS, (word & 1) as usize);
        let said = self.cursor.load(cursor::SLOTS + 2 * slot + 1);
        let messages = if word & SLOT_BITS > 1 { None } else { self.messages_before(logical) };
        match messages {
            // One that works meanwhile may have used the slot again, for a later head.
            Some(messages) if (messages..=self.messages).contains(&said) => Ok(Some((logical, messages))),
            _ => Err(NotWritten::Broken(Broken::Head)),
        }
    }

    /// How many messages lie before a position; `None` when no record of this end, that is not written over, ends there.
    fn messages_before(&self, logical: u64) -> Option<u64> {
        if logical == self.head {
            return Some(self.acknowledged);
        }
        if !(self.head..=self.places.tail()).contains(&logical) {
            return None;
        }
        let (from, messages) = self.marks.before(logical).unwrap_or((self.head, self.acknowledged));
        let start = Start { logical: from, place: self.places.place_of(from)?, messages, taken: messages };
        let limits = Limits { ring_bytes: self.places.end(), message_max_bytes: u32::MAX };
        let mut reader = Reader::new(&self.data, Nothing, limits, u64::MAX, start);
        reader.look().ok()?;
        let mut at: Position = reader.head();
        while at.logical < logical {
            at = reader.record(at).ok()??.next;
        }
        (at.logical == logical).then_some(at.messages)
    }

    /// Where the receiver stands, for the next one: where it is believed to. Of what it says else only what it may have
    /// been handed is taken.
    fn start_of_next(&self) -> Start {
        let seen = self.cursor_now();
        let taken = || self.cursor.load(cursor::TAKEN).max(self.start.taken);
        let believed = (self.head, self.acknowledged);
        let ((logical, messages), taken) = match seen {
            // What it was believed last. It may have been handed more, and has said so before.
            _ if self.cursor.is_revoked() => (believed, taken()),
            Ok(None) => return self.start,
            Ok(Some(seen)) => (seen, taken()),
            // It may have been handed everything.
            Err(_) => (believed, self.messages),
        };
        Start { logical, place: self.place_of(logical), messages, taken: taken.clamp(messages, self.messages) }
    }

    /// Makes everything that was written visible.
    ///
    /// After this, and only after it, [`must_wake`](Self::must_wake) says whether the receiver sleeps.
    #[inline]
    pub fn publish(&mut self) {
        self.data.store(data::MESSAGES, self.messages);
        // (T) Whoever sees the tail sees the records before it.
        self.data.fence(Fence::Release);
        // (S) The receiver sees this, or it is seen to wait; and whoever publishes later in another lane is
        // seen by nobody who does not see this.
        self.data.store_in_sight(data::TAIL, self.places.tail());
    }

    /// Where the receiver sleeps, if nobody has woken it yet. To be asked after something was published.
    #[inline]
    pub fn must_wake(&mut self) -> Option<SleepsAt> {
        let waiting = self.cursor.load(cursor::WAITING);
        if waiting == 0 || std::mem::replace(&mut self.rung, waiting) == waiting {
            return None;
        }
        if waiting & 1 == 0 {
            return Some(SleepsAt::Bell);
        }
        // It may not be asleep yet: then it finds this, and does not sleep.
        self.data.store(data::WOKEN, waiting);
        Some(SleepsAt::Word)
    }

    /// Says on which processor the sender runs that is about to wake its receiver.
    pub fn wakes_from(&self, processor: usize) {
        self.data.store(data::WOKEN_FROM, processor as u64 + 1);
    }

    /// Says since when the sender waits, to whoever asks while it does: in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn waits_since(&self, now_ns: u64) {
        self.data.store(data::WAITS_SINCE, now_ns);
    }

    /// Says that the sender waits for room. It looks once more before it sleeps.
    pub fn begin_wait(&mut self) {
        self.waits += 1;
        self.data.store(data::WAITING, self.waits);
        // (R) The receiver sees this, or its acknowledgement is seen.
        self.data.fence(Fence::Sequential);
    }

    /// It does not wait any more.
    pub fn end_wait(&mut self) {
        self.data.store(data::WAITING, 0);
    }

    /// Turns to the cursor of another receiver. Returns where the earlier one stood, after which it takes
    /// nothing more; of one that has scribbled, where it was believed last, and that it may have been handed
    /// everything.
    pub fn turn(&mut self, cursor: C, generation: u64) -> Start {
        self.data.store(data::GENERATION, generation);
        // (G) The earlier receiver sees this before it hands out what it takes from now on, or what it took is
        // seen here.
        self.data.fence(Fence::Sequential);
        let start = self.start_of_next();
        self.note_seen();
        self.believe(start.logical, start.messages);
        (self.cursor, self.start, self.rung) = (cursor, start, 0);
        if self.cursor.words() > 0 {
            // Before anything is written over that this one has let go of: until then the receiver before it has the
            // lane to itself, should all others die.
            self.data.store(data::READER, generation);
        }
        start
    }

    /// Says that everything which the sender sent before by its stream is acknowledged.
    pub fn settle_stream(&self) {
        self.data.store(data::SETTLED, 1);
    }

    /// Messages written.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Messages that were acknowledged when it was last looked at.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether some receiver's user has acknowledged something, and not only passed over it.
    pub fn was_seen(&self) -> bool {
        self.seen
    }

    fn note_seen(&mut self) {
        self.seen |= !self.cursor.is_revoked() && self.cursor.load(cursor::ACKNOWLEDGES) == 1;
    }

    /// The memory it writes to.
    pub fn data(&self) -> &D {
        &self.data
    }
}
