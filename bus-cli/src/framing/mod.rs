//! How messages stand one after the other in a stream of bytes: [`FrameReader`] takes them out of
//! what `publish` reads, [`FrameWriter`] puts them into what `consume` writes.
//!
//! Neither looks into a message. `--jsonl` is a framing by lines whose lines are read and written
//! by [`crate::jsonl`].

mod reader;
mod writer;

pub(crate) use reader::{FrameReader, ReadError};
pub(crate) use writer::FrameWriter;

/// What separates messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The bytes stand between messages; the last message may do without.
    Delimited(Vec<u8>),
    /// A length before each message: 32 bits, little endian.
    Length32,
    /// Nothing: the whole input is one message.
    Whole,
}

impl Framing {
    /// Each line is a message.
    pub(crate) fn lines() -> Self {
        Self::Delimited(b"\n".to_vec())
    }

    /// Messages are separated by NUL, as `find -print0` and `xargs -0` have it.
    pub(crate) fn null() -> Self {
        Self::Delimited(b"\0".to_vec())
    }
}
