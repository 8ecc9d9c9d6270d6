//! [`Account`]: what a channel knows of one sender, also after it has left.

use std::collections::VecDeque;

use bus_core::limits::TOLD_BYTES;
use bus_core::wire::{Flags, FrameHeader, LaneId, Origin, Settled};

use super::peer::PeerId;

/// Place of an account in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AccountId(pub(super) u32);

/// How much one sender may have unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// Which messages of a sender have left the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    /// All up to this sequence.
    UpTo(u64),
    /// One, with others before it, perhaps: it counts when those have left.
    Alone(u64),
}

/// The time at which senders have left that do not come back: before all others.
pub(super) const FOR_GOOD: u64 = 0;

/// How busy a sender is that wishes a lane when it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    short: Load,
    /// Of long messages alone: the longest take longer, each.
    long: Load,
    /// It was so when its last message came.
    is_flow: bool,
    /// It has asked for one, and gets it as soon as there can be one.
    pub(super) asked: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    since_ms: u64,
    messages: u64,
    bytes: u64,
}

impl Load {
    /// Begins anew where it is older than `within_ms`.
    fn add(&mut self, messages: u64, bytes: u64, now_ms: u64, within_ms: u64) {
        if now_ms.saturating_sub(self.since_ms) > within_ms {
            *self = Self { since_ms: now_ms, ..Self::default() };
        }
        (self.messages, self.bytes) = (self.messages + messages, self.bytes + bytes);
    }

    /// However long it is: one message alone is none.
    fn has(&self, bytes: u64) -> bool {
        self.messages > 1 && self.bytes >= bytes
    }
}

impl Busy {
    pub(super) fn wishing(asked: bool) -> Self {
        Self { asked, ..Self::default() }
    }

    fn add(&mut self, messages: u64, long_bytes: u64, now_ms: u64) {
        self.short.add(messages, long_bytes, now_ms, BUSY_MS);
        self.is_flow = self.short.messages >= BUSY_MESSAGES || self.short.has(BUSY_BYTES);
        if long_bytes > 0 {
            self.long.add(messages, long_bytes, now_ms, LONG_BUSY_MS);
            let strides = now_ms.saturating_sub(self.long.since_ms).div_ceil(BUSY_MS);
            self.is_flow |= self.long.has(BUSY_BYTES * strides.max(1));
        }
    }
}

/// How many messages within [`BUSY_MS`] make a sender busy.
const BUSY_MESSAGES: u64 = 64;

/// How many bytes of long messages do: of those there may never be so many, and a lane makes several times as much.
const BUSY_BYTES: u64 = 4 * 1024 * 1024;

/// See [`BUSY_MESSAGES`], in milliseconds.
const BUSY_MS: u64 = 10;

/// Over how long a time so many bytes in each [`BUSY_MS`] make it busy as well, in milliseconds: of the longest messages two
/// do not come within those.
const LONG_BUSY_MS: u64 = 100;

#[derive(Debug)]
pub(super) struct Account {
    /// The sender's id.
    pub(super) sender: u64,
    pub(super) pid: u32,
    /// Its connection, while it has one.
    pub(super) peer: Option<PeerId>,
    /// Connections before that one of which not all is handed in.
    pub(super) former_peers: u32,
    /// All up to here are accepted.
    pub(super) accepted: u64,
    /// All up to here are out of our hands.
    pub(super) acked: u64,
    /// Messages behind that which are so as well, from and to, in order: they were removed.
    early: VecDeque<(u64, u64)>,
    /// Its messages in the log.
    pub(super) outstanding: u64,
    outstanding_bytes: u64,
    last_bytes: u64,
    /// Since when its window has had no room for another message like its last, in milliseconds of the
    /// daemon's clock.
    pub(super) window_full_since_ms: Option<u64>,
    /// Its messages dropped by policy.
    pub(super) dropped: u64,
    /// Bytes for which it has room granted, and has not sent.
    pub(super) granted: Option<u32>,
    /// What it was last told.
    pub(super) told: Settled,
    /// Bytes of its messages that have left the log since then.
    untold_bytes: u64,
    /// It waits for an answer to this sequence.
    pub(super) confirm: u64,
    /// It is in the broker's list of those to be told.
    pub(super) queued: bool,
    /// Accepted over this connection.
    pub(super) messages: u64,
    /// When it left, in milliseconds of the daemon's clock.
    pub(super) departed_at_ms: Option<u64>,
    /// It wishes a lane when it is busy, and has none.
    pub(super) busy: Option<Busy>,
    /// What it has said that it will send again, since it came back.
    pub(super) brings: Option<Brings>,
    /// A lane that it has mapped and that is gone: it lets go of it when nothing that it sent is left here.
    pub(super) lane_to_recall: Option<LaneId>,
}

/// What a sender that came back still holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brings {
    /// The last of it.
    pub(super) last_sequence: u64,
    /// It is not waited for any longer, in milliseconds of the daemon's clock.
    pub(super) until_ms: u64,
}

impl Account {
    pub(super) fn new(sender: u64, pid: u32, accepted: u64) -> Self {
        let told = Settled { accepted, acked: accepted, dropped: 0 };
        Self {
            sender,
            pid,
            peer: None,
            former_peers: 0,
            accepted,
            acked: accepted,
            early: VecDeque::new(),
            outstanding: 0,
            outstanding_bytes: 0,
            last_bytes: 0,
            window_full_since_ms: None,
            dropped: 0,
            granted: None,
            told,
            untold_bytes: 0,
            confirm: 0,
            queued: false,
            messages: 0,
            departed_at_ms: None,
            busy: None,
            brings: None,
            lane_to_recall: None,
        }
    }

