//! Lanes that an end cannot have, because it cannot fetch or map what they lie in: too few descriptors, or too little
//! memory, of its own.

use bus_core::wire::{ClosingCode, Kind, LaneId, LaneNamed};

use super::State;
use crate::broker::Broker;
use crate::broker::account::{AccountId, Busy};
use crate::broker::channel::{ChannelId, Tally};
use crate::broker::peer::PeerId;

impl Broker {
    /// The receiver that has the seat cannot read a lane, of which it has seen nothing. Its sender goes back to the
    /// stream with what is in there; where that is gone nobody but a receiver can save it, so this one has to leave.
    pub(super) fn lane_missed(&mut self, id: PeerId, channel_id: ChannelId, lane: LaneId, fault: &str) {
        if let Some(peer) = self.peer_mut(id) {
            // It is not to be offered more of what it cannot have.
            peer.reads_lanes = false;
        }
        let channel = self.channel(channel_id);
        let Some(found) = channel.lanes.iter().find(|found| found.id == lane) else { return };
        if !found.open {
            return self.take_unused_lane_back(channel_id, lane);
        }
        let Some(sender) = found.account.and_then(|account| channel.account(account).peer) else {
            let text = format!(
                "{fault}; the sender of lane {} (pid {}) is gone, and what it left in channel {} is kept for the next receiver: let this process have more descriptors or memory (ulimit -n, ulimit -v)",
                lane.0, found.pid, channel.name
            );
            return self.dismiss(channel_id, ClosingCode::Fault, &text);
        };
        let (counted_from, purged) = (found.counted_from, found.purged);
        let acknowledged = found.start.messages - counted_from;
        let tally = Tally { accepted: acknowledged, acknowledged: acknowledged - purged, purged, dropped: 0 };
        self.channel_mut(channel_id).count_lane(counted_from, tally);
        self.put(id, Kind::SenderGone, &LaneNamed { lane });
        self.free_lane(channel_id, lane);
        // It comes back, and is told that the lane is not known.
        self.end_at_fault(sender, fault.to_owned());
    }

    /// Nothing was ever sent in a lane, and its sender goes on without it.
    pub(super) fn take_unused_lane_back(&mut self, channel_id: ChannelId, lane: LaneId) {
        let channel = self.channel(channel_id);
        let Some(found) = channel.lanes.iter().find(|found| found.id == lane) else { return };
        let (account, asked) = (found.account, found.was_asked_for());
        let receiver = channel.seat.as_ref().map(|seat| seat.peer);
        if let Some(receiver) = receiver.filter(|_| matches!(found.state, State::Given(_))) {
            self.put(receiver, Kind::SenderGone, &LaneNamed { lane });
        }
        self.free_lane(channel_id, lane);
        if let Some(account_id) = account {
            self.may_have_another(channel_id, account_id, asked);
            self.recall_gone(channel_id, account_id, lane);
        }
        self.go_on_when_at_rest(channel_id);
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
    }
    /// A sender that has no lane now is busy again before it gets one: what kept it from having it may last.
    pub(super) fn may_have_another(&mut self, channel_id: ChannelId, account_id: AccountId, asked: bool) {
        self.channel_mut(channel_id).account_mut(account_id).busy = Some(Busy::wishing(asked));
    }

    /// A sender has a lane mapped that is gone: it is told to let go of it.
    pub(super) fn recall_gone(&mut self, channel_id: ChannelId, account_id: AccountId, lane: LaneId) {
        self.channel_mut(channel_id).account_mut(account_id).lane_to_recall = Some(lane);
        self.recall_what_is_gone(channel_id, account_id);
    }

    /// Tells it, when all that it sent is settled and it knows that.
    pub(in crate::broker) fn recall_what_is_gone(&mut self, channel_id: ChannelId, account_id: AccountId) {
        let account = self.channel_mut(channel_id).account_mut(account_id);
        if let Some(sender) = account.peer
            && let Some(lane) = account.take_recalled()
        {
            self.put(sender, Kind::LaneRecalled, &LaneNamed { lane });
        }
    }
}
