//! [`Board`]: one word that the daemon shows to a receiver of lanes: how many frames it is due on its socket.
//!
//! A receiver with lanes reads its socket only when there is something: the board tells, at the cost of a load.
//! It also is what puts messages of the stream in order with those of lanes: the daemon shows what it has
//! accepted before it tells anybody that it has.

use super::memory::{Fence, Memory};

const DUE: usize = 0;

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

    /// Shows how many frames the receiver will have got when all are sent that there are now. Whoever is told
    /// after this that its message is accepted, and sends by another lane, is seen by nobody who does not see
    /// this.
    pub fn show(&self, due: u64) {
        self.memory.store(DUE, due);
        // (B)
        self.memory.fence(Fence::Sequential);
    }

    /// How many frames have been shown.
    #[inline]
    pub fn due(&self) -> u64 {
        // Pairs with (B) by the fence between two looks at the lanes.
        self.memory.load(DUE)
    }
}
