//! [`FrameWriter`]: puts messages into a stream of bytes, and knows which of them are out.
//!
//! A message counts as written when the operating system has taken its last byte. What it has not
//! taken can be given back to the channel, so nothing is acknowledged that was not written.

use std::io::{self, Write};

use super::Framing;

/// Writes messages to `W`, many at a time; see the [module](super).
///
/// ```
/// use bus_core::framing::{FrameWriter, Framing};
///
/// let mut writer = FrameWriter::new(Vec::new(), &Framing::lines());
/// writer.put(b"one")?;
/// writer.put(b"two")?;
/// writer.flush()?;
/// assert_eq!(writer.output(), b"one\ntwo\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct FrameWriter<W> {
    output: W,
    boundary: Boundary,
    buffer: Vec<u8>,
    /// Where each message in the buffer ends.
    ends: Vec<usize>,
    written: usize,
    /// How many bytes have left the buffer.
    gone_bytes: u64,
}

enum Boundary {
    Behind(Vec<u8>),
    Length32,
    None,
}

impl<W: Write> FrameWriter<W> {
    /// Writes to `output`.
    ///
    /// ```
    /// use bus_core::framing::{FrameWriter, Framing};
    ///
    /// let writer = FrameWriter::new(std::io::stdout(), &Framing::lines());
    /// # let _ = writer;
    /// ```
    pub fn new(output: W, framing: &Framing) -> Self {
        let boundary = match framing {
            Framing::Delimited(delimiter) => Boundary::Behind(delimiter.clone()),
            Framing::JsonLines => Boundary::Behind(b"\n".to_vec()),
            Framing::Length32 => Boundary::Length32,
            Framing::Whole => Boundary::None,
        };
        Self {
            output,
            boundary,
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            ends: Vec::new(),
            written: 0,
            gone_bytes: 0,
        }
    }

