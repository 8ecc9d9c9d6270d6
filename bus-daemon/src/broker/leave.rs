//! Ends that go, what stays of them, and what the others are told.

use std::collections::{HashSet, VecDeque};

use bus_core::wire::{ClosingCode, Kind};

use super::account::{AccountId, FOR_GOOD};
use super::channel::{Awaited, ChannelId};
use super::peer::{PeerId, PeerRole};
use super::tick::HOUSEKEEPING_MS;
use super::{Action, Broker};

/// How long a receiver that was told to leave may take to say how far it is, in milliseconds.
pub(super) const LEAVE_PATIENCE_MS: u64 = 250;

/// How a sender leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// With a goodbye: it does not come back.
    ForGood,
    /// It has hung up.
    HungUp,
    /// It has hung up in the middle of a message, as one does whose call has no more time for it: it comes back at
    /// once, if its process lives.
    InAMessage,
}

/// How long a sender that has hung up in the middle of a message counts as present, in milliseconds: it needs a few to
/// connect again.
const BACK_AT_ONCE_MS: u64 = 2_000;

/// The senders that were here and have left: no receiver of an earlier daemon waits for those, which
/// it may still name. The last so many, of all channels: if others have pushed one out, its receiver
/// waits its time in vain.
#[derive(Debug, Default)]
pub(super) struct Departures {
    senders: HashSet<u64>,
    in_order: VecDeque<u64>,
}

impl Departures {
    pub(super) fn contains(&self, sender: u64) -> bool {
        self.senders.contains(&sender)
    }

    fn note(&mut self, sender: u64, most: usize) {
        if self.senders.insert(sender) {
            self.in_order.push_back(sender);
        }
        while self.in_order.len() > most {
            let oldest = self.in_order.pop_front();
            oldest.map(|sender| self.senders.remove(&sender));
        }
    }
}

impl Broker {
    /// A sender goes. After a goodbye it does not come back; else it is remembered for a while.
    pub(super) fn sender_leaves(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, parting: Parting) {
        let now_ms = self.now_ms;
        self.due(now_ms + HOUSEKEEPING_MS);
        self.detach_sender(id, channel_id, account_id);
        if let Some(peer) = self.peer_mut(id) {
            peer.closing = true;
        }
        let sender = self.channel(channel_id).account(account_id).sender;
        self.departures.note(sender, self.rules.departed_senders_max);
        let departed_at_ms = if parting == Parting::ForGood { FOR_GOOD } else { now_ms.max(FOR_GOOD + 1) };
        if self.channel(channel_id).account(account_id).former_peers == 0 {
            self.sender_leaves_lane(channel_id, account_id);
        }
        self.channel_mut(channel_id).depart(account_id, departed_at_ms);
        if parting == Parting::InAMessage {
            self.await_sender(id, channel_id, sender);
        }
        self.prune_accounts(channel_id);
        self.give_room(channel_id);
        self.tell_peers(channel_id);
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
    }

    /// It counts as present until it is back, its process is gone, or its time is over.
    fn await_sender(&mut self, id: PeerId, channel_id: ChannelId, sender: u64) {
        let until_ms = self.now_ms + BACK_AT_ONCE_MS;
        let pid = self.peer(id).map(|peer| peer.credentials.pid).filter(|pid| *pid != 0);
        let awaited_max = self.rules.departed_senders_max;
        let awaited = &mut self.channel_mut(channel_id).awaited;
        if awaited.len() < awaited_max {
            awaited.insert(sender, Awaited { until_ms, pid });
        }
        // Its process is looked at first.
        self.due(self.now_ms);
    }

