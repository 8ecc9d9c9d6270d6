//! The way in: sequence, limits, and the policies of a full channel.

use bus_core::WhenFull;
use bus_core::wire::{Flags, FrameHeader};

use super::account::{Account, AccountId, Left};
use super::channel::{Channel, ChannelId, Leaves};
use super::log::Content;
use super::peer::{Charge, PeerId};
use super::room::Need;
use super::users::cost;
use super::{Broker, Fault, Handled};

/// What is done with a message.
pub(super) enum Verdict {
    Accept,
    Pause,
    /// It is counted, and forgotten.
    DropNewest,
    /// Others are, until there is room for it.
    DropOldest,
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
        let (asked, called) = self.takes_its_turn(id, channel_id);
        let reading = self.end_reading(id);
        let handled = self.take_in(id, channel_id, account_id, header, content);
        if let Ok(Handled::NotNow(_)) = &handled {
            // One whose content is here already has had its turn before.
            self.pause(id, channel_id, Need::here(header.message_bytes()), called || reading.is_some());
            reading.inspect(|reading| self.charge_reading(id, *reading));
        }
        if asked || called || reading.is_some() {
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
        check_follows(account, header)?;
        let granted = self.uses_grant(id, channel_id, account_id, message_bytes);
        match self.verdict(id, channel_id, Need::here(message_bytes), granted) {
            Verdict::Pause => return Ok(Handled::NotNow(content)),
            Verdict::DropNewest => self.drop_newest(channel_id, account_id, header),
            Verdict::DropOldest if !self.drop_oldest(channel_id, message_bytes) => return Ok(Handled::NotNow(content)),
            Verdict::DropOldest | Verdict::Accept => self.accept(channel_id, account_id, header, content, granted),
        }
        self.count_turn(id, channel_id);
        self.discharge_frame(id, header.frame_bytes() as u64);
        Ok(Handled::Taken)
    }

    /// Whether room is granted to a message that comes now.
    pub(super) fn uses_grant(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, bytes: u64) -> bool {
        let account = self.channel(channel_id).account(account_id);
        let Some(granted) = account.granted.filter(|_| account.peer == Some(id)) else { return false };
        // Where the oldest go there is room for all, and they go when it comes.
        let makes_room = self.channel(channel_id).bounds.when_full == WhenFull::DropOldest;
        let enough = u64::from(granted) >= bytes && !makes_room;
        if !enough {
            // As if it had not asked; also when it asked for less than it needs.
            self.release_grant(channel_id, account_id);
            self.give_room(channel_id);
        }
        enough
    }

    pub(super) fn verdict(&self, id: PeerId, channel_id: ChannelId, need: Need, granted: bool) -> Verdict {
        if self.shutting_down || self.is_over_user(channel_id, need.bytes, id) {
            return Verdict::Pause;
        }
        if granted {
            return Verdict::Accept;
        }
        if !self.has_turn(id, channel_id) {
            return Verdict::Pause;
        }
        let channel = self.channel(channel_id);
        if channel.has_room_for(need, self.now_ms) {
            return Verdict::Accept;
        }
        match channel.bounds.when_full {
            WhenFull::Block | WhenFull::Reject => Verdict::Pause,
            WhenFull::DropNewest => Verdict::DropNewest,
            WhenFull::DropOldest => Verdict::DropOldest,
        }
    }

    /// Whether the user that pays for a channel may hold no more. An empty channel takes a message of
    /// any user. What is charged for what it has sent already is not counted twice.
    pub(super) fn is_over_user(&self, channel_id: ChannelId, message_bytes: u64, id: PeerId) -> bool {
        let channel = self.channel(channel_id);
        let Some(peer) = self.peer(id) else { return false };
        if channel.log.is_empty() && channel.readings.len() == usize::from(peer.reading.is_some()) {
            return false;
        }
        let reading = peer.reading.map_or(0, |reading| cost(1, reading.bytes));
        let charged = match peer.charge {
            Charge::Bytes(bytes) if peer.credentials.uid == channel.uid => reading.max(bytes),
            Charge::Bytes(_) | Charge::Connection => reading,
        };
        !self.user_has_room(channel.uid, cost(1, message_bytes).saturating_sub(charged))
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
        if account.becomes_busy(1, header.message_bytes(), now_ms) {
            self.busy.push((channel_id, account_id));
        }
        let origin = account.origin(self.now_ns);
        if !account.queued {
            account.queued = true;
            self.to_tell.push((channel_id, account_id));
        }
        channel.log.append(header, origin, content, account_id, now_ms);
        channel.tally.accepted += 1;
        if let Some(user) = self.users.get_mut(&channel.uid) {
            user.bytes += cost(1, header.message_bytes());
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
        let left = if only { Left::UpTo(header.sequence) } else { Left::Alone(header.sequence) };
        account.resolve(1, header.message_bytes(), left, window);
        self.tell_later(channel_id, account_id);
    }

    /// Drops messages that are not on their way yet, until there is room. `false` when there are none.
    fn drop_oldest(&mut self, channel_id: ChannelId, bytes: u64) -> bool {
        let before = self.channel(channel_id).cost();
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

pub(super) fn check_follows(account: &Account, header: &FrameHeader) -> Result<(), Fault> {
    if header.sequence == account.accepted + 1 {
        return Ok(());
    }
    let (sequence, accepted) = (header.sequence, account.accepted);
    Err(Fault(format!("message {sequence} follows message {accepted}: a sender's sequence has no gaps")))
}

pub(super) fn check_size(channel: &Channel, message_bytes: u64) -> Result<(), Fault> {
    let limit = channel.bounds.message_max_bytes;
    if message_bytes <= u64::from(limit) {
        return Ok(());
    }
    let name = &channel.name;
    Err(Fault(format!(
        "message of {message_bytes} bytes is over the limit of {limit} bytes of channel {name}: split it, or raise max-message"
    )))
}
