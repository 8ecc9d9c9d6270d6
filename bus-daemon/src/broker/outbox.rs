//! [`Outbox`]: the control frames that a peer has not read yet.

use bus_core::wire::{Kind, put_control};
use serde::Serialize;

/// How much may wait unread before the peer is not read either, in bytes. One more answer may come on
/// top: at most what one `peek` copies, or the list of all channels.
pub(super) const OUTBOX_MAX_BYTES: usize = 1024 * 1024;

/// Where a peer that was not read is read again, in bytes: not at each frame that it takes.
const OUTBOX_RESUME_BYTES: usize = OUTBOX_MAX_BYTES / 2;

/// What an idle peer's outbox may keep allocated, in bytes: 2,000 idle senders must stay cheap.
const KEPT_BYTES: usize = 512;

/// What was written is taken out when it is so much, and half of all: else a peer that never catches
/// up would make the outbox grow for ever.
const WRITTEN_MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    closed: bool,
    /// Control frames put here, written or not.
    frames: u64,
}

impl Outbox {
    pub(super) fn put<T: Serialize>(&mut self, kind: Kind, body: &T) {
        if !self.closed {
            self.frames += 1;
            put_control(kind, body, &mut self.bytes);
        }
    }

    /// How many control frames were put here, ever.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Appends frames that lie ready.
    pub(super) fn extend(&mut self, frames: &[u8]) {
        if !self.closed {
            self.bytes.extend_from_slice(frames);
        }
    }

    /// Puts what must be read first before everything else.
    pub(super) fn put_before(&mut self, mut bytes: Vec<u8>) {
        if !self.closed {
            bytes.extend_from_slice(self.unwritten());
            (self.bytes, self.written) = (bytes, 0);
        }
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.bytes.len() {
            self.written = 0;
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        } else if self.written >= WRITTEN_MAX_BYTES && self.written >= self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Whether more waits than its peer may leave unread.
    pub(super) fn is_over(&self) -> bool {
        self.unwritten().len() > OUTBOX_MAX_BYTES
    }

    /// Whether so little waits that its peer may ask again.
    pub(super) fn has_drained(&self) -> bool {
        self.unwritten().len() <= OUTBOX_RESUME_BYTES
    }

    /// Nobody will read it: it takes nothing any more.
    pub(super) fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_given_back_although_the_peer_never_catches_up() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.extend(&[7; 1_000]);
            let all_but_one = outbox.unwritten().len() - 1;
            outbox.wrote(all_but_one);
        }
        assert_eq!(outbox.unwritten(), [7]);
        assert!(outbox.bytes.capacity() < 4 * WRITTEN_MAX_BYTES, "{} bytes are kept", outbox.bytes.capacity());
    }

    #[test]
    fn a_closed_outbox_takes_nothing() {
        let mut outbox = Outbox::default();
        outbox.extend(&[7; 10]);
        outbox.close();
        outbox.put(Kind::Seated, &());
        assert!(outbox.unwritten().is_empty());
    }
}
