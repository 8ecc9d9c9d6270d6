//! [`Peer`]: one connection as the broker sees it.

use bus_core::wire::put_control;
use bus_core::wire::{Kind, Want};
use serde::Serialize;

use super::account::AccountId;
use super::channel::ChannelId;
use crate::peer::Credentials;

/// Identifies a connection. Never used again after it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) generation: u32,
    pub(super) credentials: Credentials,
    pub(super) name: String,
    pub(super) role: PeerRole,
    /// Control frames that are not written yet.
    pub(super) control: Vec<u8>,
    pub(super) control_written: usize,
    /// A `Write` action for it is under way.
    pub(super) write_queued: bool,
    /// It will be closed: nothing that it says counts any more.
    pub(super) closing: bool,
    /// Its next frame waits for room, since then, in milliseconds of the daemon's clock.
    pub(super) paused_at_ms: Option<u64>,
    pub(super) want: Option<(Want, u64)>,
    pub(super) watches: bool,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerRole {
    /// Has not said hello; since then.
    Greeting {
        since_ms: u64,
    },
    Control,
    Sender {
        channel: ChannelId,
        account: AccountId,
        requires_receiver: bool,
    },
    Receiver {
        channel: ChannelId,
        until_disconnected: bool,
    },
}

impl Peer {
    pub(super) fn new(generation: u32, credentials: Credentials, now_ms: u64) -> Self {
        Self {
            generation,
            credentials,
            name: String::new(),
            role: PeerRole::Greeting { since_ms: now_ms },
            control: Vec::new(),
            control_written: 0,
            write_queued: false,
            closing: false,
            paused_at_ms: None,
            want: None,
            watches: false,
        }
    }

    pub(super) fn put<T: Serialize>(&mut self, kind: Kind, body: &T) {
        put_control(kind, body, &mut self.control);
    }

    pub(super) fn unwritten_control(&self) -> &[u8] {
        &self.control[self.control_written..]
    }

    pub(super) fn wrote_control(&mut self, bytes: usize) {
        self.control_written += bytes;
        if self.control_written == self.control.len() {
            self.control_written = 0;
            if self.control.capacity() > KEPT_BYTES {
                self.control = Vec::new();
            } else {
                self.control.clear();
            }
        }
    }
}

/// What an idle peer's outbox may keep allocated, in bytes: 2,000 idle senders must stay cheap.
const KEPT_BYTES: usize = 512;
