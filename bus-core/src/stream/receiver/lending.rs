//! A receiver beside its lanes: taking them up, choosing, lending, and waiting for lanes and stream together.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::lanes::{Content, Lent, Next, Stream};
use crate::error::Ended;
use crate::lane::biased::BiasedGuard;

use super::{CoarseTime, Copied, LentFrame, Loan, NoMessage, State, StreamReceiver, Wait};
use crate::lane::region::Map;
use crate::lane::ring::{Broken, Plain, Reader, Record};
use crate::stream::inbox::Fill;
use crate::stream::session::DialError;
use crate::transport::Interest;
use crate::wire::{Kind, LaneDone, LaneGiven, LaneId, LaneNamed, LaneSkip, read_control};

/// Messages of lanes that are lent, with copies of their content.
#[derive(Debug, Default)]
pub(super) struct LaneLoan {
    pub(super) lent: Vec<Lent>,
    /// Of which the first bytes are used; written over and over, and not cleared for that.
    content: Vec<u8>,
    used: usize,
    /// The wall clock less the clock of the stamps, in nanoseconds.
    wall_clock_offset_ns: u64,
}

/// What a receiver with lanes does next.
pub(super) enum Beside<'a> {
    /// It hands out what a lane has.
    Lent(Loan<'a>),
    /// It looks again.
    Again(BiasedGuard<'a, State>),
    /// What its stream has is next, or there is no lane.
    Stream(BiasedGuard<'a, State>),
}

/// How much is copied out of lanes at once, for one batch, in bytes: what a processor keeps at hand.
pub(super) const BATCH_BYTES: usize = 128 * 1024;

/// What may stay allocated when messages are small again, in bytes.
const KEPT_BYTES: usize = 2 * 1024 * 1024;

/// How long a try waits for a frame that the daemon is about to write.
const STREAM_PATIENCE: Duration = Duration::from_millis(50);

/// How often it looks meanwhile whether that is due still: what an order removes does not come.
const STREAM_LOOK: Duration = Duration::from_millis(1);

/// How often a receiver that is busy with its lanes looks whether what is due has come: what the daemon says is heard
/// within a millisecond.
const DUE_LOOK: Duration = Duration::from_micros(250);

/// How often a receiver without a daemon looks whether there is one again.
pub(super) const DAEMON_LOOK: Duration = Duration::from_millis(20);

impl LaneLoan {
    pub(super) fn is_empty(&self) -> bool {
        self.lent.is_empty()
    }

    /// Begins with the first message.
    pub(super) fn begin(&mut self, wall_clock_offset_ns: u64) {
        (self.used, self.wall_clock_offset_ns) = (0, wall_clock_offset_ns);
    }

    /// Whether one more may be lent together with those that are.
    #[inline]
    pub(super) fn has_room(&self, most: usize) -> bool {
        self.lent.len() < most && self.used < BATCH_BYTES
    }

    /// Copies what is to be copied of a message, each byte once.
    pub(super) fn copy(&mut self, reader: &Reader<Map, Map>, record: &Record, copied: Copied) -> Content {
        let block_bytes = record.header.header_block_bytes as usize;
        let (content, bytes) = self.take_room(block_bytes + copied.of(record.header.payload_bytes as usize));
        let (block, payload) = bytes.split_at_mut(block_bytes);
        if !block.is_empty() {
            reader.copy_header_block(record, block);
        }
        reader.copy_payload(record, payload);
        content
    }

    /// Copies the content of a message that has a payload alone.
    #[inline(always)]
    pub(super) fn copy_plain(&mut self, reader: &Reader<Map, Map>, plain: &Plain) -> Content {
        let (content, payload) = self.take_room(plain.payload_bytes as usize);
        reader.copy_plain(plain, payload);
        content
    }

    /// Room for the content of one more message.
    #[inline(always)]
    fn take_room(&mut self, bytes: usize) -> (Content, &mut [u8]) {
        let at = self.used;
        if self.content.len() < at + bytes || at == 0 {
            self.make_room(at + bytes);
        }
        self.used += bytes;
        (Content { at: at as u32, bytes: bytes as u32 }, &mut self.content[at..at + bytes])
    }

    #[cold]
    fn make_room(&mut self, end: usize) {
        if self.used == 0 && end <= BATCH_BYTES && self.content.len() > KEPT_BYTES {
            // One large message must not keep its memory for ever.
            self.content = Vec::new();
        }
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
    }

    /// Lends the first `count` alone. Returns the others.
    pub(super) fn lend_only(&mut self, count: usize) -> Vec<Lent> {
        self.lent.drain(count.min(self.lent.len())..).collect()
    }

    /// The first, if its payload lies in its lane.
    pub(super) fn first_in_ring(&self) -> Option<&Lent> {
        let lent = self.lent.first()?;
        let header = &lent.record.header;
        let bytes = u64::from(header.header_block_bytes) + u64::from(header.payload_bytes);
        (u64::from(lent.content.bytes) < bytes).then_some(lent)
    }

    #[inline]
    pub(super) fn frames(&self) -> impl Iterator<Item = LentFrame<'_>> {
        self.lent.iter().map(|lent| LentFrame::of_lane(self, lent))
    }

    /// What was copied of a message: its header block, and its payload if that does not lie in its lane.
    #[inline]
    pub(super) fn content(&self, lent: &Lent) -> &[u8] {
        &self.content[lent.content.at as usize..][..lent.content.bytes as usize]
    }

    /// When a message was sent, by the wall clock.
    pub(super) fn sent_at_ns(&self, lent: &Lent) -> u64 {
        lent.record.header.stamp_ns.wrapping_add(self.wall_clock_offset_ns)
    }
}

impl State {
    /// How many messages are lent, from wherever.
    pub(super) fn lent(&self) -> usize {
        self.receiving.lent() + self.lane_loan.lent.len()
    }

    /// Whether there is a lane, or one to come.
    pub(super) fn has_lanes(&self) -> bool {
        !self.lanes.is_empty() || !self.coming.is_empty()
    }

    /// How the stream stands beside the lanes; `None` when it is broken.
    pub(super) fn stream(&mut self) -> Option<Stream> {
        let head_ns = self.receiving.head().ok()?.map(|head| head.accepted_at_ns());
        let (received, waiting) = self.receiving.inbox.received();
        Some(Stream { head_ns, received, waiting, is_up: self.connection.is_some() })
    }

    /// What is in lanes from which this receiver was sent away is another's.
    pub(super) fn forget_revoked_lanes(&mut self) {
        if self.lanes.are_revoked() {
            self.lost_lanes = true;
            self.note_lanes();
            self.lanes.clear();
        }
    }

    /// Notes what was acknowledged in lanes, for the next daemon.
    pub(super) fn note_lanes(&mut self) {
        for (origin, sequence) in self.lanes.acknowledged() {
            self.receiving.note(origin, sequence);
        }
    }

    /// Lends the head of a lane; `false` when it is not to be handed out, and the lane when it has another
    /// receiver.
    fn lend_head(&mut self, index: usize, copied: Copied) -> Result<bool, LaneId> {
        let Some(mut lent) = self.lanes.claim(index) else { return Err(self.lanes.id(index)) };
        let sequence = lent.record.header.sequence;
        let origin = lent.origin();
        let is_known =
            self.lanes.knows(index, &lent) || origin.attempt > 1 && self.receiving.knows(origin.sender, sequence);
        if is_known {
            // Acknowledged here before the lane was given again.
            self.lanes.pass(index);
            self.lanes.acknowledge(&lent);
            return Ok(false);
        }
        lent.content = self.lanes.copy_to(&mut self.lane_loan, index, &lent.record, copied);
        if !self.lanes.is_still_honoured(index) {
            // What was copied may be half another message.
            return Err(self.lanes.id(index));
        }
        self.lanes.pass(index);
        self.lane_loan.lent.push(lent);
        Ok(true)
    }
}

/// Says that lanes are brought, for as long as that lasts.
struct Bringing<'a>(&'a AtomicBool);

