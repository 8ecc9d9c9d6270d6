//! A ring of records with one writer and one reader in two processes: atomics, fences and numbers.
//!
//! The sender writes a record, then its tail; the receiver reads up to the tail, then writes its head. Each
//! keeps its own index to itself and loads the other's once, and checks it before use. Neither ever waits
//! here: who has nothing to do says so in its own memory ([`Writer::begin_wait`], [`Reader::begin_wait`]),
//! looks once more, and sleeps; the other wakes it when it finds an epoch that is new to it.

mod ahead;
mod marks;
mod places;
mod reader;
mod slot;
mod writer;

#[cfg(test)]
mod high;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use super::layout::{cursor, data};
use super::memory::{Fence, Memory, Nothing};

pub use self::places::Growth;
pub use self::reader::{Limits, Payload, Plain, Position, Reader, Record};
pub use self::slot::Slot;
pub use self::writer::{Bounds, NotWritten, Writer};

/// Where a receiver sleeps, and by what it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepsAt {
    /// At its [doorbell](super::doorbell).
    Bell,
    /// On a word of each lane: see [`sleep`](super::sleep).
    Word,
}

/// Where a receiver begins: where the last one ended, as far as the sender has honoured that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Bytes before it, since the lane began.
    pub logical: u64,
    /// Where in the ring.
    pub place: u64,
    /// Messages before it.
    pub messages: u64,
    /// Messages before this one may have been handed out.
    pub taken: u64,
}

/// What a receiver that is gone has left in its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRest {
    /// How far it had acknowledged; `None` when it had not begun.
    pub start: Option<Start>,
    /// How many messages it may have handed out.
    pub taken: u64,
    /// How often it gave the head back.
    pub given_back: u32,
}

/// Walks over the messages of a lane from `start` on, without taking them, as long as `each` says so. Returns the
/// position behind the last of which it did.
///
/// # Errors
/// When the sender has written what no sender writes.
pub fn walk<D: Memory>(
    data: &D,
    limits: Limits,
    start: Start,
    mut each: impl FnMut(&Reader<&D, Nothing>, &Record) -> bool,
) -> Result<Start, Broken> {
    let mut reader = Reader::new(data, Nothing, limits, u64::MAX, start);
    reader.look()?;
    let mut at = reader.head();
    while let Some(record) = reader.record(at)?.filter(|record| each(&reader, record)) {
        at = record.next;
    }
    Ok(Start { logical: at.logical, place: at.place, messages: at.messages, taken: at.messages })
}

/// Writes a cursor that says that a receiver stands at `start`, which it may have been handed nothing beyond.
pub fn write_cursor(cursor: &impl Memory, start: Start) {
    // As a receiver of a ring in which nothing was published yet would.
    let limits = Limits { ring_bytes: 0, message_max_bytes: 0 };
    let mut reader = Reader::new(&NoRing, cursor, limits, 0, start);
    reader.claim(start.taken);
}

/// A ring of no length.
struct NoRing;

impl Memory for NoRing {
    fn words(&self) -> usize {
        super::layout::PAGE_BYTES / super::layout::WORD_BYTES
    }

    fn load(&self, _: usize) -> u64 {
        0
    }

    fn store(&self, _: usize, _: u64) {}

    fn fence(&self, _: Fence) {}
}

/// Reads a cursor whose receiver takes nothing more: because it is gone, or because its sender has turned. What
/// it says need not be true.
pub fn at_rest(memory: &impl Memory) -> AtRest {
    let mut head = memory.load(cursor::HEAD);
    // One that has only lost its sender may acknowledge what it had taken, and stops after that.
    for _ in 0..LOOKS_MAX {
        let read = read_at(memory, head);
        memory.fence(Fence::Acquire);
        match memory.load(cursor::HEAD) {
            again if again == head => return read,
            moved => head = moved,
        }
    }
    read_at(memory, head)
}

/// How far the sender of a lane has believed its receivers; `None` while that moves all the time.
pub fn believed(data: &impl Memory) -> Option<Start> {
    let mut head = data.load(data::BELIEVED);
    for _ in 0..BELIEVED_LOOKS_MAX {
        data.fence(Fence::Acquire);
        let slot = data::BELIEVED + 1 + 2 * (head & 1) as usize;
        let (place, messages) = (data.load(slot), data.load(slot + 1));
        data.fence(Fence::Acquire);
        match data.load(data::BELIEVED) {
            again if again == head => return Some(Start { logical: head & !7, place, messages, taken: messages }),
            moved => head = moved,
        }
    }
    None
}

