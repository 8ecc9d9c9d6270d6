//! What the shell asks about lanes, and orders there: purge, skip, peek, show.
//!
//! A receiver is told what not to hand out. Where there is none the daemon stands in for one: it finds its way
//! through the ring, and writes a cursor of its own, so that the sender has room again.

use bus_core::wire::{
    CursorGiven, Flags, FrameHeader, HEADER_BYTES, Kind, LaneEnded, LaneId, LaneSkip, LaneSkipped, LaneStart,
    ORIGIN_BYTES, Origin,
};

use super::books::LaneMessage;
use super::{Lane, LaneAction, LanePart, State};
use crate::broker::account::AccountId;
use crate::broker::channel::{Channel, ChannelId, Seat};
use crate::broker::peer::PeerId;
use crate::broker::{Action, Broker, Fault};

/// Messages of a lane that are to go, and may be there still: what its receiver had claimed when that was ordered
/// is before them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doomed {
    from: u64,
    before: u64,
}

/// What an order to remove messages does in lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct InLanes {
    /// They are gone.
    pub(in crate::broker) removed: u64,
    /// Their receiver passes over them.
    pub(in crate::broker) recalled: u64,
}

/// How a sender in a lane stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct InLane {
    pub(in crate::broker) messages: u64,
    pub(in crate::broker) outstanding: u64,
    pub(in crate::broker) waits_since_ns: Option<u64>,
}

impl Broker {
    /// Removes what nobody has been handed.
    pub(in crate::broker) fn purge_lanes(&mut self, channel_id: ChannelId) -> InLanes {
        let mut done = InLanes::default();
        for index in 0..self.channel(channel_id).lanes.len() {
            let lane = &self.channel(channel_id).lanes[index];
            let counts = self.counts(lane);
            let unclaimed = counts.published - counts.taken;
            if lane.state == State::Offered || counts.published == counts.acknowledged {
                continue;
            }
            let lane = &mut self.channel_mut(channel_id).lanes[index];
            let from = if lane.state == State::Unread { lane.start.messages } else { counts.taken };
            let from = if lane.doomed.before > lane.start.messages { lane.doomed.from.min(from) } else { from };
            lane.doomed = Doomed { from, before: counts.published };
            match self.channel(channel_id).lanes[index].state {
                State::Unread => done.removed += self.remove_doomed(channel_id, index),
                State::Given(_) => {
                    let lane = self.channel(channel_id).lanes[index].id;
                    let order = LaneSkip { lane, from: counts.taken, before: counts.published, most: u64::MAX };
                    self.order_skip(channel_id, order);
                    done.recalled += unclaimed;
                }
                // When it is known where its receiver stood.
                State::Offered | State::Brought | State::Leaving => done.recalled += unclaimed,
            }
        }
        self.free_finished(channel_id);
        done
    }

    /// Removes the first message of all lanes that nobody has been handed, if it was sent before `streamed_ns`, when
    /// the first of the stream was accepted. `None` when that one is to go.
    pub(in crate::broker) fn skip_in_lanes(
        &mut self,
        channel_id: ChannelId,
        streamed_ns: Option<u64>,
    ) -> Option<InLanes> {
        let heads = self.channel(channel_id).lanes.iter().enumerate().filter_map(|(index, lane)| {
            // What is claimed may be in its user's hands.
            let counts = self.counts(lane);
            // After a restart what its sender sent before by the stream is accepted anew, and comes first all the same.
            let account = lane.account.map(|account| self.channel(channel_id).account(account));
            if lane.brought && account.is_some_and(|account| account.outstanding > 0) {
                return None;
            }
            let claimed = match lane.state {
                State::Unread => 0,
                State::Given(_) => counts.taken - counts.acknowledged + lane.skips_ordered,
                State::Offered | State::Brought | State::Leaving => return None,
            };
            let (mut passed, mut head) = (0, None);
            let from = lane.start_from(self.books()?.position(lane.id));
            self.books()?.walk(lane.id, from, self.message_max_bytes, &mut |message| {
                passed += 1;
                let claimed = passed <= claimed;
                head = (!claimed).then(|| message.header.stamp_ns.max(lane.not_before_ns));
                claimed
            });
            Some((head?, index))
        });
        let first = heads.min();
        if streamed_ns.is_some_and(|streamed_ns| first.is_none_or(|(stamp_ns, _)| streamed_ns < stamp_ns)) {
            return None;
        }
        // What is claimed and not handed out its receiver alone can tell.
        let claims = |lane: &&Lane| {
            let counts = self.counts(lane);
            matches!(lane.state, State::Given(_)) && counts.taken - counts.acknowledged > lane.skips_ordered
        };
        let index = match first {
            Some((_, index)) => index,
            None => {
                let lanes = &self.channel(channel_id).lanes;
                let id = lanes.iter().find(claims)?.id;
                lanes.iter().position(|lane| lane.id == id)?
            }
        };
        let lane = &mut self.channel_mut(channel_id).lanes[index];
        let (id, start) = (lane.id, lane.start.messages);
        if lane.state == State::Unread {
            lane.doomed = Doomed { from: start, before: start + 1 };
            let removed = self.remove_doomed(channel_id, index);
            self.free_finished(channel_id);
            return Some(InLanes { removed, recalled: 0 });
        }
        lane.skips_ordered += 1;
        self.order_skip(channel_id, LaneSkip { lane: id, from: 0, before: u64::MAX, most: 1 });
        Some(InLanes { removed: 0, recalled: 1 })
    }

