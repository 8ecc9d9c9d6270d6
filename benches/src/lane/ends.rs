//! The two ends of a ring as the traffic sees them, floor or subject, and how either waits.

use std::hint::spin_loop;
use std::thread::{available_parallelism, yield_now};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::clock::{await_clock, now_ns};

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
    ///
    /// To be compiled on its own: among the rest of the traffic the loop that copies runs out of registers,
    /// in one ring and not in the other.
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

/// How an end goes on that found nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Temper {
    /// It looks again at once: a message is seen soon, and each look takes the other's index away from it.
    Eager,
    /// It looks again after two microseconds, and finds more.
    Patient,
}

/// The waiting of one end. Where the ends outnumber the processors it gives way soon.
pub(crate) struct Waiting {
    temper: Temper,
    pauses: u32,
    pauses_max: u32,
}

/// How long one that is patient does not look, in nanoseconds.
const PAUSE_NS: u64 = 2_000;

impl Waiting {
    pub(crate) fn among(ends: u32, temper: Temper) -> Self {
        let processors = available_parallelism().map_or(1, |count| count.get() as u32);
        // About 100 microseconds: whoever else runs here is not kept from what the other end needs.
        let pauses_max = match temper {
            _ if ends > processors => 32,
            Temper::Eager => 2_000,
            Temper::Patient => 50,
        };
        Self { temper, pauses: 0, pauses_max }
    }

    /// Lets a moment pass.
    #[inline]
    pub(crate) fn pause(&mut self) {
        self.pauses += 1;
        match self.temper {
            _ if self.pauses > self.pauses_max => yield_now(),
            Temper::Eager => spin_loop(),
            Temper::Patient => _ = await_clock(now_ns() + PAUSE_NS),
        }
    }

    /// There was something to do.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.pauses = 0;
    }
}
