//! [`Patience`]: when a receiver that keeps up with its senders lets them get ahead before it looks again.
//!
//! Each look takes the line with its index away from a sender, and a receiver right behind it the very line that it writes:
//! two processors that do not share a cache then spend their time fetching lines from each other. The ring alone made 3.6
//! million messages a second at such moments, and 12.7 with a reader that looked every two microseconds (Zen 4, 64 bytes; the
//! rows "ring 64 B" and "patient" of `--bench lane`). So where looks find a few messages each, it waits a moment
//! before the next one, and goes on doing that for as long as several have come meanwhile. In a flow that comes one by one,
//! or there and back, it does not: one round in a thousand then is a microsecond late. Nor where there are as many senders
//! as processors: one of them may wait for this very processor.

use std::sync::OnceLock;
use std::thread::available_parallelism;

use crate::lane::stamp::now_ns;

/// What the rounds have brought, and what waiting did.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Messages handed out before the present round.
    handed_out: u64,
    /// It waited before the looks of the present round.
    waited: bool,
    /// So many rounds that bring a few are to pass before it waits again.
    rest: u32,
    /// So many passed the last time.
    rested: u32,
}

/// How long the senders get ahead, in nanoseconds: some 15 messages of 64 bytes.
const AHEAD_NS: u64 = 1_000;

/// A wait after which so many messages are there has paid: without it a round brings one or two.
const PAYS_MESSAGES: u64 = 4;

/// Where so many come, senders are ahead enough.
const ENOUGH_MESSAGES: u64 = 64;

/// How many rounds it looks at once after a wait that did not pay: twice as many each time.
const RESTS: std::ops::RangeInclusive<u32> = 16..=1024;

impl Patience {
    /// Before the looks of a round at the lanes of so many senders: lets them get ahead, if that pays. `handed_out` counts
    /// all messages.
    #[inline]
    pub(super) fn before_looks(&mut self, senders: usize, handed_out: u64) {
        let brought = handed_out.saturating_sub(self.handed_out);
        self.handed_out = handed_out;
        if senders < processors() && self.waits(brought) {
            let until_ns = now_ns() + AHEAD_NS;
            while now_ns() < until_ns {
                std::hint::spin_loop();
            }
        }
    }

    /// Whether to wait, after a round that has brought so many messages.
    #[inline]
    fn waits(&mut self, brought: u64) -> bool {
        let waited = std::mem::take(&mut self.waited);
        match brought {
            _ if waited && brought < PAYS_MESSAGES => {
                self.rested = (self.rested * 2).clamp(*RESTS.start(), *RESTS.end());
                self.rest = self.rested;
            }
            // Nothing is known by that: it waits in other ways, and for longer.
            0 => {}
            1..ENOUGH_MESSAGES if waited => (self.waited, self.rested) = (true, 0),
            1..PAYS_MESSAGES if self.rest == 0 => self.waited = true,
            1..PAYS_MESSAGES => self.rest -= 1,
            _ => {}
        }
        self.waited
    }
}

/// How many the first thread of this process may run on that receives.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it waits in so many rounds that bring `brought` each, and `waited` after a wait.
    fn waits_in(patience: &mut Patience, rounds: u32, brought: u64, after_a_wait: u64) -> u32 {
        let mut waits = 0;
        let mut waited = false;
        for _ in 0..rounds {
            waited = patience.waits(if waited { after_a_wait } else { brought });
            waits += u32::from(waited);
        }
        waits
    }

    #[test]
    fn a_flow_right_behind_which_it_runs_is_let_ahead() {
        assert!(waits_in(&mut Patience::default(), 1000, 1, 15) >= 999);
        assert!(waits_in(&mut Patience::default(), 1000, 3, 63) >= 999);
    }

    #[test]
    fn messages_that_come_one_by_one_are_not_waited_for() {
        let mut patience = Patience::default();
        waits_in(&mut patience, 10_000, 1, 1);
        assert!(waits_in(&mut patience, 100_000, 1, 1) <= 100_000 / 1000);
        assert!(waits_in(&mut patience, 100_000, 3, 3) <= 100_000 / 1000);
    }

    #[test]
    fn a_flow_is_found_again_after_messages_that_came_one_by_one() {
        let mut patience = Patience::default();
        waits_in(&mut patience, 10_000, 1, 1);
        assert!(waits_in(&mut patience, 3000, 1, 15) >= 1900);
        // And not given up for a pause in it.
        assert!(patience.waits(15) && !patience.waits(0) && !patience.waits(0));
        assert!(waits_in(&mut patience, 100, 1, 15) >= 80);
    }

    #[test]
    fn where_much_comes_and_where_nothing_does_it_does_not_wait() {
        assert_eq!(waits_in(&mut Patience::default(), 1000, 100, 100), 0);
        assert_eq!(waits_in(&mut Patience::default(), 1000, 0, 0), 0);
        // Those that are behind once are left alone from then on.
        let mut patience = Patience::default();
        assert!(patience.waits(1) && !patience.waits(64) && !patience.waits(64));
    }
}
