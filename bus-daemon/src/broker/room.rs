//! Room in a channel, and whose turn it is: senders that ask before they send, and senders whose next
//! frame waits, stand in one line.
//!
//! A sender that asked is granted room as soon as there is enough for its message. One whose frame
//! waits is *called* when an eighth of the channel is free: its frame is handed in again, and it may
//! send a turn's worth before it stands behind the others. Resuming it for each message that leaves
//! would cost more than the message. One that was called and found no room keeps its place. Nobody
//! passes the line.

use bus_core::WhenFull;
use bus_core::wire::{Kind, Want};

use super::account::AccountId;
use super::channel::{Channel, ChannelId};
use super::peer::{PeerId, PeerRole};
use super::tick::RETRY_PAUSED_MS;
use super::{Action, Broker};

/// How many messages a sender sends at most in its turn while others wait: enough to be worth the way
/// through the event loop.
const TURN_MESSAGES_MAX: u64 = 1024;

/// Which part of the capacity is one turn.
const TURNS: u64 = 64;

/// Which part of the capacity is to be free before a sender is called.
const FREE_PART: u64 = 8;

/// A sender in line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) peer: PeerId,
    need: Need,
    wait: Wait,
}

/// The room that a message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Of the message.
    pub(super) bytes: u64,
    /// Its content is still to be read: it comes after those that are being read.
    unread: bool,
}

impl Need {
    pub(super) fn here(bytes: u64) -> Self {
        Self { bytes, unread: false }
    }

    pub(super) fn unread(bytes: u64) -> Self {
        Self { bytes, unread: true }
    }
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// To be granted room.
    Grant,
    /// That its next frame, which was not taken, is handed in again.
    Call,
}

impl Channel {
    /// Whether others wait, whom nobody may pass.
    pub(super) fn has_line(&self) -> bool {
        self.called.is_some() || !self.waiting.is_empty()
    }

    /// Whether the first in line has room here: then it is its user that has none, or messages that are
    /// being read keep the room. Or it has none for what lies in lanes: when that is read nobody tells.
    pub(super) fn waits_for_others(&self) -> bool {
        let in_lanes = self.held_in_lanes.messages > 0 && self.seat.is_some();
        let waits = |first: &Waiter| in_lanes || self.may_go_on(first, |need| self.has_room(need.bytes));
        self.called.is_none() && self.waiting.front().is_some_and(waits)
    }

    /// Whether a message has room.
    pub(super) fn has_room_for(&self, need: Need, now_ms: u64) -> bool {
        let expected = if need.unread { self.expected(now_ms) } else { (0, 0) };
        self.has_room_beside(expected, need.bytes)
    }

    /// Whether there is room enough for a sender in line to go on. Where the capacity is exact, or no receiver
    /// drains the channel, each message that leaves makes room for another.
    fn may_go_on(&self, waiter: &Waiter, has_room: impl Fn(Need) -> bool) -> bool {
        let droppable = self.bounds.when_full == WhenFull::DropOldest && self.has_droppable();
        let is_drained = self.bounds.exact || self.seat.is_none() || self.is_drained_enough();
        droppable || (has_room(waiter.need) && (is_drained || waiter.wait == Wait::Grant))
    }

    /// Whether there is a message that nobody has been sent.
    pub(super) fn has_droppable(&self) -> bool {
        self.unsent_from() < self.log.end()
    }

    fn is_drained_enough(&self) -> bool {
        let held = self.held();
        let few = held.messages <= self.bounds.messages - self.bounds.messages / FREE_PART;
        few && held.bytes <= self.bounds.bytes - self.bounds.bytes / FREE_PART
    }

    /// How many messages a sender may send in its turn.
    fn turn_messages(&self) -> u32 {
        (self.bounds.messages / TURNS).clamp(1, TURN_MESSAGES_MAX) as u32
    }

    fn leave_line(&mut self, id: PeerId, wait: Wait) {
        self.waiting.retain(|waiter| waiter.peer != id || waiter.wait != wait);
        if wait == Wait::Call && self.called == Some(id) {
            self.called = None;
        }
    }
}

