//! [`ReadError`]: why a stream of bytes has no further message.

use std::fmt;
use std::io;

/// Why there is no message.
///
/// ```
/// use bus_core::framing::{FrameReader, Framing, ReadError};
///
/// let mut reader = FrameReader::new(&b"\x05\0\0\0abc"[..], &Framing::Length32, 100);
/// while !reader.has_ended() {
///     reader.read_more()?;
/// }
/// assert!(matches!(reader.next_ready(), Err(ReadError::Truncated { bytes: 3, expected: 5, .. })));
/// # Ok::<(), ReadError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// Over the limit. The size is known only where a length stands before the message.
    TooLarge {
        /// Which message, from 1.
        number: u64,
        /// Its size.
        bytes: Option<u32>,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The input ends within a message that announced its length, or within that length.
    Truncated {
        /// Which message, from 1.
        number: u64,
        /// How many bytes are there.
        bytes: usize,
        /// How many it announced.
        expected: usize,
    },
    /// The operating system would not read.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { number, bytes, limit } => {
                let size = bytes.map(|bytes| format!(" of {bytes} bytes")).unwrap_or_default();
                write!(f, "message {number}{size} is over the limit of {limit} bytes: split it, or raise max-message")
            }
            Self::Truncated { number, bytes, expected } => {
                write!(f, "the input ends within message {number}: {bytes} of {expected} bytes are there")
            }
            Self::Io(error) => write!(f, "cannot read: {error}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::TooLarge { .. } | Self::Truncated { .. } => None,
        }
    }
}
