//! Runs: messages that are chosen and acknowledged together.
//!
//! Which message is next is decided by the looks of a round. As long as those stand, nothing but the stamps of the lanes'
//! next messages has to be compared; and as long as no other lane has an earlier one, not even those.

use super::alone::Alike;
use super::{Lane, Lanes, Lent, Stream};
use crate::lane::layout::MessageHeader;
use crate::lane::ring::Record;
use crate::stream::receiver::lending::LaneLoan;
use crate::stream::receiver::{Copied, State};

/// The stamp of no message.
const NOTHING: u64 = u64::MAX;

/// What the looks of a round have shown, for messages that are handed out one behind the other.
#[derive(Debug, Default)]
pub(super) struct Merge {
    /// When the next message of each lane was sent, as far as it may be handed out in passing.
    stamps: Vec<u64>,
    /// Whoever decides on each message by itself has one that was sent then.
    barrier_ns: u64,
    /// Lanes of which something is left that the first look has shown.
    of_first_look: usize,
    clock_ns: u64,
}

/// Messages of one lane that come before those of all others.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream::receiver) struct Run {
    index: usize,
    /// Messages with an earlier stamp than this.
    before_ns: u64,
}

impl Merge {
    /// Which lane is next, and how far. `None` when something else is, or the looks are used up.
    #[inline]
    fn run(&self) -> Option<Run> {
        if self.of_first_look == 0 {
            return None;
        }
        let (mut index, mut first_ns, mut before_ns) = (0, NOTHING, self.barrier_ns);
        for (at, stamp_ns) in self.stamps.iter().copied().enumerate() {
            // Of the same time the one that stands first comes first.
            if stamp_ns < first_ns {
                before_ns = before_ns.min(first_ns);
                (index, first_ns) = (at, stamp_ns);
            } else {
                before_ns = before_ns.min(stamp_ns.saturating_add(1));
            }
        }
        (first_ns < before_ns).then_some(Run { index, before_ns })
    }

    /// Nothing more is handed out in passing.
    fn end(&mut self) {
        self.of_first_look = 0;
    }
}

impl Lane {
    /// Whether nothing has to be decided on any of its messages by itself.
    pub(super) fn is_plain(&self) -> bool {
        self.begun && self.attempts.is_empty() && self.given_back.is_empty() && self.skips.is_idle()
    }

    fn has_of_first_look(&self) -> bool {
        self.next.logical < self.first_tail
    }

    /// The next message, as the second look has shown it; also `None` where that is no record, or one that was
    /// acknowledged before: that shows at the next choice.
    #[inline]
    fn head_in_passing(&self) -> Option<Record> {
        if self.next.logical >= self.second_tail {
            return None;
        }
        let record = self.reader.record_just_there(self.next).or_else(|| self.reader.record(self.next).ok().flatten());
        record.filter(|record| record.header.sequence > self.known_through)
    }
}

/// How far the messages of a run go.
#[derive(Clone, Copy, Debug)]
struct Within {
    /// They begin before this place.
    logical: u64,
    /// Their stamps are earlier than this.
    before_ns: u64,
    clock_ns: u64,
    /// So many are lent together.
    most: usize,
}

impl Lane {
    /// Lends what follows, as long as it is claimed and differs from a message only in its sequence, its stamp and its
    /// payload: as nearly all do of one sender.
    fn lend_alike(&mut self, header: &MessageHeader, within: Within, loan: &mut LaneLoan) {
        let alike = Alike::of(header);
        let taken = self.reader.taken();
        let mut at = self.next;
        while at.logical < within.logical
            && at.messages < taken
            && loan.has_room(within.most)
            && let Some(plain) = self.reader.plain(at, alike.first_word)
            && plain.stamp_ns.max(self.not_before_ns).min(within.clock_ns) < within.before_ns
            && plain.sequence > self.known_through
        {
            self.reader.fetch_ahead(plain.next, plain.next.logical - at.logical);
            self.lend_plain(loan, plain, alike);
            at = plain.next;
        }
        self.next = at;
    }
}

