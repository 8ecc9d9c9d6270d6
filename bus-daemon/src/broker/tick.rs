//! What time brings: greetings that never came, seats that fall free, memory that is given back.

use std::time::Duration;

use super::channel::{Channel, ChannelId};
use super::peer::PeerRole;
use super::{Broker, millis};

/// How often an idle channel is looked at, to give memory back, in milliseconds.
pub(super) const HOUSEKEEPING_MS: u64 = 60_000;

/// How often a sender is looked at that waits for room of its user: other channels may have made
/// some, in milliseconds.
pub(super) const RETRY_PAUSED_MS: u64 = 50;

impl Broker {
    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.now_ms = millis(now);
        if self.tell_all_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.tell_all();
        }
        if self.due_ms.is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.look_after_channels();
        }
    }

    fn look_after_channels(&mut self) {
        self.time_out_greetings();
        let channels: Vec<ChannelId> = self.channels.iter().map(|(slot, _)| ChannelId(slot as u32)).collect();
        for channel in channels {
            self.tick_channel(channel);
        }
        let greetings = self.peers.iter().filter_map(|(_, peer)| match peer.role {
            PeerRole::Greeting { since_ms } if !peer.closing => Some(since_ms + self.rules.hello_timeout_ms),
            _ => None,
        });
        let channels = self.channels.iter().filter_map(|(_, channel)| self.next_channel_tick(channel));
        self.due_ms = greetings.chain(channels).min();
    }

    /// When [`Self::tick`] may have something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        [self.due_ms, self.tell_all_at_ms].into_iter().flatten().min().map(Duration::from_millis)
    }

    pub(super) fn due(&mut self, at_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(at_ms, |due_ms| due_ms.min(at_ms)));
    }

    /// What is due in a channel.
    fn tick_channel(&mut self, channel_id: ChannelId) {
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
            self.end_peer(id, "the receiver was removed by kick".to_owned());
        }
        if self.channels.contains(channel_id.0 as usize) {
            self.give_room(channel_id);
            self.prune_accounts(channel_id);
            self.vanish_if_idle(channel_id);
        }
    }

    fn next_channel_tick(&self, channel: &Channel) -> Option<u64> {
        let awaited = channel.awaited.values().copied().min();
        let leaving = channel.seat.as_ref().and_then(|seat| seat.leaving_until_ms);
        let housekeeping = (!channel.departed.is_empty()).then_some(self.now_ms + HOUSEKEEPING_MS);
        let reserved = Some(channel.seat_reserved_until_ms).filter(|until_ms| *until_ms > 0);
        let retry = channel.waits_for_user().then_some(self.now_ms + RETRY_PAUSED_MS);
        [awaited, leaving, reserved, retry, housekeeping].into_iter().flatten().min()
    }
}
