//! [`LentFrame`]: one message that is lent, however it came.

use super::lanes::Lent;
use crate::codec::Codec;
use crate::message::MessageInfo;
use crate::wire::{Flags, FrameHeader, Kind, Origin};

/// A message that is lent: where it lies in the inbox, or a copy from a lane.
#[derive(Clone, Copy, Debug)]
pub struct LentFrame<'a> {
    pub(super) header: FrameHeader,
    pub(super) origin: Origin,
    /// How often this receiver has given it back.
    pub(super) given_back: u32,
    /// Its headers, encoded.
    pub header_block: &'a [u8],
    /// Its content.
    pub payload: &'a [u8],
}

impl<'a> LentFrame<'a> {
    /// Of a message that came by a lane.
    pub(super) fn of_lane(lent: &Lent, header_block: &'a [u8], payload: &'a [u8]) -> Self {
        let header = FrameHeader {
            kind: Kind::Deliver,
            flags: lent.record.header.flags,
            codec: lent.record.header.codec,
            sequence: lent.record.header.sequence,
            sent_at_ns: lent.sent_at_ns,
            body_bytes: payload.len() as u32,
            header_block_bytes: header_block.len() as u32,
        };
        Self { header, origin: lent.origin, given_back: lent.given_back, header_block, payload }
    }
}

impl LentFrame<'_> {
    /// How its payload is encoded.
    pub(crate) fn codec(&self) -> Codec {
        self.header.codec
    }

    /// What the bus knows of it.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        let attempt = self.origin.attempt.saturating_add(self.given_back);
        MessageInfo::from_wire(
            self.origin.sender,
            self.origin.pid,
            self.header.sequence,
            self.header.sent_at_ns,
            attempt,
            attempt > 1 || self.header.flags.has(Flags::REDELIVERED),
            self.header.codec,
        )
    }
}
