//! [`LentFrame`]: one message that is lent, however it came.

use super::lanes::Lent;
use crate::codec::Codec;
use crate::message::MessageInfo;
use crate::wire::{Flags, FrameHeader, Origin};

/// A message that is lent: where it lies in the inbox, or a copy from a lane.
#[derive(Clone, Copy, Debug)]
pub struct LentFrame<'a> {
    pub(super) said: Said<'a>,
    /// Its headers, encoded.
    pub header_block: &'a [u8],
    /// Its content.
    pub payload: &'a [u8],
}

/// What is said of it, where that stands: most who read a message ask for nothing but its content.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said<'a> {
    /// In its frame, and how often this receiver has given it back.
    OfStream { header: FrameHeader, origin: Origin, given_back: u32 },
    /// In its lane, with the wall clock less the clock of its stamp.
    OfLane { lent: &'a Lent, wall_clock_offset_ns: u64 },
}

impl LentFrame<'_> {
    /// How its payload is encoded.
    pub(crate) fn codec(&self) -> Codec {
        match self.said {
            Said::OfStream { header, .. } => header.codec,
            Said::OfLane { lent, .. } => lent.record.header.codec,
        }
    }

    /// What the bus knows of it.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        let (origin, given_back, flags, sequence, sent_at_ns) = match self.said {
            Said::OfStream { header, origin, given_back } => {
                (origin, given_back, header.flags, header.sequence, header.sent_at_ns)
            }
            Said::OfLane { lent, wall_clock_offset_ns } => {
                let header = &lent.record.header;
                let sent_at_ns = header.stamp_ns.wrapping_add(wall_clock_offset_ns);
                (lent.origin(), lent.given_back, header.flags, header.sequence, sent_at_ns)
            }
        };
        let attempt = origin.attempt.saturating_add(given_back);
        let redelivered = attempt > 1 || flags.has(Flags::REDELIVERED);
        MessageInfo::from_wire(origin.sender, origin.pid, sequence, sent_at_ns, attempt, redelivered, self.codec())
    }
}
