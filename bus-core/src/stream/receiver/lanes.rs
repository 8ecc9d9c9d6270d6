//! The lanes of a receiver, and the order in which their messages and those of the stream are handed out.
//!
//! **The order.** If one send returned before another began, the first is handed out first. Each message has a
//! stamp, taken when it was sent, or for the stream when the daemon accepted it. In a *round* all lanes are
//! looked at, then the clock, then all lanes again; the stream counts as one lane more, of which the daemon's
//! board shows how far it goes. What the second look shows is handed out by stamp for as long as something of
//! the first look is left: whatever was sent before that, the second look cannot have missed.

mod alone;
mod lane;
mod patience;
mod runs;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;

use self::alone::Alike;
use self::patience::Patience;
use self::runs::Merge;
use super::Copied;
use super::lending::LaneLoan;
use super::skips::Skips;
use crate::lane::board::Board;
use crate::lane::doorbell::{Doorbell, Ringer};
use crate::lane::region::{Map, MemoryFile};
use crate::lane::ring::{Broken, Position, Reader, Record};
use crate::lane::stamp::now_ns;
use crate::wire::{LaneAttempts, LaneId, LaneProof, LaneSkip, LaneSkipped, Origin};

/// All lanes of one receiver.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Lanes that the daemon has from this receiver and is to give to it again. Nothing is taken from them, and
    /// should the daemon die before, the next one has them from here.
    handed_in: Vec<Lane>,
    /// Where it waits, and what the daemon shows it; the same for all its lanes.
    ends: Option<(Arc<Doorbell>, Option<Board<Map>>)>,
    round: Round,
    patience: Patience,
    merge: Merge,
    /// The wall clock less the clock of the stamps, in nanoseconds.
    wall_clock_offset_ns: u64,
    /// Some messages are to be skipped.
    skips: bool,
    /// Something came while it looked, or just after it had gone to sleep.
    hot: bool,
    slept_at_ns: u64,
}

/// One lane, from its receiver's side.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    /// Where it lies, for the next daemon.
    file: MemoryFile,
    proof: LaneProof,
    /// Of this receiver.
    generation: u64,
    pub(super) reader: Reader<Map, Map>,
    ringer: Arc<Ringer>,
    sender: u64,
    pid: u32,
    not_before_ns: u64,
    attempts: Vec<LaneAttempts>,
    /// All up to this sequence this receiver has acknowledged before the lane was given to it, perhaps again.
    pub(super) known_through: u64,
    sender_gone: bool,
    /// The daemon that gave it is gone, and the next one does not take it. Its sender sends again by the stream
    /// what is not acknowledged here.
    orphaned: bool,
    /// The daemon that gave it had it from an earlier one.
    brought: bool,
    /// The first message that is not handed out.
    next: Position,
    /// That message, once it is looked at.
    head: Option<Record>,
    /// How the message began that was handed out last.
    alike: Option<Alike>,
    /// How far it went at the first look.
    first_tail: u64,
    /// How far it went at the second: what is behind that is for the next round.
    second_tail: u64,
    /// Something of it was handed out.
    begun: bool,
    /// What is not to be handed out.
    skips: Skips,
    /// All that its sender sent before by the stream has come, and is settled.
    stream_is_read: bool,
    /// How often the messages from the head on were given back.
    given_back: Vec<u32>,
    /// Of the message that was acknowledged last.
    sequence: u64,
    /// What its sender sent before by the stream is here, as far as it can come.
    released: bool,
    /// How far has to be acknowledged before a sender that waits is rung for.
    ring_at: Option<u64>,
}

/// Where a receiver of lanes waits, and what the daemon shows it.
pub(super) type Ends = (Doorbell, Board<Map>);

/// What a round has found.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// How many frames of the stream the first look showed, and the second.
    first_due: u64,
    due: u64,
    clock_ns: u64,
}

