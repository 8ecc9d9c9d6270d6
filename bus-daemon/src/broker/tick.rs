//! What time brings: greetings that never came, senders that do not come back, seats that fall free,
//! memory that is given back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::channel::{Channel, ChannelId};
use super::lanes::FREEZE_AGAIN_MS;
use super::peer::PeerRole;
use super::{Broker, millis};

/// How often an idle channel is looked at, to give memory back, in milliseconds.
pub(super) const HOUSEKEEPING_MS: u64 = 60_000;

/// How often a sender is looked at that waits for room of its user: other channels may have made
/// some, in milliseconds.
pub(super) const RETRY_PAUSED_MS: u64 = 50;

/// How often awaited senders' processes are looked at, in milliseconds.
const LOOK_AT_PROCESSES_MS: u64 = 100;

/// How many processes are looked at each time: a few system calls each, in all far below a millisecond.
const PROCESSES_LOOKED_AT: usize = 128;

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
        self.records.shrink();
        self.time_out_greetings();
        let channels: Vec<ChannelId> = self.channels.iter().map(|(slot, _)| ChannelId(slot as u32)).collect();
        for channel in channels {
            self.tick_channel(channel);
        }
        // Behind those in line, to whom seats may just have fallen.
        self.greet_early();
        self.choose_processes();
        let greetings = self.peers.iter().filter_map(|(_, peer)| match peer.role {
            PeerRole::Greeting { since_ms } if !peer.closing => Some(since_ms + self.rules.hello_timeout_ms),
            _ => None,
        });
        let channels = self.channels.iter().filter_map(|(_, channel)| self.next_channel_tick(channel));
        self.due_ms = greetings.chain(channels).chain(self.early_due_ms()).min();
    }

    /// When [`Self::tick`] may have something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        [self.due_ms, self.tell_all_at_ms].into_iter().flatten().min().map(Duration::from_millis)
    }

    pub(super) fn due(&mut self, at_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(at_ms, |due_ms| due_ms.min(at_ms)));
    }

    /// Processes of awaited senders, of which [`Self::process_gone`] is to be told when they are gone. To
    /// be asked after each [`Self::tick`].
    #[must_use]
    pub fn processes_to_look_at(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.processes_to_look_at)
    }

    /// All awaited ones, in turn.
    fn choose_processes(&mut self) {
        let awaited = self.channels.iter().flat_map(|(_, channel)| channel.awaited.values());
        let pids: BTreeSet<u32> = awaited.filter_map(|awaited| awaited.pid).collect();
        let (before, after): (Vec<u32>, Vec<u32>) = pids.into_iter().partition(|pid| *pid <= self.last_looked_at);
        self.processes_to_look_at = after.into_iter().chain(before).take(PROCESSES_LOOKED_AT).collect();
        self.last_looked_at = self.processes_to_look_at.last().copied().unwrap_or_default();
    }

    /// A process does not exist any more: its senders do not come back. Everything that connected before
    /// must have been told by [`Self::connected`].
    pub fn process_gone(&mut self, now: Duration, pid: u32) {
        self.now_ms = millis(now);
        let may_have_come_back = self.peers.iter().any(|(_, peer)| {
            peer.credentials.pid == pid && !peer.closing && matches!(peer.role, PeerRole::Greeting { .. })
        });
        if may_have_come_back {
            // What it said before its end is not read yet. We shall ask again.
            return;
        }
        let channels: Vec<ChannelId> = self.channels.iter().map(|(slot, _)| ChannelId(slot as u32)).collect();
        for channel_id in channels {
            let channel = self.channel_mut(channel_id);
            let awaited = channel.awaited.len();
            channel.awaited.retain(|_, awaited| awaited.pid != Some(pid));
            if channel.awaited.len() < awaited {
                self.end_if_deserted(channel_id);
                self.vanish_if_idle(channel_id);
            }
        }
    }

    /// What is due in a channel.
    fn tick_channel(&mut self, channel_id: ChannelId) {
        let now_ms = self.now_ms;
        let Some(channel) = self.channels.get_mut(channel_id.0 as usize) else { return };
        let awaited = channel.awaited.len();
        channel.awaited.retain(|_, awaited| awaited.until_ms > now_ms);
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
            self.look_at_rate(channel_id);
            self.tick_lanes(channel_id);
            self.give_room(channel_id);
            self.prune_accounts(channel_id);
            self.vanish_if_idle(channel_id);
        }
    }

    fn next_channel_tick(&self, channel: &Channel) -> Option<u64> {
        let awaited = channel.awaited.values().map(|awaited| awaited.until_ms).min();
        let has_processes = channel.awaited.values().any(|awaited| awaited.pid.is_some());
        let processes = has_processes.then_some(self.now_ms + LOOK_AT_PROCESSES_MS);
        let leaving = channel.seat.as_ref().and_then(|seat| seat.leaving_until_ms);
        let housekeeping = (!channel.departed.is_empty()).then_some(self.now_ms + HOUSEKEEPING_MS);
        let reserved = Some(channel.seat_reserved_until_ms).filter(|until_ms| *until_ms > 0);
        let retry = channel.waits_for_others().then_some(self.now_ms + RETRY_PAUSED_MS);
        let lanes = channel.lanes_wait().then_some(self.now_ms + FREEZE_AGAIN_MS);
        let resting = channel.lanes_may_rest().then_some(self.now_ms + self.lane_looks_ms());
        [awaited, processes, leaving, reserved, retry, housekeeping, lanes, resting].into_iter().flatten().min()
    }
}
