//! [`Board`]: what the daemon shows to a receiver of lanes: how many frames it is due on its socket, and whether it has
//! lost its place.
//!
//! A receiver with lanes reads its socket only when there is something: the board tells, at the cost of a load.
//! It also is what puts messages of the stream in order with those of lanes: the daemon shows what it has
//! accepted before it tells anybody that it has.
//!
//! A receiver that is stopped may go on at any moment. So that others need not wait for it, the daemon takes its place
//! down: from then on it hands out nothing, and nobody believes its cursors. The daemon writes that, then reads the
//! cursors; the receiver writes that it takes a message, then looks here; its senders read its cursor, then look here.

use super::memory::{Fence, Memory};

const DUE: usize = 0;

/// On a line of its own.
pub(in crate::lane) const REVOKED: usize = 16;

/// The daemon's side, and the receiver's.
#[derive(Debug)]
pub struct Board<M> {
    memory: M,
}

impl<M: Memory> Board<M> {
    /// Over a page of memory.
    pub fn new(memory: M) -> Self {
        Self { memory }
    }

    /// Shows how many frames the receiver will have got when all are sent that there are now, without those that it has
    /// given back; it is less when an order has removed some. Whoever is told
    /// after this that its message is accepted, and sends by another lane, is seen by nobody who does not see
    /// this.
    pub fn show(&self, due: u64) {
        self.memory.store(DUE, due);
        // (B)
        self.memory.fence(Fence::Sequential);
    }

    /// Takes the receiver's place down. What its cursors say after this is all that it has taken.
    pub fn revoke(&self) {
        self.memory.store(REVOKED, 1);
        // (V) Whoever claims a message sees this, or the claim is seen; whoever sees a head that was not seen after
        // this sees this as well.
        self.memory.fence(Fence::Sequential);
    }

    /// Whether the receiver has lost its place. To be asked behind a fence that pairs with (V): after a claim, or after
    /// its cursor was read.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.memory.load(REVOKED) != 0
    }

    /// How many frames have been shown.
    #[inline]
    pub fn due(&self) -> u64 {
        // Pairs with (B) by the fence between two looks at the lanes.
        self.memory.load(DUE)
    }
}
