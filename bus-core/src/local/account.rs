//! [`Account`]: what a channel knows of one sender: its order and its window.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::gate::{OwnLine, increment};
use crate::stream::session::lock;

#[derive(Debug, Default)]
pub(super) struct Account {
    /// Held from a message's number to its place in the queue, so that clones that send at the same
    /// time agree on the order.
    pub(super) order: OwnLine<Mutex<Order>>,
    acknowledged: OwnLine<AtomicU64>,
    dropped: AtomicU64,
}

/// How far the sender is.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) last_sequence: u64,
    /// The channel was seen to have room for its first so many messages.
    pub(super) room_until: u64,
    /// The window was seen to reach this far.
    window_until: u64,
}

impl Order {
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }
}

impl Account {
    /// Whether the window admits the next message.
    pub(super) fn window_is_open(&self, order: &mut Order, window: u64) -> bool {
        if order.last_sequence >= order.window_until {
            order.window_until = self.settled() + window;
        }
        order.last_sequence < order.window_until
    }

    /// A message is acknowledged. The caller has the mailbox's control locked.
    pub(super) fn acknowledge(&self) {
        increment(&self.acknowledged.0);
    }

    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Release);
    }

    /// How many messages are out of the channel's hands.
    fn settled(&self) -> u64 {
        self.acknowledged.0.load(Ordering::Acquire) + self.dropped()
    }

    pub(super) fn last_sequence(&self) -> u64 {
        lock(&self.order.0).last_sequence
    }

    pub(super) fn unacknowledged(&self) -> u64 {
        let settled = self.settled();
        self.last_sequence() - settled
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }
}
