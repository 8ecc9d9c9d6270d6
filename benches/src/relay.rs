//! The floor: a process that copies frames from one local socket to another, and nothing else.
//!
//! One thread, one epoll, one read and one write per round of traffic. It knows where a frame ends
//! and to which of a few channels it goes; there is no window, no acknowledgement, no ledger, no
//! second receiver. It hands on whole frames only, as whoever promises that a message of a killed
//! sender arrives whole or not at all must.
//!
//! A frame is 32 bytes of header, of which the first four say how long the payload is, and the
//! payload. A connection opens with two bytes, its direction and its channel; one byte answers.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::clock::now_ns;

/// Length of a frame's header, in bytes: as long as that of the bus.
pub(crate) const HEADER_BYTES: usize = 32;

/// First byte of a connection that sends.
pub(crate) const SENDER: u8 = b's';

/// First byte of a connection that receives.
pub(crate) const RECEIVER: u8 = b'r';

/// How much is read at once, and how much a batching sender writes at once, in bytes.
pub(crate) const READ_BYTES: usize = 64 * 1024;

const LISTENER: u64 = u64::MAX;
const EVENTS_AT_ONCE: usize = 64;

/// The length that a frame's header tells of its payload.
pub(crate) fn payload_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
}

/// A header for a payload of that length.
pub(crate) fn header(payload_bytes: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    header
}

/// Relays until it is killed. After traffic it polls for `poll_us` before it sleeps.
pub(crate) fn serve(socket: &Path, poll_us: u64) -> Result<()> {
    let mut relay = Relay::bind(socket)?;
    crate::child::say("ready")?;
    relay.run(poll_us * 1_000)
}

struct Relay {
    epoll: OwnedFd,
    listener: UnixListener,
    inputs: Vec<Option<Input>>,
    output_of_channel: Vec<Option<UnixStream>>,
}

struct Input {
    stream: UnixStream,
    channel: usize,
    buffer: Vec<u8>,
    filled: usize,
}

impl Relay {
    fn bind(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot bind {}", socket.display()))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self { epoll, listener, inputs: Vec::new(), output_of_channel: Vec::new() })
    }

    fn run(&mut self, poll_ns: u64) -> Result<()> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut polls_until_ns = 0;
        loop {
            let polls = poll_ns > 0 && now_ns() < polls_until_ns;
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), polls.then_some(&at_once)) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            if events.is_empty() {
                continue;
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    input => self.forward(input as usize)?,
                }
            }
            if poll_ns > 0 {
                polls_until_ns = now_ns() + poll_ns;
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        let (mut stream, _) = self.listener.accept()?;
        let mut hello = [0; 2];
        stream.read_exact(&mut hello)?;
        let channel = usize::from(hello[1]);
        if self.output_of_channel.len() <= channel {
            self.output_of_channel.resize_with(channel + 1, || None);
        }
        stream.write_all(&[0])?;
        match hello[0] {
            SENDER => {
                let index = epoll::EventData::new_u64(self.inputs.len() as u64);
                epoll::add(&self.epoll, &stream, index, epoll::EventFlags::IN)?;
                self.inputs.push(Some(Input { stream, channel, buffer: vec![0; READ_BYTES], filled: 0 }));
            }
            RECEIVER => self.output_of_channel[channel] = Some(stream),
            other => bail!("a connection opened with {other}"),
        }
        Ok(())
    }

    /// One read, and one write of all frames that are whole with it.
    fn forward(&mut self, index: usize) -> Result<()> {
        let Some(input) = &mut self.inputs[index] else { return Ok(()) };
        let count = match input.stream.read(&mut input.buffer[input.filled..]) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            // Closing the descriptor takes it out of the epoll, too.
            self.inputs[index] = None;
            return Ok(());
        }
        input.filled += count;
        let (whole, next_frame_bytes) = whole_frames(&input.buffer[..input.filled]);
        if whole > 0 {
            let Some(output) = &mut self.output_of_channel[input.channel] else {
                bail!("channel {} has no receiver", input.channel);
            };
            output.write_all(&input.buffer[..whole])?;
            input.buffer.copy_within(whole..input.filled, 0);
            input.filled -= whole;
        }
        if input.buffer.len() < next_frame_bytes {
            input.buffer.resize(next_frame_bytes, 0);
        }
        Ok(())
    }
}

/// How many bytes the whole frames at the front have, and how long the one after them is, as far
/// as its header tells.
fn whole_frames(bytes: &[u8]) -> (usize, usize) {
    let mut whole = 0;
    while let Some(header) = bytes[whole..].first_chunk() {
        let frame_bytes = HEADER_BYTES + payload_bytes(header);
        if bytes.len() - whole < frame_bytes {
            return (whole, frame_bytes);
        }
        whole += frame_bytes;
    }
    (whole, HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_handed_on() {
        let mut bytes = Vec::new();
        for payload in [&b"one"[..], b"", b"three"] {
            bytes.extend_from_slice(&header(payload.len()));
            bytes.extend_from_slice(payload);
        }
        let ends = [35, 67, 104];
        for cut in 0..=bytes.len() {
            let (whole, _) = whole_frames(&bytes[..cut]);
            assert_eq!(whole, ends.into_iter().rev().find(|end| *end <= cut).unwrap_or(0), "cut at {cut}");
        }
        assert_eq!(whole_frames(&bytes[..100]), (67, 37));
    }
}
