//! [`Gate`]: the capacity of a channel: counts the messages that have come in and gone out.
//!
//! The queue behind the gate is unbounded. A bounded crossbeam channel allocates every slot at once
//! (65,536 of them by default, per channel), frees a slot when a message is taken instead of when it
//! is acknowledged, and cannot wake a sender because the channel was deleted or its receiver left.
//!
//! Those who enter and those who leave write to different cache lines, and a sender looks at the
//! other side only when the room that it last saw is used up: while both ends are busy, no line
//! travels for the count.

use std::sync::atomic::{AtomicU64, Ordering};

/// A value on cache lines of its own: 128 bytes, because lines are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct OwnLine<T>(pub(super) T);

#[derive(Debug)]
pub(super) struct Gate {
    capacity: u64,
    entered: OwnLine<AtomicU64>,
    left: OwnLine<AtomicU64>,
}

impl Gate {
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, entered: OwnLine::default(), left: OwnLine::default() }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Takes a place inside, if there is one. `room_until` is what the caller last saw.
    pub(super) fn enter(&self, room_until: &mut u64) -> bool {
        let mut entered = self.entered.0.load(Ordering::Relaxed);
        loop {
            if entered >= *room_until {
                *room_until = self.left.0.load(Ordering::Acquire) + self.capacity;
                if entered >= *room_until {
                    return false;
                }
            }
            match self.entered.0.compare_exchange_weak(entered, entered + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => entered = now,
            }
        }
    }

    /// Gives a place back. The caller has the mailbox's control locked: nobody else does so now.
    pub(super) fn leave(&self) {
        increment(&self.left.0);
    }
}

/// Counts on where only one thread writes at a time. Others may read it without a lock.
pub(super) fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
}
