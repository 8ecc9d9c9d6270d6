//! Lanes: who gets one, who reads it, and when it is free again. Messages pass none of this.
//!
//! A lane is in one of five states, and belongs to one sender for all its life. Its receiver may change:
//! what the last one left behind is looked at when its memory is proved to be at rest, and until then nobody
//! has the seat.

mod books;
mod bring;
mod condemned;
mod held;
mod idle;
mod leaving;
mod missed;
mod orders;
mod quota;
mod shell;
mod tickets;

use bus_core::ChannelName;
use bus_core::wire::{
    CursorGiven, Kind, LaneAttempts, LaneDone, LaneGiven, LaneId, LaneNamed, LaneOffered, LaneProof, LaneSkip,
    LaneStart, LaneWish, RefusedCode, Turned, Watching,
};
use slab::Slab;

use super::account::{AccountId, Busy};
use super::channel::{Channel, ChannelId, Tally};
use super::notes::Who;
use super::peer::{Peer, PeerId};
use super::{Action, Broker, Fault, Refusal};

pub(super) use self::held::Held;
use self::idle::Idle;
use self::quota::ring_bytes;
use self::shell::Doomed;
pub(super) use self::shell::{InLanes, accepted_at_ns};

pub use self::books::{LaneBooks, LaneMessage};
pub use self::orders::{AtRest, LaneAction, LanePart, LaneSize, NoLane};
pub(super) use self::tickets::Ticket;

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    id: LaneId,
    sender: u64,
    pid: u32,
    /// Its sender's, while that is there.
    account: Option<AccountId>,
    state: State,
    /// Nobody writes to it any more, by proof.
    sender_gone: bool,
    /// Its sender has left, and may have it mapped still.
    sender_leaving: bool,
    /// Its sender was told to turn to nobody.
    turning: bool,
    /// Counts its receivers.
    generation: u64,
    start: LaneStart,
    attempts: Vec<LaneAttempts>,
    size: LaneSize,
    not_before_ns: u64,
    /// An earlier daemon made it.
    brought: bool,
    proof: LaneProof,
    /// Messages before this one the ledger of an earlier daemon has.
    counted_from: u64,
    counted_from_bytes: u64,
    /// Messages that an order has removed.
    purged: u64,
    doomed: Doomed,
    /// Messages that its receiver was told to skip, one for each order, and has not.
    skips_ordered: u64,
    /// The daemon stands in for a receiver.
    stands_in: bool,
    /// Its sender was told that it may send there: whoever reads the channel reads the lane.
    open: bool,
    idle: Idle,
    /// The last receiver that its sender has said it honours.
    honoured: u64,
    /// The receiver that left it last, until it is known where that stood.
    left_by: Option<Who>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its sender may map it.
    Offered,
    /// It brought it from an earlier daemon, and may honour a receiver of that.
    Brought,
    /// It has it mapped, and nobody reads.
    Unread,
    /// Given to the receiver that has the seat; `true` when that has it mapped.
    Given(bool),
    /// Its receiver is gone, and may have it mapped still.
    Leaving,
}

/// How long the ring of a lane is at most, in bytes: that for the largest message of all.
const RING_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// How many lanes are remembered that are gone: whoever had one comes back within moments.
const FORMER_LANES_MAX: usize = 1_024;

/// How long to wait before a freeze is tried again, in milliseconds.
pub(super) const FREEZE_AGAIN_MS: u64 = 20;

/// How many different numbers of attempts are remembered of a lane.
const ATTEMPTS_MAX: usize = 16;

impl Broker {
    /// Whether a sender that comes back finds the lane that it had.
    pub(super) fn check_lane(&self, name: &ChannelName, sender: u64, wish: LaneWish) -> Result<(), Refusal> {
        let LaneWish::Has(id) = wish else { return Ok(()) };
        let channel = self.by_name.get(name).map(|channel| self.channel(*channel));
        let mut lanes = channel.iter().flat_map(|channel| &channel.lanes);
        if lanes.any(|lane| lane.id == id && lane.sender == sender && !lane.sender_gone) {
            return Ok(());
        }
        let text = format!("lane {} of channel {name} is of an earlier daemon: come without it", id.0);
        Err(Refusal::new(RefusedCode::LaneUnknown, text))
    }

