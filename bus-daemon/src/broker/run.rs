//! Runs: messages of one sender that lie one behind the other, and for which nothing is to decide.
//!
//! Each of them could go the way through `hear` and `publish`, with the same outcome. Together they
//! cost a third: whose they are, and whether there is room, is looked up once.

use std::time::Duration;

use bus_core::wire::{FrameHeader, FrameLimits, HEADER_BYTES, Kind};

use super::log::LARGE_BYTES;
use super::peer::{Charge, Peer, PeerId, PeerRole};
use super::users::cost;
use super::{Broker, millis};

/// What was taken in at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How long that was, headers included.
    pub bytes: usize,
    /// How many messages it were.
    pub messages: u64,
    /// Their sender wants to be told.
    pub asked: bool,
}

impl Broker {
    /// Takes in those messages at the start of `bytes` that follow in sequence, keep every limit and
    /// have room, or a turn where others wait for that. What comes next is handed in by [`Self::frame`], which
    /// decides.
    pub fn run(&mut self, now: Duration, id: PeerId, bytes: &[u8]) -> Run {
        let Some(peer) = self.peers.get(id.slot as usize).filter(|peer| peer.generation == id.generation) else {
            return Run::default();
        };
        let PeerRole::Sender { channel: channel_id, account: account_id, .. } = peer.role else {
            return Run::default();
        };
        let channel = &mut self.channels[channel_id.0 as usize];
        let Some(user) = self.users.get_mut(&channel.uid) else { return Run::default() };
        // While others wait, no more than its turn.
        let turn_messages = if channel.has_line() { peer.turn_messages.into() } else { u64::MAX };
        if self.shutting_down || !sends_freely(peer) || turn_messages == 0 {
            return Run::default();
        }
        let (window, before, held) = (channel.bounds.window(), channel.cost(), channel.held());
        let account = &mut channel.accounts[account_id.0 as usize];
        if account.peer != Some(id) || account.granted.is_some() {
            return Run::default();
        }
        let now_ms = millis(now);
        // Encoded once: a processor that reads at once, and in other pieces, what it has just written waits until
        // that has left its store buffer (measured: half of the cost of an append).
        let origin = account.origin(self.rules.nanoseconds(now)).encode();
        let limits = FrameLimits { message_max_bytes: channel.bounds.message_max_bytes, control_max_bytes: 0 };
        let held_messages = held.messages + channel.granted_messages;
        let held_bytes = held.bytes + channel.granted_bytes;
        let mut room_messages = channel.bounds.messages.saturating_sub(held_messages).min(turn_messages);
        let mut room_bytes = channel.bounds.bytes.saturating_sub(held_bytes);
        let mut user_room = self.rules.user_bytes_max.saturating_sub(user.bytes);
        let (mut taken, mut messages) = (0, 0);
        while let Ok(Some(header)) = FrameHeader::decode(&bytes[taken..], limits) {
            let message_bytes = header.message_bytes();
            let follows = header.kind == Kind::Data && header.sequence == account.accepted + 1;
            let has_room = room_messages > 0 && message_bytes <= room_bytes && cost(1, message_bytes) <= user_room;
            let fits = has_room && message_bytes < LARGE_BYTES as u64;
            let content = bytes.get(taken + HEADER_BYTES..taken + header.frame_bytes());
            let Some(content) = content.filter(|_| follows && fits) else { break };
            account.accept(&header, window, now_ms);
            channel.log.append_small(&header, &origin, content, account_id, now_ms);
            (room_messages, room_bytes) = (room_messages - 1, room_bytes - message_bytes);
            user_room -= cost(1, message_bytes);
            taken += header.frame_bytes();
            messages += 1;
        }
        let asked = account.confirm > 0;
        if messages > 0 {
            self.now_ms = now_ms;
            if account.becomes_busy(messages, 0, now_ms) {
                self.busy.push((channel_id, account_id));
            }
            channel.tally.accepted += messages;
            user.bytes += channel.cost() - before;
            let receiver = channel.seat.as_ref().map(|seat| seat.peer);
            if turn_messages < u64::MAX
                && let Some(peer) = self.peers.get_mut(id.slot as usize)
            {
                peer.turn_messages -= messages as u32;
            }
            self.tell_later(channel_id, account_id);
            if let Some(receiver) = receiver {
                self.write(receiver);
            }
        }
        Run { bytes: taken, messages, asked }
    }
}

/// Whether a peer's messages need no more than room.
fn sends_freely(peer: &Peer) -> bool {
    let is_read = !peer.closing && peer.paused_at_ms.is_none() && !peer.outbox.is_over();
    is_read && peer.want.is_none() && peer.reading.is_none() && peer.charge == Charge::Connection
}
