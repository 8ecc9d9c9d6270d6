//! Runs: messages of one lane that come one behind the other, chosen and acknowledged together.
//!
//! Which message is next is decided by the looks of a round. As long as those stand, and nothing of another lane or
//! of the stream is earlier, the next of the same lane is the next of all: so it is asked once.

use std::ops::Range;

use super::{Lanes, Lent, Stream};
use crate::limits::CLAIM_MESSAGES;
use crate::stream::receiver::lending::BATCH_BYTES;
use crate::stream::receiver::{Copied, State};
use crate::wire::Origin;

/// What may be handed out of one lane without a look at others.
#[derive(Debug)]
pub(in crate::stream::receiver) struct Run {
    index: usize,
    clock_ns: u64,
    /// Messages with an earlier stamp than this come before those of others.
    before_ns: u64,
    /// Something of another lane or of the stream was seen at the first look.
    others_of_first_look: bool,
}

impl Lanes {
    /// Behind a message of a lane: how far it may go on there. `None` where each message is decided on by itself.
    pub(in crate::stream::receiver) fn run(&mut self, index: usize, stream: Stream) -> Option<Run> {
        let clock_ns = self.round.clock_ns;
        let is_behind = stream.head_ns.is_none() && stream.is_up && stream.received < self.round.due;
        let shows_due = stream.is_up && self.board().is_some();
        let begins_at = stream.received.saturating_sub(stream.waiting);
        let stream_of_first_look = stream.head_ns.is_some() && (begins_at < self.round.first_due || !shows_due);
        let lane = &self.lanes[index];
        let is_plain = lane.attempts.is_empty() && lane.given_back.is_empty() && lane.skips.is_idle();
        if is_behind || !is_plain {
            return None;
        }
        let before_ns = stream.head_ns.map_or(u64::MAX, |stamp_ns| stamp_ns.min(clock_ns));
        let mut run = Run { index, clock_ns, before_ns, others_of_first_look: stream_of_first_look };
        for (other, lane) in self.lanes.iter_mut().enumerate() {
            if other == index || lane.waits_for_stream(stream.is_up) {
                continue;
            }
            run.others_of_first_look |= lane.next.logical < lane.first_tail;
            // What is no record shows where it would be handed out.
            if let Some(record) = lane.head().ok()? {
                // Of the same time the one that stands first comes first.
                let stamp_ns = lane.stamp_ns(&record, clock_ns);
                run.before_ns = run.before_ns.min(stamp_ns.saturating_add(u64::from(index < other)));
            }
        }
        Some(run)
    }

    /// Claims the next message of a run, and passes on to the one behind it. `None` when the run is over, or that
    /// message is to be decided on by itself.
    #[inline]
    fn claim_next(&mut self, run: &Run) -> Option<Lent> {
        let wall_clock_offset_ns = self.wall_clock_offset_ns;
        let lane = &mut self.lanes[run.index];
        if !run.others_of_first_look && lane.next.logical >= lane.first_tail {
            return None;
        }
        let record = match lane.head {
            Some(record) => record,
            None if lane.next.logical >= lane.second_tail => return None,
            // What is no record shows at the next choice.
            None => lane.reader.record(lane.next).ok()??,
        };
        let header = &record.header;
        if lane.stamp_ns(&record, run.clock_ns) >= run.before_ns || header.sequence <= lane.known_through {
            return None;
        }
        if lane.reader.taken() < record.next.messages {
            let ahead = (record.next.messages - 1 + CLAIM_MESSAGES).min(lane.reader.published());
            if !lane.reader.claim(record.next.messages.max(ahead)) {
                return None;
            }
        }
        (lane.next, lane.head) = (record.next, None);
        let origin = Origin { sender: lane.sender, accepted_at_ns: header.stamp_ns, pid: lane.pid, attempt: 1 };
        let sent_at_ns = header.stamp_ns.wrapping_add(wall_clock_offset_ns);
        Some(Lent { lane: lane.id, record, origin, given_back: 0, sent_at_ns, known: false })
    }

    /// Acknowledges messages that are the first of their lanes, once for each run of them. Returns those whose lanes
    /// are gone.
    pub(in crate::stream::receiver) fn acknowledge_all(&mut self, lent: &[(Lent, Range<usize>)]) -> Vec<Lent> {
        let mut gone = Vec::new();
        for run in lent.chunk_by(|(one, _), (next, _)| one.lane == next.lane) {
            let is_plain = |lanes: &mut Self| {
                let lane = lanes.get_mut(run[0].0.lane);
                lane.is_some_and(|lane| lane.given_back.is_empty() && lane.skips.is_idle())
            };
            // All before the last are acknowledged with it, unless each has its own attempts or gaps.
            let from = if is_plain(self) { run.len() - 1 } else { 0 };
            for (lent, _) in &run[from..] {
                if !self.acknowledge(lent) {
                    gone.push(*lent);
                }
            }
        }
        gone
    }
}

impl State {
    /// Lends what follows in a lane, as far as it may be without another look: `most` messages in all at most.
    pub(in crate::stream::receiver) fn lend_run(&mut self, index: usize, most: usize) {
        let Some(run) = self.stream().and_then(|stream| self.lanes.run(index, stream)) else { return };
        let (lent_before, next_before) = (self.lane_loan.lent.len(), self.lanes.lanes[index].next);
        while self.lane_loan.lent.len() < most && self.lane_loan.used < BATCH_BYTES {
            let Some(lent) = self.lanes.claim_next(&run) else { break };
            let content = self.copy_out(index, &lent, Copied::All);
            self.lane_loan.lent.push((lent, content));
        }
        if !self.lanes.is_still_honoured(index) || self.lanes.are_revoked() {
            // It has another receiver, and what was copied may be half another message: nobody has seen it.
            self.lane_loan.lent.truncate(lent_before);
            let lane = &mut self.lanes.lanes[index];
            (lane.next, lane.head) = (next_before, None);
        }
    }
}
