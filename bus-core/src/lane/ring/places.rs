//! [`Places`]: where in the ring the sender may write. Numbers only: it knows no memory.
//!
//! What is published and not acknowledged lies in *runs*, one behind the other in logical order, anywhere in
//! the ring. Between two of them stands a jump. The ring is used up to its soft end, which doubles when it is
//! full: so a lane whose receiver keeps up stays in the cache, and one whose receiver is away takes what its
//! window allows.

use std::collections::VecDeque;

use crate::lane::layout::RECORD_BYTES;

/// Where the sender writes, and what is still in use.
#[derive(Debug)]
pub(super) struct Places {
    /// Oldest first, the one that is written to last; never none.
    runs: VecDeque<Run>,
    /// Logical position of what is written next.
    tail: u64,
    /// And its place.
    place: u64,
    /// All from `place` up to here is free.
    limit: u64,
    soft_end: u64,
    end: u64,
}

/// Records that lie one behind the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Logical position of its first.
    from: u64,
    /// And its place.
    place: u64,
}

/// Where a record may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Where the last one ended.
    Here,
    /// There, after a jump.
    At(u64),
    /// Nowhere, as long as the receiver acknowledges nothing.
    None,
}

impl Places {
    /// An empty ring of `end` bytes, of which `soft_end` are used at first.
    pub(super) fn new(soft_end: u64, end: u64) -> Self {
        let soft_end = soft_end.min(end);
        let runs = VecDeque::from([Run { from: 0, place: 0 }]);
        Self { runs, tail: 0, place: 0, limit: soft_end, soft_end, end }
    }

