//! The way in: messages, windows, room and the policies of a full channel.

use bus_core::WhenFull;
use bus_core::wire::{Flags, FrameHeader, Kind, Origin, Want};

use super::account::AccountId;
use super::channel::{ChannelId, Leaves};
use super::log::Content;
use super::peer::PeerId;
use super::{Broker, Fault, Handled};

/// How often a sender is looked at that waits for room of its user: other channels may have made
/// some, in milliseconds.
pub(super) const RETRY_PAUSED_MS: u64 = 50;

impl Broker {
    /// A message has come.
    pub(super) fn publish<'a>(
        &mut self,
        id: PeerId,
        channel_id: ChannelId,
        account_id: AccountId,
        header: &FrameHeader,
        content: Content<'a>,
    ) -> Result<Handled<'a>, Fault> {
        if self.peer_mut(id).is_some_and(|peer| peer.want.take().is_some()) {
            // Whoever sends no longer waits for room: what is granted now would be granted to nobody.
            self.channel_mut(channel_id).wants.retain(|other| *other != id);
        }
        let now_ms = self.now_ms;
        let shutting_down = self.shutting_down;
        let user_bytes_max = self.rules.user_bytes_max;
        let channel = &mut self.channels[channel_id.0 as usize];
        let account = &mut channel.accounts[account_id.0 as usize];
        let message_bytes = header.message_bytes();
        if message_bytes > u64::from(channel.bounds.message_max_bytes) {
            let limit = channel.bounds.message_max_bytes;
            let name = &channel.name;
            return Err(Fault(format!(
                "message of {message_bytes} bytes is over the limit of {limit} of channel {name} (max-message)"
            )));
        }
        if header.sequence <= account.accepted {
            // Sent again, and known: it is here, or was acknowledged.
            if header.flags.has(Flags::CONFIRM) {
                account.confirm = account.confirm.max(header.sequence);
            }
            self.tell_later(channel_id, account_id);
            return Ok(Handled::Taken);
        }
        if header.sequence != account.accepted + 1 {
            return Err(Fault(format!(
                "message {} follows message {}: a sender's sequence has no gaps",
                header.sequence, account.accepted
            )));
        }
        if account.granted.is_some_and(|bytes| u64::from(bytes) < message_bytes) {
            // It asked for less room than it needs: as if it had not asked.
            self.release_grant(channel_id, account_id);
            self.give_room(channel_id);
        }
        let channel = &self.channels[channel_id.0 as usize];
        let over_user = self.users.get(&channel.uid).is_some_and(|user| user.bytes + message_bytes > user_bytes_max)
            && !channel.log.is_empty();
        let granted = channel.account(account_id).granted.is_some();
        let full = !granted && !channel.has_room(message_bytes);
        if shutting_down || over_user || full {
            let channel = &mut self.channels[channel_id.0 as usize];
            let account = &mut channel.accounts[account_id.0 as usize];
            match channel.bounds.when_full {
                _ if shutting_down || over_user => return Ok(self.pause(id, channel_id, content)),
                WhenFull::Block | WhenFull::Reject => return Ok(self.pause(id, channel_id, content)),
                WhenFull::DropNewest => {
                    if header.flags.has(Flags::CONFIRM) {
                        account.confirm = header.sequence;
                    }
                    account.accepted = header.sequence;
                    account.outstanding += 1;
                    account.messages += 1;
                    channel.tally.accepted += 1;
                    channel.tally.dropped += 1;
                    account.dropped += 1;
                    let sequence = header.sequence;
                    account.resolve(sequence, account.outstanding == 1);
                    self.tell_later(channel_id, account_id);
                    return Ok(Handled::Taken);
                }
                WhenFull::DropOldest => {
                    if !self.drop_oldest(channel_id, message_bytes) {
                        return Ok(self.pause(id, channel_id, content));
                    }
                }
            }
        }
        let channel = &mut self.channels[channel_id.0 as usize];
        let account = &mut channel.accounts[account_id.0 as usize];
        if let Some(bytes) = account.granted.take() {
            channel.granted_messages -= 1;
            channel.granted_bytes -= u64::from(bytes);
        }
        account.accepted = header.sequence;
        account.outstanding += 1;
        account.messages += 1;
        if header.flags.has(Flags::CONFIRM) {
            account.confirm = header.sequence;
        }
        let origin = Origin { sender: account.sender, pid: account.pid, attempt: 1 };
        if !account.queued {
            account.queued = true;
            self.to_tell.push((channel_id, account_id));
        }
        channel.log.append(header, origin, content, account_id, now_ms);
        channel.tally.accepted += 1;
        if let Some(user) = self.users.get_mut(&channel.uid) {
            user.bytes += message_bytes;
        }
        if let Some(seat) = &channel.seat {
            let receiver = seat.peer;
            self.write(receiver);
        }
        Ok(Handled::Taken)
    }

    fn pause<'a>(&mut self, id: PeerId, channel_id: ChannelId, content: Content<'a>) -> Handled<'a> {
        let now_ms = self.now_ms;
        if let Some(peer) = self.peer_mut(id) {
            peer.paused_at_ms.get_or_insert(now_ms);
        }
        self.due(now_ms + RETRY_PAUSED_MS);
        self.channel_mut(channel_id).paused.push_back(id);
        Handled::NotNow(content)
    }

    /// Drops messages that are not on their way yet, until there is room. `false` when there are none.
    fn drop_oldest(&mut self, channel_id: ChannelId, bytes: u64) -> bool {
        let before = self.channel(channel_id).log.bytes();
        while !self.channel(channel_id).has_room(bytes) {
            let channel = self.channel_mut(channel_id);
            let position = channel.unsent_from();
            let Some(entry) = channel.log.remove(position) else { break };
            // Its sender need not keep what is older either: a receiver has that whole, or it was dropped.
            // Else one stalled delivery would fill the sender's window, and dropping is not to block.
            let half_sent = channel.seat.as_ref().is_some_and(|seat| seat.offset > 0);
            channel.count(&entry, Leaves::Dropped, !half_sent);
            self.tell_later(channel_id, entry.account);
        }
        self.charge(channel_id, before);
        self.channel(channel_id).has_room(bytes)
    }

    /// A sender asks for room.
    pub(super) fn want(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, want: Want) {
        let now_ms = self.now_ms;
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.want.is_none() {
            self.channel_mut(channel_id).wants.push_back(id);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.want = Some((want, now_ms));
        }
        self.release_grant(channel_id, account_id);
        self.give_room(channel_id);
        let Some(peer) = self.peer_mut(id) else { return };
        if let Some((want, _)) = peer.want
            && !want.wait
        {
            peer.want = None;
            let channel = self.channel_mut(channel_id);
            channel.wants.retain(|other| *other != id);
            if channel.bounds.when_full == WhenFull::DropNewest {
                self.drop_unsent(id, channel_id, account_id);
            }
            self.put(id, Kind::Full, &want);
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
        if let Some(peer) = self.peer_mut(id) {
            peer.want = None;
        }
        self.channel_mut(channel_id).wants.retain(|other| *other != id);
        self.release_grant(channel_id, account_id);
        self.give_room(channel_id);
    }

    pub(super) fn release_grant(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let channel = self.channel_mut(channel_id);
        if let Some(bytes) = channel.account_mut(account_id).granted.take() {
            channel.granted_messages -= 1;
            channel.granted_bytes -= u64::from(bytes);
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

    /// There may be room: for those who asked first, then for those whose frames wait.
    pub(super) fn give_room(&mut self, channel_id: ChannelId) {
        while let Some(id) = self.channel(channel_id).wants.front().copied() {
            let Some((want, account_id)) = self.peer(id).and_then(|peer| match (peer.want, peer.role) {
                (Some((want, _)), super::PeerRole::Sender { account, .. }) => Some((want, account)),
                _ => None,
            }) else {
                self.channel_mut(channel_id).wants.pop_front();
                continue;
            };
            let channel = self.channel_mut(channel_id);
            if !channel.has_room(u64::from(want.bytes)) {
                break;
            }
            channel.wants.pop_front();
            channel.granted_messages += 1;
            channel.granted_bytes += u64::from(want.bytes);
            channel.account_mut(account_id).granted = Some(want.bytes);
            if let Some(peer) = self.peer_mut(id) {
                peer.want = None;
            }
            self.put(id, Kind::Granted, &want);
        }
        let channel = &mut self.channels[channel_id.0 as usize];
        if !channel.paused.is_empty() && channel.has_room(1) {
            let paused = std::mem::take(&mut channel.paused);
            for id in paused {
                if let Some(peer) = self.peer_mut(id) {
                    peer.paused_at_ms = None;
                    self.actions.push_back(super::Action::Resume(id));
                }
            }
        }
    }

    /// The sender has news coming, at the end of this turn or a later one.
    pub(super) fn tell_later(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let account = self.channels[channel_id.0 as usize].account_mut(account_id);
        if account.peer.is_some() && !account.queued {
            account.queued = true;
            self.to_tell.push((channel_id, account_id));
        }
    }
}
