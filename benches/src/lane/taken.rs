//! How much of its processor a process has that does nothing but read the clock: what every latency contains.
//!
//! A virtual processor is taken away for its host's work and for the ticks of its own clock, some hundred times a second
//! and for some ten microseconds each time. Where messages come by the clock, and that is more than a thousandth of the
//! time, no ring has 99.9 % of them in less.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::clock::now_ns;

/// What is longer than this between two readings of the clock was taken away, in nanoseconds: the bound that is set for
/// 99.9 % of a latency.
const TAKEN_NS: u64 = 3_000;

/// How much of the time two threads that are awake lose that way, in thousandths.
pub(crate) fn per_mille(lasts: Duration) -> Result<f64> {
    let threads = [(); 2].map(|()| thread::spawn(move || lost_ns(lasts)));
    let mut lost = 0;
    for thread in threads {
        lost += thread.join().map_err(|_| anyhow!("the measurement panicked"))?;
    }
    Ok(lost as f64 / 2.0 / lasts.as_nanos() as f64 * 1e3)
}

fn lost_ns(lasts: Duration) -> u64 {
    let mut last_ns = now_ns();
    let until_ns = last_ns + lasts.as_nanos() as u64;
    let mut lost_ns = 0;
    while last_ns < until_ns {
        let at_ns = now_ns();
        if at_ns - last_ns > TAKEN_NS {
            lost_ns += at_ns - last_ns;
        }
        last_ns = at_ns;
    }
    lost_ns
}