    /// Logical position of what is written next.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Place of what is written next.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Whether `bytes` fit where the last record ended, and a jump behind them.
    #[inline]
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.place + bytes + RECORD_BYTES <= self.limit
    }

    /// So much was written here.
    #[inline]
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.tail += bytes;
        self.place += bytes;
        debug_assert!(self.place + RECORD_BYTES <= self.limit);
    }

    /// A jump was written here: the next record lies at `place`.
    pub(super) fn jumped(&mut self, place: u64) {
        self.tail += RECORD_BYTES;
        self.place = place;
        self.runs.push_back(Run { from: self.tail, place });
        self.limit = self.limit_at(place);
    }

    /// Where `bytes` fit; in an empty ring wherever the sender stands, if they are less than half of it.
    ///
    /// Everything before `head` is acknowledged. The answer `Here` is one that [`fits`](Self::fits) gives from
    /// now on.
    pub(super) fn find(&mut self, head: u64, bytes: u64) -> Room {
        let needed = bytes + RECORD_BYTES;
        self.forget(head);
        self.limit = self.limit_at(self.place);
        if self.fits(bytes) {
            return Room::Here;
        }
        let first = self.limit_behind_jump(0);
        // Much is free at the beginning, or everything: round and round within the cache.
        if first >= needed && (first >= self.soft_end / 2 || head == self.tail) {
            return Room::At(0);
        }
        let old_end = self.soft_end;
        if self.limit == old_end && self.grow(self.place + needed) {
            self.limit = self.soft_end;
            return Room::Here;
        }
        if self.grow(old_end + needed) {
            return Room::At(old_end);
        }
        match self.largest_gap() {
            (place, free) if free >= needed => Room::At(place),
            _ => Room::None,
        }
    }

    /// Doubles the soft end until it is `wanted` at least. `false` when the ring is not that large.
    fn grow(&mut self, wanted: u64) -> bool {
        if wanted > self.end {
            return false;
        }
        while self.soft_end < wanted {
            self.soft_end = (self.soft_end * 2).min(self.end);
        }
        true
    }

    /// Runs that are acknowledged whole are free.
    fn forget(&mut self, head: u64) {
        while self.runs.get(1).is_some_and(|next| next.from <= head) {
            self.runs.pop_front();
        }
        // What of the oldest is acknowledged.
        if let Some(oldest) = self.runs.front_mut()
            && oldest.from < head
        {
            oldest.place += head - oldest.from;
            oldest.from = head;
        }
    }

    /// Where a logical position lies, if it is in use.
    pub(super) fn place_of(&self, logical: u64) -> Option<u64> {
        let run = self.runs.iter().rev().find(|run| run.from <= logical)?;
        (logical <= self.tail).then(|| run.place + (logical - run.from))
    }

    /// How long the ring may become.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The places in use, from and to.
    fn in_use(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.runs.iter().skip(1).map(|run| run.from).chain([self.tail]);
        let runs = self.runs.iter().zip(ends).map(|(run, end)| (run.place, run.place + (end - run.from)));
        runs.filter(|(from, to)| from < to)
    }

    /// Up to where everything from `place` on is free.
    fn limit_at(&self, place: u64) -> u64 {
        self.in_use().map(|(from, _)| from).filter(|from| *from >= place).min().unwrap_or(self.soft_end)
    }

    /// The largest free part: its place and its length.
    fn largest_gap(&self) -> (u64, u64) {
        let starts = self.in_use().map(|(_, to)| to).chain([0]);
        let gaps = starts.filter(|start| !self.in_use().any(|(from, to)| (from..to).contains(start)));
        gaps.map(|start| (start, self.limit_behind_jump(start).saturating_sub(start)))
            .max_by_key(|(_, free)| *free)
            .unwrap_or((0, 0))
    }

    /// Up to where everything from `place` on is free once a jump is written.
    fn limit_behind_jump(&self, place: u64) -> u64 {
        let limit = self.limit_at(place);
        if self.place < place { limit } else { limit.min(self.place) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A sender and a receiver that remember which byte lies where.
    struct Model {
        places: Places,
        ring: Vec<Option<u64>>,
        /// Records and jumps: logical start, place, length.
        records: VecDeque<(u64, u64, u64)>,
        head: u64,
    }

    impl Model {
        fn new(soft_end: u64, end: u64) -> Self {
            let ring = vec![None; end as usize];
            Self { places: Places::new(soft_end, end), ring, records: VecDeque::new(), head: 0 }
        }

        fn occupy(&mut self, bytes: u64) {
            let (logical, place) = (self.places.tail(), self.places.place());
            for at in place..place + bytes {
                let before = self.ring[at as usize].replace(logical);
                assert_eq!(before, None, "place {at} is in use");
            }
            self.records.push_back((logical, place, bytes));
        }

        fn write(&mut self, bytes: u64) -> bool {
            if !self.places.fits(bytes) {
                match self.places.find(self.head, bytes) {
                    Room::Here => assert!(self.places.fits(bytes)),
                    Room::At(place) => {
                        self.occupy(RECORD_BYTES);
                        self.places.jumped(place);
                        assert!(self.places.fits(bytes), "jumped to where it does not fit");
                    }
                    Room::None => return false,
                }
            }
            self.occupy(bytes);
            self.places.wrote(bytes);
            true
        }

        fn acknowledge(&mut self, records: usize) {
            for (logical, place, bytes) in self.records.drain(..records.min(self.records.len())) {
                self.ring[place as usize..(place + bytes) as usize].fill(None);
                self.head = logical + bytes;
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_in_use_is_written_over_and_an_empty_ring_takes_anything(
            steps in prop::collection::vec((prop::bool::ANY, 4_u64..80), 1..400),
        ) {
            let mut model = Model::new(256, 4096);
            for (writes, size) in steps {
                if writes {
                    let was_empty = model.records.is_empty();
                    let wrote = model.write(size * 8);
                    prop_assert!(wrote || !was_empty);
                } else {
                    model.acknowledge(size as usize / 8);
                }
            }
            model.acknowledge(usize::MAX);
            prop_assert!(model.write(4096 / 2 - 2 * RECORD_BYTES), "a message of half the ring");
        }
    }

    #[test]
    fn a_ring_whose_receiver_keeps_up_does_not_grow() {
        let mut model = Model::new(4096, 1 << 20);
        for _ in 0..10_000 {
            assert!(model.write(96));
            model.acknowledge(model.records.len().saturating_sub(10));
        }
        assert_eq!(model.places.soft_end, 4096);
    }

    #[test]
    fn a_ring_whose_receiver_is_away_is_filled_to_its_end() {
        let mut model = Model::new(4096, 1 << 20);
        let mut written = 0;
        while model.write(96) {
            written += 96;
        }
        assert!(written > (1 << 20) - 1024, "{written} of {}", 1 << 20);
    }

    /// The receiver stopped when the sender had just wrapped: the rest of the ring beyond the soft end is
    /// not lost for that.
    #[test]
    fn a_ring_that_has_wrapped_grows_as_well() {
        let mut model = Model::new(4096, 1 << 20);
        for _ in 0..64 {
            assert!(model.write(96));
            model.acknowledge(usize::from(model.records.len() > 15));
        }
        let mut written = 0;
        while model.write(96) {
            written += 96;
        }
        assert!(written > (1 << 20) - 8192, "{written} of {}", 1 << 20);
    }
}