    fn order_skip(&mut self, channel_id: ChannelId, order: LaneSkip) {
        let receiver = self.channel(channel_id).seat.as_ref().map(|seat| seat.peer);
        if let Some(receiver) = receiver {
            self.put(receiver, Kind::LaneSkip, &order);
        }
    }

    /// A receiver has passed over messages, as it was told.
    pub(in crate::broker) fn lane_skipped(
        &mut self,
        id: PeerId,
        channel_id: ChannelId,
        skipped: LaneSkipped,
    ) -> Result<(), Fault> {
        if self.seated_at(id) != Some(channel_id) {
            return Ok(());
        }
        let channel = self.channel(channel_id);
        let Some(lane) = channel.lanes.iter().find(|lane| lane.id == skipped.lane) else {
            self.channel_mut(channel_id).skipped_in_read_lane(skipped);
            return Ok(());
        };
        // It may say what it likes: no more than it has acknowledged.
        let acknowledged = self.counts(lane).acknowledged - lane.counted_from - lane.purged;
        let lane_id = lane.id;
        if let Some(lane) = self.channel_mut(channel_id).lanes.iter_mut().find(|lane| lane.id == lane_id) {
            lane.purged += skipped.messages.min(acknowledged);
            lane.skips_ordered = lane.skips_ordered.saturating_sub(skipped.messages);
        }
        Ok(())
    }

    /// Removes what is to go from a lane without a receiver. Returns how many messages that were.
    pub(super) fn remove_doomed(&mut self, channel_id: ChannelId, index: usize) -> u64 {
        let lane = &self.channel(channel_id).lanes[index];
        let (id, start, doomed) = (lane.id, lane.start, lane.doomed);
        if start.messages < doomed.from {
            // Its last receiver held some before them: the next one is told.
            return 0;
        }
        let mut at = start.messages;
        let walked = self.books().and_then(|books| {
            books.walk(id, start, self.message_max_bytes, &mut |_| {
                at += 1;
                at <= doomed.before
            })
        });
        let lane = &mut self.channel_mut(channel_id).lanes[index];
        lane.doomed = Doomed::default();
        let Some(to) = walked.filter(|to| to.messages > start.messages) else { return 0 };
        let removed = to.messages - start.messages;
        lane.start = to;
        lane.purged += removed;
        self.stand_in(channel_id, id);
        removed
    }

    /// The daemon stands in for a receiver, where the lane begins now.
    pub(super) fn stand_in(&mut self, channel_id: ChannelId, id: LaneId) {
        let Some(lane) = self.channel_mut(channel_id).lanes.iter_mut().find(|lane| lane.id == id) else { return };
        lane.generation += 1;
        lane.stands_in = true;
        let start = lane.start;
        self.forget_cursor_tickets(id);
        self.actions.push_back(Action::Lane(LaneAction::StandIn(id, start)));
        self.give_stand_in(channel_id, id);
    }

    /// Tells the sender of a lane that the daemon stands in for a receiver.
    pub(super) fn give_stand_in(&mut self, channel_id: ChannelId, id: LaneId) {
        let channel = self.channel(channel_id);
        let Some(lane) = channel.lanes.iter().find(|lane| lane.id == id) else { return };
        let generation = lane.generation;
        let sender = lane.account.and_then(|account| channel.account(account).peer);
        if let Some(sender) = sender {
            let ticket = Some(self.ticket(id, LanePart::StandIn, sender));
            self.put(sender, Kind::CursorGiven, &CursorGiven { lane: id, generation, ticket });
        }
    }

