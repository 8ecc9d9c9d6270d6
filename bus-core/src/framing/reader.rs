//! [`FrameReader`]: takes messages out of a stream of bytes.
//!
//! The caller drives it: drain [`next_ready`](FrameReader::next_ready), which never reads, then
//! [`read_more`](FrameReader::read_more), which may wait. Between the two the caller knows that
//! nothing is ready, and can see to it that what it has is on its way.
//!
//! Memory is bounded by the largest message, and nothing is allocated for a message.

use std::fmt;
use std::io::{self, Read};

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

use super::Framing;
use crate::limits;

/// Reads messages from `R`; see the [module](super).
///
/// ```
/// use bus_core::framing::{FrameReader, Framing};
///
/// let mut reader = FrameReader::new(&b"one\ntwo\n"[..], &Framing::lines(), 100);
/// let mut lines = Vec::new();
/// while !reader.has_ended() {
///     reader.read_more()?;
///     while let Some(line) = reader.next_ready()? {
///         lines.push(line.to_vec());
///     }
/// }
/// assert_eq!(lines, [b"one", b"two"]);
/// # Ok::<(), bus_core::framing::ReadError>(())
/// ```
pub struct FrameReader<R> {
    input: R,
    boundary: Boundary,
    message_max_bytes: usize,
    buffer: Vec<u8>,
    /// What is read and not given out is `buffer[start..end]`.
    start: usize,
    end: usize,
    /// How much of that, from `start`, was searched for a delimiter in vain.
    searched: usize,
    ended: bool,
    /// The rest of a message that was refused is thrown away.
    skipping: bool,
    /// How much of it is still to come, where a length has told that.
    left_to_skip: Option<u64>,
    /// Something was given out, or thrown away, since the input began.
    begun: bool,
    /// How many messages have been given out.
    count: u64,
}

/// [`Framing`], ready to be looked for.
enum Boundary {
    Byte(u8),
    Text(Box<Finder<'static>>),
    Length32,
    Whole,
}

/// A message in the buffer: bytes before it to skip, its own, and bytes behind it.
struct Found {
    before: usize,
    bytes: usize,
    behind: usize,
}

impl<R: Read> FrameReader<R> {
    /// Reads from `input`, messages of at most `message_max_bytes`; as JSON one takes more.
    ///
    /// ```
    /// use bus_core::framing::{FrameReader, Framing};
    ///
    /// let reader = FrameReader::new(std::io::stdin(), &Framing::lines(), 16 << 20);
    /// assert_eq!(reader.count(), 0);
    /// ```
    pub fn new(input: R, framing: &Framing, message_max_bytes: usize) -> Self {
        let boundary = match framing {
            Framing::Delimited(delimiter) => match delimiter[..] {
                [byte] => Boundary::Byte(byte),
                _ => Boundary::Text(Box::new(Finder::new(delimiter).into_owned())),
            },
            Framing::Length32 => Boundary::Length32,
            Framing::Whole => Boundary::Whole,
            Framing::JsonLines => Boundary::Byte(b'\n'),
        };
        let message_max_bytes = match framing {
            Framing::JsonLines => json_line_max_bytes(message_max_bytes),
            _ => message_max_bytes,
        };
        let buffer = vec![0; READ_BYTES];
        Self {
            input,
            boundary,
            message_max_bytes,
            buffer,
            start: 0,
            end: 0,
            searched: 0,
            ended: false,
            skipping: false,
            left_to_skip: None,
            begun: false,
            count: 0,
        }
    }

    /// How many messages have been given out.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one\n"[..], &Framing::lines(), 100);
    /// reader.read_more()?;
    /// reader.next_ready()?;
    /// assert_eq!(reader.count(), 1);
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is read from.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let reader = FrameReader::new(&b"one\n"[..], &Framing::lines(), 100);
    /// assert_eq!(reader.input(), b"one\n");
    /// ```
    pub fn input(&self) -> &R {
        &self.input
    }

    /// What is read from, to be changed between two reads.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one\n"[..], &Framing::lines(), 100);
    /// *reader.input_mut() = b"two\n";
    /// reader.read_more()?;
    /// assert_eq!(reader.next_ready()?, Some(&b"two"[..]));
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// How many bytes are read and not given out: the beginning of a message, when nothing is ready.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one\ntw"[..], &Framing::lines(), 100);
    /// reader.read_more()?;
    /// reader.next_ready()?;
    /// assert_eq!(reader.unread_bytes(), 2);
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn unread_bytes(&self) -> usize {
        self.end - self.start
    }

