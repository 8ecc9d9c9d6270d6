//! The next message where there is nothing to choose: that of the only lane, with nothing on the stream.
//!
//! Nearly all messages that are taken one by one come this way. Their numbers go from the ring to what is lent by
//! registers: handed from function to function by memory, what was stored word by word and is loaded again by pairs of words
//! waits each time until it has left the processor's store buffer.

use super::{Lane, Lanes, Lent, Stream};
use crate::codec::Codec;
use crate::lane::board::Board;
use crate::lane::layout::MessageHeader;
use crate::lane::region::Map;
use crate::lane::ring::{Plain, Record};
use crate::stream::receiver::lending::LaneLoan;
use crate::stream::receiver::{Copied, State};
use crate::wire::Flags;

/// How a message begins, as nearly all of one sender do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alike {
    pub(super) first_word: u64,
    flags: Flags,
    codec: Codec,
}

impl Alike {
    pub(super) fn of(header: &MessageHeader) -> Self {
        Self { first_word: header.first_word(), flags: header.flags, codec: header.codec }
    }
}

impl State {
    /// Lends the next message, if there is nothing to choose. `false` when there may be, or there is none.
    #[inline]
    pub(in crate::stream::receiver) fn lend_alone(&mut self, copied: Copied) -> bool {
        let (received, _) = self.receiving.inbox.received();
        let nothing_comes = self.coming.is_empty() && !self.receiving.inbox.has_lane_news();
        if self.connection.is_none() || !self.receiving.has_nothing() || !nothing_comes {
            return false;
        }
        self.lane_loan.begin(self.lanes.wall_clock_offset_ns());
        self.lanes.lend_alone(received, &mut self.lane_loan, copied)
    }
}

impl Lanes {
    fn lend_alone(&mut self, received: u64, loan: &mut LaneLoan, copied: Copied) -> bool {
        let [lane] = &self.lanes[..] else { return false };
        if !lane.is_plain() || self.skips || self.stream_is_due(received) {
            return false;
        }
        let stream = Stream { head_ns: None, received, waiting: 0, is_up: true };
        // What is broken shows again at the next choice.
        if lane.next.logical >= lane.first_tail && self.begin_round(stream).is_err() || self.stream_is_behind(&stream) {
            return false;
        }
        match (&mut self.lanes[..], &self.ends) {
            ([lane], Some((_, Some(board)))) => lane.lend_next(board, loan, copied),
            _ => false,
        }
    }
}

impl Lane {
    /// Lends its next message, if it begins as the one before and was there at the first look.
    #[inline]
    fn lend_next(&mut self, board: &Board<Map>, loan: &mut LaneLoan, copied: Copied) -> bool {
        let Some(alike) = self.alike else { return false };
        if self.next.logical >= self.first_tail || self.waits_for_stream(true) {
            return false;
        }
        let Some(plain) = self.reader.plain(self.next, alike.first_word) else { return false };
        let (through, bytes) = (plain.next.messages, plain.payload_bytes as usize);
        if plain.sequence <= self.known_through || copied.of(bytes) < bytes {
            return false;
        }
        let is_claimed = if self.is_claimed(through) { self.reader.is_honoured() } else { self.claim(through) };
        if !is_claimed || board.is_revoked() {
            return false;
        }
        self.reader.fetch_ahead(plain.next, plain.next.logical - self.next.logical);
        self.lend_plain(loan, plain, alike);
        if !self.reader.is_still_honoured() {
            // What was copied may be half another message.
            loan.lent.pop();
            return false;
        }
        (self.next, self.head) = (plain.next, None);
        true
    }

    /// Lends a message that is claimed, and begins as others.
    #[inline(always)]
    pub(super) fn lend_plain(&self, loan: &mut LaneLoan, plain: Plain, alike: Alike) {
        let content = loan.copy_plain(&self.reader, &plain);
        let Plain { sequence, stamp_ns, payload_bytes, next } = plain;
        let Alike { flags, codec, .. } = alike;
        let header = MessageHeader { flags, codec, sequence, stamp_ns, payload_bytes, header_block_bytes: 0 };
        loan.lent.push(Lent { content, ..self.lends(Record { header, next }) });
    }
}
