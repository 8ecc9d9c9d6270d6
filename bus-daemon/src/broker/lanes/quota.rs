//! How many lanes there may be: of one channel, whose receiver looks into each, and of one user, whose memory they are.
//!
//! A lane is charged with all that its ring can become, when it is made. It takes the memory little by little, and most
//! never need it: but its sender takes it, without a word to the daemon and without a system call, so there would be
//! nobody to refuse it. What a user may be charged is therefore a bound of what it has, and not what it has.

use bus_core::wire::RefusedCode;

use super::Lane;
use crate::broker::channel::{Channel, ChannelId};
use crate::broker::{Broker, Refusal};

/// How many lanes a receiver reads at most: looking costs time for each (64 of them half a microsecond).
const LANES_MAX: usize = 64;

/// How long the ring of a lane is at least, in bytes: the window of a sender.
const RING_BYTES: u64 = 64 * 1024 * 1024;

/// What a record and the jump behind it take besides the message, in bytes, and some to spare.
const RECORD_SPARE_BYTES: u64 = 256;

/// How long the ring of a channel with messages of that size is, in bytes.
pub(super) fn ring_bytes(message_max_bytes: u32) -> u64 {
    RING_BYTES.max(2 * (u64::from(message_max_bytes) + RECORD_SPARE_BYTES)).next_multiple_of(4096)
}

impl Broker {
    /// Whether a channel, and a user, may have one more lane.
    pub(in crate::broker) fn check_takes_lane(
        &self,
        channel_id: ChannelId,
        uid: u32,
        ring_bytes: u64,
    ) -> Result<(), Refusal> {
        let channel = self.channel(channel_id);
        let over = |text: String| Err(Refusal::new(RefusedCode::Limit, text));
        if channel.lanes.len() >= LANES_MAX {
            return over(format!("channel {} has {LANES_MAX} lanes: its other senders use the stream", channel.name));
        }
        let (lanes, bytes) = self.users.get(&uid).map_or((0, 0), |user| (user.lanes, user.lane_bytes));
        let limit = self.rules.user_lanes_max;
        if lanes >= limit {
            return over(format!(
                "user {uid} has {lanes} lanes, and the limit is {limit}: its other senders use the stream, unless per_user.lanes_max is raised"
            ));
        }
        let limit = self.rules.user_lane_bytes_max;
        if bytes.saturating_add(ring_bytes) > limit {
            return over(format!(
                "the lanes of user {uid} may grow to {bytes} bytes, one more is {ring_bytes}, and the limit is {limit}: its other senders use the stream, unless per_user.lane_bytes_max is raised"
            ));
        }
        if !self.may_have_lanes(channel_id) {
            return over(format!("channel {} has no lanes: its senders use the stream", channel.name));
        }
        Ok(())
    }

    /// Why a sender of the channel that wishes a lane has none.
    pub(in crate::broker) fn no_lane(&self, channel_id: ChannelId) -> Option<String> {
        let channel = self.channel(channel_id);
        let wishes = channel.accounts.iter().filter(|(_, account)| account.busy.is_some());
        let mut uids = wishes.filter_map(|(_, account)| Some(self.peer(account.peer?)?.credentials.uid));
        let ring_bytes = ring_bytes(channel.bounds.message_max_bytes);
        uids.find_map(|uid| self.check_takes_lane(channel_id, uid, ring_bytes).err().map(|refusal| refusal.text))
    }

    pub(super) fn add_lane(&mut self, channel_id: ChannelId, lane: Lane) {
        let user = self.users.entry(lane.proof.uid).or_default();
        (user.lanes, user.lane_bytes) = (user.lanes + 1, user.lane_bytes + lane.size.ring_bytes);
        self.channel_mut(channel_id).lanes.push(lane);
        if !self.laned.contains(&channel_id) {
            self.laned.push(channel_id);
        }
    }

    pub(super) fn discharge_lane(&mut self, lane: &Lane) {
        let uid = lane.proof.uid;
        if let Some(user) = self.users.get_mut(&uid) {
            (user.lanes, user.lane_bytes) = (user.lanes - 1, user.lane_bytes - lane.size.ring_bytes);
        }
        self.forget_user_without_holdings(uid);
    }
}

impl Channel {
    /// Who is charged for its lanes: how many, and how many bytes.
    pub(in crate::broker) fn lane_costs(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.lanes.iter().map(|lane| (lane.proof.uid, 1, lane.size.ring_bytes))
    }
}