    /// The input goes on after its end, as a FIFO does with its next writer: call it when everything
    /// before is given out.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b""[..], &Framing::lines(), 100);
    /// reader.read_more()?;
    /// assert!(reader.has_ended());
    /// *reader.input_mut() = b"the next writer's\n";
    /// reader.restart();
    /// reader.read_more()?;
    /// assert_eq!(reader.next_ready()?, Some(&b"the next writer's"[..]));
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn restart(&mut self) {
        (self.ended, self.skipping, self.left_to_skip, self.begun) = (false, false, None, false);
    }

    /// After [`ReadError::TooLarge`] or [`ReadError::Truncated`]: throws the rest of that message away, and
    /// goes on with the next. Where nothing tells where that begins, as within a length, all is thrown away up to
    /// the end.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing, ReadError};
    /// let mut reader = FrameReader::new(&b"too long\nshort\n"[..], &Framing::lines(), 5);
    /// reader.read_more()?;
    /// assert!(matches!(reader.next_ready(), Err(ReadError::TooLarge { number: 1, limit: 5, .. })));
    /// reader.skip_message();
    /// assert_eq!(reader.next_ready()?, Some(&b"short"[..]));
    /// # Ok::<(), ReadError>(())
    /// ```
    pub fn skip_message(&mut self) {
        self.left_to_skip = match self.find() {
            Err(ReadError::TooLarge { bytes: Some(bytes), .. }) => Some(LENGTH_BYTES as u64 + u64::from(bytes)),
            _ => None,
        };
        (self.skipping, self.begun, self.searched) = (true, true, 0);
    }

