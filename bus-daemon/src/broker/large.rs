//! Large messages on their way in: room is asked for with the header, before the content is read.
//!
//! What is read then belongs to its sender, and to nobody's log yet; it is charged to the channel's
//! user from the first byte. What has no room stays where it is, in its sender's socket.

use std::time::Duration;

use bus_core::wire::{FrameHeader, Kind};

use super::account::AccountId;
use super::channel::{Channel, ChannelId};
use super::peer::{Charge, PeerId, PeerRole};
use super::publish::{Verdict, check_follows, check_size};
use super::room::Need;
use super::users::cost;
use super::{Broker, Fault, millis};

/// What is to be done with the content of a frame whose header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Announced {
    /// Read it, and hand the frame in when it is whole.
    Keep,
    /// Nobody needs it: read past it, and hand the frame in without its content.
    Skip,
    /// There is no room: announce the frame again after [`Action::Resume`](super::Action::Resume).
    NotNow,
}

/// The content of a large message that is being read, or waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Whose user is charged for it.
    pub(super) channel: ChannelId,
    /// Of the message.
    pub(super) bytes: u64,
    /// When its header came.
    pub(super) since_ms: u64,
}

/// How long a message that is being read keeps room for itself, in milliseconds. Who has not sent it by
/// then has stopped, and the others do not wait for it; what has come of it stays charged to its user.
const READING_MS: u64 = 1_000;

impl Channel {
    /// Messages and bytes that are being read, and for which room is kept.
    pub(super) fn expected(&self, now_ms: u64) -> (u64, u64) {
        let readings = self.readings.iter().map(|(_, reading)| reading);
        let young = readings.filter(|reading| now_ms < reading.since_ms + READING_MS);
        young.fold((0, 0), |(messages, bytes), reading| (messages + 1, bytes + reading.bytes))
    }
}

impl Broker {
    /// A peer has sent the header of a frame whose content is large and has not come whole.
    pub fn announced(&mut self, now: Duration, id: PeerId, header: &FrameHeader) -> Announced {
        self.now_ms = millis(now);
        let Some(peer) = self.peer(id).filter(|peer| !peer.closing) else { return Announced::Skip };
        if peer.outbox.is_over() {
            self.stall(id);
            return Announced::NotNow;
        }
        let outcome = match (peer.role, header.kind) {
            (PeerRole::Sender { channel, account, .. } | PeerRole::FormerSender { channel, account }, Kind::Data) => {
                self.announce(id, channel, account, header)
            }
            // Nobody else sends messages; and what is no message is not long.
            (role, kind) if kind.carries_message() => self.control_frame(id, role, kind, &[]).map(|()| Announced::Skip),
            _ => Ok(Announced::Keep),
        };
        outcome.unwrap_or_else(|fault| {
            self.fault(id, fault);
            Announced::Skip
        })
    }

    fn announce(
        &mut self,
        id: PeerId,
        channel_id: ChannelId,
        account_id: AccountId,
        header: &FrameHeader,
    ) -> Result<Announced, Fault> {
        let channel = self.channel(channel_id);
        let account = channel.account(account_id);
        check_size(channel, header.message_bytes())?;
        let is_known = header.sequence <= account.accepted;
        if !is_known {
            check_follows(account, header)?;
        }
        // Also with what is known: nobody is to wait for the rest of that.
        let (asked, called) = self.takes_its_turn(id, channel_id);
        let announced = if is_known {
            Announced::Skip
        } else if self.admits(id, channel_id, account_id, header.message_bytes()) {
            let reading = Reading { channel: channel_id, bytes: header.message_bytes(), since_ms: self.now_ms };
            self.charge_reading(id, reading);
            if let Some(peer) = self.peer_mut(id) {
                peer.paused_at_ms = None;
            }
            Announced::Keep
        } else {
            self.pause(id, channel_id, Need::unread(header.message_bytes()), called);
            Announced::NotNow
        };
        if asked || called {
            self.give_room(channel_id);
        }
        Ok(announced)
    }

    /// Whether the message would be taken if it were here.
    fn admits(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, bytes: u64) -> bool {
        let granted = self.uses_grant(id, channel_id, account_id, bytes);
        match self.verdict(id, channel_id, Need::unread(bytes), granted) {
            Verdict::Accept | Verdict::DropNewest => true,
            Verdict::DropOldest => self.channel(channel_id).has_droppable(),
            Verdict::Pause => false,
        }
    }

    pub(super) fn charge_reading(&mut self, id: PeerId, reading: Reading) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.reading = Some(reading);
        let channel = self.channel_mut(reading.channel);
        channel.readings.push((id, reading));
        let uid = channel.uid;
        self.users.entry(uid).or_default().bytes += cost(1, reading.bytes);
    }

    /// What was read is a message now, or forgotten. Returns what was charged for it.
    pub(super) fn end_reading(&mut self, id: PeerId) -> Option<Reading> {
        let reading = self.peer_mut(id)?.reading.take()?;
        let channel = self.channel_mut(reading.channel);
        channel.readings.retain(|(other, _)| *other != id);
        let uid = channel.uid;
        self.discharge(uid, Charge::Bytes(cost(1, reading.bytes)));
        Some(reading)
    }

    /// Every large message that is read is counted once.
    pub(super) fn check_readings(&self, channel_id: ChannelId) -> Result<(), String> {
        let readings = self.peers.iter().filter_map(|(_, peer)| peer.reading);
        let read = readings.filter(|reading| reading.channel == channel_id).count();
        let channel = self.channel(channel_id);
        let counted =
            channel.readings.iter().filter(|(id, reading)| self.peer(*id).and_then(|it| it.reading) == Some(*reading));
        match (counted.count(), channel.readings.len()) {
            (counted, all) if counted == read && all == read => Ok(()),
            (_, all) => Err(format!("{} counts {all} messages that are read, and {read} are", channel.name)),
        }
    }
}