/// The end of a record of the sender where its receiver has come to, as that says, by what the sender wrote from where it
/// has believed its receivers on; `None` where no record ends, and with its own place and count. What no sender writes is
/// no lie of the receiver: whoever reads it finds out.
pub fn record_end<D: Memory>(data: &D, limits: Limits, said: Start) -> Option<Start> {
    for _ in 0..WALKS_MAX {
        let from = believed(data)?;
        if from.logical >= said.logical {
            return (from.logical == said.logical).then_some(from);
        }
        let end = walk(data, limits, from, |_, record| record.next.logical <= said.logical);
        // Pairs with (B) in the writer: if this still stands, nothing that was walked over was written over before.
        data.fence(Fence::Acquire);
        if believed(data) == Some(from) {
            return end.map_or(Some(said), |end| (end.logical == said.logical).then_some(end));
        }
    }
    None
}

/// How often what a sender believes is looked at while that moves.
const BELIEVED_LOOKS_MAX: u32 = 100;

/// How often is walked from there, which may be far: of a receiver that takes nothing more it moves once.
const WALKS_MAX: u32 = 3;

/// How often a head that moves is looked at, before it is taken as it is.
const LOOKS_MAX: u32 = 10_000;

fn read_at(memory: &impl Memory, head: u64) -> AtRest {
    memory.fence(Fence::Acquire);
    let slot = (head & 1) as usize;
    let messages = memory.load(cursor::SLOTS + 2 * slot + 1);
    let taken = memory.load(cursor::TAKEN).max(messages);
    let start = Start { logical: head & !7, place: memory.load(cursor::SLOTS + 2 * slot), messages, taken };
    // Said of another message, it is nothing.
    let given_back = memory.load(cursor::GIVEN_BACK);
    let given_back = if given_back >> 32 == messages & 0xffff_ffff { given_back as u32 } else { 0 };
    AtRest { start: (head != 0).then_some(start), taken, given_back }
}

/// How many messages a lane has seen, as both its ends say at this moment: for books, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Published.
    pub published: u64,
    /// That may have been handed out.
    pub taken: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Bytes in the ring that are not acknowledged, those between messages included.
    pub bytes: u64,
    /// Bytes published, those between messages included.
    pub published_bytes: u64,
    /// Since when its sender waits for room, in nanoseconds of `CLOCK_MONOTONIC`; 0 when it does not.
    pub waits_since_ns: u64,
}

/// How many messages a lane is believed to have seen at most: as many as nobody sends in ten years, and so few
/// that what is added up of lanes stays a number.
const MESSAGES_MAX: u64 = 1 << 52;

/// How many bytes a lane is believed to hold at most: the longest ring is far shorter.
const BYTES_MAX: u64 = 1 << 40;

/// How many bytes a lane is believed to have seen at most, for the same reasons.
const PUBLISHED_BYTES_MAX: u64 = 1 << 58;

/// Reads the counts of a lane from the first pages of its files.
pub fn counts(data: &impl Memory, cursor: Option<&impl Memory>) -> Counts {
    let head = cursor.map(|cursor| {
        let head = cursor.load(cursor::HEAD);
        let slot = (head & 1) as usize;
        (cursor.load(cursor::SLOTS + 2 * slot + 1), cursor.load(cursor::TAKEN), head & !7)
    });
    let waits_since_ns = if data.load(data::WAITING) == 0 { 0 } else { data.load(data::WAITS_SINCE) };
    let tail = data.load(data::TAIL);
    let bytes = tail.saturating_sub(head.map_or(0, |(_, _, logical)| logical)).min(BYTES_MAX);
    // Last, and never less than what was seen to come of it.
    let published = data.load(data::MESSAGES).min(MESSAGES_MAX);
    let (acknowledged, taken, _) = head.unwrap_or_default();
    let acknowledged = acknowledged.min(published);
    let taken = taken.clamp(acknowledged, published);
    Counts { published, taken, acknowledged, bytes, published_bytes: tail.min(PUBLISHED_BYTES_MAX), waits_since_ns }
}

/// What the peer wrote cannot be: the lane is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The sender's index.
    #[error("its sender has written an impossible tail")]
    Tail,
    /// A record.
    #[error("its sender has written what is no record")]
    Record,
    /// The receiver's index.
    #[error("its receiver has written an impossible head")]
    Head,
}