    /// What is in the lanes of a channel, in the order in which it is handed out: so many frames from `skip` on, as
    /// they go down the wire, together with those of the stream. Returns whether there are more.
    pub(in crate::broker) fn peek_beside_lanes(
        &self,
        channel_id: ChannelId,
        mut skip: u64,
        messages: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> (u64, bool) {
        let channel = self.channel(channel_id);
        let mut found: Vec<(u64, Place)> = Vec::new();
        let wanted = skip.saturating_add(messages).saturating_add(1);
        for position in channel.log.first()..channel.log.end() {
            let stamp_ns = channel.log.frame_at(position).map_or(0, accepted_at_ns);
            found.push((stamp_ns, Place::Log(position)));
        }
        for (index, lane) in channel.lanes.iter().enumerate() {
            let Some(books) = self.books() else { break };
            let (mut before, found_before) = (0, found.len() as u64);
            books.walk(lane.id, lane.start_from(books.position(lane.id)), self.message_max_bytes, &mut |message| {
                // One sender's go one after the other, whatever their stamps say.
                before = message.header.stamp_ns.max(lane.not_before_ns).max(before);
                found.push((before, Place::Lane(index, message.at)));
                // Those behind them are not among the first of all, either.
                found.len() as u64 - found_before < wanted
            });
        }
        found.sort_by_key(|(stamp_ns, _)| *stamp_ns);
        let mut given = 0;
        for (_, place) in &found {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if given == messages {
                return (given, true);
            }
            let before = out.len();
            match place {
                Place::Log(position) => out.extend_from_slice(channel.log.frame_at(*position).unwrap_or_default()),
                Place::Lane(index, at) => self.copy_from_lane(&channel.lanes[*index], *at, out),
            }
            if before > 0 && out.len() > bytes_max {
                out.truncate(before);
                return (given, true);
            }
            given += 1;
        }
        (given, false)
    }

    /// Appends a message of a lane, as it would go down the wire.
    fn copy_from_lane(&self, lane: &Lane, at: LaneStart, out: &mut Vec<u8>) {
        let Some(books) = self.books() else { return };
        let redelivered = lane
            .attempts
            .iter()
            .filter(|seen| at.messages < seen.before)
            .map(|seen| seen.times)
            .fold(0, u32::saturating_add);
        books.walk(lane.id, at, self.message_max_bytes, &mut |message| {
            let LaneMessage { header, .. } = message;
            let frame = FrameHeader {
                kind: Kind::Deliver,
                flags: Flags(if redelivered > 0 { Flags::REDELIVERED } else { 0 }),
                codec: header.codec,
                sequence: header.sequence,
                sent_at_ns: header.stamp_ns.wrapping_add(self.rules.wall_clock_offset_ns),
                body_bytes: header.payload_bytes,
                header_block_bytes: header.header_block_bytes,
            };
            let origin = Origin {
                sender: lane.sender,
                accepted_at_ns: header.stamp_ns,
                pid: lane.pid,
                attempt: redelivered.saturating_add(1),
            };
            out.reserve(HEADER_BYTES + ORIGIN_BYTES);
            out.extend_from_slice(&frame.encode());
            out.extend_from_slice(&origin.encode());
            (message.read)(out);
            false
        });
    }

    /// How many messages left the lanes of a channel before those that are there.
    pub(in crate::broker) fn passed_in_lanes(&self, channel_id: ChannelId) -> u64 {
        let channel = self.channel(channel_id);
        channel.lanes.iter().map(|lane| self.counts(lane).acknowledged).sum::<u64>() + channel.former_lane_messages
    }

    /// How a sender stands that is in a lane.
    pub(in crate::broker) fn in_lane(&self, channel_id: ChannelId, account: AccountId) -> Option<InLane> {
        let lane = self.channel(channel_id).lanes.iter().find(|lane| lane.account == Some(account) && lane.open)?;
        let counts = self.counts(lane);
        // It is on the stream until it has sent something there, or has come with it from an earlier daemon.
        if counts.published == 0 && !lane.brought {
            return None;
        }
        Some(InLane {
            messages: counts.published - lane.counted_from,
            outstanding: counts.published - counts.acknowledged,
            waits_since_ns: Some(counts.waits_since_ns).filter(|since_ns| *since_ns > 0),
        })
    }

    /// The lanes of a channel go with it, now. Returns how many messages go with them, and what their senders are
    /// told of that: one figure for both, because they may be sending at this moment.
    pub(in crate::broker) fn lanes_end(&self, channel_id: ChannelId) -> (u64, Vec<(AccountId, LaneEnded)>) {
        let lanes = self.channel(channel_id).lanes.iter().filter(|lane| lane.state != State::Offered);
        let ends = lanes.map(|lane| (lane, self.counts(lane)));
        ends.fold((0, Vec::new()), |(messages, mut told), (lane, counts)| {
            let ended = LaneEnded { lane: lane.id, messages: counts.published };
            told.extend(lane.account.map(|account| (account, ended)));
            (messages + counts.published - counts.acknowledged, told)
        })
    }

    /// How many lanes the present receiver reads, how many messages it has claimed and acknowledged there.
    pub(in crate::broker) fn read_in_lanes(&self, channel_id: ChannelId) -> Option<(u64, u64)> {
        let given = |lane: &&Lane| matches!(lane.state, State::Given(_));
        let mut lanes = self.channel(channel_id).lanes.iter().filter(given).peekable();
        lanes.peek()?;
        let counts = lanes.map(|lane| (self.counts(lane), lane.start.messages));
        Some(counts.fold((0, 0), |(claimed, acknowledged), (counts, start)| {
            (claimed + counts.taken - counts.acknowledged, acknowledged + counts.acknowledged.saturating_sub(start))
        }))
    }

    /// When the oldest message of the lanes was sent.
    pub(in crate::broker) fn oldest_in_lanes_ns(&self, channel_id: ChannelId) -> Option<u64> {
        let books = self.books()?;
        let mut oldest: Option<u64> = None;
        for lane in &self.channel(channel_id).lanes {
            books.walk(lane.id, lane.start_from(books.position(lane.id)), self.message_max_bytes, &mut |message| {
                let stamp_ns = message.header.stamp_ns;
                oldest = Some(oldest.map_or(stamp_ns, |oldest| oldest.min(stamp_ns)));
                false
            });
        }
        oldest
    }
}

/// Where a message is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Log(u64),
    Lane(usize, LaneStart),
}

