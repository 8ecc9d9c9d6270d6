//! The way in: sequence, limits, and the policies of a full channel.

use bus_core::WhenFull;
use bus_core::wire::{Flags, FrameHeader, Origin};

use super::account::AccountId;
use super::channel::{Channel, ChannelId, Leaves};
use super::log::Content;
use super::peer::{Charge, PeerId};
use super::{Broker, Fault, Handled};

/// What is done with a message.
enum Verdict {
    Accept,
    Pause,
    /// Counted, and forgotten.
    Drop,
}

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
        // Whoever sends no longer waits for room: what is granted now would be granted to nobody.
        let asked = self.forget_want(id, channel_id);
        let called = self.answers_call(id, channel_id);
        let handled = self.take_in(id, channel_id, account_id, header, content, called);
        if asked || called {
            self.give_room(channel_id);
        }
        handled
    }

    fn take_in<'a>(
        &mut self,
        id: PeerId,
        channel_id: ChannelId,
        account_id: AccountId,
        header: &FrameHeader,
        content: Content<'a>,
        called: bool,
    ) -> Result<Handled<'a>, Fault> {
        let message_bytes = header.message_bytes();
        let channel = &mut self.channels[channel_id.0 as usize];
        check_size(channel, message_bytes)?;
        let account = channel.account_mut(account_id);
        if header.sequence <= account.accepted {
            // Sent again, and known: it is here, or was acknowledged.
            if header.flags.has(Flags::CONFIRM) {
                account.confirm = account.confirm.max(header.sequence);
            }
            self.count_turn(id, channel_id);
            self.tell_later(channel_id, account_id);
            self.discharge_frame(id, header.frame_bytes() as u64);
            return Ok(Handled::Taken);
        }
        if header.sequence != account.accepted + 1 {
            return Err(Fault(format!(
                "message {} follows message {}: a sender's sequence has no gaps",
                header.sequence, account.accepted
            )));
        }
        let is_present = account.peer == Some(id);
        if is_present && account.granted.is_some_and(|bytes| u64::from(bytes) < message_bytes) {
            // It asked for less room than it needs: as if it had not asked.
            self.release_grant(channel_id, account_id);
            self.give_room(channel_id);
        }
        let granted = is_present && self.channel(channel_id).account(account_id).granted.is_some();
        match self.verdict(id, channel_id, message_bytes, granted) {
            Verdict::Pause => return Ok(self.pause(id, channel_id, message_bytes, called, content)),
            Verdict::Drop => self.drop_newest(channel_id, account_id, header),
            Verdict::Accept => self.accept(channel_id, account_id, header, content, granted),
        }
        self.count_turn(id, channel_id);
        self.discharge_frame(id, header.frame_bytes() as u64);
        Ok(Handled::Taken)
    }

    fn verdict(&mut self, id: PeerId, channel_id: ChannelId, message_bytes: u64, granted: bool) -> Verdict {
        if self.shutting_down || self.is_over_user(channel_id, message_bytes, id) {
            return Verdict::Pause;
        }
        if granted {
            return Verdict::Accept;
        }
        if !self.has_turn(id, channel_id) {
            return Verdict::Pause;
        }
        let channel = self.channel(channel_id);
        if channel.has_room(message_bytes) {
            return Verdict::Accept;
        }
        match channel.bounds.when_full {
            WhenFull::Block | WhenFull::Reject => Verdict::Pause,
            WhenFull::DropNewest => Verdict::Drop,
            WhenFull::DropOldest => {
                if self.drop_oldest(channel_id, message_bytes) {
                    Verdict::Accept
                } else {
                    Verdict::Pause
                }
            }
        }
    }

    /// Whether the user that pays for a channel may hold no more. An empty channel takes a message of
    /// any user. What a sender without a socket is charged for already is not counted twice.
    pub(super) fn is_over_user(&self, channel_id: ChannelId, message_bytes: u64, id: PeerId) -> bool {
        let channel = self.channel(channel_id);
        if channel.log.is_empty() {
            return false;
        }
        let charged = match self.peer(id).map(|peer| (peer.charge, peer.credentials.uid)) {
            Some((Charge::Bytes(bytes), uid)) if uid == channel.uid => bytes.min(message_bytes),
            _ => 0,
        };
        !self.user_has_room(channel.uid, message_bytes - charged)
    }

    fn accept(
        &mut self,
        channel_id: ChannelId,
        account_id: AccountId,
        header: &FrameHeader,
        content: Content<'_>,
        granted: bool,
    ) {
        let now_ms = self.now_ms;
        if granted {
            self.release_grant(channel_id, account_id);
        }
        let channel = &mut self.channels[channel_id.0 as usize];
        let window = channel.bounds.window();
        let account = &mut channel.accounts[account_id.0 as usize];
        account.accept(header, window, now_ms);
        let origin = Origin { sender: account.sender, pid: account.pid, attempt: 1 };
        if !account.queued {
            account.queued = true;
            self.to_tell.push((channel_id, account_id));
        }
        channel.log.append(header, origin, content, account_id, now_ms);
        channel.tally.accepted += 1;
        if let Some(user) = self.users.get_mut(&channel.uid) {
            user.bytes += header.message_bytes();
        }
        if let Some(seat) = &channel.seat {
            let receiver = seat.peer;
            self.write(receiver);
        }
    }

    /// The channel keeps what it has.
    fn drop_newest(&mut self, channel_id: ChannelId, account_id: AccountId, header: &FrameHeader) {
        let now_ms = self.now_ms;
        let channel = &mut self.channels[channel_id.0 as usize];
        let window = channel.bounds.window();
        channel.tally.accepted += 1;
        channel.tally.dropped += 1;
        let account = &mut channel.accounts[account_id.0 as usize];
        account.accept(header, window, now_ms);
        account.dropped += 1;
        let only = account.outstanding == 1;
        account.resolve(1, header.message_bytes(), Some(header.sequence).filter(|_| only), window);
        self.tell_later(channel_id, account_id);
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
}

fn check_size(channel: &Channel, message_bytes: u64) -> Result<(), Fault> {
    let limit = channel.bounds.message_max_bytes;
    if message_bytes <= u64::from(limit) {
        return Ok(());
    }
    let name = &channel.name;
    Err(Fault(format!("message of {message_bytes} bytes is over the limit of {limit} of channel {name} (max-message)")))
}
