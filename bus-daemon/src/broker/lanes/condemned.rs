//! Lanes whose memory can never be proved to be at rest, because somebody has forbidden that.

use std::time::Duration;

use bus_core::wire::{Kind, LaneId, LaneNamed};

use super::State;
use crate::broker::channel::Tally;
use crate::broker::{Broker, millis};

impl Broker {
    /// The data of a lane cannot be sealed, or frozen: only its sender can have brought that about. Nobody may trust
    /// it, and the sender goes back to the stream with what is not acknowledged, if it lives.
    pub fn lane_condemned(&mut self, now: Duration, lane: LaneId, fault: &str) {
        self.now_ms = millis(now);
        let Some((channel_id, index)) = self.find_lane(lane) else { return };
        let channel = self.channel(channel_id);
        let found = &channel.lanes[index];
        let sender = found.account.and_then(|account| channel.account(account).peer);
        let receiver = channel.seat.as_ref().map(|seat| seat.peer).filter(|_| matches!(found.state, State::Given(_)));
        let (pid, counted_from, purged) = (found.pid, found.counted_from, found.purged);
        let counts = self.counts(found);
        let acknowledged = counts.acknowledged - counted_from;
        let lost = if sender.is_some() { 0 } else { counts.published - counts.acknowledged };
        let tally = Tally { accepted: acknowledged + lost, acknowledged: acknowledged - purged, purged, dropped: lost };
        self.channel_mut(channel_id).count_lane(counted_from, tally);
        if let Some(receiver) = receiver {
            self.put(receiver, Kind::SenderGone, &LaneNamed { lane });
        }
        self.free_lane(channel_id, lane);
        if let Some(sender) = sender {
            // It comes back, and is told that the lane is not known.
            self.end_at_fault(sender, format!("its lane is broken: {fault} (pid {pid})"));
        }
        self.go_on_when_at_rest(channel_id);
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
    }
}
