//! Lanes in which nothing is sent any more are taken back: their receivers look into each, and there are only so many.
//!
//! The sender decides: it leaves when all that it sent is acknowledged, and says so. Whoever has sent something
//! meanwhile stays, and is asked again when its lane rests again.

use bus_core::wire::{Kind, LaneId, LaneLeft, LaneNamed};

use super::{Lane, LaneAction, State};
use crate::broker::account::{AccountId, Busy};
use crate::broker::attach::SEQUENCE_MAX;
use crate::broker::channel::{Channel, ChannelId};
use crate::broker::{Action, Broker, Fault};

/// What is known of a lane's rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Its sender has asked for it.
    Stays,
    /// So many messages had been published then, and no more since.
    Since { at_ms: u64, published: u64 },
    /// Its sender was told to leave it, when so many had been.
    Recalled { published: u64 },
}

impl Idle {
    pub(super) fn since(at_ms: u64) -> Self {
        Self::Since { at_ms, published: 0 }
    }

    /// What its sender was told it may not have heard.
    pub(super) fn begin_again(&mut self, now_ms: u64) {
        if let Self::Recalled { published } = *self {
            *self = Self::Since { at_ms: now_ms, published };
        }
    }

    /// What is known now; and whether it is to be taken back, because nothing has come for `patience_ms`.
    fn look(self, now_ms: u64, published: u64, patience_ms: u64) -> (Self, bool) {
        match self {
            Self::Stays => (self, false),
            Self::Since { at_ms, published: before } if before == published => {
                let over = now_ms.saturating_sub(at_ms) >= patience_ms;
                (if over { Self::Recalled { published } } else { self }, over)
            }
            Self::Recalled { published: before } if before == published => (self, false),
            Self::Since { .. } | Self::Recalled { .. } => (Self::Since { at_ms: now_ms, published }, false),
        }
    }
}

impl Broker {
    /// How often it is looked whether lanes rest, in milliseconds.
    pub(in crate::broker) fn lane_looks_ms(&self) -> u64 {
        (self.rules.lane_idle_ms / 2).max(1)
    }

    /// Tells senders that they do not need their lanes.
    pub(super) fn recall_idle_lanes(&mut self, channel_id: ChannelId) {
        let (now_ms, patience_ms) = (self.now_ms, self.rules.lane_idle_ms);
        self.take_unmapped_lanes_back(channel_id);
        for index in 0..self.channel(channel_id).lanes.len() {
            let lane = &self.channel(channel_id).lanes[index];
            if !lane.may_be_recalled() {
                continue;
            }
            let counts = self.counts(lane);
            // What is in it has no better place, and what came before it by the stream its sender awaits there.
            let account = lane.account.map(|account| self.channel(channel_id).account(account));
            let settled =
                account.is_some_and(|account| account.outstanding == 0 && account.told.acked == account.acked);
            if counts.published > counts.acknowledged || !settled {
                continue;
            }
            let channel = self.channel_mut(channel_id);
            let lane = &mut channel.lanes[index];
            let (idle, over) = lane.idle.look(now_ms, counts.published, patience_ms);
            lane.idle = idle;
            let (lane, sender) = (lane.id, lane.account.and_then(|account| channel.account(account).peer));
            if let Some(sender) = sender.filter(|_| over) {
                self.put(sender, Kind::LaneRecalled, &LaneNamed { lane });
            }
        }
    }

    /// Who was busy, was offered a lane, and did not even look at that: it does something else.
    fn take_unmapped_lanes_back(&mut self, channel_id: ChannelId) {
        let (now_ms, patience_ms) = (self.now_ms, self.rules.lane_idle_ms);
        let lanes = &self.channel(channel_id).lanes;
        let rests =
            |idle: Idle| matches!(idle, Idle::Since { at_ms, .. } if now_ms.saturating_sub(at_ms) >= patience_ms);
        let unmapped = lanes.iter().filter(|lane| lane.state == State::Offered && rests(lane.idle));
        let unmapped: Vec<(LaneId, Option<AccountId>)> = unmapped.map(|lane| (lane.id, lane.account)).collect();
        for (lane, account) in unmapped {
            self.free_lane(channel_id, lane);
            if let Some(account_id) = account {
                self.may_have_another(channel_id, account_id, false);
            }
        }
    }

    /// A sender goes on by its stream, behind what it sent in its lane.
    pub(in crate::broker) fn lane_left(
        &mut self,
        channel_id: ChannelId,
        account_id: AccountId,
        left: LaneLeft,
    ) -> Result<(), Fault> {
        let channel = self.channel_mut(channel_id);
        let ours = |lane: &&Lane| lane.id == left.lane && lane.account == Some(account_id);
        // Gone meanwhile, or left as a sender came back without it: then that told its sequence too.
        let Some(lane) = channel.lanes.iter().find(|lane| ours(lane) && lane.state != State::Offered) else {
            return Ok(());
        };
        let (counted_from, id) = (lane.counted_from, lane.id);
        let in_lane = self.published(channel_id, id) - counted_from;
        let channel = self.channel_mut(channel_id);
        let account = channel.account_mut(account_id);
        if left.sequence < account.accepted || left.sequence > SEQUENCE_MAX {
            let (sequence, accepted) = (left.sequence, account.accepted);
            return Err(Fault(format!("it has left its lane at message {sequence}, and message {accepted} has come")));
        }
        account.accepted = left.sequence;
        if account.outstanding == 0 {
            account.acked = account.accepted;
        }
        // It knows as much.
        account.told.accepted = account.accepted;
        account.told.acked = account.acked;
        account.messages += in_lane;
        account.busy = Some(Busy::default());
        self.lane_is_left(channel_id, left.lane);
        Ok(())
    }

    /// Its sender writes nothing more there, and is alive.
    pub(super) fn lane_is_left(&mut self, channel_id: ChannelId, id: LaneId) {
        let Some(lane) = self.channel_mut(channel_id).lanes.iter_mut().find(|lane| lane.id == id) else { return };
        (lane.sender_leaving, lane.account) = (true, None);
        self.count_held_in_lanes(channel_id);
        self.actions.push_back(Action::Lane(LaneAction::FreezeData(id)));
    }
}

impl Lane {
    /// Whether its sender has asked for it, and did not get it because it was busy.
    pub(super) fn was_asked_for(&self) -> bool {
        self.idle == Idle::Stays
    }

    /// Whether it is worth looking at its rest.
    fn may_be_recalled(&self) -> bool {
        let used = matches!(self.state, State::Unread | State::Given(true));
        used && self.account.is_some() && self.idle != Idle::Stays
    }
}

impl Channel {
    /// Whether there are lanes of which nobody tells when they rest. Those whose senders were told to leave them do so,
    /// or say that they stay; those that were asked for stay without a word.
    pub(in crate::broker) fn lanes_may_rest(&self) -> bool {
        self.lanes.iter().any(|lane| lane.account.is_some() && matches!(lane.idle, Idle::Since { .. }))
    }
}
