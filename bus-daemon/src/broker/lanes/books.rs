//! How many messages there are in lanes, for the ledger: read where their ends write it, and told by nobody.

use bus_core::Ledger;
use bus_core::lane::layout::MessageHeader;
use bus_core::lane::ring::Counts;
use bus_core::wire::{LaneId, LaneStart};

use super::Lane;
use crate::broker::Broker;
use crate::broker::channel::ChannelId;

/// Who knows how many messages there are in a lane.
pub trait LaneBooks: std::fmt::Debug + Send {
    /// At this moment.
    fn counts(&self, lane: LaneId) -> Counts;

    /// Where its receiver stands, if it has one and that has begun.
    fn position(&self, lane: LaneId) -> Option<LaneStart>;

    /// How far its sender has believed its receivers: it has not written over what lies behind that.
    fn believed(&self, _: LaneId) -> Option<LaneStart> {
        None
    }

    /// The end of a record of its sender where a receiver says that it stands, with its own place and count; `None` where
    /// none ends.
    fn record_end(&self, _: LaneId, said: LaneStart, _message_max_bytes: u32) -> Option<LaneStart> {
        Some(said)
    }

    /// Walks over its messages from a place on, as long as `each` says so. Returns where it came to.
    fn walk(
        &self,
        lane: LaneId,
        from: LaneStart,
        message_max_bytes: u32,
        each: &mut dyn FnMut(LaneMessage<'_>) -> bool,
    ) -> Option<LaneStart>;
}

/// A message in a lane.
pub struct LaneMessage<'a> {
    /// Before it.
    pub at: LaneStart,
    /// What its sender says of it.
    pub header: MessageHeader,
    /// Appends its header block and its payload.
    pub read: &'a dyn Fn(&mut Vec<u8>),
}

impl Broker {
    /// Who is asked how many messages there are in lanes.
    pub fn set_lane_books(&mut self, books: Box<dyn LaneBooks>) {
        self.lane_books = Some(books);
    }

    pub(super) fn books(&self) -> Option<&dyn LaneBooks> {
        self.lane_books.as_deref()
    }

    /// How many bytes lie in the lanes of a channel.
    pub(in crate::broker) fn bytes_in_lanes(&self, channel_id: ChannelId) -> u64 {
        let held = |counts: Counts| if counts.published > counts.acknowledged { counts.bytes } else { 0 };
        self.channel(channel_id).lanes.iter().map(|lane| held(self.counts(lane))).sum()
    }

    /// How many bytes have come in the lanes of a channel, to this daemon.
    pub(in crate::broker) fn published_bytes(&self, channel_id: ChannelId) -> u64 {
        let lanes = self.channel(channel_id).lanes.iter();
        lanes.map(|lane| self.counts(lane).published_bytes.saturating_sub(lane.counted_from_bytes)).sum()
    }

    pub(super) fn counts(&self, lane: &Lane) -> Counts {
        let counts = self.lane_books.as_ref().map(|books| books.counts(lane.id)).unwrap_or_default();
        // A receiver that has not begun says nothing yet.
        let least = lane.start.messages.max(lane.counted_from + lane.purged);
        let published = counts.published.max(least);
        let acknowledged = counts.acknowledged.max(least).min(published);
        let bytes = counts.bytes.min(counts.published_bytes.saturating_sub(lane.start.logical));
        Counts { acknowledged, taken: counts.taken.max(acknowledged), published, bytes, ..counts }
    }

    /// How many messages its sender has published.
    pub(in crate::broker) fn published(&self, channel_id: ChannelId, id: LaneId) -> u64 {
        let lane = self.channel(channel_id).lanes.iter().find(|lane| lane.id == id);
        lane.map_or(0, |lane| self.counts(lane).published)
    }

    /// The ledger of a channel, with what is in its lanes.
    pub(in crate::broker) fn ledger(&self, channel_id: ChannelId) -> Ledger {
        let channel = self.channel(channel_id);
        let mut ledger = channel.ledger();
        for lane in &channel.lanes {
            let counts = self.counts(lane);
            ledger.accepted += counts.published - lane.counted_from;
            ledger.acknowledged += counts.acknowledged - lane.counted_from - lane.purged;
            ledger.purged += lane.purged;
            ledger.in_delivery += counts.taken - counts.acknowledged;
            ledger.queued += counts.published - counts.taken;
        }
        ledger
    }

    /// How many messages of a channel nobody has acknowledged.
    pub(in crate::broker) fn held(&self, channel_id: ChannelId) -> u64 {
        let channel = self.channel(channel_id);
        let in_lanes = channel.lanes.iter().map(|lane| self.counts(lane));
        channel.log.len() + in_lanes.map(|counts| counts.published - counts.acknowledged).sum::<u64>()
    }
}
