//! [`FrameReader`]: takes messages out of a stream of bytes.
//!
//! The caller drives it: drain [`next_ready`](FrameReader::next_ready), which never reads, then
//! [`read_more`](FrameReader::read_more), which may wait. Between the two the caller knows that
//! nothing is ready, and can see to it that what it has is on its way.
//!
//! Memory is bounded by the largest message, and nothing is allocated for a message.

use std::io::{self, Read};

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

use super::{Framing, ReadError};
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

/// How much is read at once. A pipe holds 64 KiB unless it was made larger; more than this saves
/// nothing any more.
const READ_BYTES: usize = 256 * 1024;

/// The length before a message.
const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests;
