//! [`Skips`]: messages of a lane that are not to be handed out, by order of the daemon.

use crate::lane::ring::Position;
use crate::wire::LaneSkip;

/// What is not to be handed out, and what was passed over.
#[derive(Debug, Default)]
pub(super) struct Skips {
    pub(super) orders: Vec<LaneSkip>,
    /// From where to where it was passed over, in order, while something before that was not acknowledged.
    passed: Vec<(Position, Position)>,
    /// How many are acknowledged, and the daemon has not been told.
    pub(super) untold: u64,
}

impl Skips {
    /// Whether the message with so many before it is not to be handed out; asked once for each.
    pub(super) fn take(&mut self, index: u64) -> bool {
        if self.orders.is_empty() {
            return false;
        }
        self.orders.retain(|order| order.before > index && order.most > 0);
        let Some(order) = self.orders.iter_mut().find(|order| order.from <= index) else { return false };
        order.most -= 1;
        true
    }

    /// Whether there is nothing to skip and nothing to tell.
    pub(super) fn is_idle(&self) -> bool {
        self.orders.is_empty() && self.passed.is_empty() && self.untold == 0
    }

    /// Whether all that was passed over is acknowledged.
    #[inline]
    pub(super) fn is_passed_nothing(&self) -> bool {
        self.passed.is_empty()
    }

    /// Where to go on from a position that was passed over before.
    pub(super) fn behind(&self, at: Position) -> Option<Position> {
        self.passed.iter().find(|(from, _)| *from == at).map(|(_, to)| *to)
    }

    /// Notes that what lies between was passed over.
    pub(super) fn note(&mut self, from: Position, to: Position) {
        match self.passed.last_mut().filter(|(_, end)| *end == from) {
            Some(last) => last.1 = to,
            None => self.passed.push((from, to)),
        }
    }

    /// How far is acknowledged with everything before a position: what was passed over behind it as well.
    pub(super) fn passed(&mut self, through: Position) -> Position {
        if self.passed.is_empty() {
            return through;
        }
        let to = self.behind(through).unwrap_or(through);
        let untold = &mut self.untold;
        self.passed.retain(|(from, to)| {
            let stays = from.logical > through.logical;
            *untold += if stays { 0 } else { to.messages - from.messages };
            stays
        });
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::LaneId;

    fn order(from: u64, before: u64, most: u64) -> LaneSkip {
        LaneSkip { lane: LaneId(1), from, before, most }
    }

    fn at(messages: u64) -> Position {
        Position { logical: 64 * messages, place: 64 * messages, messages }
    }

    #[test]
    fn so_many_of_those_that_are_named_are_skipped() {
        let mut skips = Skips { orders: vec![order(3, 6, 2)], ..Skips::default() };
        let skipped: Vec<u64> = (0..8).filter(|index| skips.take(*index)).collect();
        assert_eq!((skipped, skips.orders.len()), (vec![3, 4], 0));
    }

    #[test]
    fn what_was_passed_over_is_acknowledged_with_what_was_before_it() {
        let mut skips = Skips::default();
        skips.note(at(1), at(2));
        skips.note(at(2), at(3));
        skips.note(at(4), at(5));
        assert_eq!(skips.behind(at(1)), Some(at(3)));
        assert_eq!(skips.passed(at(1)), at(3));
        assert_eq!(skips.untold, 2);
        assert_eq!(skips.passed(at(4)), at(5));
        assert_eq!(skips.passed(at(6)), at(6));
    }

    /// What lay before it was not counted.
    #[test]
    fn what_was_passed_over_is_told_also_when_more_is_acknowledged_at_once() {
        let mut skips = Skips::default();
        skips.note(at(1), at(3));
        skips.note(at(4), at(5));
        assert_eq!(skips.passed(at(6)), at(6));
        assert_eq!((skips.untold, skips.is_passed_nothing()), (3, true));
    }
}
