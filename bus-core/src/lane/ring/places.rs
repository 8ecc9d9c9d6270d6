//! [`Places`]: where in the ring the sender may write. Numbers only: it knows no memory.
//!
//! What is published and not acknowledged lies in *runs*, one behind the other in logical order, anywhere in
//! the ring. Between two of them stands a jump. The ring is used up to its soft end, which doubles when it is
//! full, unless [growth](Growth) is withheld: so a lane whose receiver keeps up stays in the cache, and one whose
//! receiver is away takes what its window allows. Once the receiver has caught up again it is as short as it was at
//! first: the sender looks for that whenever it has written so much as fits into it.
//!
//! A place may be *reserved* for a message that is written before anybody knows when it is sent. Others go around
//! it; once it is sent, a jump leads there. So there is always room for one where the sender stands.

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
    /// Where the soft end was at first.
    first_end: u64,
    end: u64,
    /// Reserved for messages that are not sent yet: from and to, with room for the jump behind each.
    reserved: Vec<(u64, u64)>,
    growth: Growth,
}

/// What becomes of a ring that is full up to its soft end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It takes more of its memory.
    WhenFull,
    /// It stays as it is, unless it holds fewer messages of the length asked for than both ends have in hand.
    Withheld,
}

/// So many messages a ring holds whose growth is withheld: the receiver has one, the sender another, and neither waits
/// for the other to come to its end. And not many more, because all of them are to stay in the cache that both processors
/// share: of 1 MiB, 25 GiB/s went through a ring of two to eight, 15 through one of twelve, and 9 through one of sixteen
/// (Zen 3, 32 MiB for eight processors).
const HELD_MESSAGES: u64 = 4;

/// Of which a receiver takes several at once, it holds as many again, up to so many bytes: of 64 KiB, 14 GiB/s went through
/// a ring of eight, and 11 through one of four.
const HELD_BYTES: u64 = 1024 * 1024;

/// How long a ring is whose growth is withheld, where messages take `needed` bytes.
fn held_bytes(needed: u64) -> u64 {
    // Where they are written apart, there is a jump before the first.
    (HELD_MESSAGES * needed).max(HELD_BYTES.min(2 * HELD_MESSAGES * needed)) + RECORD_BYTES
}

/// Where a message will lie that is written before it is sent.
#[derive(Debug)]
pub(super) struct Reserved {
    place: u64,
    bytes: u64,
}