    /// A sender is let in that wishes a lane, or had one before its connection broke.
    pub(super) fn consider_lane(&mut self, channel_id: ChannelId, account_id: AccountId, wish: LaneWish) {
        if !matches!(wish, LaneWish::Has(_)) {
            self.retire_lanes(channel_id, account_id);
        }
        let now_ms = self.now_ms;
        let channel = self.channel_mut(channel_id);
        let sender = channel.account(account_id).sender;
        match wish {
            LaneWish::Has(id) => {
                // Else it was refused.
                let Some(lane) = channel.lanes.iter_mut().find(|lane| lane.sender == sender && lane.id == id) else {
                    return;
                };
                // It says that it moved again, should that not have been heard; and what it was told over the
                // earlier connection it may not have heard.
                lane.sender_leaving = false;
                lane.account = Some(account_id);
                lane.idle.begin_again(now_ms);
                let (state, generation, stands_in) = (lane.state, lane.generation, lane.stands_in);
                let turning = lane.turning;
                let peer = channel.account(account_id).peer;
                self.due(now_ms + self.lane_looks_ms());
                match (state, peer) {
                    (State::Given(true), _) => self.give_cursor(channel_id, id),
                    (State::Unread, _) if stands_in => self.give_stand_in(channel_id, id),
                    // First it turns away from whom it had.
                    (State::Leaving, Some(peer)) if turning => {
                        self.put(peer, Kind::CursorGiven, &CursorGiven { lane: id, generation, ticket: None });
                    }
                    (State::Brought, Some(peer)) => {
                        self.put(peer, Kind::CursorGiven, &CursorGiven { lane: id, generation, ticket: None });
                    }
                    _ => {}
                }
            }
            LaneWish::Never => {}
            LaneWish::AtOnce => self.make_lane(channel_id, account_id, true),
            LaneWish::WhenBusy => channel.account_mut(account_id).busy = Some(Busy::default()),
        }
    }

    /// A sender comes without the lanes that it had: it has left them, with or without something in them, or never
    /// sent anything there. Whoever reads one reads it to its end.
    fn retire_lanes(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let channel = self.channel_mut(channel_id);
        let sender = channel.account(account_id).sender;
        let offered = |lane: &&Lane| lane.sender == sender && lane.state == State::Offered;
        let unused: Vec<LaneId> = channel.lanes.iter().filter(offered).map(|lane| lane.id).collect();
        let left = channel.lanes.iter_mut().filter(|lane| lane.sender == sender && lane.state != State::Offered);
        let left: Vec<LaneId> = left
            .map(|lane| {
                (lane.sender_leaving, lane.account) = (true, None);
                lane.id
            })
            .collect();
        for lane in unused {
            self.free_lane(channel_id, lane);
        }
        self.count_held_in_lanes(channel_id);
        self.actions.extend(left.into_iter().map(|lane| Action::Lane(LaneAction::FreezeData(lane))));
    }

    /// Senders that are busy get a lane.
    pub(super) fn offer_lanes(&mut self) {
        for (channel_id, account_id) in std::mem::take(&mut self.busy) {
            let channel = self.channels.get(channel_id.0 as usize);
            // It may have left meanwhile, and another may have its place.
            if channel.and_then(|channel| channel.accounts.get(account_id.0 as usize)).is_some_and(|it| it.is_busy()) {
                let busy = self.channel_mut(channel_id).account_mut(account_id).busy.take();
                self.make_lane(channel_id, account_id, busy.is_some_and(|busy| busy.asked));
            }
        }
    }