impl Broker {
    /// A sender asks for room.
    pub(super) fn want(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, want: Want) {
        let now_ms = self.now_ms;
        let Some(peer) = self.peer_mut(id) else { return };
        let asked_before = peer.want.replace((want, now_ms)).is_some();
        let waiter = Waiter { peer: id, need: Need::here(want.bytes.into()), wait: Wait::Grant };
        let line = &mut self.channel_mut(channel_id).waiting;
        match line.iter_mut().find(|other| asked_before && other.peer == id && other.wait == Wait::Grant) {
            Some(earlier) => *earlier = waiter,
            None => line.push_back(waiter),
        }
        self.release_grant(channel_id, account_id);
        self.give_room(channel_id);
        if self.peer(id).is_some_and(|peer| peer.want.is_some()) {
            self.note_user_limit(id, channel_id, Need::here(want.bytes.into()));
        }
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.want.is_some() && !want.wait {
            let drops = self.channel(channel_id).bounds.when_full == WhenFull::DropNewest;
            if drops && self.channel(channel_id).has_room(want.bytes.into()) {
                // It is not the channel that is full: others have their turn, or its user holds too much.
                return;
            }
            self.forget_want(id, channel_id);
            if drops {
                self.drop_unsent(id, channel_id, account_id);
            }
            self.put(id, Kind::Full, &want);
            // It may have stood before others.
            self.give_room(channel_id);
        }
    }

    /// The message for which there is no room is dropped before it is sent: counted here, and its
    /// sender keeps nothing of it.
    fn drop_unsent(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId) {
        let channel = self.channel_mut(channel_id);
        channel.tally.accepted += 1;
        channel.tally.dropped += 1;
        let account = channel.account_mut(account_id);
        account.dropped += 1;
        account.told = account.settled();
        let settled = account.told;
        self.put(id, Kind::Settled, &settled);
    }

    /// A sender does not want room any more.
    pub(super) fn unwant(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId) {
        self.forget_want(id, channel_id);
        self.release_grant(channel_id, account_id);
        self.give_room(channel_id);
    }

    /// Returns whether it had asked.
    pub(super) fn forget_want(&mut self, id: PeerId, channel_id: ChannelId) -> bool {
        let asked = self.peer_mut(id).is_some_and(|peer| peer.want.take().is_some());
        if asked {
            self.channel_mut(channel_id).leave_line(id, Wait::Grant);
        }
        asked
    }

    pub(super) fn release_grant(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let channel = self.channel_mut(channel_id);
        if let Some(bytes) = channel.account_mut(account_id).granted.take() {
            channel.granted_messages -= 1;
            channel.granted_bytes -= u64::from(bytes);
        }
    }

    /// A frame is not taken now. `first`: it had been its turn, so it keeps its place.
    pub(super) fn pause(&mut self, id: PeerId, channel_id: ChannelId, need: Need, first: bool) {
        let now_ms = self.now_ms;
        if let Some(peer) = self.peer_mut(id) {
            peer.paused_at_ms.get_or_insert(now_ms);
            peer.turn_messages = 0;
        }
        self.due(now_ms + RETRY_PAUSED_MS);
        self.note_user_limit(id, channel_id, need);
        let waiter = Waiter { peer: id, need, wait: Wait::Call };
        let line = &mut self.channel_mut(channel_id).waiting;
        if first { line.push_front(waiter) } else { line.push_back(waiter) }
    }

    /// A sender's frame has come: it waits no longer for room, and what is granted now would be granted
    /// to nobody. Returns whether it had asked for room, and whether it was called.
    pub(super) fn takes_its_turn(&mut self, id: PeerId, channel_id: ChannelId) -> (bool, bool) {
        (self.forget_want(id, channel_id), self.answers_call(id, channel_id))
    }

    /// Returns whether its frame was called for: then its turn begins.
    fn answers_call(&mut self, id: PeerId, channel_id: ChannelId) -> bool {
        let channel = self.channel_mut(channel_id);
        if channel.called != Some(id) {
            return false;
        }
        channel.called = None;
        let turn_messages = channel.turn_messages();
        if let Some(peer) = self.peer_mut(id) {
            peer.turn_messages = turn_messages;
        }
        true
    }

    /// Whether a sender may take room before those in line.
    pub(super) fn has_turn(&self, id: PeerId, channel_id: ChannelId) -> bool {
        !self.channel(channel_id).has_line() || self.peer(id).is_some_and(|peer| peer.turn_messages > 0)
    }

