//! Ends that go, what stays of them, and what the others are told.

use bus_core::Peers;
use bus_core::wire::{ClosingCode, Kind, Receivers};

use super::Broker;
use super::account::AccountId;
use super::channel::{Channel, ChannelId};
use super::peer::{PeerId, PeerRole};
use super::publish::RETRY_PAUSED_MS;

/// How long a receiver that was told to leave may take to say how far it is, in milliseconds.
pub(super) const LEAVE_PATIENCE_MS: u64 = 250;

/// How often an idle channel is looked at, to give memory back, in milliseconds.
const HOUSEKEEPING_MS: u64 = 60_000;

impl Broker {
    /// A sender goes. After a goodbye it does not come back; else it is remembered for a while.
    pub(super) fn sender_leaves(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, goodbye: bool) {
        let now_ms = self.now_ms;
        self.due(now_ms + HOUSEKEEPING_MS);
        self.detach_sender(id, channel_id, account_id);
        if let Some(peer) = self.peer_mut(id) {
            peer.closing = true;
        }
        let channel = self.channel_mut(channel_id);
        let account = channel.account_mut(account_id);
        // 0 is for good.
        account.departed_at_ms = Some(if goodbye { 0 } else { now_ms.max(1) });
        self.prune_accounts(channel_id);
        self.give_room(channel_id);
        self.tell_peers(channel_id);
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
    }