    fn make_lane(&mut self, channel_id: ChannelId, account_id: AccountId, asked: bool) {
        let now_ms = self.now_ms;
        let message_max_bytes = self.channel(channel_id).bounds.message_max_bytes;
        let channel = self.channel(channel_id);
        let sender = channel.account(account_id).sender;
        if channel.lanes.iter().any(|lane| lane.sender == sender) {
            // It has left it, and it is read to its end before there is another.
            self.channel_mut(channel_id).account_mut(account_id).busy = Some(Busy::wishing(asked));
            return;
        }
        let uid = channel.account(account_id).peer.and_then(|id| self.peer(id)).map_or(0, |peer| peer.credentials.uid);
        if !self.lanes_possible {
            return;
        }
        let ring_bytes = ring_bytes(message_max_bytes);
        if self.check_takes_lane(channel_id, uid, ring_bytes).is_err() || self.lanes_are_full(channel_id) {
            // A receiver may leave that reads none, or another give one back, before this one is busy again.
            self.may_have_another(channel_id, account_id, asked);
            return;
        }
        let channel = self.channel(channel_id);
        let account = channel.account(account_id);
        let (sender, pid) = (account.sender, account.pid);
        // Ends that have lanes of an earlier daemon tell them apart.
        self.lanes_made += 1;
        let (lane, size) =
            (LaneId(self.rules.seed.wrapping_add(self.lanes_made)), LaneSize { ring_bytes, message_max_bytes });
        let new = Lane {
            id: lane,
            sender,
            pid,
            account: Some(account_id),
            state: State::Offered,
            sender_gone: false,
            sender_leaving: false,
            turning: false,
            generation: 0,
            start: LaneStart::default(),
            attempts: Vec::new(),
            size,
            not_before_ns: 0,
            brought: false,
            proof: LaneProof { uid, token: [0; 16] },
            counted_from: 0,
            counted_from_bytes: 0,
            purged: 0,
            doomed: Doomed::default(),
            skips_ordered: 0,
            stands_in: false,
            open: false,
            idle: if asked { Idle::Stays } else { Idle::since(now_ms) },
            honoured: 0,
            left_by: None,
        };
        self.add_lane(channel_id, new);
        self.actions.push_back(Action::Lane(LaneAction::Make(lane, size)));
    }

    /// Where messages are counted, and where not everybody reads lanes, all go by the stream.
    fn may_have_lanes(&self, channel_id: ChannelId) -> bool {
        let bounds = &self.channel(channel_id).bounds;
        let exact = bounds.exact || bounds.when_full != bus_core::WhenFull::Block;
        let unread = self.receivers_of(channel_id).any(|id| self.peer(id).is_some_and(|peer| !peer.reads_lanes));
        !exact && !unread
    }

    fn receivers_of(&self, channel_id: ChannelId) -> impl Iterator<Item = PeerId> {
        let channel = self.channel(channel_id);
        channel.seat.iter().map(|seat| seat.peer).chain(channel.line.iter().copied())
    }

    /// Whether a receiver that reads no lanes may come.
    pub(super) fn check_lanes(&self, channel_id: ChannelId) -> Result<(), Refusal> {
        let channel = self.channel(channel_id);
        match channel.lanes.len() {
            0 => Ok(()),
            lanes => Err(Refusal::new(
                RefusedCode::Limit,
                format!(
                    "channel {} has {lanes} lanes, which a receiver in the daemon's process, or with a clock of its own, cannot read: open its senders without",
                    channel.name
                ),
            )),
        }
    }

    /// The memory of a lane is made, a file of this number, or cannot be: now, or at all.
    pub fn lane_made(&mut self, lane: LaneId, made: Result<u64, NoLane>) {
        let Some((channel_id, index)) = self.find_lane(lane) else { return };
        let channel = self.channel(channel_id);
        let window_messages = channel.bounds.window;
        let Lane { account, size, .. } = channel.lanes[index];
        let sender = channel.lanes[index].sender;
        let peer = account.and_then(|account| channel.account(account).peer);
        match (peer, made) {
            (Some(id), Ok(number)) => {
                let uid = self.peer(id).map_or(0, |peer| peer.credentials.uid);
                let proof = self.prove(lane, sender, self.channel(channel_id).name.as_str(), uid, number);
                self.channel_mut(channel_id).lanes[index].proof = proof;
                self.due(self.now_ms + self.lane_looks_ms());
                let ticket = self.ticket(lane, LanePart::ForSender, id);
                let ring_bytes = size.ring_bytes;
                self.put(id, Kind::LaneOffered, &LaneOffered { lane, ticket, ring_bytes, window_messages, proof });
            }
            (_, made) => {
                let asked = channel.lanes[index].was_asked_for();
                self.lanes_possible &= made != Err(NoLane::Ever);
                self.free_lane(channel_id, lane);
                if let Some(account_id) = account.filter(|_| self.lanes_possible) {
                    self.may_have_another(channel_id, account_id, asked);
                }
            }
        }
    }

