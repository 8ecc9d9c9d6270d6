//! The clock that all processes of a measurement share.

use std::hint::spin_loop;
use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds: one zero for every process of the machine.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Spins until the clock shows `at_ns`. Returns what it shows then.
pub(crate) fn await_clock(at_ns: u64) -> u64 {
    loop {
        match now_ns() {
            now_ns if now_ns >= at_ns => return now_ns,
            _ => spin_loop(),
        }
    }
}

/// Ticks at a fixed pace. A tick that is late moves those after it, so that no burst follows.
pub(crate) struct Pace {
    interval_ns: u64,
    next_ns: u64,
}

impl Pace {
    pub(crate) fn every(interval: Duration) -> Self {
        let interval_ns = interval.as_nanos() as u64;
        Self { interval_ns, next_ns: now_ns() + interval_ns }
    }

    /// Sleeps until the next tick.
    pub(crate) fn wait(&mut self) {
        let at =
            Timespec { tv_sec: (self.next_ns / 1_000_000_000) as i64, tv_nsec: (self.next_ns % 1_000_000_000) as i64 };
        // An interrupted sleep makes one interval shorter, which no figure depends on.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &at);
        self.next_ns = self.next_ns.max(now_ns()) + self.interval_ns;
    }
}