/// The stream, as it stands beside the lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// When its first message was accepted.
    pub(super) head_ns: Option<u64>,
    /// Frames that have come and were not given back, and how many of them stand from its first message on.
    pub(super) received: u64,
    pub(super) waiting: u64,
    /// Its daemon is there.
    pub(super) is_up: bool,
}

/// What is handed out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The first message of the stream.
    Stream,
    /// The head of this lane.
    Lane(usize),
    /// The stream has something that has to be read before that is known.
    ReadStream,
    /// Not known before a lane is here that the daemon has given.
    Unknown,
    /// There is nothing.
    Nothing,
}

/// A message of a lane that is lent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    pub(super) lane: LaneId,
    sender: u64,
    pid: u32,
    /// How often earlier receivers were handed it, and this time.
    attempt: u32,
    /// How often this receiver has given it back.
    pub(super) given_back: u32,
    /// Where its copy lies.
    pub(super) content: Content,
    pub(super) record: Record,
}

/// Where a copy lies among those of what is lent together: it begins within one batch, and is no longer than a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) at: u32,
    pub(super) bytes: u32,
}

impl Lent {
    pub(super) fn origin(&self) -> Origin {
        let Self { sender, pid, attempt, .. } = *self;
        Origin { sender, accepted_at_ns: self.record.header.stamp_ns, pid, attempt }
    }
}

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub(super) fn add(&mut self, lane: Lane, ends: Ends) {
        self.lanes.push(lane);
        // The same for all, and new with each connection.
        self.ends = Some((Arc::new(ends.0), Some(ends.1)));
        self.end_round();
    }

    /// What comes next is found by new looks: what the last ones showed does not go for a lane that was added, or
    /// a stream that is another.
    fn end_round(&mut self) {
        self.round = Round::default();
        for lane in &mut self.lanes {
            (lane.first_tail, lane.second_tail, lane.head) = (0, 0, None);
        }
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    /// Lets a lane go that this receiver may not read from any more. Unless another has read on, this one has it for
    /// the next daemon until it is given the lane again. Returns its sender, and the last sequence that was
    /// acknowledged.
    pub(super) fn lose(&mut self, id: LaneId) -> Option<(Origin, u64)> {
        let lane = self.remove(id)?;
        let known = (lane.origin(), lane.last_sequence());
        if !lane.reader.is_anothers() {
            self.handed_in.push(lane);
        }
        Some(known)
    }

    /// Lets a lane go.
    pub(super) fn remove(&mut self, id: LaneId) -> Option<Lane> {
        self.handed_in.retain(|lane| lane.id != id);
        let index = self.lanes.iter().position(|lane| lane.id == id)?;
        Some(self.lanes.remove(index))
    }

    /// Another daemon serves now. Takes all lanes out, to be brought there.
    pub(super) fn take_all(&mut self) -> Vec<Lane> {
        // Its board is of the daemon before.
        if let Some((_, board)) = &mut self.ends {
            *board = None;
        }
        self.end_round();
        let mut all = std::mem::take(&mut self.lanes);
        all.append(&mut self.handed_in);
        all
    }

    /// Whether there are any that are to be [brought](Self::take_all).
    pub(super) fn are_any_held(&self) -> bool {
        !(self.lanes.is_empty() && self.handed_in.is_empty())
    }

    /// A lane that the daemon has taken, and gives to this receiver again.
    pub(super) fn keep_handed_in(&mut self, lane: Lane) {
        self.handed_in.push(lane);
    }

    /// A lane that the daemon does not take.
    pub(super) fn keep_orphan(&mut self, mut lane: Lane) {
        lane.orphaned = true;
        self.lanes.push(lane);
    }

    /// Takes an order to skip messages of a lane.
    pub(super) fn order_skip(&mut self, order: LaneSkip) {
        if let Some(lane) = self.get_mut(order.lane) {
            lane.skips.orders.push(order);
            // What was looked at may be one of them.
            lane.head = None;
            self.skips = true;
        }
    }

    /// Lanes of which something was skipped, and how much.
    pub(super) fn skipped(&mut self) -> Option<LaneSkipped> {
        if !self.skips {
            return None;
        }
        self.skips = self.lanes.iter().any(|lane| !lane.skips.is_idle());
        self.lanes.iter_mut().find_map(|lane| {
            let messages = lane.skipped();
            (messages > 0).then_some(LaneSkipped { lane: lane.id, messages })
        })
    }

    /// One that has come to its end.
    pub(super) fn over(&mut self) -> Option<LaneId> {
        self.lanes.iter_mut().find_map(|lane| lane.is_over().then_some(lane.id))
    }

    /// Whether there are some of a daemon that is gone: nobody tells when their senders turn away, or have nothing
    /// more to come by the stream; nor that of others, for which it is waited before messages count as passed over.
    pub(super) fn are_to_be_watched(&self) -> bool {
        self.lanes.iter().any(|lane| lane.orphaned || (lane.brought && !lane.released) || lane.waits_to_pass())
    }

    /// Whether some are to be given again.
    pub(super) fn are_handed_in(&self) -> bool {
        !self.handed_in.is_empty()
    }

    /// Its user lets go of this receiver, with nothing lent: whoever comes next is not told that it may have seen more than
    /// it has.
    pub(super) fn end_claims(&mut self) {
        self.lanes.iter_mut().for_each(Lane::end_claim);
    }

    /// Lets all go: what is in them is another receiver's.
    pub(super) fn clear(&mut self) {
        self.lanes.clear();
        self.handed_in.clear();
        self.ends = None;
    }

    /// The connection is gone, and the board with its daemon.
    pub(super) fn disconnected(&mut self) {
        self.end_round();
    }

    pub(super) fn bell(&self) -> Option<Arc<Doorbell>> {
        self.ends.as_ref().map(|(bell, _)| Arc::clone(bell))
    }

    /// Which lane stands there.
    pub(super) fn id(&self, index: usize) -> LaneId {
        self.lanes[index].id
    }

    pub(super) fn due(&self) -> u64 {
        self.board().map_or(0, Board::due)
    }

    fn board(&self) -> Option<&Board<Map>> {
        self.ends.as_ref().and_then(|(_, board)| board.as_ref())
    }

    /// Whether the daemon has sent, or is about to, what is not read.
    pub(super) fn stream_is_due(&self, received: u64) -> bool {
        self.due() > received
    }

    /// Which message is handed out next.
    pub(super) fn next(&mut self, stream: Stream) -> Result<Next, (LaneId, Broken)> {
        self.pass_over(stream);
        for _ in 0..2 {
            if self.stream_is_behind(&stream) {
                return Ok(Next::ReadStream);
            }
            if let Some(next) = self.next_of_round(stream)? {
                return Ok(next);
            }
            self.begin_round(stream)?;
        }
        if self.stream_is_behind(&stream) {
            return Ok(Next::ReadStream);
        }
        Ok(self.next_of_round(stream)?.unwrap_or(Next::Nothing))
    }

    /// Which lane has the next message of those that the looks have shown. `None` when something else is next, or that
    /// takes another look.
    pub(super) fn next_shown(&mut self, stream: Stream) -> Option<usize> {
        match self.next_of_round(stream) {
            Ok(Some(Next::Lane(index))) if !self.stream_is_behind(&stream) => Some(index),
            // What is broken shows at the next choice.
            _ => None,
        }
    }

    /// Acknowledges what was passed over, where nothing of the stream is left that may have been sent before.
    pub(super) fn pass_over(&mut self, stream: Stream) {
        // A lane is open once all is accepted that its sender sent before, so the board shows it; but what the sender of
        // a brought one sends again.
        let shows_all = self.skips && stream.is_up && self.board().is_some();
        if shows_all && stream.head_ns.is_none() && !self.stream_is_due(stream.received) {
            self.lanes.iter_mut().filter(|lane| !lane.brought).for_each(Lane::stream_is_read);
        }
    }

    /// Whether some messages are to be skipped, or were, and the daemon was not told so.
    #[inline]
    pub(super) fn have_skips(&self) -> bool {
        self.skips
    }

    /// Whether the stream has a message that has not come, and none that has. What was purged is due no more.
    fn stream_is_behind(&self, stream: &Stream) -> bool {
        stream.head_ns.is_none() && stream.is_up && stream.received < self.round.due && stream.received < self.due()
    }

    fn begin_round(&mut self, stream: Stream) -> Result<(), (LaneId, Broken)> {
        let handed_out = self.lanes.iter().map(|lane| lane.next.messages).fold(0, u64::wrapping_add);
        self.patience.before_looks(self.lanes.len(), handed_out);
        let first_due = self.due();
        let alone = self.lanes.len() == 1 && stream.head_ns.is_none() && first_due <= stream.received;
        for lane in &mut self.lanes {
            lane.look().map_err(|broken| (lane.id, broken))?;
            lane.first_tail = lane.reader.tail();
            lane.second_tail = lane.first_tail;
        }
        if alone {
            // One after the other, as they lie: there is nothing to put them in order with, unless the stream
            // has something by now.
            self.settle_looks();
            let due = self.due();
            self.round = Round { first_due, due, clock_ns: u64::MAX };
            if due <= stream.received {
                return Ok(());
            }
        }
        self.settle_looks();
        // By one clock the second is never more: whoever says so is not to be waited for.
        let clock_ns = now_ns().max(stream.head_ns.unwrap_or(0));
        for lane in &mut self.lanes {
            lane.look().map_err(|broken| (lane.id, broken))?;
            lane.second_tail = lane.reader.tail();
        }
        self.round = Round { first_due, due: self.due(), clock_ns };
        Ok(())
    }

    /// Whether the first message of the stream was there at the first look.
    fn has_of_first_look(&self, stream: &Stream) -> bool {
        let Some(head_ns) = stream.head_ns else { return false };
        // Where nobody shows how far the stream goes, no lane is of this daemon, and there is no order to keep.
        let shows_due = stream.is_up && self.board().is_some();
        let begins_at = stream.received.saturating_sub(stream.waiting);
        // What was accepted later may stand where another was due that an order has removed.
        !shows_due || begins_at < self.round.first_due && head_ns <= self.round.clock_ns
    }

    fn settle_looks(&self) {
        if let Some(lane) = self.lanes.first() {
            lane.reader.settle_looks();
        }
    }

    fn next_of_round(&mut self, stream: Stream) -> Result<Option<Next>, (LaneId, Broken)> {
        let clock_ns = self.round.clock_ns;
        if clock_ns == 0 {
            // Nobody has looked yet.
            return Ok(None);
        }
        let mut best = stream.head_ns.map(|stamp_ns| (stamp_ns.min(clock_ns), Next::Stream));
        let mut of_first_look = self.has_of_first_look(&stream);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.waits_for_stream(stream.is_up) {
                continue;
            }
            of_first_look |= lane.next.logical < lane.first_tail;
            if let Some(record) = lane.head().map_err(|broken| (lane.id, broken))? {
                let stamp_ns = lane.stamp_ns(&record, clock_ns);
                if best.is_none_or(|(first_ns, _)| stamp_ns < first_ns) {
                    best = Some((stamp_ns, Next::Lane(index)));
                }
            }
        }
        Ok(best.filter(|_| of_first_look).map(|(_, next)| next))
    }

    /// Claims the head of a lane, and some of what follows. `None` when its sender honours another receiver, or the
    /// daemon has taken this one's place down.
    pub(super) fn claim(&mut self, index: usize) -> Option<Lent> {
        let lane = &mut self.lanes[index];
        let record = lane.head?;
        let through = record.next.messages;
        let claimed = if lane.is_claimed(through) { lane.reader.is_honoured() } else { lane.claim(through) };
        let place = (through - 1 - lane.messages()) as usize;
        let given_back = lane.given_back.get(place).copied().unwrap_or(0);
        let lent = Lent { attempt: lane.attempt(through), given_back, ..lane.lends(record) };
        (claimed && !self.are_revoked()).then_some(lent)
    }

    /// Whether this receiver has acknowledged a message before its lane was given to it, perhaps again.
    pub(super) fn knows(&self, index: usize, lent: &Lent) -> bool {
        lent.record.header.sequence <= self.lanes[index].known_through
    }

    /// Whether this receiver has lost its place: what is in its lanes is another's.
    #[inline]
    pub(super) fn are_revoked(&self) -> bool {
        self.board().is_some_and(Board::is_revoked)
    }

    /// Whether nothing of a lane was handed out yet; something is, from now on.
    pub(super) fn begins(&mut self, index: usize) -> bool {
        !std::mem::replace(&mut self.lanes[index].begun, true)
    }

    /// Copies what is to be copied of a message, each byte once.
    pub(super) fn copy_to(&self, loan: &mut LaneLoan, index: usize, record: &Record, copied: Copied) -> Content {
        loan.copy(&self.lanes[index].reader, record, copied)
    }

    /// The wall clock less the clock of the stamps, in nanoseconds.
    pub(super) fn wall_clock_offset_ns(&self) -> u64 {
        self.wall_clock_offset_ns
    }

    /// Whether what was read of a lane until now is what its sender had written there.
    #[inline]
    pub(super) fn is_still_honoured(&self, index: usize) -> bool {
        self.lanes[index].reader.is_still_honoured()
    }

    /// The head of a lane is lent: the message behind it is the next.
    pub(super) fn pass(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if let Some(record) = lane.head.take() {
            lane.next = record.next;
            lane.alike = Some(Alike::of(&record.header));
        }
    }

    /// Acknowledges a message that is the first of its lane. `false` when that is gone.
    pub(super) fn acknowledge(&mut self, lent: &Lent) -> bool {
        let Some(lane) = self.get_mut(lent.lane) else { return false };
        if lent.record.next.logical <= lane.reader.head().logical {
            return true;
        }
        lane.reader.say_seen();
        let through = lane.acknowledge_through(lent.record.next);
        if lane.next.logical < through.logical {
            // It was lent before the lane was given again.
            (lane.next, lane.head) = (through, None);
        }
        lane.sequence = lane.sequence.max(lent.record.header.sequence);
        lane.ring_when_worth_it();
        true
    }

    /// Takes messages back that were lent: they come again, first.
    pub(super) fn give_back(&mut self, lent: &[Lent]) {
        for lent in lent {
            let Some(lane) = self.get_mut(lent.lane) else { continue };
            let place = (lent.record.next.messages - 1 - lane.messages()) as usize;
            if lane.given_back.len() <= place {
                lane.given_back.resize(place + 1, 0);
            }
            lane.given_back[place] += 1;
            (lane.next, lane.head) = (lane.reader.head(), None);
            lane.say_given_back();
        }
    }

    /// Takes messages back that were lent, and that nobody has seen.
    pub(super) fn take_back(&mut self, lent: &[Lent]) {
        for lent in lent {
            if let Some(lane) = self.get_mut(lent.lane) {
                (lane.next, lane.head) = (lane.reader.head(), None);
            }
        }
    }

    /// How many messages lie in the lanes, as their senders say.
    pub(super) fn waiting(&self) -> u64 {
        let waiting = |lane: &Lane| lane.reader.published().saturating_sub(lane.next.messages);
        self.lanes.iter().map(waiting).fold(0, u64::saturating_add)
    }

    /// Brings the clock of the stamps and that of the wall together: asked for now and then.
    pub(super) fn set_clock(&mut self, wall_clock_ns: u64) {
        self.wall_clock_offset_ns = wall_clock_ns.wrapping_sub(now_ns());
    }

    /// The senders, and what was acknowledged of each last.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = (Origin, u64)> {
        let acknowledged = self.lanes.iter().filter(|lane| lane.sequence > 0);
        acknowledged.map(|lane| (lane.origin(), lane.sequence))
    }
}