    /// The input is at its end, though it does not say so: what is here is all there is.
    ///
    /// ```
    /// use bus_core::framing::{FrameReader, Framing};
    ///
    /// let mut reader = FrameReader::new(&b"half a line"[..], &Framing::lines(), 100);
    /// reader.read_more()?;
    /// assert_eq!(reader.next_ready()?, None);
    /// reader.end();
    /// assert_eq!(reader.next_ready()?, Some(&b"half a line"[..]));
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether there is nothing more to read.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one"[..], &Framing::lines(), 100);
    /// while !reader.has_ended() {
    ///     reader.read_more()?;
    /// }
    /// assert_eq!(reader.next_ready()?, Some(&b"one"[..]));
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next message, if it has been read whole. Never reads.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one\ntw"[..], &Framing::lines(), 100);
    /// assert_eq!(reader.next_ready()?, None);
    /// reader.read_more()?;
    /// assert_eq!(reader.next_ready()?, Some(&b"one"[..]));
    /// assert_eq!(reader.next_ready()?, None);
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError`]; the next call says the same, unless [`skip_message`](Self::skip_message) came between.
    pub fn next_ready(&mut self) -> Result<Option<&[u8]>, ReadError> {
        if self.skipping {
            self.skip();
        }
        let Some(Found { before, bytes, behind }) = self.find()? else {
            self.searched = self.end - self.start;
            return Ok(None);
        };
        let first = self.start + before;
        self.start = first + bytes + behind;
        self.searched = 0;
        self.begun = true;
        self.count += 1;
        Ok(Some(&self.buffer[first..first + bytes]))
    }

    /// The messages that are here whole and need no second look, where a byte ends each: what is not among
    /// them is for [`Self::next_ready`]. `None` in other framings.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one\ntwo\nthr"[..], &Framing::lines(), 100);
    /// reader.read_more()?;
    /// assert_eq!(reader.ready_lines().into_iter().flatten().collect::<Vec<_>>(), [b"one", b"two"]);
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    pub fn ready_lines(&mut self) -> Option<impl Iterator<Item = &[u8]>> {
        let Boundary::Byte(byte) = self.boundary else { return None };
        if self.skipping {
            self.skip();
        }
        self.begun = true;
        let unread = &self.buffer[self.start..self.end];
        let (start, searched, count) = (&mut self.start, &mut self.searched, &mut self.count);
        let (message_max_bytes, mut from) = (self.message_max_bytes, 0);
        let lines = memchr_iter(byte, unread).map_while(move |at| {
            let line = &unread[from..at];
            (line.len() <= message_max_bytes).then(|| {
                (*start, *searched, *count, from) = (*start + line.len() + 1, 0, *count + 1, at + 1);
                line
            })
        });
        Some(lines)
    }

    /// Reads once; waits until there is something, or the end.
    ///
    /// ```
    /// # use bus_core::framing::{FrameReader, Framing};
    /// let mut reader = FrameReader::new(&b"one\n"[..], &Framing::lines(), 100);
    /// reader.read_more()?;
    /// assert_eq!(reader.unread_bytes(), 4);
    /// # Ok::<(), bus_core::framing::ReadError>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Io`]: what the input said, `WouldBlock` of one that does not wait included.
    pub fn read_more(&mut self) -> Result<(), ReadError> {
        self.make_room();
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(bytes) => {
                    self.end += bytes;
                    self.ended = bytes == 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
    }

    /// Throws away what is here of a message that was refused.
    fn skip(&mut self) {
        let unread = &self.buffer[self.start..self.end];
        if let Some(left) = self.left_to_skip {
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(unread.len());
            self.left_to_skip = Some(left - here as u64).filter(|left| *left > 0);
            self.skipping = self.left_to_skip.is_some() && !self.ended;
            self.start += here;
            return;
        }
        let behind = match &self.boundary {
            Boundary::Byte(byte) => memchr(*byte, unread).map(|at| at + 1),
            Boundary::Text(finder) => finder.find(unread).map(|at| at + finder.needle().len()),
            Boundary::Length32 | Boundary::Whole => None,
        };
        // What is here may end in the first bytes of a delimiter.
        let kept = match &self.boundary {
            Boundary::Text(finder) if !self.ended => unread.len().min(finder.needle().len() - 1),
            _ => 0,
        };
        self.start += behind.unwrap_or(unread.len() - kept);
        self.skipping = behind.is_none() && !self.ended;
        self.searched = 0;
    }

    fn find(&self) -> Result<Option<Found>, ReadError> {
        if self.skipping {
            return Ok(None);
        }
        let unread = &self.buffer[self.start..self.end];
        let delimited = |delimiter_bytes: usize, at: Option<usize>| match at {
            Some(bytes) => self.within_limit(Found { before: 0, bytes, behind: delimiter_bytes }),
            // The last message needs no delimiter.
            None if self.ended && !unread.is_empty() => {
                self.within_limit(Found { before: 0, bytes: unread.len(), behind: 0 })
            }
            // What is here may end in the first bytes of a delimiter.
            None if unread.len() >= self.message_max_bytes + delimiter_bytes => Err(self.too_large(None)),
            None => Ok(None),
        };
        match &self.boundary {
            Boundary::Byte(byte) => delimited(1, memchr(*byte, &unread[self.searched..]).map(|at| self.searched + at)),
            Boundary::Text(finder) => {
                let delimiter_bytes = finder.needle().len();
                let from = self.searched.saturating_sub(delimiter_bytes - 1);
                delimited(delimiter_bytes, finder.find(&unread[from..]).map(|at| from + at))
            }
            Boundary::Length32 => self.find_by_length(unread),
            Boundary::Whole if unread.len() > self.message_max_bytes => Err(self.too_large(None)),
            // An empty input is one empty message.
            Boundary::Whole if self.ended && !self.begun => {
                Ok(Some(Found { before: 0, bytes: unread.len(), behind: 0 }))
            }
            Boundary::Whole => Ok(None),
        }
    }

    fn find_by_length(&self, unread: &[u8]) -> Result<Option<Found>, ReadError> {
        let (bytes, here, expected) = match unread.split_first_chunk::<LENGTH_BYTES>() {
            Some((length, rest)) => {
                let length = u32::from_le_bytes(*length);
                if length as usize > self.message_max_bytes {
                    return Err(self.too_large(Some(length)));
                }
                (length as usize, rest.len(), length as usize)
            }
            None => (usize::MAX, unread.len(), LENGTH_BYTES),
        };
        if here >= bytes {
            return Ok(Some(Found { before: LENGTH_BYTES, bytes, behind: 0 }));
        }
        if self.ended && !unread.is_empty() {
            return Err(ReadError::Truncated { number: self.count + 1, bytes: here, expected });
        }
        Ok(None)
    }

    fn within_limit(&self, found: Found) -> Result<Option<Found>, ReadError> {
        if found.bytes > self.message_max_bytes { Err(self.too_large(None)) } else { Ok(Some(found)) }
    }

    fn too_large(&self, bytes: Option<u32>) -> ReadError {
        ReadError::TooLarge { number: self.count + 1, bytes, limit: self.message_max_bytes }
    }

    /// Moves an unfinished message to the front, and makes the buffer larger when that fills it.
    /// `next_ready` refuses what is over the limit, so that bounds the buffer.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}

/// In a line of JSON a byte takes up to six characters, and the headers come on top.
fn json_line_max_bytes(message_max_bytes: usize) -> usize {
    message_max_bytes.saturating_add(limits::HEADER_BLOCK_MAX_BYTES as usize).saturating_mul(6)
}

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

/// How much is read at once. A pipe holds 64 KiB unless it was made larger; more than this saves
/// nothing any more.
const READ_BYTES: usize = 256 * 1024;

/// The length before a message.
const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of these sizes, over and over.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.next().copied().unwrap_or(1).clamp(1, out.len()).min(self.bytes.len());
            let (piece, rest) = self.bytes.split_at(size);
            out[..size].copy_from_slice(piece);
            self.bytes = rest;
            Ok(size)
        }
    }

