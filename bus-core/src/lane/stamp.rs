//! The clock of the stamps, by which messages of several senders are put in order.

use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of `CLOCK_MONOTONIC`: one clock for all processes of a machine that share a time
/// namespace, which never goes back.
#[must_use]
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // It counts from the start of the machine.
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Which of the clocks of the machine that is: the number of this process's time namespace, or 0 where there are none,
/// or they are not told of (`/proc` is not there). A stamp means the same to all who read the same clock.
#[must_use]
pub fn clock() -> u64 {
    // Asked for each time: a process may enter another.
    rustix::fs::stat("/proc/self/ns/time").map_or(0, |status| status.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_the_same_for_a_process_and_its_child() {
        let child = std::process::Command::new("stat").args(["-L", "-c", "%i", "/proc/self/ns/time"]).output().unwrap();
        let theirs = String::from_utf8(child.stdout).unwrap().trim().parse().unwrap_or(0);
        assert_eq!(clock(), theirs);
    }
}