    /// What is written to.
    ///
    /// ```
    /// # use bus_core::framing::{FrameWriter, Framing};
    /// let mut writer = FrameWriter::new(Vec::new(), &Framing::lines());
    /// writer.put(b"one")?;
    /// assert!(writer.output().is_empty());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn output(&self) -> &W {
        &self.output
    }

    /// What is written to, to be changed while nothing is in the buffer.
    ///
    /// ```
    /// # use bus_core::framing::{FrameWriter, Framing};
    /// let mut writer = FrameWriter::new(Vec::new(), &Framing::lines());
    /// writer.output_mut().extend_from_slice(b"# a head\n");
    /// writer.put(b"one")?;
    /// writer.flush()?;
    /// assert_eq!(writer.output(), b"# a head\none\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn output_mut(&mut self) -> &mut W {
        &mut self.output
    }

    /// How many bytes were put in since it began, with what stands around the messages: where the last message ends
    /// in the stream, once all is written.
    ///
    /// ```
    /// use bus_core::framing::{FrameWriter, Framing};
    ///
    /// let mut writer = FrameWriter::new(Vec::new(), &Framing::lines());
    /// writer.put(b"one")?;
    /// writer.put(b"four")?;
    /// assert_eq!(writer.put_bytes(), 9);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn put_bytes(&self) -> u64 {
        self.gone_bytes + self.buffer.len() as u64
    }

    /// Puts a message into the buffer, and writes the buffer out when it is full.
    ///
    /// ```
    /// # use bus_core::framing::{FrameWriter, Framing};
    /// let mut writer = FrameWriter::new(Vec::new(), &Framing::null());
    /// writer.put(b"one")?;
    /// writer.flush()?;
    /// assert_eq!(writer.output(), b"one\0");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the output said.
    pub fn put(&mut self, message: &[u8]) -> io::Result<()> {
        if let Boundary::Length32 = self.boundary {
            // A message of 4 GiB cannot be: the wire's own length has 32 bits.
            self.buffer.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.put_with(|buffer| buffer.extend_from_slice(message))
    }

    /// As [`put`](Self::put), for framings without lengths: `fill` appends the message.
    ///
    /// ```
    /// # use bus_core::framing::{FrameWriter, Framing};
    /// use std::io::Write;
    ///
    /// let mut writer = FrameWriter::new(Vec::new(), &Framing::lines());
    /// writer.put_with(|buffer| buffer.extend_from_slice(b"made in place"))?;
    /// writer.flush()?;
    /// assert_eq!(writer.output(), b"made in place\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the output said.
    pub fn put_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        fill(&mut self.buffer);
        if let Boundary::Behind(delimiter) = &self.boundary {
            self.buffer.extend_from_slice(delimiter);
        }
        self.ends.push(self.buffer.len());
        if self.buffer.len() >= BUFFER_BYTES { self.write_buffer() } else { Ok(()) }
    }

    /// Writes everything out.
    ///
    /// ```
    /// # use bus_core::framing::{FrameWriter, Framing};
    /// let mut writer = FrameWriter::new(Vec::new(), &Framing::lines());
    /// writer.put(b"one")?;
    /// writer.flush()?;
    /// assert_eq!(writer.output(), b"one\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the output said. What it had taken before counts as written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_buffer()?;
        self.output.flush()
    }

    /// How many messages were written whole since this was last asked. What was not written is
    /// forgotten.
    ///
    /// ```
    /// # use bus_core::framing::{FrameWriter, Framing};
    /// let mut room = [0; 4];
    /// let mut writer = FrameWriter::new(&mut room[..], &Framing::lines());
    /// writer.put(b"one")?;
    /// writer.put(b"two")?;
    /// assert!(writer.flush().is_err());
    /// assert_eq!(writer.take_written(), 1); // acknowledge so many
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn take_written(&mut self) -> usize {
        self.empty_buffer();
        std::mem::take(&mut self.written)
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let mut out = 0;
        let outcome = loop {
            if out == self.buffer.len() {
                break Ok(());
            }
            match self.output.write(&self.buffer[out..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => out += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.written += self.ends.partition_point(|end| *end <= out);
        self.empty_buffer();
        outcome
    }

    fn empty_buffer(&mut self) {
        self.gone_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.ends.clear();
    }
}

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then its reader is gone.
    struct Pipe {
        room: usize,
        got: Vec<u8>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(self.room).min(3);
            self.got.extend_from_slice(&bytes[..taken]);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(framing: &Framing, messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(&mut out, framing);
        for message in messages {
            writer.put(message).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(writer.take_written(), messages.len());
        out
    }

    #[test]
    fn each_framing_stands_around_the_messages() {
        let messages = [&b"ab"[..], b"", b"c"];
        assert_eq!(written(&Framing::lines(), &messages), b"ab\n\nc\n");
        assert_eq!(written(&Framing::null(), &messages), b"ab\0\0c\0");
        assert_eq!(written(&Framing::Delimited(b"--".to_vec()), &messages), b"ab----c--");
        assert_eq!(written(&Framing::Length32, &messages), b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c");
        assert_eq!(written(&Framing::Whole, &messages), b"abc");
    }

    #[test]
    fn only_messages_that_are_out_whole_count_as_written() {
        for (room, whole) in [(0, 0), (1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2), (9, 3)] {
            let mut writer = FrameWriter::new(Pipe { room, got: Vec::new() }, &Framing::lines());
            for message in [b"ab", b"cd", b"ef"] {
                writer.put(message).unwrap();
            }
            assert_eq!(writer.flush().is_err(), room < 9, "room {room}");
            assert_eq!(writer.take_written(), whole, "room {room}");
            assert_eq!(writer.output.got, b"ab\ncd\nef\n"[..room]);
        }
    }

    #[test]
    fn a_full_buffer_goes_out_without_a_flush() {
        let message = vec![b'x'; BUFFER_BYTES];
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(&mut out, &Framing::lines());
        writer.put(&message).unwrap();
        assert_eq!(writer.take_written(), 1);
        assert_eq!(out.len(), BUFFER_BYTES + 1);
    }
}
