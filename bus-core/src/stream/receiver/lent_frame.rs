//! [`LentFrame`]: one message that is lent, however it came.

use super::lanes::Lent;
use super::lending::LaneLoan;
use super::receiving;
use crate::codec::Codec;
use crate::message::MessageInfo;
use crate::wire::{Flags, HEADER_BYTES, ORIGIN_BYTES};

/// A message that is lent: where it lies in the inbox, or a copy from a lane.
///
/// It is small, and handed on by value for each message: most who read one ask for nothing but its content.
#[derive(Clone, Copy, Debug)]
pub struct LentFrame<'a> {
    said: Said<'a>,
    header_block_bytes: u32,
    codec: Codec,
    /// Its content.
    pub payload: &'a [u8],
}

/// Where that stands which is said of it.
#[derive(Clone, Copy, Debug)]
enum Said<'a> {
    /// In its frame. How often this receiver has given it back stands beside that.
    OfStream { frame: &'a [u8], given_back: u32 },
    /// In its lane.
    OfLane { loan: &'a LaneLoan, lent: &'a Lent },
}

impl<'a> LentFrame<'a> {
    /// Of a message that came by the stream.
    pub(super) fn of_stream(frame: &'a [u8], given_back: u32) -> Self {
        let header = receiving::header(frame);
        Self {
            said: Said::OfStream { frame, given_back },
            header_block_bytes: header.header_block_bytes,
            codec: header.codec,
            payload: &frame[HEADER_BYTES + ORIGIN_BYTES..][header.header_block_bytes as usize..],
        }
    }

    /// Of a message that came by a lane.
    #[inline]
    pub(super) fn of_lane(loan: &'a LaneLoan, lent: &'a Lent) -> Self {
        let header = &lent.record.header;
        Self {
            said: Said::OfLane { loan, lent },
            header_block_bytes: header.header_block_bytes,
            codec: header.codec,
            payload: &loan.content(lent)[header.header_block_bytes as usize..],
        }
    }

    /// Its headers, encoded.
    #[must_use]
    pub fn header_block(&self) -> &'a [u8] {
        let content = match self.said {
            Said::OfStream { frame, .. } => &frame[HEADER_BYTES + ORIGIN_BYTES..],
            Said::OfLane { loan, lent } => loan.content(lent),
        };
        &content[..self.header_block_bytes as usize]
    }

    /// How its payload is encoded.
    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// What the bus knows of it.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        let (origin, given_back, flags, sequence, sent_at_ns) = match self.said {
            Said::OfStream { frame, given_back } => {
                let header = receiving::header(frame);
                (receiving::origin(frame), given_back, header.flags, header.sequence, header.sent_at_ns)
            }
            Said::OfLane { loan, lent } => {
                let header = &lent.record.header;
                (lent.origin(), lent.given_back, header.flags, header.sequence, loan.sent_at_ns(lent))
            }
        };
        let attempt = origin.attempt.saturating_add(given_back);
        let redelivered = attempt > 1 || flags.has(Flags::REDELIVERED);
        MessageInfo::from_wire(origin.sender, origin.pid, sequence, sent_at_ns, attempt, redelivered, self.codec)
    }
}