/// When the message in a frame of the log was accepted.
pub(in crate::broker) fn accepted_at_ns(frame: &[u8]) -> u64 {
    let origin = frame.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk());
    origin.map_or(0, |origin| Origin::decode(origin).accepted_at_ns)
}

impl Seat {
    /// A lane is gone of which its receiver may have passed over some, and has not said so.
    pub(super) fn note_read_lane(&mut self, lane: LaneId, acknowledged: u64) {
        if self.read_lanes.len() == READ_LANES_MAX {
            // It has nothing to say of any, for long.
            self.read_lanes.remove(0);
        }
        self.read_lanes.push((lane, acknowledged));
    }

    /// It says no more of that.
    pub(super) fn forget_read_lane(&mut self, lane: LaneId) {
        self.read_lanes.retain(|(other, _)| *other != lane);
    }
}

/// How many lanes are remembered that are gone, and of which their receiver may say something: it does with its next call.
const READ_LANES_MAX: usize = 64;

impl Channel {
    /// Some messages of a lane that is gone were passed over, and counted as acknowledged.
    fn skipped_in_read_lane(&mut self, skipped: LaneSkipped) {
        let Self { seat: Some(seat), tally, .. } = self else { return };
        if let Some((_, acknowledged)) = seat.read_lanes.iter_mut().find(|(lane, _)| *lane == skipped.lane) {
            let messages = skipped.messages.min(*acknowledged);
            *acknowledged -= messages;
            tally.acknowledged = tally.acknowledged.saturating_sub(messages);
            tally.purged = tally.purged.saturating_add(messages);
        }
    }
}

impl Lane {
    /// Whether its receiver was told to pass over some.
    pub(super) fn has_orders(&self) -> bool {
        self.skips_ordered > 0 || self.is_doomed()
    }

    /// Where its receiver stands, as that says; where it began, before it says so.
    fn start_from(&self, position: Option<LaneStart>) -> LaneStart {
        position.filter(|at| at.messages >= self.start.messages).unwrap_or(self.start)
    }

    /// Whether something of what is to go is there.
    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.before > self.start.messages
    }

    /// What is to go and lies behind messages that the last receiver held.
    pub(super) fn doomed_behind_start(&self) -> Option<(u64, u64)> {
        self.is_doomed().then_some((self.doomed.from, self.doomed.before))
    }
}