impl<'a> Bringing<'a> {
    fn begin(bringing: &'a AtomicBool) -> Self {
        bringing.store(true, Ordering::Relaxed);
        Self(bringing)
    }
}

impl Drop for Bringing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl StreamReceiver {
    /// Looks into the lanes for the message that comes next, and waits for it.
    // Not inlined: whoever has no lanes has a short way past it, all of which has to be fetched for a message.
    #[inline(never)]
    pub(super) fn next_beside_lanes<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
        copied: Copied,
    ) -> Result<Beside<'a>, NoMessage> {
        if state.connection.is_none() {
            state = self.let_the_keeper_in(state, wait)?;
        }
        Ok(match self.choose(&mut state) {
            Next::Lane(index) if self.lend_from_lane(&mut state, index, copied) => {
                Beside::Lent(Loan::of_lane(self, state))
            }
            Next::Lane(_) => Beside::Again(state),
            Next::ReadStream => Beside::Again(self.read_stream(state, wait)?),
            Next::Unknown => Beside::Again(self.wait_for_lanes(state, wait)?),
            Next::Nothing if state.has_lanes() => Beside::Again(self.wait_beside_lanes(state, wait)?),
            Next::Nothing | Next::Stream => Beside::Stream(state),
        })
    }

    /// Another connection is there: what becomes of the lanes that it had.
    pub(super) fn find_lanes_orphaned(&self, state: &mut State, daemon: u64, seated: bool) {
        state.note_lanes();
        if std::mem::replace(&mut state.daemon, daemon) == daemon {
            // They are given again.
            state.lanes.clear();
        } else {
            self.bring_lanes(state, seated);
        }
        state.filled_due = 0;
    }

    /// Brings the lanes of an earlier daemon to the present one, which gives them to whoever has the seat.
    pub(super) fn bring_lanes(&self, state: &mut State, seated: bool) {
        let lanes = state.lanes.take_all();
        let _bringing = (!lanes.is_empty()).then(|| Bringing::begin(&self.bringing));
        let mut answers = true;
        for lane in lanes {
            let Some(brought) = lane.brought(&self.options.channel) else { continue };
            let taken = if answers { self.options.dialer.bring(brought, &lane.descriptors()) } else { Err(gone()) };
            match taken {
                Ok(()) if seated => state.lanes.keep_handed_in(lane),
                Ok(()) => {}
                Err(error) => {
                    answers &= matches!(error, DialError::Refused(_));
                    match seated {
                        true => state.lanes.keep_orphan(lane),
                        // It may be another's by now: nothing is taken from it.
                        false => state.lanes.keep_handed_in(lane),
                    }
                }
            }
        }
    }

    /// Which message comes next, from lanes or stream.
    pub(super) fn choose(&self, state: &mut State) -> Next {
        let (received, _) = state.receiving.inbox.received();
        if state.lanes.stream_is_due(received) {
            self.read_what_is_due(state);
        }
        self.take_up_lanes(state);
        if state.coming.hold_back() && state.receiving.ended().is_none() {
            return Next::Unknown;
        }
        match state.receiving.ended() {
            // Of a daemon that knows nothing of lanes that an earlier one gave.
            Some(Ended::Disconnected) => return self.choose_at_the_end(state),
            Some(_) => return Next::Stream,
            None => {}
        }
        let Some(stream) = state.stream() else { return Next::Stream };
        let next = state.lanes.next(stream);
        if self.tell_skipped(state) && state.connection.is_none() {
            // Lost with that, and perhaps the lanes: it is chosen again.
            return Next::Nothing;
        }
        match next {
            Ok(next) => next,
            Err((lane, broken)) => {
                self.give_up_lane(state, lane, broken);
                Next::Nothing
            }
        }
    }

    /// Tells the daemon what was passed over. Returns whether there was anything.
    fn tell_skipped(&self, state: &mut State) -> bool {
        let mut tells = false;
        while let Some(told) = state.lanes.skipped() {
            state.receiving.control.push(Kind::LaneSkipped, &told);
            tells = true;
        }
        if tells {
            // What was passed over makes room.
            state.lanes.ring_for_those_who_wait();
            self.write(state);
            self.leave_to_keeper(state);
        }
        tells
    }

    /// A message of the stream is settled: what was passed over in lanes may have waited for that, and there may be no
    /// further call for long.
    pub(super) fn pass_over_in_lanes(&self, state: &mut State) {
        if state.lanes.have_skips()
            && let Some(stream) = state.stream()
        {
            state.lanes.pass_over(stream);
            self.tell_skipped(state);
        }
    }

    /// Which message comes next when the stream has ended.
    fn choose_at_the_end(&self, state: &mut State) -> Next {
        let stream = Stream { head_ns: None, received: 0, waiting: 0, is_up: false };
        match state.lanes.next(stream) {
            Ok(Next::Lane(index)) => Next::Lane(index),
            Ok(_) if state.lanes.is_empty() => Next::Stream,
            Ok(_) => Next::Nothing,
            Err((lane, broken)) => {
                self.give_up_lane(state, lane, broken);
                Next::Nothing
            }
        }
    }

    /// Reads what the board shows to be there. It is shown before it is written, so that is not there at the first look,
    /// perhaps; and of a long queue much is not there for long.
    fn read_what_is_due(&self, state: &mut State) {
        let (due, now) = (state.lanes.due(), Instant::now());
        if state.filled_due == due && now < state.filled_at + DUE_LOOK {
            return;
        }
        (state.filled_due, state.filled_at, state.read_at) = (due, now, CoarseTime::now());
        if let Some(connection) = state.connection.clone() {
            // A failure shows again where more is read.
            let _ = state.receiving.inbox.fill(&connection);
        }
    }

    /// Takes notice of what the daemon says of lanes.
    pub(super) fn take_up_lanes(&self, state: &mut State) {
        while let Some((kind, body)) = state.receiving.inbox.next_lane_news() {
            match kind {
                Kind::LaneGiven => {
                    if let Ok(given) = read_control::<LaneGiven>(kind, &body) {
                        self.expect_lane(state, given);
                    }
                }
                Kind::LaneSkip => {
                    if let Ok(order) = read_control::<LaneSkip>(kind, &body)
                        && !state.coming.order_skip(order)
                    {
                        state.lanes.order_skip(order);
                    }
                }
                _ => {
                    if let Ok(LaneNamed { lane }) = read_control::<LaneNamed>(kind, &body)
                        && !state.coming.sender_is_gone(lane)
                        && let Some(lane) = state.lanes.get_mut(lane)
                    {
                        lane.sender_is_gone();
                    }
                }
            }
        }
        self.take_up_fetched(state);
        let now = CoarseTime::now();
        if std::mem::replace(&mut state.ended_at, now) != now {
            self.finish_lanes(state);
        }
    }

    /// Lets go of lanes that are at their end. Returns whether there were any.
    pub(super) fn finish_lanes(&self, state: &mut State) -> bool {
        // Of a lane that is gone nothing counts any more.
        self.tell_skipped(state);
        let mut finished = false;
        while let Some(over) = state.lanes.over() {
            self.finish_lane(state, over);
            finished = true;
        }
        finished
    }

    /// A lane is at its end.
    fn finish_lane(&self, state: &mut State, id: LaneId) {
        let Some(lane) = state.lanes.remove(id) else { return };
        state.receiving.note(lane.origin(), lane.last_sequence());
        if !lane.is_orphaned() {
            let done = LaneDone { lane: id, messages: lane.messages(), fault: None };
            // Its memory first, as always.
            drop(lane);
            state.receiving.control.push(Kind::LaneDone, &done);
            self.write(state);
            self.leave_to_keeper(state);
        }
    }

    /// A lane is of no use any more: its sender has written what no sender writes.
    fn give_up_lane(&self, state: &mut State, id: LaneId, broken: Broken) {
        let Some(lane) = state.lanes.remove(id) else { return };
        state.receiving.note(lane.origin(), lane.last_sequence());
        // Or this receiver was stopped, and its sender has turned to another since and written over what was here: that
        // it had the lane is what the next daemon knows by that its place is another's.
        state.lost_lanes = true;
        let fault = Some(format!("{broken} (pid {})", lane.origin().pid));
        let done = LaneDone { lane: id, messages: lane.messages(), fault };
        if !lane.is_orphaned() {
            state.receiving.control.push(Kind::LaneDone, &done);
            self.write(state);
            self.leave_to_keeper(state);
        }
    }

    /// Lends the head of a lane. `false` when there is nothing to lend there after all.
    pub(super) fn lend_from_lane(&self, state: &mut State, index: usize, copied: Copied) -> bool {
        state.lane_loan.begin(state.lanes.wall_clock_offset_ns());
        if !self.begin_lane(state, index) {
            return false;
        }
        match state.lend_head(index, copied) {
            Ok(lent) => lent,
            Err(lane) => {
                // It has another receiver, or none.
                state.lost_lanes = true;
                if state.lanes.are_revoked() {
                    // The daemon may have said why, and may let this receiver in again.
                    self.lose_link(state);
                    state.forget_revoked_lanes();
                } else if let Some((origin, sequence)) = state.lanes.lose(lane) {
                    state.receiving.note(origin, sequence);
                }
                false
            }
        }
    }

    /// What the sender of a lane had sent before by the stream is acknowledged: the daemon is told, because what is
    /// acknowledged in the lane is known at once, and the next receiver would get the older ones alone.
    /// `false` when the connection is lost with that, and perhaps the lane.
    fn begin_lane(&self, state: &mut State, index: usize) -> bool {
        if state.connection.is_none() || !state.lanes.begins(index) {
            return true;
        }
        self.tell(state, true);
        state.connection.is_some()
    }

    /// Lends more, as long as the next message comes by a lane and was there when the lanes were looked at: whoever looks
    /// again for each few that have come meanwhile is in the way of who sends them.
    pub(super) fn lend_more_from_lanes(&self, state: &mut State, most: usize) {
        state.lend_in_passing(most);
        while state.lane_loan.has_room(most)
            && let Some(index) = self.next_in_lanes(state)
        {
            if !self.begin_lane(state, index) {
                return;
            }
            // What is not lent now shows again with the next message.
            if !matches!(state.lend_head(index, Copied::All), Ok(true)) {
                return;
            }
            state.lend_in_passing(most);
        }
    }

    /// Which lane has the next message of those that were looked at.
    fn next_in_lanes(&self, state: &mut State) -> Option<usize> {
        if !state.lanes.have_skips() {
            let stream = state.stream()?;
            return state.lanes.next_shown(stream);
        }
        // What is to be passed over may have come since, and there may be no further call for long.
        match self.choose(state) {
            Next::Lane(index) => Some(index),
            Next::Stream | Next::ReadStream | Next::Unknown | Next::Nothing => None,
        }
    }

    /// How many messages of the stream may be lent together: one, where lanes have others between them.
    pub(super) fn streamed_together(&self, state: &State, most: usize) -> usize {
        if state.lanes.is_empty() { most } else { most.min(1) }
    }

    /// Acknowledges the first `count` of those that are lent, and takes the others back.
    pub(super) fn settle_lanes(&self, state: &mut State, count: usize) {
        let lent = std::mem::take(&mut state.lane_loan.lent);
        let count = count.min(lent.len());
        for gone in state.lanes.acknowledge_all(&lent[..count]) {
            // The lane is gone, and the message comes again by another way.
            state.receiving.note(gone.origin(), gone.record.header.sequence);
        }
        state.lanes.give_back(&lent[count..]);
        state.lane_loan.lent = lent;
        state.lane_loan.lent.clear();
        // There may be no further call before the lane ends.
        self.tell_skipped(state);
    }

    /// Reads the stream until it has what the daemon has announced.
    pub(super) fn read_stream<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        // It may be due only once it is told that there is room.
        self.tell(&mut state, true);
        state.lanes.ring_for_those_who_wait();
        let Some(connection) = state.connection.clone() else { return Ok(state) };
        let now = Instant::now();
        let until = match wait {
            Wait::Never => now + STREAM_PATIENCE,
            // It is looked again then: what was due may have been purged.
            Wait::Until(deadline) => deadline.min(now + DAEMON_LOOK),
            Wait::Forever => now + DAEMON_LOOK,
        };
        let (received, _) = state.receiving.inbox.received();
        let comes = loop {
            let look = if wait == Wait::Never { until.min(Instant::now() + STREAM_LOOK) } else { until };
            match connection.wait(Interest::Readable, Some(look)) {
                Ok(None) if !state.lanes.stream_is_due(received) => return Ok(state),
                Ok(None) if Instant::now() < until => {}
                comes => break comes,
            }
        };
        match comes {
            Ok(None) if wait == Wait::Never => return Err(NoMessage::Empty),
            Ok(None) if is_late(wait) => return Err(NoMessage::Timeout),
            Ok(None) => {}
            Ok(Some(_)) => {
                self.fill(&mut state);
            }
            Err(_) => self.lose_link(&mut state),
        }
        Ok(state)
    }

    /// Reads what has come by the stream. Returns whether anything is new.
    pub(super) fn fill(&self, state: &mut State) -> bool {
        let Some(connection) = state.connection.clone() else { return false };
        match state.receiving.inbox.fill(&connection) {
            Ok(Fill::Bytes) => state.read_at = CoarseTime::now(),
            Ok(Fill::Nothing) => {
                state.read_at = CoarseTime::now();
                return false;
            }
            Ok(Fill::Closed) | Err(_) => self.lose_link(state),
        }
        true
    }
}

fn gone() -> DialError {
    DialError::Unreachable(io::ErrorKind::ConnectionReset.into())
}

pub(super) fn is_late(wait: Wait) -> bool {
    wait.deadline().is_some_and(|deadline| Instant::now() >= deadline)
}