    fn read_all<R: Read>(mut reader: FrameReader<R>) -> (Vec<Vec<u8>>, Option<ReadError>) {
        let mut messages = Vec::new();
        loop {
            // The two ways take turns: what one leaves the other finds.
            if messages.len().is_multiple_of(2)
                && let Some(lines) = reader.ready_lines()
            {
                messages.extend(lines.map(<[u8]>::to_vec));
            }
            loop {
                match reader.next_ready() {
                    Ok(Some(message)) => messages.push(message.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
            if reader.has_ended() {
                return (messages, None);
            }
            reader.read_more().unwrap();
        }
    }

    fn messages(input: &[u8], framing: &Framing) -> Vec<Vec<u8>> {
        let (messages, error) = read_all(FrameReader::new(input, framing, 1 << 20));
        assert!(error.is_none(), "{error:?}");
        messages
    }

    fn error(input: &[u8], framing: &Framing, limit: usize) -> (usize, String) {
        let (messages, error) = read_all(FrameReader::new(input, framing, limit));
        (messages.len(), error.unwrap().to_string())
    }

    /// The meaning of a delimiter, in three lines.
    fn split(mut input: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(at) = input.windows(delimiter.len()).position(|window| window == delimiter) {
            messages.push(input[..at].to_vec());
            input = &input[at + delimiter.len()..];
        }
        if !input.is_empty() {
            messages.push(input.to_vec());
        }
        messages
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        assert_eq!(messages(b"a\n\nb", &Framing::lines()), [&b"a"[..], b"", b"b"]);
        assert_eq!(messages(b"a\n", &Framing::lines()), [b"a"]);
        assert_eq!(messages(b"", &Framing::lines()), [b""; 0]);
    }

    #[test]
    fn a_whole_input_is_one_message_also_when_empty() {
        assert_eq!(messages(b"a\nb\n", &Framing::Whole), [b"a\nb\n"]);
        assert_eq!(messages(b"", &Framing::Whole), [b""]);
    }

    #[test]
    fn lengths_stand_before_messages() {
        assert_eq!(messages(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c", &Framing::Length32), [&b"ab"[..], b"", b"c"]);
    }

    #[test]
    fn a_message_cut_off_is_an_error_with_both_figures() {
        let (count, text) = error(b"\x01\0\0\0a\x05\0\0\0bcd", &Framing::Length32, 100);
        assert_eq!((count, text.as_str()), (1, "the input ends within message 2: 3 of 5 bytes are there"));
        let (count, text) = error(b"\x01\0\0\0a\x05\0", &Framing::Length32, 100);
        assert_eq!((count, text.as_str()), (1, "the input ends within message 2: 2 of 4 bytes are there"));
    }

    #[test]
    fn an_oversize_message_names_the_limit_and_keeps_those_before_it() {
        let limit = "is over the limit of 3 bytes: split it, or raise max-message";
        for input in [&b"abc\nabcd\nx"[..], b"abc\nabcd", b"abc\nabcdefgh"] {
            assert_eq!(error(input, &Framing::lines(), 3), (1, format!("message 2 {limit}")));
        }
        assert_eq!(error(b"\0\0\0\0\x04\0\0\0", &Framing::Length32, 3), (1, format!("message 2 of 4 bytes {limit}")));
        assert_eq!(error(b"abcd", &Framing::Whole, 3), (0, format!("message 1 {limit}")));
        assert_eq!(error(b"abcd", &Framing::Delimited(b"||".to_vec()), 3), (0, format!("message 1 {limit}")));
    }

    #[test]
    fn an_endless_line_is_refused_before_it_is_read_to_its_end() {
        let limit = 1 << 20;
        let mut reader = FrameReader::new(io::repeat(b'x'), &Framing::lines(), limit);
        while let Ok(None) = reader.next_ready() {
            reader.read_more().unwrap();
        }
        assert!(reader.buffer.len() <= 4 * limit, "{} bytes are held", reader.buffer.len());
    }

    #[test]
    fn a_message_as_large_as_the_limit_is_not_over_it() {
        for framing in [Framing::lines(), Framing::Delimited(b"abc".to_vec()), Framing::Whole] {
            for size in [READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES] {
                let input = vec![b'x'; size];
                let (messages, error) = read_all(FrameReader::new(&input[..], &framing, size));
                assert!(error.is_none() && messages == [input], "{framing:?} {size}");
            }
        }
    }

    #[test]
    fn a_refused_message_is_skipped_and_the_next_ones_come() {
        for (framing, input) in [
            (Framing::lines(), &b"abc\nabcdefgh\nx\ny"[..]),
            (Framing::Delimited(b"||".to_vec()), b"abc||abcd|efgh||x||y"),
            (Framing::Length32, b"\x03\0\0\0abc\x07\0\0\0too bad\x01\0\0\0x\x01\0\0\0y"),
        ] {
            for size in 1..=input.len() {
                let sizes = [size];
                let pieces = Pieces { bytes: input, sizes: sizes.iter().cycle() };
                let mut reader = FrameReader::new(pieces, &framing, 3);
                let (mut messages, mut refused) = (Vec::new(), 0);
                loop {
                    match reader.next_ready().map(|message| message.map(<[u8]>::to_vec)) {
                        Ok(Some(message)) => messages.push(message),
                        Ok(None) if reader.has_ended() => break,
                        Ok(None) => reader.read_more().unwrap(),
                        Err(_) => {
                            refused += 1;
                            reader.skip_message();
                        }
                    }
                }
                assert_eq!((messages, refused), (vec![b"abc".to_vec(), b"x".to_vec(), b"y".to_vec()], 1), "{size}");
            }
        }
    }

    #[test]
    fn an_input_that_goes_on_after_its_end_has_a_last_message_each_time() {
        for (framing, first, second) in [
            (Framing::lines(), &b"a\nb"[..], &b"c"[..]),
            (Framing::Whole, b"a\nb", b"c"),
            (Framing::Length32, b"\x01\0\0\0a\x09\0\0", b"\x01\0\0\0c"),
        ] {
            let mut reader = FrameReader::new(first, &framing, 100);
            let mut last = Vec::new();
            for _ in 0..2 {
                loop {
                    match reader.next_ready().map(|message| message.map(<[u8]>::to_vec)) {
                        Ok(Some(message)) => last = message,
                        Ok(None) if reader.has_ended() => break,
                        Ok(None) => reader.read_more().unwrap(),
                        Err(_) => reader.skip_message(),
                    }
                }
                reader.restart();
                *reader.input_mut() = second;
            }
            assert_eq!(last, b"c", "{framing:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_messages(
            input in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'\n')], 0..200),
            delimiter in prop_oneof![Just(&b"\n"[..]), Just(&b"aa"[..]), Just(&b"aab"[..]), Just(&b"abab"[..])],
            sizes in proptest::collection::vec(1_usize..9, 1..9),
        ) {
            let framing = Framing::Delimited(delimiter.to_vec());
            let pieces = Pieces { bytes: &input, sizes: sizes.iter().cycle() };
            let (messages, error) = read_all(FrameReader::new(pieces, &framing, 1000));
            prop_assert!(error.is_none(), "{error:?}");
            prop_assert_eq!(messages, split(&input, delimiter));
        }

        #[test]
        fn any_split_gives_the_same_messages_with_lengths(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            sizes in proptest::collection::vec(1_usize..9, 1..9),
        ) {
            let mut input = Vec::new();
            for message in &sent {
                input.extend_from_slice(&(message.len() as u32).to_le_bytes());
                input.extend_from_slice(message);
            }
            let pieces = Pieces { bytes: &input, sizes: sizes.iter().cycle() };
            let (messages, error) = read_all(FrameReader::new(pieces, &Framing::Length32, 1000));
            prop_assert!(error.is_none(), "{error:?}");
            prop_assert_eq!(messages, sent);
        }

        #[test]
        fn any_limit_keeps_what_comes_before_the_first_message_over_it(
            input in proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n')], 0..200),
            limit in 0_usize..6,
            sizes in proptest::collection::vec(1_usize..9, 1..9),
        ) {
            let pieces = Pieces { bytes: &input, sizes: sizes.iter().cycle() };
            let (messages, error) = read_all(FrameReader::new(pieces, &Framing::lines(), limit));
            let all = split(&input, b"\n");
            let fitting: Vec<_> = all.iter().take_while(|message| message.len() <= limit).cloned().collect();
            prop_assert_eq!(error.is_some(), fitting.len() < all.len());
            prop_assert_eq!(messages, fitting);
        }
    }
}