impl Reserved {
    /// Where its record begins.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// How long its record is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
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
        let reserved = Vec::new();
        let growth = Growth::WhenFull;
        Self { runs, tail: 0, place: 0, limit: soft_end, soft_end, first_end: soft_end, end, reserved, growth }
    }

    /// What is to become of it from now on when it is full.
    #[inline]
    pub(super) fn set_growth(&mut self, growth: Growth) {
        self.growth = growth;
    }

    /// Whether it could take more of its memory, and is not to.
    pub(super) fn is_held_short(&self) -> bool {
        self.growth == Growth::Withheld && self.soft_end < self.end
    }

    /// With nothing in use, and what is written next there.
    #[cfg(test)]
    pub(super) fn begin_at(&mut self, logical: u64, place: u64) {
        self.runs = VecDeque::from([Run { from: logical, place }]);
        (self.tail, self.place) = (logical, place);
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

    /// A jump was written here: the next record lies at `place`, and is so long.
    pub(super) fn jumped(&mut self, place: u64, bytes: u64) {
        self.tail += RECORD_BYTES;
        self.place = place;
        self.runs.push_back(Run { from: self.tail, place });
        self.limit = self.limit_for(bytes + RECORD_BYTES);
    }

    /// How many messages have a place, and are not sent.
    #[inline]
    pub(super) fn reserved(&self) -> usize {
        self.reserved.len()
    }

    /// Reserves a place behind where the next record goes, if that is known to be free.
    #[inline]
    pub(super) fn reserve_here(&mut self, bytes: u64) -> Option<Reserved> {
        let place = self.place + RECORD_BYTES;
        (place + bytes + RECORD_BYTES <= self.limit).then(|| self.keep(place, bytes))
    }

    /// Reserves a place anywhere. Everything before `head` is acknowledged.
    pub(super) fn reserve(&mut self, head: u64, bytes: u64) -> Option<Reserved> {
        let needed = bytes + RECORD_BYTES;
        self.forget(head);
        if self.starts_again(head, needed) {
            return Some(self.keep(0, bytes));
        }
        // Not behind each of them: many may be open at once.
        let behind_last = self.reserved.last().map(|(_, to)| *to);
        let near = [self.place + RECORD_BYTES].into_iter().chain(behind_last).find(|at| self.free_at(*at) >= needed);
        let first = self.free_at(0);
        let first_will_do = first >= needed && (first >= self.soft_end / 2 || head == self.tail);
        let found = near.or_else(|| first_will_do.then_some(0)).or_else(|| {
            let last = self.last_in_use().max(self.place + RECORD_BYTES);
            self.grow(last, needed).then_some(last)
        });
        let place = found.or_else(|| {
            let gaps = self.in_use().map(|(_, to)| to).chain([0]);
            gaps.max_by_key(|at| self.free_at(*at)).filter(|at| self.free_at(*at) >= needed)
        })?;
        Some(self.keep(place, bytes))
    }

    fn keep(&mut self, place: u64, bytes: u64) -> Reserved {
        self.reserved.push((place, place + bytes + RECORD_BYTES));
        self.limit = self.limit_for(0);
        Reserved { place, bytes }
    }

    /// The place is free again.
    pub(super) fn release(&mut self, reserved: Reserved) {
        self.reserved.retain(|(from, _)| *from != reserved.place);
        self.limit = self.limit_for(0);
    }

    /// A jump was written here, to what is reserved: that comes next.
    pub(super) fn jumped_to(&mut self, reserved: Reserved) {
        let Reserved { place, bytes } = reserved;
        self.reserved.retain(|(from, _)| *from != place);
        if place == self.place + RECORD_BYTES {
            // It lies as if nothing had been between: no other run begins.
            self.tail += RECORD_BYTES;
            self.place = place;
        } else {
            self.jumped(place, bytes);
        }
        // Its own place it has also beyond the soft end of a ring that is short again.
        self.limit = self.limit_for(bytes + RECORD_BYTES).max(place + bytes + RECORD_BYTES);
    }

    /// How much is free from `place` on, beside the room for a jump where the sender stands.
    fn free_at(&self, place: u64) -> u64 {
        let taken = || self.in_use().chain([(self.place, self.place + RECORD_BYTES)]);
        if taken().any(|(from, to)| (from..to).contains(&place)) {
            return 0;
        }
        let next = taken().map(|(from, _)| from).filter(|from| *from >= place).min();
        next.map_or(self.soft_end, |next| next.min(self.soft_end)).saturating_sub(place)
    }

    /// Where `bytes` fit; in an empty ring wherever the sender stands, if they are less than half of it.
    ///
    /// Everything before `head` is acknowledged. The answer `Here` is one that [`fits`](Self::fits) gives from
    /// now on.
    pub(super) fn find(&mut self, head: u64, bytes: u64) -> Room {
        let needed = bytes + RECORD_BYTES;
        self.forget(head);
        if self.starts_again(head, needed) {
            return Room::At(0);
        }
        self.limit = self.limit_for(needed);
        if self.fits(bytes) {
            return Room::Here;
        }
        let first = self.limit_behind_jump(0);
        // Much is free at the beginning, or everything: round and round within the cache.
        if first >= needed && (first >= self.soft_end / 2 || head == self.tail) {
            return Room::At(0);
        }
        let old_end = self.soft_end;
        if self.in_use().all(|(from, _)| from < self.place) && self.grow(self.place, needed) {
            self.limit = self.limit_for(needed);
            if self.fits(bytes) {
                return Room::Here;
            }
        }
        // What was written before the ring was short again may still lie there.
        for at in [old_end, self.last_in_use().max(old_end)] {
            if self.grow(at, needed) && self.free_at(at) >= needed {
                return Room::At(at);
            }
        }
        match self.largest_gap() {
            (place, free) if free >= needed => Room::At(place),
            _ => Room::None,
        }
    }

    /// Doubles the soft end until there are `needed` bytes before it from `place` on; or moves it no further than where
    /// they end, if growth is withheld. `false` when the ring is not that large, or is not to be.
    fn grow(&mut self, place: u64, needed: u64) -> bool {
        let wanted = place + needed;
        if wanted > self.end {
            return false;
        }
        match self.growth {
            Growth::WhenFull => {
                while self.soft_end < wanted {
                    self.soft_end = (self.soft_end * 2).min(self.end);
                }
            }
            Growth::Withheld if wanted <= self.soft_end.max(held_bytes(needed)) => {
                self.soft_end = self.soft_end.max(wanted);
            }
            Growth::Withheld => return false,
        }
        true
    }

    /// Where the receiver has caught up, a ring that has grown is short again. `true` when that is to be gone on with at
    /// its beginning.
    fn starts_again(&mut self, head: u64, needed: u64) -> bool {
        let half = self.first_end / 2;
        if self.soft_end == self.first_end || self.tail - head > half {
            return false;
        }
        if self.place + needed <= self.first_end {
            self.soft_end = self.first_end;
            return false;
        }
        let free = if self.place < self.first_end { 0 } else { self.free_at(0) };
        if free < needed.max(half) {
            return false;
        }
        self.soft_end = self.first_end;
        self.grow(0, needed)
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

    /// The places in use, from and to, and those that are reserved.
    fn in_use(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.runs.iter().skip(1).map(|run| run.from).chain([self.tail]);
        let runs = self.runs.iter().zip(ends).map(|(run, end)| (run.place, run.place + (end - run.from)));
        runs.filter(|(from, to)| from < to).chain(self.reserved.iter().copied())
    }

    /// Behind everything that is in use.
    fn last_in_use(&self) -> u64 {
        self.in_use().map(|(_, to)| to).max().unwrap_or(0)
    }

    /// Up to where everything from `place` on is free.
    fn limit_at(&self, place: u64) -> u64 {
        let next = self.in_use().map(|(from, _)| from).filter(|from| *from >= place).min();
        next.map_or(self.soft_end, |next| next.min(self.soft_end)).max(place)
    }

    /// Up to where it is written from here on before it is looked around again: `needed` at least, where that is free.
    fn limit_for(&self, needed: u64) -> u64 {
        self.limit_at(self.place).min(self.place + needed.max(self.first_end))
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
        slots: Vec<Reserved>,
    }

    /// Of the place of a message that is not sent.
    const NOT_SENT: u64 = u64::MAX;

    impl Model {
        fn new(soft_end: u64, end: u64) -> Self {
            let ring = vec![None; end as usize];
            Self { places: Places::new(soft_end, end), ring, records: VecDeque::new(), head: 0, slots: Vec::new() }
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
                        self.places.jumped(place, bytes);
                        assert!(self.places.fits(bytes), "jumped to where it does not fit");
                    }
                    Room::None => return false,
                }
            }
            self.occupy(bytes);
            self.places.wrote(bytes);
            true
        }

        fn loan(&mut self, bytes: u64) -> bool {
            let reserved = self.places.reserve_here(bytes).or_else(|| self.places.reserve(self.head, bytes));
            let Some(reserved) = reserved else { return false };
            for at in reserved.place()..reserved.place() + bytes + RECORD_BYTES {
                let before = self.ring[at as usize].replace(NOT_SENT);
                assert_eq!(before, None, "place {at} is in use");
            }
            self.slots.push(reserved);
            true
        }

        fn end_loan(&mut self, index: usize, sends: bool) {
            let reserved = self.slots.swap_remove(index);
            let (place, bytes) = (reserved.place(), reserved.bytes());
            self.ring[place as usize..(place + bytes + RECORD_BYTES) as usize].fill(None);
            if !sends {
                return self.places.release(reserved);
            }
            self.occupy(RECORD_BYTES);
            self.places.jumped_to(reserved);
            assert_eq!(self.places.place(), place);
            self.occupy(bytes);
            self.places.wrote(bytes);
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
            steps in prop::collection::vec((prop::bool::ANY, prop::bool::ANY, 4_u64..80), 1..400),
        ) {
            let mut model = Model::new(256, 4096);
            for (writes, grows, size) in steps {
                model.places.set_growth(if grows { Growth::WhenFull } else { Growth::Withheld });
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

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64),
        Loan(u64),
        EndLoan(prop::sample::Index, bool),
        Acknowledge(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || (4_u64..80).prop_map(|words| words * 8);
        prop_oneof![
            2 => bytes().prop_map(Step::Write),
            2 => bytes().prop_map(Step::Loan),
            2 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8)).prop_map(|(at, sends)| Step::EndLoan(at, sends)),
            1 => (1_usize..10).prop_map(Step::Acknowledge),
        ]
    }

    proptest! {
        /// And what is sent first is sent first, wherever it lies.
        #[test]
        fn nothing_reserved_is_written_over_and_no_place_is_lost(steps in prop::collection::vec(step(), 1..400)) {
            let mut model = Model::new(256, 4096);
            for step in steps {
                match step {
                    Step::Write(bytes) => drop(model.write(bytes)),
                    Step::Loan(bytes) => drop(model.loan(bytes)),
                    Step::EndLoan(at, sends) if !model.slots.is_empty() => {
                        model.end_loan(at.index(model.slots.len()), sends);
                    }
                    Step::EndLoan(..) => {}
                    Step::Acknowledge(records) => model.acknowledge(records),
                }
                for (logical, place, _) in &model.records {
                    prop_assert_eq!(model.places.place_of(*logical), Some(*place));
                }
            }
            while !model.slots.is_empty() {
                model.end_loan(0, true);
            }
            model.acknowledge(usize::MAX);
            prop_assert!(model.write(4096 / 2 - 2 * RECORD_BYTES), "a message of half the ring");
        }
    }

    #[test]
    fn messages_that_are_written_before_they_are_sent_lie_one_behind_the_other() {
        let mut model = Model::new(4096, 1 << 20);
        for _ in 0..20 {
            assert!(model.loan(96));
            model.end_loan(0, true);
        }
        assert_eq!((model.places.runs.len(), model.places.place()), (1, 20 * (RECORD_BYTES + 96)));
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
    fn a_ring_that_is_not_to_grow_holds_what_it_is_as_long_as_and_a_few_messages_at_least() {
        for bytes in [96, 8192] {
            let mut model = Model::new(4096, 1 << 20);
            model.places.set_growth(Growth::Withheld);
            let mut written = 0;
            while model.write(bytes) {
                written += 1;
            }
            assert!(written >= HELD_MESSAGES && model.places.is_held_short(), "{written} of {bytes} bytes");
            let held = held_bytes(bytes + RECORD_BYTES);
            assert!(model.places.soft_end <= 4096.max(held), "{} for {bytes}", model.places.soft_end);
            model.places.set_growth(Growth::WhenFull);
            assert!(model.write(bytes));
        }
    }

    #[test]
    fn a_ring_that_is_not_to_grow_holds_eight_messages_or_four_long_ones() {
        assert_eq!([1024, 64 * 1024, 256 * 1024, 1 << 20].map(|bytes| held_bytes(bytes) / bytes), [8, 8, 4, 4]);
    }

    /// However much was sent at once: when that is received, it is the first part again that is written round and
    /// round, also when there is never nothing.
    #[test]
    fn a_ring_is_short_again_once_its_receiver_has_caught_up() {
        for depth in [0, 10] {
            let mut model = Model::new(4096, 1 << 20);
            for _ in 0..8_000 {
                assert!(model.write(96));
            }
            assert!(model.places.soft_end > 512 * 1024);
            let mut highest = 0;
            for round in 0..200 {
                model.acknowledge(model.records.len().saturating_sub(depth));
                assert!(model.write(96));
                if round > 100 {
                    highest = highest.max(model.places.place());
                }
            }
            assert!(model.places.soft_end == 4096 && highest <= 4096, "{} with {highest}", model.places.soft_end);
        }
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