    /// A message of a sender was taken.
    pub(super) fn count_turn(&mut self, id: PeerId, channel_id: ChannelId) {
        let has_line = self.channel(channel_id).has_line();
        if let Some(peer) = self.peer_mut(id) {
            peer.paused_at_ms = None;
            if has_line {
                peer.turn_messages = peer.turn_messages.saturating_sub(1);
            }
        }
    }

    /// A sender is not read for a while: the others do not wait for it.
    pub(super) fn give_up_turn(&mut self, id: PeerId) {
        if let Some(channel_id) = self.sends_for(id)
            && self.channel(channel_id).called == Some(id)
        {
            self.channel_mut(channel_id).called = None;
            self.give_room(channel_id);
        }
    }

    /// A sender waits for nothing any more.
    pub(super) fn leave_line(&mut self, id: PeerId, channel_id: ChannelId) {
        self.forget_want(id, channel_id);
        self.channel_mut(channel_id).leave_line(id, Wait::Call);
        if let Some(peer) = self.peer_mut(id) {
            peer.paused_at_ms = None;
        }
    }

    /// There may be room: for the first in line, and those behind it as far as there is more.
    pub(super) fn give_room(&mut self, channel_id: ChannelId) {
        self.count_held_in_lanes(channel_id);
        while let Some(first) = self.first_with_room(channel_id) {
            self.channel_mut(channel_id).waiting.pop_front();
            match first.wait {
                Wait::Grant => self.grant(first.peer, channel_id),
                Wait::Call => {
                    self.channel_mut(channel_id).called = Some(first.peer);
                    self.actions.push_back(Action::Resume(first.peer));
                }
            }
        }
        if self.channel(channel_id).waits_for_others() {
            // Another channel of its user may make the room; or who keeps it here may have stopped.
            self.due(self.now_ms + RETRY_PAUSED_MS);
        }
    }

    /// The first in line, if it can go on. While one that was called has not come, nobody can.
    fn first_with_room(&self, channel_id: ChannelId) -> Option<Waiter> {
        let channel = self.channel(channel_id);
        let first = *channel.waiting.front().filter(|_| channel.called.is_none())?;
        let has_grant = first.wait == Wait::Call && self.has_grant(first.peer, channel_id);
        let has_room = has_grant || channel.may_go_on(&first, |need| channel.has_room_for(need, self.now_ms));
        let admitted = !self.shutting_down && !self.is_over_user(channel_id, first.need.bytes, first.peer);
        (has_room && admitted).then_some(first)
    }

    fn grant(&mut self, id: PeerId, channel_id: ChannelId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let (Some((want, _)), PeerRole::Sender { account, .. }) = (peer.want.take(), peer.role) else { return };
        let channel = self.channel_mut(channel_id);
        channel.granted_messages += 1;
        channel.granted_bytes += u64::from(want.bytes);
        channel.account_mut(account).granted = Some(want.bytes);
        self.put(id, Kind::Granted, &want);
    }

    /// Whether a sender has been granted room that it has not used.
    pub(super) fn has_grant(&self, id: PeerId, channel_id: ChannelId) -> bool {
        match self.peer(id).map(|peer| peer.role) {
            Some(PeerRole::Sender { account, .. }) => self.channel(channel_id).account(account).granted.is_some(),
            _ => false,
        }
    }

    /// Nobody waits who could go on, or it is looked at again soon, because another channel of its user
    /// has made the room.
    pub(super) fn check_turns(&self, channel_id: ChannelId) -> Result<(), String> {
        let channel = self.channel(channel_id);
        let is_retried = self.due_ms.is_some_and(|due_ms| due_ms <= self.now_ms + RETRY_PAUSED_MS);
        if let Some(first) = channel.waiting.front()
            && channel.called.is_none()
            && !self.shutting_down
            && !is_retried
            && channel.may_go_on(first, |need| channel.has_room_for(need, self.now_ms))
            && !self.is_over_user(channel_id, first.need.bytes, first.peer)
        {
            return Err(format!("{}: {first:?} waits, and there is room", channel.name));
        }
        let lost = |waiter: &&Waiter| self.sends_for(waiter.peer) != Some(channel_id);
        match channel.waiting.iter().find(lost) {
            Some(waiter) => Err(format!("{}: {waiter:?} waits and is not here", channel.name)),
            None => Ok(()),
        }
    }
}
