//! How a lane is opened, handed on and closed: bodies of control frames.
//!
//! ```text
//!   sender                      daemon                        receiver
//!     | Hello, lane wished         |                              |
//!     |<------------- LaneOffered -|                              |
//!     | fetches: data              |                              |
//!     |- Moved ------------------->| data is sealed               |
//!     |                            |- LaneGiven ----------------->|
//!     | goes on by the stream      |              fetches: data, cursor
//!     |                            |<------------------ Watching -|
//!     |<- CursorGiven -- LaneKept -| cursor is sealed             |
//!     | fetches: cursor            |                              |
//!     |- Turned ------------------>|                              |
//!     |- Confirm ----------------->|                              |
//!     |<----------------- Settled -|                              |
//!     | goes on in the lane        |                              |
//!     |- Nudge, as long as it ---->| rings                        |
//!     |  cannot ring itself        |                              |
//!     :                            :                              :
//!     | leaves, and all it mapped  |- SenderGone ---------------->|
//!                                  |<------------------ LaneDone -|
//! ```
//!
//! `LaneKept` comes when the present receiver says that it watches the lane, or at once where there is none: what is
//! sent there from then on nobody who reads the channel can miss. All that the sender has sent by the stream is
//! accepted before its first message in the lane is sent, so one sender's messages stay in order by their stamps.
//!
//! A lane in which nothing has been sent for a while is taken back. Its sender leaves it when all that was in it is
//! acknowledged, so nothing is sent twice; what it sends from then on comes by the stream, and behind:
//!
//! ```text
//!   sender                      daemon                        receiver
//!     |<------------ LaneRecalled -|                              |
//!     | lets go of all it mapped   |                              |
//!     |- LaneLeft ---------------->|- SenderGone ---------------->|
//!     |- what it sends next ------>|                              |
//! ```
//!
//! After the daemon's death each end brings its lanes to the next one, which goes on with them:
//!
//! ```text
//!   an end                      the next daemon
//!     |- Hello, role LaneBrought ->|
//!     |<----------------- Welcome -|
//!     |- Brought, with data ------>|   checks what it is, and whose
//!     |<---------------- LaneKept -|
//! ```
//!
//! A descriptor is *fetched*: by a connection of its own, whose Hello has the role
//! [`Lane`](super::Role::Lane) and the ticket of the frame that announced it, and whose Welcome carries the
//! descriptors. So no other connection ever has to look for descriptors among its bytes.

use serde::{Deserialize, Serialize};

use crate::name::ChannelName;

/// Names a lane for as long as its daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaneId(pub u64);

/// What a sender wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneWish {
    /// To stay on the stream.
    #[default]
    Never,
    /// A lane, as soon as there can be one.
    AtOnce,
    /// To keep the one that it has.
    Has(LaneId),
    /// A lane, once it is busy.
    WhenBusy,
}

/// Fetches descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneHello {
    /// Of which lane.
    pub lane: LaneId,
    /// From the frame that announced them.
    pub ticket: [u8; 16],
}

/// Proves to a later daemon that an earlier one made a lane, for whom and with which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneProof {
    /// The user of its sender.
    pub uid: u32,
    /// A keyed hash over that, the lane, its sender, its channel and the number of its memory file.
    pub token: [u8; 16],
}

/// To a sender: there is a lane for it. Its Welcome carries *data*, writable, the doorbell at which the
/// sender waits for room, and what rings that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneOffered {
    /// Which one.
    pub lane: LaneId,
    /// Fetches it.
    pub ticket: [u8; 16],
    /// How long its ring is, in bytes.
    pub ring_bytes: u64,
    /// How many messages it may have unacknowledged there.
    pub window_messages: u32,
    /// For the next daemon.
    pub proof: LaneProof,
}

/// From a sender: it has the lane mapped, and is to be told when it may send there
/// ([`Kind::Moved`](super::Kind::Moved)); or it has sent something there, and cannot ring itself
/// ([`Kind::Nudge`](super::Kind::Nudge)).
///
/// To a sender ([`Kind::LaneKept`](super::Kind::LaneKept)): it may send there, and the daemon keeps what it sends; or
/// nothing was sent there for a while, and it is to leave it ([`Kind::LaneRecalled`](super::Kind::LaneRecalled)).
///
/// To a receiver ([`Kind::SenderGone`](super::Kind::SenderGone)): nobody writes there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneNamed {
    /// Which one.
    pub lane: LaneId,
}

