//! [`LentFrame`]: one message that is lent, however it came.

use super::lanes::Lent;
use super::lending::LaneLoan;
use super::receiving;
use crate::codec::Codec;
use crate::message::MessageInfo;
use crate::wire::{Flags, HEADER_BYTES, ORIGIN_BYTES};

/// A message that is lent: where it lies in the inbox, or a copy from a lane.
///
/// It is small, and handed on by value for each message; what is asked for is found then.
#[derive(Clone, Copy, Debug)]
pub struct LentFrame<'a>(Lying<'a>);

#[derive(Clone, Copy, Debug)]
enum Lying<'a> {
    /// How often this receiver has given it back stands beside its frame.
    InInbox {
        frame: &'a [u8],
        header_block_bytes: u32,
        given_back: u32,
    },
    Copied {
        loan: &'a LaneLoan,
        lent: &'a Lent,
    },
}

impl<'a> LentFrame<'a> {
    /// Of a message that came by the stream.
    pub(super) fn of_stream(frame: &'a [u8], given_back: u32) -> Self {
        let header_block_bytes = receiving::header(frame).header_block_bytes;
        Self(Lying::InInbox { frame, header_block_bytes, given_back })
    }

    /// Of a message that came by a lane.
    #[inline]
    pub(super) fn of_lane(loan: &'a LaneLoan, lent: &'a Lent) -> Self {
        Self(Lying::Copied { loan, lent })
    }

    /// Its headers, encoded.
    #[must_use]
    pub fn header_block(&self) -> &'a [u8] {
        self.content().0
    }

    /// Its content.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.content().1
    }

    #[inline]
    fn content(&self) -> (&'a [u8], &'a [u8]) {
        let (content, header_block_bytes) = match self.0 {
            Lying::InInbox { frame, header_block_bytes, .. } => {
                (&frame[HEADER_BYTES + ORIGIN_BYTES..], header_block_bytes)
            }
            Lying::Copied { loan, lent } => (loan.content(lent), lent.record.header.header_block_bytes),
        };
        content.split_at(header_block_bytes as usize)
    }

    /// How its payload is encoded.
    pub(crate) fn codec(&self) -> Codec {
        match self.0 {
            Lying::InInbox { frame, .. } => receiving::header(frame).codec,
            Lying::Copied { lent, .. } => lent.record.header.codec,
        }
    }

    /// What the bus knows of it.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        let (origin, given_back, flags, sequence, sent_at_ns) = match self.0 {
            Lying::InInbox { frame, given_back, .. } => {
                let header = receiving::header(frame);
                (receiving::origin(frame), given_back, header.flags, header.sequence, header.sent_at_ns)
            }
            Lying::Copied { loan, lent } => {
                let header = &lent.record.header;
                (lent.origin(), lent.given_back, header.flags, header.sequence, loan.sent_at_ns(lent))
            }
        };
        let attempt = origin.attempt.saturating_add(given_back);
        let redelivered = attempt > 1 || flags.has(Flags::REDELIVERED);
        MessageInfo::from_wire(origin.sender, origin.pid, sequence, sent_at_ns, attempt, redelivered, self.codec())
    }
}