    /// A sender has its lane mapped. It goes on by the stream until it is told that the lane is open.
    pub(super) fn moved(&mut self, id: PeerId, channel_id: ChannelId, account: AccountId, lane: LaneId) {
        let (now_ms, now_ns) = (self.now_ms, self.now_ns);
        let ours = |it: &&mut Lane| it.id == lane && it.account == Some(account);
        let Some(found) = self.channel_mut(channel_id).lanes.iter_mut().find(ours) else {
            // It was taken back while its sender mapped it.
            if self.channel(channel_id).account(account).peer == Some(id) {
                self.recall_gone(channel_id, account, lane);
            }
            return;
        };
        if found.state != State::Offered {
            // Said again over another connection, or because it stays.
            found.idle.begin_again(now_ms);
            let is_open = found.open;
            self.due(now_ms + self.lane_looks_ms());
            if is_open {
                self.put(id, Kind::LaneKept, &LaneNamed { lane });
            }
            return;
        }
        (found.state, found.not_before_ns) = (State::Unread, now_ns);
        self.forget_data_tickets(lane);
        self.due(self.now_ms + self.lane_looks_ms());
        self.actions.push_back(Action::Lane(LaneAction::SealData(lane)));
        self.give_lanes(channel_id);
        self.open_unread_lanes(channel_id);
    }

    /// Senders may send in their lanes where nobody reads the channel: whoever comes is given all of them first.
    /// A receiver that does read it, or is about to leave, would hand out what others send later.
    pub(super) fn open_unread_lanes(&mut self, channel_id: ChannelId) {
        let channel = self.channel(channel_id);
        if channel.seat.is_some() || !self.lanes_at_rest(channel_id) {
            return;
        }
        let unread = channel.lanes.iter().filter(|lane| lane.state == State::Unread && !lane.open);
        let unread: Vec<LaneId> = unread.map(|lane| lane.id).collect();
        for lane in unread {
            self.open_lane(channel_id, lane);
        }
    }

    /// Tells a sender that it may send in its lane.
    fn open_lane(&mut self, channel_id: ChannelId, id: LaneId) {
        let Some(lane) = self.channel_mut(channel_id).lanes.iter_mut().find(|lane| lane.id == id) else { return };
        let (opened, account) = (!std::mem::replace(&mut lane.open, true), lane.account);
        let sender = account.and_then(|account| self.channel(channel_id).account(account).peer);
        if let Some(sender) = sender.filter(|_| opened) {
            self.put(sender, Kind::LaneKept, &LaneNamed { lane: id });
        }
    }

    /// Gives all lanes that nobody reads to the receiver that has the seat.
    pub(super) fn give_lanes(&mut self, channel_id: ChannelId) {
        let channel = self.channel(channel_id);
        let Some(receiver) = channel.seat.as_ref().filter(|seat| seat.leaving_until_ms.is_none()).map(|seat| seat.peer)
        else {
            return;
        };
        for index in 0..channel.lanes.len() {
            let channel = self.channel_mut(channel_id);
            let lane = &mut channel.lanes[index];
            if lane.state != State::Unread {
                continue;
            }
            lane.state = State::Given(false);
            lane.generation += 1;
            (lane.stands_in, lane.skips_ordered) = (false, 0);
            let id = lane.id;
            let doomed = lane.doomed_behind_start();
            let given = LaneGiven {
                lane: id,
                ticket: [0; 16],
                generation: lane.generation,
                sender: lane.sender,
                pid: lane.pid,
                ring_bytes: lane.size.ring_bytes,
                not_before_ns: lane.not_before_ns,
                start: lane.start,
                attempts: lane.attempts.clone(),
                sender_gone: lane.sender_gone,
                brought: lane.brought,
                proof: lane.proof,
                in_use: lane.open,
            };
            self.forget_cursor_tickets(id);
            self.actions.push_back(Action::Lane(LaneAction::NewCursor(id)));
            let ticket = self.ticket(id, LanePart::ForReceiver(receiver), receiver);
            self.put(receiver, Kind::LaneGiven, &LaneGiven { ticket, ..given });
            if let Some((from, before)) = doomed {
                self.put(receiver, Kind::LaneSkip, &LaneSkip { lane: id, from, before, most: u64::MAX });
            }
        }
    }

