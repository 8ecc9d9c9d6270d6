//! What the daemon holds in lanes whose senders have left: a part of the capacity of their channel, as what came by the
//! stream is. What a living sender has in its lane its window bounds.

use super::Lane;
use crate::broker::Broker;
use crate::broker::channel::ChannelId;

/// Messages, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Held {
    pub(in crate::broker) messages: u64,
    pub(in crate::broker) bytes: u64,
}

impl Lane {
    fn is_left(&self) -> bool {
        self.sender_leaving || self.sender_gone
    }
}

impl Broker {
    /// Counts it anew: it falls as receivers read on, and nobody tells.
    pub(in crate::broker) fn count_held_in_lanes(&mut self, channel_id: ChannelId) {
        let mut held = Held::default();
        for lane in self.channel(channel_id).lanes.iter().filter(|lane| lane.is_left()) {
            let counts = self.counts(lane);
            let messages = counts.published - counts.acknowledged;
            held.messages += messages;
            held.bytes += if messages > 0 { counts.bytes } else { 0 };
        }
        self.channel_mut(channel_id).held_in_lanes = held;
    }

    /// Whether what others have left in lanes takes the room of more: then nobody gets another to leave something in.
    pub(super) fn lanes_are_full(&mut self, channel_id: ChannelId) -> bool {
        self.count_held_in_lanes(channel_id);
        let channel = self.channel(channel_id);
        channel.held_in_lanes.messages > 0 && !channel.has_room(1)
    }
}
