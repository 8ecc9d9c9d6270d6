//! [`Changes`]: where threads sleep until another has changed what they share.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::session::lock;

/// Counts the changes of a state that is behind a lock of its own. Whoever wants to sleep asks under that lock how many
/// there were, and lets it go: no change in between is slept through.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: Mutex<u64>,
    changed: Condvar,
}

/// How many changes there were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(u64);

impl Changes {
    /// To be asked under the lock of the state.
    pub(super) fn seen(&self) -> Seen {
        Seen(*lock(&self.count))
    }

    /// Sleeps until there are more, or the time is over. Not under the lock of the state.
    pub(super) fn wait(&self, seen: Seen, deadline: Option<Instant>) {
        let mut count = lock(&self.count);
        while *count == seen.0 {
            count = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(count).unwrap_or_else(PoisonError::into_inner),
                Some(rest) if rest.is_zero() => return,
                Some(rest) => self.changed.wait_timeout(count, rest).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// There was one: wakes all who sleep.
    pub(super) fn tell(&self) {
        *lock(&self.count) += 1;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_before_one_sleeps_is_not_slept_through() {
        let changes = Changes::default();
        let seen = changes.seen();
        changes.tell();
        changes.wait(seen, None);
    }

    #[test]
    fn who_waits_in_vain_goes_on_when_the_time_is_over() {
        let changes = Changes::default();
        changes.wait(changes.seen(), Some(Instant::now() + Duration::from_millis(1)));
    }

    #[test]
    fn every_sleeper_is_woken() {
        let changes = Changes::default();
        let seen = changes.seen();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| changes.wait(seen, None));
            }
            changes.tell();
        });
    }
}