    /// A receiver has a lane mapped.
    pub(super) fn watching(&mut self, id: PeerId, channel_id: ChannelId, watching: Watching) {
        if self.seated_at(id) != Some(channel_id) {
            return;
        }
        let found = self.channel_mut(channel_id).lanes.iter_mut().find(|lane| lane.id == watching.lane);
        // An earlier receiver's word counts no more.
        if let Some(lane) =
            found.filter(|lane| lane.generation == watching.generation && lane.state == State::Given(false))
        {
            lane.state = State::Given(true);
            self.forget_receiver_tickets(watching.lane);
            self.actions.push_back(Action::Lane(LaneAction::SealCursor(watching.lane)));
            // Before its sender may send there, it is to know whom it sends to.
            self.give_cursor(channel_id, watching.lane);
            self.open_lane(channel_id, watching.lane);
        }
    }

    fn give_cursor(&mut self, channel_id: ChannelId, lane: LaneId) {
        let channel = self.channel(channel_id);
        let Some(found) = channel.lanes.iter().find(|found| found.id == lane) else { return };
        let sender = found.account.and_then(|account| channel.account(account).peer);
        let generation = found.generation;
        let receiver = channel.seat.as_ref().map(|seat| seat.peer);
        if let (Some(sender), Some(receiver)) = (sender, receiver) {
            let ticket = Some(self.ticket(lane, LanePart::Cursor(receiver), sender));
            self.put(sender, Kind::CursorGiven, &CursorGiven { lane, generation, ticket });
        }
    }

    /// A sender that cannot ring its receiver has sent something.
    pub(super) fn nudge(&mut self, channel_id: ChannelId, account: AccountId, lane: LaneId) {
        let channel = self.channel(channel_id);
        let ours = |it: &&Lane| it.id == lane && it.account == Some(account) && it.state == State::Given(true);
        // One that has it not mapped yet looks when it has.
        if let (Some(_), Some(seat)) = (channel.lanes.iter().find(ours), &channel.seat) {
            let receiver = seat.peer;
            self.actions.push_back(Action::Lane(LaneAction::Ring(receiver)));
        }
    }

    /// A sender honours the receiver that it was told of.
    pub(super) fn turned(&mut self, channel_id: ChannelId, account: AccountId, turned: Turned) {
        let channel = self.channel_mut(channel_id);
        let ours = |lane: &Lane| {
            lane.id == turned.lane && lane.account == Some(account) && lane.generation == turned.generation
        };
        if let Some(lane) = channel.lanes.iter_mut().find(|lane| ours(lane)) {
            if !lane.turning {
                lane.honoured = turned.generation;
            }
            self.forget_cursor_tickets(turned.lane);
        }
        let channel = self.channel(channel_id);
        if channel.lanes.iter().any(|lane| ours(lane) && lane.state == State::Brought) {
            return self.brought_lane_rests(channel_id, turned.lane);
        }
        let ours =
            |lane: &&Lane| lane.id == turned.lane && lane.account == Some(account) && lane.state == State::Leaving;
        // It was told to turn to nobody, because the receiver neither goes nor is gone.
        if channel.lanes.iter().any(|lane| ours(&lane) && lane.generation == turned.generation) {
            // So that takes nothing more, whatever it does.
            self.actions.push_back(Action::Lane(LaneAction::ReadCursor(turned.lane)));
        }
    }

