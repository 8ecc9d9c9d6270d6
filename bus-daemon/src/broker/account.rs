//! [`Account`]: what a channel knows of one sender, also after it has left.

use bus_core::wire::Settled;

use super::peer::PeerId;

/// Place of an account in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AccountId(pub(super) u32);

#[derive(Debug)]
pub(super) struct Account {
    /// The sender's id.
    pub(super) sender: u64,
    pub(super) pid: u32,
    /// Its connection, while it has one.
    pub(super) peer: Option<PeerId>,
    /// All up to here are accepted.
    pub(super) accepted: u64,
    /// All up to here are out of our hands.
    pub(super) acked: u64,
    /// Its messages in the log.
    pub(super) outstanding: u64,
    /// Its messages dropped by policy.
    pub(super) dropped: u64,
    /// Bytes for which it has room granted, and has not sent.
    pub(super) granted: Option<u32>,
    /// What it was last told.
    pub(super) told: Settled,
    /// It waits for an answer to this sequence.
    pub(super) confirm: u64,
    /// It is in the broker's list of those to be told.
    pub(super) queued: bool,
    /// Accepted over this connection.
    pub(super) messages: u64,
    /// When it left, in milliseconds of the daemon's clock.
    pub(super) departed_at_ms: Option<u64>,
}

impl Account {
    pub(super) fn new(sender: u64, pid: u32, accepted: u64) -> Self {
        let told = Settled { accepted, acked: accepted, dropped: 0 };
        Self {
            sender,
            pid,
            peer: None,
            accepted,
            acked: accepted,
            outstanding: 0,
            dropped: 0,
            granted: None,
            told,
            confirm: 0,
            queued: false,
            messages: 0,
            departed_at_ms: None,
        }
    }

    pub(super) fn settled(&self) -> Settled {
        Settled { accepted: self.accepted, acked: self.acked, dropped: self.dropped }
    }

    /// One of its messages has left the log. In order they leave one by one; one that was dropped
    /// from the middle counts when those before it have left.
    pub(super) fn resolve(&mut self, sequence: u64, was_oldest: bool) {
        self.outstanding -= 1;
        if self.outstanding == 0 {
            self.acked = self.accepted;
        } else if was_oldest {
            self.acked = self.acked.max(sequence);
        }
    }

    /// Whether it should be told now: it waits for it, or it has come a good way.
    pub(super) fn wants_to_know(&self, window: u64) -> bool {
        let news = self.settled() != self.told;
        let confirmed = self.confirm > self.told.accepted && self.accepted >= self.confirm;
        confirmed || (news && (self.outstanding == 0 || self.acked - self.told.acked >= window / 8))
    }
}
