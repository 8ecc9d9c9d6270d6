//! The header block of a message: [`Headers`] to bytes and back.

use crate::limits::HEADER_BLOCK_MAX_BYTES;
use crate::message::Headers;

/// Appends `headers` as a block and returns its length in bytes.
///
/// # Errors
/// [`HeaderBlockError::TooLong`] when it is over the limit; `out` is then as it was.
pub fn encode_headers(headers: &Headers, out: &mut Vec<u8>) -> Result<u32, HeaderBlockError> {
    let start = out.len();
    for (key, value) in headers.iter() {
        let Ok(key_bytes) = u16::try_from(key.len()) else {
            out.truncate(start);
            return Err(HeaderBlockError::TooLong { bytes: key.len() });
        };
        out.extend_from_slice(&key_bytes.to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    let bytes = out.len() - start;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes <= HEADER_BLOCK_MAX_BYTES => Ok(bytes),
        _ => {
            out.truncate(start);
            Err(HeaderBlockError::TooLong { bytes })
        }
    }
}

/// Reads a whole block.
///
/// # Errors
/// [`HeaderBlockError::Malformed`] when lengths or text are wrong.
pub fn decode_headers(mut block: &[u8]) -> Result<Headers, HeaderBlockError> {
    let mut headers = Headers::new();
    while !block.is_empty() {
        let key = take::<2>(&mut block, |bytes| usize::from(u16::from_le_bytes(bytes)))?;
        let value = take::<4>(&mut block, |bytes| u32::from_le_bytes(bytes) as usize)?;
        headers.insert(key, value);
    }
    Ok(headers)
}

fn take<'a, const N: usize>(
    block: &mut &'a [u8],
    length: impl Fn([u8; N]) -> usize,
) -> Result<&'a str, HeaderBlockError> {
    let (bytes, rest) = block.split_first_chunk::<N>().ok_or(HeaderBlockError::Malformed)?;
    let (text, rest) = rest.split_at_checked(length(*bytes)).ok_or(HeaderBlockError::Malformed)?;
    *block = rest;
    std::str::from_utf8(text).map_err(|_| HeaderBlockError::Malformed)
}

/// A header block that cannot be sent or read.
///
/// ```
/// use bus_core::{Bus, HeaderBlockError, Headers, SendError};
///
/// let headers = Headers::new().with("note", "x".repeat(70_000));
/// let bus = Bus::in_process();
/// let sent = bus.sender::<u32>("numbers").open()?.outgoing().headers(&headers).send(7);
/// if let Err(SendError::Headers { value, source: HeaderBlockError::TooLong { bytes } }) = sent {
///     println!("{value} is not sent: headers of {bytes} bytes");
/// }
/// # Ok::<(), bus_core::OpenError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderBlockError {
    /// Over the limit.
    #[error("headers of {bytes} bytes are over the limit of {HEADER_BLOCK_MAX_BYTES}: put content into the payload")]
    TooLong {
        /// Their length in bytes.
        bytes: usize,
    },
    /// Lengths that do not add up, or text that is not UTF-8.
    #[error("the header block is malformed")]
    Malformed,
}
