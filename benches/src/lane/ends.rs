//! The two ends of a ring as the traffic sees them, floor or subject, and how either waits.

use std::hint::spin_loop;
use std::thread::{available_parallelism, yield_now};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The end that sends.
pub(crate) trait RingWriter {
    /// Writes and publishes a message; `false` when there is no room for it.
    fn put(&mut self, stamp_ns: u64, payload: &[u8]) -> Result<bool>;
}

/// The end that receives. Positions grow with every message and begin at 0.
pub(crate) trait RingReader {
    /// Looks how far messages are published.
    fn look(&mut self) -> Result<u64>;

    /// How far they were taken.
    fn position(&self) -> u64;

    /// The stamp of the next message, if it was published at the last look.
    fn stamp(&mut self) -> Result<Option<u64>>;

    /// Copies out the message whose stamp was asked for, and acknowledges it.
    fn take(&mut self, payload: &mut [u8]) -> Result<()>;
}

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The floor.
    Bare,
    /// The library's.
    Own,
}

/// How an end waits that has nothing to do. Where the ends outnumber the processors it gives way soon.
pub(crate) struct Waiting {
    spins: u32,
    spins_max: u32,
}

impl Waiting {
    pub(crate) fn among(ends: u32) -> Self {
        let processors = available_parallelism().map_or(1, |count| count.get() as u32);
        Self { spins: 0, spins_max: if ends > processors { 32 } else { 100_000 } }
    }

    /// Lets a moment pass.
    #[inline]
    pub(crate) fn pause(&mut self) {
        if self.spins < self.spins_max {
            self.spins += 1;
            spin_loop();
        } else {
            yield_now();
        }
    }

    /// There was something to do.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.spins = 0;
    }
}
