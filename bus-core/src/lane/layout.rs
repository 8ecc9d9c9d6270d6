//! How a lane lies in memory: two files, each with one writer.
//!
//! ```text
//!   data: written by the sender only                 cursor: written by one receiver only
//!
//!   byte  0 +-----------------------------+          byte  0 +-----------------------------+
//!           | tail         logical, bytes |                  | head    logical, bytes, and |
//!           | messages     published      |                  |         the slot in bit 0   |
//!       128 +-----------------------------+                  | slot 0  place, messages     |
//!           | generation   of the cursor  |                  | slot 1  place, messages     |
//!           |   that the sender honours   |              128 +-----------------------------+
//!           | settled      its stream, 1  |                  | taken        messages       |
//!           | reader       the last one   |                  | given back   of the head    |
//!       256 +-----------------------------+                  | acknowledges 1              |
//!           | waiting      epoch, 0 awake |              256 +-----------------------------+
//!           |   since      clock          |                  | waiting      epoch, 0 awake |
//!           | woken        epoch          |              384 +-----------------------------+
//!           |   from       processor, + 1 |                  |                             |
//!       384 +-----------------------------+                  |                             |
//!           | believed     as a cursor:   |                  |                             |
//!           |   head, slot 0, slot 1      |                  |                             |
//!       512 +-----------------------------+                  |                             |
//!           | nothing                     |                  |                             |
//!      4096 +-----------------------------+                  | nothing                     |
//!           | ring: record, record, jump, |             4096 +-----------------------------+
//!           | record ... to the soft end, |
//!           | which moves                 |
//!           +-----------------------------+
//! ```
//!
//! A **logical** position counts every byte that was ever published, and never falls; a **place** is where
//! that byte lies in the ring. The two part at a *jump*: a record without content that names the place of
//! the next one. So a ring wraps, and grows, without its receiver knowing a rule for either.
//!
//! A record is laid out as a frame of the wire, with two differences: its time is a stamp of
//! `CLOCK_MONOTONIC`, and the header block is padded so that the payload begins at a word.
//!
//! ```text
//!   byte  0      1      2      3      4      5      6      7
//!       +------+------+------+------+------+------+-------------+
//!     0 | magic 'b''U'| vers | kind | flags| codec| reserved 0  |
//!       +------+------+------+------+------+------+-------------+
//!     8 | sequence of its sender; in a jump, the place to go to |
//!       +-------------------------------------------------------+
//!    16 | stamp                                                 |
//!       +---------------------------+---------------------------+
//!    24 | payload length, u32       | header-block length, u32  |
//!       +---------------------------+---------------------------+
//!    32 | header block, padded to 8 | payload, padded to 8      |
//!       +---------------------------+---------------------------+
//! ```
//!
//! Both processes run on one machine, so words are in its own byte order.

use crate::codec::Codec;
use crate::limits::HEADER_BLOCK_MAX_BYTES;
use crate::wire::{FRAME_MAGIC, Flags, HEADER_BYTES, PROTOCOL};

/// What the memory is counted in, in bytes.
pub const WORD_BYTES: usize = 8;

/// What of a file lies before the ring, in bytes; a cursor is no longer.
pub const PAGE_BYTES: usize = 4096;

/// How long the fixed part of a record is, in bytes.
pub const RECORD_BYTES: u64 = HEADER_BYTES as u64;

/// Words of the data file.
pub mod data {
    /// How far the sender has published, in logical bytes.
    pub const TAIL: usize = 0;
    /// How many messages it has published. Written before the tail: one ahead of it at most.
    pub const MESSAGES: usize = 1;
    /// Which cursor the sender honours.
    pub const GENERATION: usize = 16;
    /// Whether everything that the sender sent before on its stream is acknowledged: 1, and never 0 again.
    pub const SETTLED: usize = 17;
    /// The last receiver whose cursor the sender has honoured: what that lets go of is written over.
    pub const READER: usize = 18;
    /// Where the sender waits: see [`doorbell`](super::super::doorbell).
    pub const WAITING: usize = 32;
    /// Since when, while it does, in nanoseconds of `CLOCK_MONOTONIC`.
    pub const WAITS_SINCE: usize = 33;
    /// Which wait of its receiver the sender has ended last, as the [cursor](super::cursor::WAITING) has it: what that
    /// sleeps on.
    pub const WOKEN: usize = 34;
    /// On which processor the sender ran then, and 1; 0 before that.
    pub const WOKEN_FROM: usize = 35;
    /// How far the sender has believed its receivers, as a [cursor](super::cursor::HEAD) has it, and its slots behind that: a
    /// record of it ends there, and what lies before may be written over.
    pub const BELIEVED: usize = 48;
}

/// The generation of no receiver at all: what is in the lane its sender sends by other ways.
pub const NOBODY: u64 = u64::MAX;

/// Words of a cursor.
pub mod cursor {
    /// How far the receiver has acknowledged, in logical bytes; bit 0 names the slot that belongs to it.
    pub const HEAD: usize = 0;
    /// Two slots of two words: the place of the head, and how many messages lie before it.
    pub const SLOTS: usize = 1;
    /// How many messages may have been handed out.
    pub const TAKEN: usize = 16;
    /// How often the head was given back (low half), and which message that is (high half).
    pub const GIVEN_BACK: usize = 17;
    /// Whether its user has acknowledged something: 1, and never 0 again. The head also passes what is skipped, and begins
    /// where the daemon stood in for a receiver.
    pub const ACKNOWLEDGES: usize = 18;
    /// Where the receiver waits: twice the epoch, and 1 if it sleeps on [what wakes it](super::data::WOKEN).
    pub const WAITING: usize = 32;
}