impl Lanes {
    /// Begins to hand out in passing what the looks of the present round have shown. `false` where each message is to be
    /// decided on by itself.
    fn begin_merge(&mut self, stream: Stream) -> bool {
        let is_behind = stream.head_ns.is_none() && stream.is_up && stream.received < self.round.due;
        if is_behind || self.round.clock_ns == 0 {
            return false;
        }
        let stream_of_first_look = self.has_of_first_look(&stream);
        let clock_ns = self.round.clock_ns;
        let merge = &mut self.merge;
        merge.clock_ns = clock_ns;
        merge.barrier_ns = stream.head_ns.map_or(NOTHING, |stamp_ns| stamp_ns.min(clock_ns));
        merge.of_first_look = usize::from(stream_of_first_look);
        merge.stamps.clear();
        for lane in &mut self.lanes {
            let mut shown_ns = NOTHING;
            if !lane.waits_for_stream(stream.is_up) {
                merge.of_first_look += usize::from(lane.has_of_first_look());
                let is_plain = lane.is_plain();
                // Of others than plain ones some are not to be handed out at all.
                let head = if is_plain { lane.head_in_passing() } else { lane.head().ok().flatten() };
                match head.map(|record| lane.stamp_ns(&record, clock_ns)) {
                    Some(stamp_ns) if is_plain => shown_ns = stamp_ns,
                    Some(stamp_ns) => merge.barrier_ns = merge.barrier_ns.min(stamp_ns),
                    None if lane.next.logical < lane.second_tail => return false,
                    None => {}
                }
            }
            merge.stamps.push(shown_ns);
        }
        true
    }

    /// Lends run by run, as long as there is room.
    pub(super) fn lend_runs(&mut self, stream: Stream, loan: &mut LaneLoan, most: usize) {
        if !self.begin_merge(stream) {
            return;
        }
        while loan.has_room(most)
            && let Some(run) = self.merge.run()
        {
            self.lend_run(run, loan, most);
        }
    }

    /// Lends the messages of a run, as long as there is room.
    fn lend_run(&mut self, run: Run, loan: &mut LaneLoan, most: usize) {
        let Self { lanes, merge, .. } = self;
        let lane = &mut lanes[run.index];
        let others_of_first_look = merge.of_first_look - usize::from(lane.has_of_first_look());
        let within = Within {
            logical: if others_of_first_look > 0 { lane.second_tail } else { lane.first_tail.min(lane.second_tail) },
            before_ns: run.before_ns,
            clock_ns: merge.clock_ns,
            most,
        };
        let mut stamp_ns = merge.stamps[run.index];
        let mut head = lane.head_in_passing();
        while stamp_ns < run.before_ns
            && lane.next.logical < within.logical
            && loan.has_room(most)
            && let Some(record) = head
        {
            if !lane.is_claimed(record.next.messages) && !lane.claim(record.next.messages) {
                // Its sender honours another receiver, which shows at the next choice.
                return merge.end();
            }
            let content = loan.copy(&lane.reader, &record, Copied::All);
            loan.lent.push(Lent { content, ..lane.lends(record) });
            lane.next = record.next;
            lane.lend_alike(&record.header, within, loan);
            lane.head = None;
            head = lane.head_in_passing();
            stamp_ns = head.map_or(NOTHING, |record| lane.stamp_ns(&record, merge.clock_ns));
        }
        merge.stamps[run.index] = stamp_ns;
        merge.of_first_look = others_of_first_look + usize::from(lane.has_of_first_look());
        if head.is_none() && lane.next.logical < lane.second_tail {
            // What it is shows at the next choice.
            merge.end();
        }
    }

    /// Those of some lanes that were lent to nobody after all come next again: of each what follows `lent`.
    fn rewind(&mut self, lent: &[Lent]) {
        for lane in &mut self.lanes {
            let last = lent.iter().rev().find(|lent| lent.lane == lane.id);
            (lane.next, lane.head) = (last.map_or(lane.reader.head(), |lent| lent.record.next), None);
        }
    }

