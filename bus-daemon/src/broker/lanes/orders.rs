//! What the broker has done with the memory of lanes, which it never sees.

use bus_core::wire::{LaneEnd, LaneId, LaneStart};

#[cfg(doc)]
use crate::broker::Broker;
use crate::broker::PeerId;

/// What the event loop does with the memory of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneAction {
    /// Make *data*, and tell by [`Broker::lane_made`] whether that was possible.
    Make(LaneId, LaneSize),
    /// Descriptors come with the next frame of this peer.
    Expect(PeerId),
    /// Take the descriptors that came for a memory of that length, brought by that end, and tell by
    /// [`Broker::lane_adopted`] what they are.
    Adopt(PeerId, LaneId, LaneEnd, u64),
    /// Answer a fetch with these descriptors.
    HandOver(PeerId, LaneId, LanePart),
    /// Its sender has mapped *data*: nobody else may.
    SealData(LaneId),
    /// There is to be a *cursor* for another receiver.
    NewCursor(LaneId),
    /// There is no receiver: make a *cursor* that says that one stands here.
    StandIn(LaneId, LaneStart),
    /// Its receiver has mapped *cursor*: nobody else may.
    SealCursor(LaneId),
    /// Freeze *cursor*, and tell by [`Broker::cursor_at_rest`] where it stands.
    FreezeCursor(LaneId),
    /// Tell by [`Broker::cursor_at_rest`] where *cursor* stands: its receiver takes nothing more.
    ReadCursor(LaneId),
    /// Freeze *data*, and tell by [`Broker::data_at_rest`].
    FreezeData(LaneId),
    /// Wake this receiver.
    Ring(PeerId),
    /// Nobody needs it any more.
    Free(LaneId),
}

/// What a fetch gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanePart {
    /// *Data*, writable, the sender's bell, and what rings that.
    ForSender,
    /// *Data*, *cursor*, what rings the sender, and this receiver's bell and board.
    ForReceiver(PeerId),
    /// *Cursor*, and what rings this receiver.
    Cursor(PeerId),
    /// *Cursor*, and what rings nobody.
    StandIn,
}

/// Why there is no memory for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLane {
    /// There is too little of something at the moment.
    Now,
    /// The system has no such memory, or forbids it.
    Ever,
}

/// How large a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSize {
    /// Length of its ring, in bytes.
    pub ring_bytes: u64,
    /// Largest message, in bytes.
    pub message_max_bytes: u32,
}

/// Where a receiver stood when it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRest {
    /// How far it has acknowledged; `None` when it had not begun.
    pub start: Option<LaneStart>,
    /// How many messages it may have handed out.
    pub taken: u64,
    /// How often it gave the head back.
    pub given_back: u32,
}
