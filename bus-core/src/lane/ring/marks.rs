//! [`Marks`]: where some of a sender's own records end, so that it has not far to walk to find out whether one ends where
//! its receiver says. Numbers only: it knows no memory.

use std::collections::VecDeque;

/// Where some of the records end that are written and not acknowledged.
#[derive(Debug)]
pub(super) struct Marks {
    /// Logical position, and messages before it; oldest first.
    marks: VecDeque<(u64, u64)>,
    /// Where the next is set, at the earliest.
    next: u64,
    /// How far they are apart at least, in bytes.
    apart: u64,
}

impl Marks {
    /// None yet.
    pub(super) fn new(ring_bytes: u64) -> Self {
        let apart = (ring_bytes / MARKS_MAX).max(1);
        Self { marks: VecDeque::new(), next: apart, apart }
    }

    /// A record ends there.
    #[inline]
    pub(super) fn note(&mut self, logical: u64, messages: u64) {
        if logical >= self.next {
            self.set(logical, messages);
        }
    }

    #[cold]
    fn set(&mut self, logical: u64, messages: u64) {
        self.marks.push_back((logical, messages));
        self.begin_at(logical);
    }

    /// The next is set so far behind.
    pub(super) fn begin_at(&mut self, logical: u64) {
        self.next = logical + self.apart;
    }

    /// What lies before is acknowledged, and may be written over.
    pub(super) fn forget(&mut self, head: u64) {
        while self.marks.front().is_some_and(|(logical, _)| *logical <= head) {
            self.marks.pop_front();
        }
    }

    /// The last one that is not behind a position.
    pub(super) fn before(&self, logical: u64) -> Option<(u64, u64)> {
        let count = self.marks.partition_point(|(mark, _)| *mark <= logical);
        count.checked_sub(1).map(|last| self.marks[last])
    }
}

/// How many marks a full ring has at most: 16 KiB of them, and of 64 MiB no more than 64 KiB are walked over.
const MARKS_MAX: u64 = 1024;