    /// Acknowledges messages that are the first of their lanes. Returns those of lanes that are gone: of messages that
    /// stand together at least the last.
    pub(in crate::stream::receiver) fn acknowledge_all(&mut self, lent: &[Lent]) -> Vec<Lent> {
        let is_plain = |lane: &Lane| lane.given_back.is_empty() && lane.skips.is_idle();
        let all_are_plain = self.lanes.iter().all(is_plain);
        let mut gone = Vec::new();
        let mut settle = |lent: &Lent| {
            if !self.acknowledge(lent) {
                gone.push(*lent);
            }
        };
        if all_are_plain {
            // With the last of a lane all before it are.
            let is_last = |at: usize| lent.get(at + 1).is_none_or(|next| next.lane != lent[at].lane);
            (0..lent.len()).rev().filter(|at| is_last(*at)).for_each(|at| settle(&lent[at]));
        } else {
            // Each may have its own attempts, or a gap behind it.
            lent.iter().for_each(settle);
        }
        gone
    }
}

impl State {
    /// Lends what follows in lanes, as far as it may be without another look: `most` messages in all at most.
    pub(in crate::stream::receiver) fn lend_in_passing(&mut self, most: usize) {
        let Some(stream) = self.stream() else { return };
        let before = self.lane_loan.lent.len();
        self.lanes.lend_runs(stream, &mut self.lane_loan, most);
        self.take_back_what_is_anothers(before);
    }

    /// Of what was lent behind the first `before` some may have another receiver, and what was copied may be half another
    /// message: nobody has seen it.
    fn take_back_what_is_anothers(&mut self, before: usize) {
        let lanes = &self.lanes;
        let is_anothers = |lane: &Lane| !lane.reader.is_still_honoured();
        let first = if lanes.are_revoked() {
            Some(0)
        } else if lanes.lanes.iter().any(is_anothers) {
            let of_another = |lent: &Lent| lanes.iter().any(|lane| lane.id == lent.lane && is_anothers(lane));
            self.lane_loan.lent[before..].iter().position(of_another)
        } else {
            None
        };
        if let Some(first) = first {
            self.lane_loan.lent.truncate(before + first);
            self.lanes.rewind(&self.lane_loan.lent);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever runs are made of it: by stamp, of the same stamp the first lane first, and nothing that is not
        /// earlier than what somebody else decides on.
        #[test]
        fn messages_come_by_stamp_and_of_the_same_stamp_by_lane(
            mut lanes in prop::collection::vec(prop::collection::vec(1_u64..20, 0..8), 1..5),
            barrier_ns in prop_oneof![Just(NOTHING), 1_u64..20],
        ) {
            lanes.iter_mut().for_each(|stamps| stamps.sort_unstable());
            let mut expected: Vec<(u64, usize)> = lanes
                .iter()
                .enumerate()
                .flat_map(|(index, stamps)| stamps.iter().map(move |stamp_ns| (*stamp_ns, index)))
                .filter(|(stamp_ns, _)| *stamp_ns < barrier_ns)
                .collect();
            expected.sort_unstable();
            let mut lanes: Vec<_> = lanes.into_iter().map(|stamps| stamps.into_iter().peekable()).collect();
            let head = |lane: &mut std::iter::Peekable<std::vec::IntoIter<u64>>| lane.peek().copied().unwrap_or(NOTHING);
            let stamps = lanes.iter_mut().map(head).collect();
            let mut merge = Merge { stamps, barrier_ns, of_first_look: 1, clock_ns: NOTHING };
            let mut came = Vec::new();
            while let Some(run) = merge.run() {
                while merge.stamps[run.index] < run.before_ns {
                    came.push((merge.stamps[run.index], run.index));
                    lanes[run.index].next();
                    merge.stamps[run.index] = head(&mut lanes[run.index]);
                }
            }
            prop_assert_eq!(came, expected);
        }
    }
}
