//! What of a message is copied out of its lane when it is lent, and what is read where it lies.

use super::Loan;
use super::lanes::Lanes;
use crate::lane::region::Map;
use crate::lane::ring::{Reader, Record};
use crate::wire::LaneId;

/// Which payloads are copied out of a lane when they are lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// All of them.
    All,
    /// Small ones: a copy of those stays in the cache, and costs less than reading them piece by piece.
    Small,
    /// None.
    None,
}

/// From this on a payload is large, in bytes: its copy would push other things out of the cache.
const LARGE_BYTES: usize = 16 * 1024;

impl Copied {
    /// How much of a payload of so many bytes is copied.
    #[inline]
    pub(super) fn of(self, payload_bytes: usize) -> usize {
        match self {
            Self::All => payload_bytes,
            Self::Small if payload_bytes < LARGE_BYTES => payload_bytes,
            Self::Small | Self::None => 0,
        }
    }
}

impl Lanes {
    /// The end of a lane at which its messages are read.
    pub(super) fn reader(&self, id: LaneId) -> Option<&Reader<Map, Map>> {
        self.iter().find(|lane| lane.id == id).map(|lane| &lane.reader)
    }
}

impl Loan<'_> {
    /// Where the first message lies, if its payload was not copied.
    pub(crate) fn in_ring(&self) -> Option<(&Reader<Map, Map>, &Record)> {
        let state = self.state();
        let lent = state.lane_loan.first_in_ring()?;
        Some((state.lanes.reader(lent.lane)?, &lent.record))
    }
}
