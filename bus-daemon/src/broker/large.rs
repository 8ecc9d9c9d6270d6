//! Large messages on their way in: room is asked for with the header, before the content is read.
//!
//! What is read then belongs to its sender, and to nobody's log yet; it is charged to the channel's
//! user from the first byte. What has no room stays where it is, in its sender's socket.

use std::time::Duration;

use bus_core::wire::{FrameHeader, Kind};

use super::account::AccountId;
use super::channel::ChannelId;
use super::peer::{Charge, PeerId, PeerRole};
use super::publish::{Verdict, check_follows, check_size};
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
    pub(super) bytes: u64,
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
            (role, Kind::Data) => self.control_frame(id, role, Kind::Data, &[]).map(|()| Announced::Skip),
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
        if header.sequence <= account.accepted {
            return Ok(Announced::Skip);
        }
        check_follows(account, header)?;
        let (asked, called) = self.takes_its_turn(id, channel_id);
        let admitted = self.admits(id, channel_id, account_id, header.message_bytes());
        if admitted {
            self.charge_reading(id, Reading { channel: channel_id, bytes: header.message_bytes() });
        } else {
            self.pause(id, channel_id, header.message_bytes(), called);
        }
        if asked || called {
            self.give_room(channel_id);
        }
        Ok(if admitted { Announced::Keep } else { Announced::NotNow })
    }

    /// Whether the message would be taken if it were here.
    fn admits(&mut self, id: PeerId, channel_id: ChannelId, account_id: AccountId, bytes: u64) -> bool {
        let granted = self.uses_grant(id, channel_id, account_id, bytes);
        match self.verdict(id, channel_id, bytes, granted) {
            Verdict::Accept | Verdict::DropNewest => true,
            Verdict::DropOldest => self.channel(channel_id).has_droppable(),
            Verdict::Pause => false,
        }
    }

    pub(super) fn charge_reading(&mut self, id: PeerId, reading: Reading) {
        let Some(peer) = self.peer_mut(id) else { return };
        (peer.reading, peer.paused_at_ms) = (Some(reading), None);
        let channel = self.channel_mut(reading.channel);
        channel.readings += 1;
        let uid = channel.uid;
        self.users.entry(uid).or_default().bytes += reading.bytes;
    }

    /// What was read is a message now, or forgotten. Returns what was charged for it.
    pub(super) fn end_reading(&mut self, id: PeerId) -> Option<Reading> {
        let reading = self.peer_mut(id)?.reading.take()?;
        let channel = self.channel_mut(reading.channel);
        channel.readings -= 1;
        let uid = channel.uid;
        self.discharge(uid, Charge::Bytes(reading.bytes));
        Some(reading)
    }

    /// Every large message that is read is counted once.
    pub(super) fn check_readings(&self, channel_id: ChannelId) -> Result<(), String> {
        let readings = self.peers.iter().filter_map(|(_, peer)| peer.reading);
        let read = readings.filter(|reading| reading.channel == channel_id).count();
        let channel = self.channel(channel_id);
        match channel.readings as usize == read {
            true => Ok(()),
            false => {
                Err(format!("{} counts {} messages that are read, and {read} are", channel.name, channel.readings))
            }
        }
    }
}