    /// Whether it is back from an earlier connection, and has not sent all again that it said.
    pub(super) fn still_brings(&self, now_ms: u64) -> bool {
        let open = |brings: Brings| brings.last_sequence > self.accepted && now_ms < brings.until_ms;
        self.peer.is_some() && self.brings.is_some_and(open)
    }

    /// The lane that it is to be told to let go of now: before, it would only say again that it has it.
    pub(super) fn take_recalled(&mut self) -> Option<LaneId> {
        self.lane_to_recall.take_if(|_| self.outstanding == 0 && self.told.acked == self.acked)
    }

    pub(super) fn settled(&self) -> Settled {
        Settled { accepted: self.accepted, acked: self.acked, dropped: self.dropped }
    }

    /// How a message that is accepted now names it.
    pub(super) fn origin(&self, accepted_at_ns: u64) -> Origin {
        Origin { sender: self.sender, accepted_at_ns, pid: self.pid, attempt: 1 }
    }

    /// Its next message is accepted.
    pub(super) fn accept(&mut self, header: &FrameHeader, window: Window, now_ms: u64) {
        self.accepted = header.sequence;
        self.outstanding += 1;
        self.last_bytes = header.message_bytes();
        self.outstanding_bytes += self.last_bytes;
        self.messages += 1;
        if header.flags.has(Flags::CONFIRM) {
            self.confirm = header.sequence;
        }
        if self.fills(window) {
            self.window_full_since_ms.get_or_insert(now_ms);
        }
    }

    /// So many messages were accepted at once, and so many bytes of long ones. Whether it has just become busy.
    #[inline]
    pub(super) fn becomes_busy(&mut self, messages: u64, bytes: u64, now_ms: u64) -> bool {
        let Some(busy) = &mut self.busy else { return false };
        let before = busy.is_flow;
        busy.add(messages, bytes, now_ms);
        !before && busy.is_flow
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.is_some_and(|busy| busy.asked || busy.is_flow) && self.peer.is_some()
    }

    fn fills(&self, window: Window) -> bool {
        let bytes = self.outstanding_bytes + self.last_bytes;
        self.outstanding >= window.messages || (self.outstanding > 0 && bytes > window.bytes)
    }

    /// Whether nothing is here but the memory of a sender that has left.
    pub(super) fn is_only_remembered(&self) -> bool {
        self.departed_at_ms.is_some() && self.outstanding == 0 && self.peer.is_none() && self.former_peers == 0
    }

    /// Some of its messages have left the log.
    pub(super) fn resolve(&mut self, messages: u64, bytes: u64, left: Left, window: Window) {
        self.outstanding -= messages;
        self.outstanding_bytes -= bytes;
        self.untold_bytes += bytes;
        if self.window_full_since_ms.is_some() && !self.fills(window) {
            self.window_full_since_ms = None;
        }
        if self.outstanding == 0 {
            self.acked = self.accepted;
            self.early.clear();
            return;
        }
        match left {
            Left::UpTo(sequence) => self.acked = self.acked.max(sequence),
            Left::Alone(sequence) => self.leaves_early(sequence),
        }
        while let Some((from, to)) = self.early.front().copied()
            && from <= self.acked + 1
        {
            self.acked = self.acked.max(to);
            self.early.pop_front();
        }
    }

    fn leaves_early(&mut self, sequence: u64) {
        let at = self.early.partition_point(|(from, _)| *from <= sequence);
        let before = at.checked_sub(1).and_then(|before| self.early.get_mut(before));
        match before.filter(|(_, to)| *to + 1 >= sequence) {
            Some((_, to)) => *to = sequence.max(*to),
            None => self.early.insert(at, (sequence, sequence)),
        }
    }

    /// Whether it should be told now: it waits for it, or a good part of its window is free again.
    pub(super) fn wants_to_know(&self, window: Window) -> bool {
        let confirmed = self.confirm > self.told.accepted && self.accepted >= self.confirm;
        let acked = self.acked - self.told.acked;
        let stride_bytes = (window.bytes / 8).min(TOLD_BYTES);
        confirmed || (acked > 0 && (acked >= window.messages / 8 || self.untold_bytes >= stride_bytes))
    }

    /// It is told how far it is.
    pub(super) fn note_told(&mut self, settled: Settled) {
        self.told = settled;
        self.untold_bytes = 0;
        self.confirm = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { messages: 100, bytes: 1_000 };

    fn with_outstanding(messages: u64) -> Account {
        let mut account = Account::new(1, 1, 0);
        (account.accepted, account.outstanding) = (messages, messages);
        account
    }

    #[test]
    fn what_is_removed_counts_once_all_before_it_have_left() {
        let mut account = with_outstanding(9);
        for (sequence, acked) in [(1, 1), (4, 1), (6, 1), (3, 1), (5, 1), (2, 6)] {
            account.resolve(1, 0, Left::Alone(sequence), WINDOW);
            assert_eq!(account.acked, acked, "{sequence} was removed");
        }
        account.resolve(1, 0, Left::Alone(8), WINDOW);
        account.resolve(1, 0, Left::UpTo(7), WINDOW);
        assert_eq!((account.acked, account.early.len()), (8, 0));
    }
}