    /// A receiver has read a lane to its end, or gives it up.
    pub(super) fn lane_done(&mut self, id: PeerId, channel_id: ChannelId, done: LaneDone) -> Result<(), Fault> {
        if self.seated_at(id) != Some(channel_id) {
            return Ok(());
        }
        let channel = self.channel_mut(channel_id);
        let Some(lane) = channel.lanes.iter().find(|lane| lane.id == done.lane) else {
            if let Some(seat) = &mut channel.seat {
                seat.forget_read_lane(done.lane);
            }
            if done.fault.is_some() {
                // Its sender was faster, and sends what was in there by the stream.
                self.put(id, Kind::SenderGone, &LaneNamed { lane: done.lane });
            }
            return Ok(());
        };
        if let (State::Given(false), Some(fault)) = (lane.state, &done.fault) {
            self.lane_missed(id, channel_id, done.lane, fault);
            return Ok(());
        }
        let (account, gone) = (lane.account, lane.sender_gone);
        let sender = account.and_then(|account| channel.account(account).peer);
        if !gone && done.fault.is_none() {
            return Err(Fault(format!("lane {} has not ended: its sender is there", done.lane.0)));
        }
        let (counted_from, purged) = (lane.counted_from, lane.purged);
        let published = self.published(channel_id, done.lane) - counted_from;
        let acknowledged = done.messages.saturating_sub(counted_from).clamp(purged, published);
        // Of one that is broken its sender sends again what is not acknowledged, if it lives.
        let lost = if gone { published - acknowledged } else { 0 };
        let channel = self.channel_mut(channel_id);
        let tally = Tally { accepted: acknowledged + lost, acknowledged: acknowledged - purged, purged, dropped: lost };
        channel.count_lane(counted_from, tally);
        self.free_lane(channel_id, done.lane);
        self.give_room(channel_id);
        if let (Some(sender), Some(fault)) = (sender, done.fault) {
            // It comes back, and is told that the lane is not known.
            self.end_at_fault(sender, format!("its lane is broken: {fault}"));
        }
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
        Ok(())
    }

    /// A sender gives its lane up, because its receiver writes what no receiver writes: it sends all again that was
    /// not acknowledged before that.
    pub(super) fn lane_given_up(&mut self, id: PeerId, channel_id: ChannelId, account: AccountId, done: LaneDone) {
        let channel = self.channel_mut(channel_id);
        let ours = |lane: &&Lane| lane.id == done.lane && lane.account == Some(account);
        let (Some(lane), Some(fault)) = (channel.lanes.iter().find(ours), done.fault) else { return };
        if !lane.open {
            return self.take_unused_lane_back(channel_id, done.lane);
        }
        let (counted_from, purged, given) = (lane.counted_from, lane.purged, matches!(lane.state, State::Given(_)));
        let published = self.published(channel_id, done.lane) - counted_from;
        let acknowledged = done.messages.saturating_sub(counted_from).clamp(purged, published);
        let channel = self.channel_mut(channel_id);
        let tally = Tally { accepted: acknowledged, acknowledged: acknowledged - purged, purged, dropped: 0 };
        channel.count_lane(counted_from, tally);
        let receiver = channel.seat.as_ref().map(|seat| seat.peer).filter(|_| given);
        let pid = receiver.and_then(|receiver| self.peer(receiver)).map_or(0, |peer| peer.credentials.pid);
        if let Some(receiver) = receiver {
            self.put(receiver, Kind::SenderGone, &LaneNamed { lane: done.lane });
        }
        self.free_lane(channel_id, done.lane);
        self.end_at_fault(id, format!("its lane is broken: {fault} (pid {pid})"));
        self.go_on_when_at_rest(channel_id);
    }

