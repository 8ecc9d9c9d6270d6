//! How messages stand one after the other in a stream of bytes: [`FrameReader`] takes them out of what a
//! file, a pipe or a socket gives, [`FrameWriter`] puts them in. The shell's verbs and the daemon's gateways
//! share them.
//!
//! Neither looks into a message. A line of `jsonl` (with the feature of that name) has more
//! of it than its payload.
//!
//! ```
//! use bus_core::framing::{FrameReader, FrameWriter, Framing};
//!
//! let mut reader = FrameReader::new(&b"one\ntwo"[..], &Framing::lines(), 100);
//! while !reader.has_ended() {
//!     reader.read_more()?;
//! }
//! assert_eq!(reader.next_ready()?, Some(&b"one"[..]));
//! assert_eq!(reader.next_ready()?, Some(&b"two"[..]));
//! assert_eq!(reader.next_ready()?, None);
//!
//! let mut writer = FrameWriter::new(Vec::new(), &Framing::null());
//! writer.put(b"one")?;
//! writer.flush()?;
//! assert_eq!(writer.take_written(), 1);
//! assert_eq!(writer.output(), b"one\0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde::{Deserialize, Serialize};

#[cfg(feature = "jsonl")]
pub mod jsonl;
mod read_error;
mod reader;
mod writer;

pub use read_error::ReadError;
pub use reader::FrameReader;
pub use writer::FrameWriter;

/// What separates messages.
///
/// ```
/// use bus_core::framing::{FrameWriter, Framing};
///
/// let mut writer = FrameWriter::new(Vec::new(), &Framing::Length32);
/// writer.put(b"one")?;
/// writer.flush()?;
/// assert_eq!(writer.output(), b"\x03\0\0\0one");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// The bytes stand between messages; the last message may do without.
    Delimited(Vec<u8>),
    /// A length before each message: 32 bits, little endian.
    Length32,
    /// Nothing: the whole input is one message.
    Whole,
    /// Each line is a message as a JSON object, with headers and codec: see `jsonl`. Reader and writer move the
    /// lines; who has them turns them into messages.
    JsonLines,
}

impl Framing {
    /// Each line is a message.
    ///
    /// ```
    /// use bus_core::framing::Framing;
    ///
    /// assert_eq!(Framing::lines(), Framing::Delimited(b"\n".to_vec()));
    /// ```
    #[must_use]
    pub fn lines() -> Self {
        Self::Delimited(b"\n".to_vec())
    }

    /// Messages are separated by NUL, as `find -print0` and `xargs -0` have it.
    ///
    /// ```
    /// use bus_core::framing::Framing;
    ///
    /// assert_eq!(Framing::null(), Framing::Delimited(vec![0]));
    /// ```
    #[must_use]
    pub fn null() -> Self {
        Self::Delimited(b"\0".to_vec())
    }
}