/// What stands at a position of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// A message.
    Message(MessageHeader),
    /// The next record lies at this place.
    Jump(u64),
}

/// The fixed part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// See [`Flags`].
    pub flags: Flags,
    /// How the payload is encoded.
    pub codec: Codec,
    /// The place among the messages of its sender.
    pub sequence: u64,
    /// When it was sent, in nanoseconds of `CLOCK_MONOTONIC`.
    pub stamp_ns: u64,
    /// Length of the payload, in bytes.
    pub payload_bytes: u32,
    /// Length of the header block, in bytes.
    pub header_block_bytes: u32,
}

const MESSAGE: u8 = 2;
const JUMP: u8 = 64;

impl Fixed {
    /// As words.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u64; 4] {
        match self {
            Self::Message(message) => {
                let lengths = u64::from(message.payload_bytes) | u64::from(message.header_block_bytes) << 32;
                [message.first_word(), message.sequence, message.stamp_ns, lengths]
            }
            Self::Jump(place) => [first_word(JUMP, 0, 0), *place, 0, 0],
        }
    }

    /// Reads words that another process wrote.
    ///
    /// # Errors
    /// When they are no record.
    #[inline]
    pub fn decode(words: [u64; 4]) -> Result<Self, Malformed> {
        let [first, second, stamp_ns, lengths] = words;
        let [m0, m1, version, kind, flags, codec, r0, r1] = first.to_le_bytes();
        if [m0, m1] != FRAME_MAGIC || version != PROTOCOL || [r0, r1] != [0, 0] {
            return Err(Malformed::Start);
        }
        match kind {
            MESSAGE => {
                let header = MessageHeader {
                    flags: Flags(flags),
                    codec: Codec::from_id(codec).ok_or(Malformed::Start)?,
                    sequence: second,
                    stamp_ns,
                    payload_bytes: lengths as u32,
                    header_block_bytes: (lengths >> 32) as u32,
                };
                if header.header_block_bytes > HEADER_BLOCK_MAX_BYTES {
                    return Err(Malformed::Length);
                }
                Ok(Self::Message(header))
            }
            JUMP => Ok(Self::Jump(second)),
            _ => Err(Malformed::Start),
        }
    }
}

impl MessageHeader {
    /// How long the whole record is, in bytes.
    #[must_use]
    #[inline]
    pub fn record_bytes(&self) -> u64 {
        RECORD_BYTES + padded(self.header_block_bytes) + padded(self.payload_bytes)
    }

    /// How its record begins: as those of all messages with the same flags and codec.
    #[must_use]
    #[inline]
    pub fn first_word(&self) -> u64 {
        first_word(MESSAGE, self.flags.0, self.codec.id())
    }

    /// Where its payload begins, in bytes from the start of the record.
    #[must_use]
    #[inline]
    pub fn payload_at(&self) -> u64 {
        RECORD_BYTES + padded(self.header_block_bytes)
    }
}

/// Words that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It does not begin as one.
    Start,
    /// A length is over its limit.
    Length,
}

fn first_word(kind: u8, flags: u8, codec: u8) -> u64 {
    u64::from_le_bytes([FRAME_MAGIC[0], FRAME_MAGIC[1], PROTOCOL, kind, flags, codec, 0, 0])
}

/// A length with its padding, in bytes.
#[must_use]
#[inline]
pub fn padded(bytes: u32) -> u64 {
    u64::from(bytes).next_multiple_of(WORD_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> MessageHeader {
        MessageHeader {
            flags: Flags(Flags::REDELIVERED),
            codec: Codec::Json,
            sequence: 7,
            stamp_ns: 9,
            payload_bytes: 65,
            header_block_bytes: 3,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for fixed in [Fixed::Message(header()), Fixed::Jump(4096)] {
            assert_eq!(Fixed::decode(fixed.encode()), Ok(fixed));
        }
        assert_eq!((header().payload_at(), header().record_bytes()), (40, 112));
    }

    #[test]
    fn it_begins_as_a_frame_of_the_wire_does() {
        let frame = crate::wire::FrameHeader {
            kind: crate::wire::Kind::Data,
            flags: Flags(Flags::REDELIVERED),
            codec: Codec::Json,
            sequence: 7,
            sent_at_ns: 9,
            body_bytes: 65,
            header_block_bytes: 3,
        };
        let words = Fixed::Message(header()).encode();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes, frame.encode());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = Fixed::Message(header()).encode();
        for (word, xor) in [(0, 1), (0, 1 << 16), (0, 1 << 30), (0, 0xff << 40), (0, 1 << 60)] {
            let mut bad = good;
            bad[word] ^= xor;
            assert!(Fixed::decode(bad).is_err(), "word {word} ^ {xor:x}");
        }
        let mut long = good;
        long[3] |= 0xffff_ffff << 32;
        assert_eq!(Fixed::decode(long), Err(Malformed::Length));
    }
}
