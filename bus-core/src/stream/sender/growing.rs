//! [`Shortage`]: when a ring that is full takes more of its memory, and when its sender waits instead.
//!
//! What goes round in the cache of a processor goes through several times as fast as what does not, and a receiver that
//! works makes room at any moment. One that does not, or is slow, is no reason to wait: then the ring grows, as far as the
//! window allows.

use std::time::{Duration, Instant};

use super::Wait;
use crate::lane::ring::Growth;
use crate::waiting::Waiting;

/// How long a sender waits for room before its ring grows, in nanoseconds: many times what a receiver that works needs for
/// all of a short ring, and a third of what one waits for that others keep from the processor.
const PATIENCE_NS: u64 = 1_000_000;

/// How long it does so awake: about as long as it takes to be woken.
const AWAKE_NS: u64 = 50_000;

/// Of one call: the ring is full, and could be longer.
#[derive(Debug)]
pub(super) struct Shortage {
    since_ns: Option<u64>,
    wait: Wait,
    awake_ns: u64,
}

impl Shortage {
    /// There is none yet.
    pub(super) fn new(wait: Wait, waiting: Waiting) -> Self {
        let awake_ns = if waiting == Waiting::Sleep { 0 } else { AWAKE_NS };
        Self { since_ns: None, wait, awake_ns }
    }

    /// What is to become of a ring that is full. Nobody is waited for who does not read, nor by a call that does not wait.
    #[inline]
    pub(super) fn growth(&self, now_ns: u64, has_receiver: bool) -> Growth {
        let is_over = self.wait == Wait::Never || !has_receiver || self.since_ns.is_some() && self.is_over(now_ns);
        if is_over { Growth::WhenFull } else { Growth::Withheld }
    }

    fn is_over(&self, now_ns: u64) -> bool {
        let is_late = || self.wait.deadline().is_some_and(|deadline| Instant::now() >= deadline);
        self.lasts_ns(now_ns) >= PATIENCE_NS || is_late()
    }

    fn lasts_ns(&self, now_ns: u64) -> u64 {
        self.since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns))
    }

    /// There is one. Whether it is to be looked again at once.
    pub(super) fn is_waited_for_awake(&mut self, now_ns: u64) -> bool {
        self.since_ns.get_or_insert(now_ns);
        self.lasts_ns(now_ns) < self.awake_ns
    }

    /// When whoever sleeps is to look again.
    pub(super) fn deadline(&self, now_ns: u64) -> Option<Instant> {
        let rest_ns = self.since_ns.map(|_| PATIENCE_NS.saturating_sub(self.lasts_ns(now_ns)));
        // What of it is over has grown, or cannot.
        let growing =
            rest_ns.filter(|rest_ns| *rest_ns > 0).map(|rest_ns| Instant::now() + Duration::from_nanos(rest_ns));
        self.wait.deadline().into_iter().chain(growing).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_grows_once_its_receiver_has_made_no_room_for_a_millisecond() {
        let mut shortage = Shortage::new(Wait::Forever, Waiting::Adaptive);
        assert_eq!(shortage.growth(0, true), Growth::Withheld);
        assert!(shortage.is_waited_for_awake(100));
        assert!(!shortage.is_waited_for_awake(100 + AWAKE_NS));
        assert_eq!(shortage.growth(99 + PATIENCE_NS, true), Growth::Withheld);
        assert!(shortage.deadline(100 + PATIENCE_NS / 2).is_some(), "it looks again by itself");
        assert_eq!(shortage.growth(100 + PATIENCE_NS, true), Growth::WhenFull);
        assert_eq!(shortage.deadline(100 + PATIENCE_NS), None, "what is full now has its whole window");
    }

    #[test]
    fn nobody_waits_who_does_not_want_to_or_has_no_receiver() {
        assert_eq!(Shortage::new(Wait::Never, Waiting::Spin).growth(0, true), Growth::WhenFull);
        assert_eq!(Shortage::new(Wait::Forever, Waiting::Spin).growth(0, false), Growth::WhenFull);
        let mut late = Shortage::new(Wait::Until(Instant::now()), Waiting::Spin);
        assert!(late.is_waited_for_awake(0));
        assert_eq!(late.growth(1, true), Growth::WhenFull);
        assert!(!Shortage::new(Wait::Forever, Waiting::Sleep).is_waited_for_awake(0));
    }
}
