//! [`Peer`]: one connection as the broker sees it.

use bus_core::wire::Want;

use super::account::AccountId;
use super::channel::ChannelId;
use super::large::Reading;
use super::outbox::Outbox;
use crate::peer::Credentials;

/// Identifies a connection. Never used again after it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl PeerId {
    /// Its place among the connections of now: another's, once it has gone.
    pub(crate) fn place(self) -> usize {
        self.slot as usize
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) generation: u32,
    pub(super) credentials: Credentials,
    pub(super) name: String,
    pub(super) role: PeerRole,
    /// What its user is charged for it.
    pub(super) charge: Charge,
    /// The content that is read before the log has it, which the user of its channel is charged for.
    pub(super) reading: Option<Reading>,
    /// Control frames that are not written yet.
    pub(super) outbox: Outbox,
    /// A `Write` action for it is under way.
    pub(super) write_queued: bool,
    /// A receiver that can read lanes.
    pub(super) reads_lanes: bool,
    /// Its next frame waits until it has read what it was told.
    pub(super) stalled: bool,
    /// The peers of its channel have changed while its outbox was full.
    pub(super) missed_peers: bool,
    /// Nothing that it says counts any more.
    pub(super) closing: bool,
    /// It was let in as an end, of a channel or of a lane.
    pub(super) was_end: bool,
    /// A `Close` action for it was given.
    pub(super) close_ordered: bool,
    /// Its next frame waits for room, since then, in milliseconds of the daemon's clock.
    pub(super) paused_at_ms: Option<u64>,
    /// Messages that it may still send before the others who wait have their turn.
    pub(super) turn_messages: u32,
    pub(super) want: Option<(Want, u64)>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerRole {
    /// Has not said hello; since then.
    Greeting {
        since_ms: u64,
    },
    /// A new receiver that waits for former ones.
    Early,
    Control,
    /// Has a lane of an earlier daemon.
    Bringing,
    Sender {
        channel: ChannelId,
        account: AccountId,
        requires_receiver: bool,
    },
    /// A sender's connection before the present one: what it had sent still counts.
    FormerSender {
        channel: ChannelId,
        account: AccountId,
    },
    Receiver {
        channel: ChannelId,
        until_disconnected: bool,
    },
}

/// What a user pays for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    Connection,
    /// Its socket is closed, and so many bytes that it sent wait for room.
    Bytes(u64),
}

impl Peer {
    pub(super) fn new(generation: u32, credentials: Credentials, now_ms: u64) -> Self {
        Self {
            generation,
            credentials,
            name: String::new(),
            role: PeerRole::Greeting { since_ms: now_ms },
            charge: Charge::Connection,
            reading: None,
            outbox: Outbox::default(),
            write_queued: false,
            reads_lanes: false,
            stalled: false,
            missed_peers: false,
            closing: false,
            was_end: false,
            close_ordered: false,
            paused_at_ms: None,
            turn_messages: 0,
            want: None,
        }
    }
}