    /// Takes a sender's connection out of its channel. The account stays.
    fn detach_sender(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId) {
        self.release_grant(channel_id, account_id);
        self.leave_line(id, channel_id);
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Control;
        }
        self.channel_mut(channel_id).remove_sender(id, account_id);
    }

    /// A sender has come back over another connection: the old one is dead, whatever it looks like. What
    /// it had sent there counts, also when the sender dies before it has sent it again; and so does the
    /// frame that waits there, in its place.
    pub(super) fn replace_sender(&mut self, earlier: PeerId, channel_id: ChannelId, account_id: AccountId) {
        self.forget_want(earlier, channel_id);
        self.release_grant(channel_id, account_id);
        if let Some(peer) = self.peer_mut(earlier) {
            peer.role = PeerRole::FormerSender { channel: channel_id, account: account_id };
            peer.outbox.close();
        }
        let channel = self.channel_mut(channel_id);
        channel.remove_sender(earlier, account_id);
        channel.former_senders += 1;
        channel.account_mut(account_id).former_peers += 1;
        let reason = "the sender came back over another connection".to_owned();
        self.actions.push_back(Action::HangUp(earlier, reason));
        self.outbox_has_drained(earlier);
        self.give_room(channel_id);
    }

    /// All that a sender had sent over an earlier connection has been handed in.
    pub(super) fn former_sender_leaves(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId) {
        self.leave_line(id, channel_id);
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Control;
        }
        let channel = self.channel_mut(channel_id);
        channel.former_senders -= 1;
        let account = channel.account_mut(account_id);
        account.former_peers -= 1;
        let has_left = account.former_peers == 0 && account.peer.is_none();
        if has_left {
            // Its lane comes behind all that.
            self.sender_leaves_lane(channel_id, account_id);
        }
        self.channel_mut(channel_id).remember_departed(account_id);
        self.prune_accounts(channel_id);
        self.give_room(channel_id);
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
    }

    /// A receiver goes. `certain` when everything that it had claimed has been told.
    pub(super) fn receiver_leaves(&mut self, id: PeerId, channel_id: ChannelId, certain: bool) {
        if !certain {
            // It is still connected: what has begun must end before anything else is said.
            self.finish_frame(id);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Control;
            peer.closing = true;
        }
        let channel = self.channel_mut(channel_id);
        channel.line.retain(|other| *other != id);
        channel.outlives.retain(|other| *other != id);
        channel.watchers.retain(|other| *other != id);
        if channel.seat.as_ref().is_some_and(|seat| seat.peer == id) {
            if channel.seat.as_ref().is_some_and(|seat| seat.ended) {
                channel.sender_seen = channel.senders > 0;
            }
            let claimed = self.channel_mut(channel_id).vacate(certain);
            self.remove_recalled(channel_id, claimed);
            self.leave_lanes(id, channel_id);
            self.seat_next(channel_id, false);
            self.open_unread_lanes(channel_id);
            // What was on its way to it can be dropped again.
            self.give_room(channel_id);
            if !self.early.is_empty() {
                // Some may have waited for it to go.
                self.due(self.now_ms);
            }
        }
        self.tell_peers(channel_id);
        self.vanish_if_idle(channel_id);
    }

    /// Moves the rest of a half-written message into the receiver's outbox, because its log goes.
    pub(super) fn finish_frame(&mut self, id: PeerId) {
        let Some(channel_id) = self.seated_at(id) else { return };
        let channel = &self.channels[channel_id.0 as usize];
        let Some(seat) = channel.seat.as_ref().filter(|seat| seat.offset > 0) else { return };
        let rest = channel.log.frame_at(seat.written).map(|frame| frame[seat.offset..].to_vec()).unwrap_or_default();
        if let Some(peer) = self.peer_mut(id) {
            peer.outbox.put_before(rest);
        }
    }

    /// Lets accounts go whose senders left for good, long ago, or before too many others.
    pub(super) fn prune_accounts(&mut self, channel_id: ChannelId) {
        let (now_ms, ttl_ms) = (self.now_ms, self.rules.departed_senders_ttl_ms);
        let most = self.rules.departed_senders_max;
        let channel = self.channel_mut(channel_id);
        while let Some((at_ms, account)) = channel.departed.first().copied() {
            let for_good = at_ms == FOR_GOOD;
            if !for_good && at_ms + ttl_ms > now_ms && channel.departed.len() <= most {
                return;
            }
            channel.close_account(account);
        }
    }

    /// Tells a receiver that waits for it that all senders have left and nothing follows.
    pub(super) fn end_if_deserted(&mut self, channel_id: ChannelId) {
        let Some(channel) = self.channels.get(channel_id.0 as usize) else { return };
        let Some(seat) = &channel.seat else { return };
        let id = seat.peer;
        let drained = channel.log.is_empty() && !seat.recalling && channel.lanes.is_empty();
        let seen = channel.sender_seen || channel.outlives.contains(&id);
        let deserted = seen && channel.senders + channel.former_senders == 0 && channel.awaited.is_empty();
        // Who is closed was told what for: the connections of its senders end with a daemon as well.
        let wishes = self.peer(id).is_some_and(|peer| {
            !peer.closing && matches!(peer.role, PeerRole::Receiver { until_disconnected: true, .. })
        });
        if !(wishes && drained && deserted) || seat.ended || seat.leaving_until_ms.is_some() {
            return;
        }
        let channel = self.channel_mut(channel_id);
        channel.outlives = channel.line.iter().copied().collect();
        if let Some(seat) = &mut channel.seat {
            seat.ended = true;
        }
        self.put(id, Kind::Ended, &());
    }

    /// Tells a receiver to leave. It may still say how far it is, for a moment.
    pub(super) fn dismiss(&mut self, channel_id: ChannelId, code: ClosingCode, text: &str) {
        self.dismiss_within(LEAVE_PATIENCE_MS, channel_id, code, text);
    }

    /// The same, with a longer moment.
    pub(super) fn dismiss_within(&mut self, patience_ms: u64, channel_id: ChannelId, code: ClosingCode, text: &str) {
        let until_ms = self.now_ms + patience_ms;
        self.due(until_ms);
        let Some(seat) = &mut self.channel_mut(channel_id).seat else { return };
        if seat.leaving_until_ms.is_some() {
            return;
        }
        seat.leaving_until_ms = Some(until_ms);
        let id = seat.peer;
        let closing = bus_core::wire::Closing { code, text: text.to_owned() };
        self.put(id, Kind::Closing, &closing);
    }
}