    /// Takes a sender's connection out of its channel. The account stays.
    pub(super) fn detach_sender(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId) {
        self.release_grant(channel_id, account_id);
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Control;
            (peer.want, peer.paused_at_ms) = (None, None);
        }
        let channel = self.channel_mut(channel_id);
        channel.senders -= 1;
        channel.wants.retain(|other| *other != id);
        channel.paused.retain(|other| *other != id);
        channel.requirers.retain(|other| *other != id);
        channel.watchers.retain(|other| *other != id);
        channel.account_mut(account_id).peer = None;
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
        channel.watchers.retain(|other| *other != id);
        if channel.seat.as_ref().is_some_and(|seat| seat.peer == id) {
            if channel.seat.as_ref().is_some_and(|seat| seat.ended) {
                channel.sender_seen = channel.senders > 0;
            }
            let claimed = self.channel_mut(channel_id).vacate(certain);
            self.remove_recalled(channel_id, claimed);
            self.seat_next(channel_id, false);
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
            let said = peer.control.split_off(peer.control_written);
            peer.control = rest;
            peer.control_written = 0;
            peer.control.extend_from_slice(&said);
        }
    }

    /// Lets accounts go whose senders left for good or long ago.
    pub(super) fn prune_accounts(&mut self, channel_id: ChannelId) {
        let (now_ms, ttl) = (self.now_ms, self.rules.departed_senders_ttl_ms);
        let most = self.rules.departed_senders_max;
        let channel = self.channel_mut(channel_id);
        let mut departed: Vec<(u64, AccountId)> = Vec::new();
        for (slot, account) in &channel.accounts {
            if let Some(at) = account.departed_at_ms
                && account.outstanding == 0
                && account.peer.is_none()
            {
                departed.push((at, AccountId(slot as u32)));
            }
        }
        departed.sort_unstable_by_key(|(at, account)| (*at, account.0));
        let excess = departed.len().saturating_sub(most);
        for (index, (at, account)) in departed.into_iter().enumerate() {
            if index < excess || at + ttl <= now_ms || at == 0 {
                channel.close_account(account);
            }
        }
    }

    /// An end wants to know the peers, now and whenever they change.
    pub(super) fn watch(&mut self, id: PeerId, channel_id: ChannelId) {
        let channel = self.channel_mut(channel_id);
        if !channel.watchers.contains(&id) {
            channel.watchers.push(id);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.watches = true;
        }
        let peers = peers(self.channel(channel_id));
        self.put(id, Kind::Peers, &peers);
    }

    /// Tells those who asked who is at the channel now.
    pub(super) fn tell_peers(&mut self, channel_id: ChannelId) {
        let Some(channel) = self.channels.get(channel_id.0 as usize) else { return };
        if channel.watchers.is_empty() && channel.requirers.is_empty() {
            return;
        }
        let peers = peers(channel);
        let (watchers, requirers) = (channel.watchers.clone(), channel.requirers.clone());
        for id in watchers {
            self.put(id, Kind::Peers, &peers);
        }
        for id in requirers {
            self.put(id, Kind::Receivers, &Receivers { count: peers.receivers });
        }
    }

    /// Tells a receiver that waits for it that all senders have left and nothing follows.
    pub(super) fn end_if_deserted(&mut self, channel_id: ChannelId) {
        let Some(channel) = self.channels.get(channel_id.0 as usize) else { return };
        let Some(seat) = &channel.seat else { return };
        let id = seat.peer;
        let drained = channel.log.is_empty() && !seat.recalling;
        let deserted = channel.sender_seen && channel.senders == 0 && channel.awaited.is_empty();
        let wishes =
            self.peer(id).is_some_and(|peer| matches!(peer.role, PeerRole::Receiver { until_disconnected: true, .. }));
        if !(wishes && drained && deserted) || seat.ended || seat.leaving_until_ms.is_some() {
            return;
        }
        if let Some(seat) = &mut self.channel_mut(channel_id).seat {
            seat.ended = true;
        }
        self.put(id, Kind::Ended, &());
    }

    /// What is due in a channel.
    pub(super) fn tick_channel(&mut self, channel_id: ChannelId) {
        let now_ms = self.now_ms;
        let Some(channel) = self.channels.get_mut(channel_id.0 as usize) else { return };
        let awaited = channel.awaited.len();
        channel.awaited.retain(|_, until_ms| *until_ms > now_ms);
        if channel.log.is_empty() {
            channel.log.shrink();
        }
        let overdue = channel
            .seat
            .as_ref()
            .filter(|seat| seat.leaving_until_ms.is_some_and(|until_ms| until_ms <= now_ms))
            .map(|seat| seat.peer);
        if channel.awaited.len() < awaited {
            self.end_if_deserted(channel_id);
        }
        if self.channel(channel_id).seat_reserved_until_ms > 0
            && self.channel(channel_id).seat_reserved_until_ms <= now_ms
        {
            self.channel_mut(channel_id).seat_reserved_until_ms = 0;
            self.seat_next(channel_id, false);
        }
        if let Some(id) = overdue {
            self.receiver_leaves(id, channel_id, false);
            self.actions.push_back(super::Action::Close(id, "the receiver was removed by kick".to_owned()));
        }
        if self.channels.contains(channel_id.0 as usize) {
            self.give_room(channel_id);
            self.prune_accounts(channel_id);
            self.vanish_if_idle(channel_id);
        }
    }

    pub(super) fn next_channel_tick(&self, channel: &Channel) -> Option<u64> {
        let awaited = channel.awaited.values().copied().min();
        let leaving = channel.seat.as_ref().and_then(|seat| seat.leaving_until_ms);
        let departed = channel.accounts.iter().any(|(_, account)| account.departed_at_ms.is_some());
        let housekeeping = departed.then_some(self.now_ms + HOUSEKEEPING_MS);
        let reserved = Some(channel.seat_reserved_until_ms).filter(|until_ms| *until_ms > 0);
        let retry = (!channel.paused.is_empty() && channel.has_room(1)).then_some(self.now_ms + RETRY_PAUSED_MS);
        [awaited, leaving, reserved, retry, housekeeping].into_iter().flatten().min()
    }

    /// Tells a receiver to leave. It may still say how far it is, for a moment.
    pub(super) fn dismiss(&mut self, channel_id: ChannelId, code: ClosingCode, text: &str) {
        let until_ms = self.now_ms + LEAVE_PATIENCE_MS;
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

pub(super) fn peers(channel: &Channel) -> Peers {
    Peers::new(channel.senders, channel.receivers())
}
