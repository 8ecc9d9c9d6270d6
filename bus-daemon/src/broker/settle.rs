//! What senders are told of their messages, and ends of each other.

use bus_core::Peers;
use bus_core::wire::{Kind, Receivers};

use super::Broker;
use super::account::AccountId;
use super::channel::{Channel, ChannelId};
use super::peer::{PeerId, PeerRole};

/// How long a sender may be left without news that it does not wait for, in milliseconds.
const TELL_ALL_MS: u64 = 5;

impl Broker {
    /// Lets those senders know how far they are who wait for it or have come a good way. All others with
    /// news are told a little later: telling a sender costs as much as taking its message.
    pub fn end_turn(&mut self) {
        self.offer_lanes();
        self.tell_senders(false);
        // Who does not read is told with the turn that finds its outbox drained.
        if self.tell_all_at_ms.is_none() && self.to_tell.iter().any(|(channel, account)| self.reads(*channel, *account))
        {
            self.tell_all_at_ms = Some(self.now_ms + TELL_ALL_MS);
        }
    }

    fn reads(&self, channel: ChannelId, account: AccountId) -> bool {
        let peer =
            self.channels.get(channel.0 as usize).and_then(|channel| channel.accounts.get(account.0 as usize)?.peer);
        peer.and_then(|id| self.peer(id)).is_some_and(|peer| !peer.outbox.is_over())
    }

    /// Lets all senders with news know how far they are.
    pub fn tell_all(&mut self) {
        self.tell_all_at_ms = None;
        self.look_at_rates();
        self.tell_senders(true);
    }

    /// Looks at those channels in which something has moved.
    fn look_at_rates(&mut self) {
        let mut last = None;
        for index in 0..self.to_tell.len() {
            let (channel_id, _) = self.to_tell[index];
            // Many senders of one channel stand one behind the other.
            if last.replace(channel_id) != Some(channel_id) && self.channels.contains(channel_id.0 as usize) {
                self.look_at_rate(channel_id);
            }
        }
    }

    fn tell_senders(&mut self, all: bool) {
        let mut to_tell = std::mem::take(&mut self.to_tell);
        to_tell.retain(|(channel_id, account_id)| {
            let Some(channel) = self.channels.get_mut(channel_id.0 as usize) else { return false };
            let window = channel.bounds.window();
            let Some(account) = channel.accounts.get_mut(account_id.0 as usize) else { return false };
            if !all && !account.wants_to_know(window) {
                return true;
            }
            let peer = account.peer.and_then(|id| self.peers.get(id.slot as usize));
            if peer.is_some_and(|peer| peer.outbox.is_over()) {
                // It does not read: it is told the last when it does.
                return true;
            }
            account.queued = false;
            let settled = account.settled();
            if let Some(id) = account.peer
                && (settled != account.told || account.confirm > 0)
            {
                account.note_told(settled);
                self.put(id, Kind::Settled, &settled);
            }
            self.recall_what_is_gone(*channel_id, *account_id);
            false
        });
        to_tell.append(&mut self.to_tell);
        self.to_tell = to_tell;
    }

    /// The sender has news coming, at the end of this turn or a later one.
    pub(super) fn tell_later(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let account = self.channels[channel_id.0 as usize].account_mut(account_id);
        if account.peer.is_some() && !account.queued {
            account.queued = true;
            self.to_tell.push((channel_id, account_id));
        }
    }

    /// A sender waits until all that it has sent is accepted.
    pub(super) fn confirm(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let account = self.channel_mut(channel_id).account_mut(account_id);
        account.confirm = account.accepted;
        // Asked for in any case, even when there is nothing new.
        account.told.accepted = account.told.accepted.min(account.accepted.saturating_sub(1));
        self.tell_later(channel_id, account_id);
    }

    /// An end wants to know the peers, now and whenever they change.
    pub(super) fn watch(&mut self, id: PeerId, channel_id: ChannelId) {
        let channel = self.channel_mut(channel_id);
        if !channel.watchers.contains(&id) {
            channel.watchers.push(id);
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
            if !self.misses_peers(id) {
                self.put(id, Kind::Peers, &peers);
            }
        }
        for id in requirers {
            if !self.misses_peers(id) {
                self.put(id, Kind::Receivers, &Receivers { count: peers.receivers });
            }
        }
    }

    /// Whether a peer has so much to read that it is told the last change only, when it has read it.
    fn misses_peers(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peer_mut(id) else { return true };
        peer.missed_peers |= peer.outbox.is_over();
        peer.missed_peers
    }

    /// Tells one peer what it has missed.
    pub(super) fn tell_peers_to(&mut self, id: PeerId) {
        let (PeerRole::Sender { channel: channel_id, .. } | PeerRole::Receiver { channel: channel_id, .. }) =
            self.peer(id).map_or(PeerRole::Control, |peer| peer.role)
        else {
            return;
        };
        let channel = self.channel(channel_id);
        let peers = peers(channel);
        let (watches, requires) = (channel.watchers.contains(&id), channel.requirers.contains(&id));
        if watches {
            self.put(id, Kind::Peers, &peers);
        }
        if requires {
            self.put(id, Kind::Receivers, &Receivers { count: peers.receivers });
        }
    }
}

pub(super) fn peers(channel: &Channel) -> Peers {
    Peers::new(channel.senders, channel.receivers())
}