    fn free_lane(&mut self, channel_id: ChannelId, lane: LaneId) {
        let channel = self.channel(channel_id);
        if let Some(index) = channel.lanes.iter().position(|other| other.id == lane) {
            let bytes = self.counts(&channel.lanes[index]).published_bytes;
            let channel = self.channel_mut(channel_id);
            let gone = channel.lanes.remove(index);
            channel.former_lane_bytes += bytes.saturating_sub(gone.counted_from_bytes);
            self.discharge_lane(&gone);
            self.offer_again(channel_id, gone.sender);
        }
        self.forget_tickets_of(lane);
        if self.former_lanes.len() == FORMER_LANES_MAX {
            self.former_lanes.pop_front();
        }
        self.former_lanes.push_back(lane);
        self.actions.push_back(Action::Lane(LaneAction::Free(lane)));
        if self.channel(channel_id).lanes.is_empty() {
            self.laned.retain(|other| *other != channel_id);
        }
    }

    /// A sender that has asked for a lane may have been waiting for its last one to be read.
    fn offer_again(&mut self, channel_id: ChannelId, sender: u64) {
        let channel = self.channel(channel_id);
        let account_id = channel.by_sender.get(&sender).copied();
        if let Some(account_id) = account_id
            && channel.account(account_id).busy.is_some_and(|busy| busy.asked)
        {
            self.busy.push((channel_id, account_id));
        }
    }

    /// A channel goes, and its lanes with it.
    pub(super) fn forget_lanes(&mut self, channel_id: ChannelId) {
        let lanes: Vec<LaneId> = self.channel(channel_id).lanes.iter().map(|lane| lane.id).collect();
        for lane in lanes {
            self.free_lane(channel_id, lane);
        }
    }

    fn find_lane(&self, lane: LaneId) -> Option<(ChannelId, usize)> {
        self.laned.iter().find_map(|channel_id| {
            let index = self.channel(*channel_id).lanes.iter().position(|found| found.id == lane)?;
            Some((*channel_id, index))
        })
    }

    /// How many frames each receiver of lanes will have been sent when all is sent that there is now; those
    /// for whom that has changed. To be shown to them before anything is written to anybody. What it gives back
    /// it does not count, either: it is due from then on, until it comes again or is removed.
    pub fn dues(&mut self) -> Vec<(PeerId, u64)> {
        let mut dues = std::mem::take(&mut self.last_dues);
        for channel_id in &self.laned {
            let channel = &mut self.channels[channel_id.0 as usize];
            let Some(due) = channel.due(&self.peers) else { continue };
            let Some(seat) = &mut channel.seat else { continue };
            if std::mem::replace(&mut seat.due_shown, due) != due {
                dues.push((seat.peer, due));
            }
        }
        dues
    }

    /// A channel goes. Its receiver is shown that it is due its last frame: one that is busy with its lanes looks at
    /// nothing else.
    pub(super) fn show_the_last(&mut self, channel_id: ChannelId) {
        let channel = self.channel(channel_id);
        if let (false, Some(seat)) = (channel.lanes.is_empty(), &channel.seat) {
            self.last_dues.extend(channel.due(&self.peers).map(|due| (seat.peer, due)));
        }
    }
}

impl Channel {
    /// How many frames the receiver will have been sent when all is sent.
    fn due(&self, peers: &Slab<Peer>) -> Option<u64> {
        let seat = self.seat.as_ref()?;
        let peer = peers.get(seat.peer.slot as usize)?;
        // All frames but the Welcome.
        Some(peer.outbox.frames().saturating_sub(1) + (self.log.end() - seat.base))
    }

    /// A lane goes, of which messages before `counted_from` were another daemon's. What its ends have said of it
    /// need not be true.
    fn count_lane(&mut self, counted_from: u64, lane: Tally) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.tally.accepted, lane.accepted);
        add(&mut self.tally.acknowledged, lane.acknowledged);
        add(&mut self.tally.purged, lane.purged);
        add(&mut self.tally.dropped, lane.dropped);
        add(&mut self.former_lane_messages, lane.accepted.saturating_add(counted_from));
    }

    /// Whether somebody has left who has a lane mapped still.
    pub(super) fn lanes_wait(&self) -> bool {
        self.lanes.iter().any(|lane| lane.state == State::Leaving || (lane.sender_leaving && !lane.sender_gone))
    }
}