/// To a receiver: a lane that it reads from now on. Its Welcome carries *data*, readable, *cursor*, writable,
/// what rings the sender's bell, the bell at which the receiver waits and the channel's *board*; the last two
/// are the same for all its lanes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneGiven {
    /// Which one.
    pub lane: LaneId,
    /// Fetches it.
    pub ticket: [u8; 16],
    /// Counts the receivers of this lane.
    pub generation: u64,
    /// The sender's id.
    pub sender: u64,
    /// The sender's process.
    pub pid: u32,
    /// How long its ring is, in bytes.
    pub ring_bytes: u64,
    /// Messages with an earlier stamp count as sent then, in nanoseconds of `CLOCK_MONOTONIC`: those that the
    /// sender sent before on its stream come first.
    pub not_before_ns: u64,
    /// Where to begin.
    pub start: LaneStart,
    /// How often messages were handed out before.
    pub attempts: Vec<LaneAttempts>,
    /// Nobody writes to it any more.
    pub sender_gone: bool,
    /// An earlier daemon made it: what its sender sent before by the stream may be sent again, and comes first.
    pub brought: bool,
    /// For the next daemon.
    pub proof: LaneProof,
    /// Its sender may have sent something there: what others sent later is not to be handed out before this lane is
    /// looked at.
    pub in_use: bool,
}

/// Where a receiver of a lane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStart {
    /// Bytes before it, since the lane began.
    pub logical: u64,
    /// Where in the ring.
    pub place: u64,
    /// Messages before it.
    pub messages: u64,
}

/// Messages of a lane that may have been handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneAttempts {
    /// All before this one.
    pub before: u64,
    /// How often.
    pub times: u32,
}

/// From a receiver: it has the lane mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// Which one.
    pub lane: LaneId,
    /// From [`LaneGiven`].
    pub generation: u64,
}

/// To a sender: the receiver whose cursor it honours from now on. Its Welcome carries *cursor*, readable, and
/// what rings the receiver's bell, and of a receiver its board. Without a ticket there is no receiver, and nothing is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorGiven {
    /// Of which lane.
    pub lane: LaneId,
    /// Of which receiver.
    pub generation: u64,
    /// Fetches it.
    pub ticket: Option<[u8; 16]>,
}

/// From a sender: it honours this receiver, and no earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// Of which lane.
    pub lane: LaneId,
    /// From [`CursorGiven`].
    pub generation: u64,
}

/// From a receiver: it has read a lane to its end, or cannot go on. From a sender: it cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneDone {
    /// Which one.
    pub lane: LaneId,
    /// How many messages were acknowledged, since the lane began.
    pub messages: u64,
    /// What the other end has written that no such end writes.
    pub fault: Option<String>,
}

/// Brings a lane of an earlier daemon. Who does so takes nothing more from it, if it is the receiver, and as the
/// sender writes to no place that its receiver had not given up by `start`, until it is told of another receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneBrought {
    /// Which one.
    pub lane: LaneId,
    /// From the frame that announced it.
    pub proof: LaneProof,
    /// The channel.
    pub channel: ChannelName,
    /// The sender's id.
    pub sender: u64,
    /// The sender's process.
    pub pid: u32,
    /// Who brings it.
    pub by: LaneEnd,
    /// How long its ring is, in bytes.
    pub ring_bytes: u64,
    /// The last receiver that whoever brings it knows of.
    pub generation: u64,
    /// See [`LaneGiven`].
    pub not_before_ns: u64,
    /// How far its receiver was, at least.
    pub start: LaneStart,
    /// How often messages were handed out before, as far as that is known.
    pub attempts: Vec<LaneAttempts>,
}

/// One end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneEnd {
    /// It writes.
    Sender,
    /// It reads.
    Receiver,
}

/// To a receiver: of the messages `from..before` of a lane, those that were not handed out are not to be, the first
/// `most` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneSkip {
    /// Which one.
    pub lane: LaneId,
    /// The first of them, counted from the lane's beginning.
    pub from: u64,
    /// The one behind the last.
    pub before: u64,
    /// How many at most.
    pub most: u64,
}

/// From a receiver: so many more messages of a lane were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneSkipped {
    /// Which one.
    pub lane: LaneId,
    /// How many.
    pub messages: u64,
}

/// To a sender, before it is told that the channel is gone: so many messages of its lane went with that. What it
/// sent after them was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneEnded {
    /// Which one.
    pub lane: LaneId,
    /// How many.
    pub messages: u64,
}

/// From a sender: all that it sent in a lane is acknowledged, and what it sends next comes by the stream. It has
/// nothing of the lane mapped any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneLeft {
    /// Which one.
    pub lane: LaneId,
    /// Of the message that it sent last, in the lane or before.
    pub sequence: u64,
}
