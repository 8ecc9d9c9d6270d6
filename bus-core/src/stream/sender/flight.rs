//! [`Flight`]: how much of long messages is on its way at once.
//!
//! By the stream a message is copied five times on its way to its receiver, and what of that lies in a cache goes through
//! several times as fast. The window is there for what no receiver has come to yet; where one works, no more is on its way
//! than keeps both ends busy.

use std::time::{Duration, Instant};

use super::room::Entering;
use super::{Link, State, StreamSender, Wait};
use crate::channel::WhenFull;
use crate::lane::biased::BiasedGuard;
use crate::limits::TOLD_BYTES;

/// From which length on a message is long, in bytes: what is waited for costs less than it is copied in.
const LONG_BYTES: u64 = 64 * 1024;

/// How much of those is on its way that are longer than [`MANY_BYTES`], where a receiver works, in bytes; one message at
/// least. With all of the window 1.9 GiB/s
/// of 1 MiB came through, and with this 2.6 (Zen 3, two processors).
const FLIGHT_BYTES: u64 = 1024 * 1024;

/// Up to which length a message is one of many that are on their way together, in bytes.
const MANY_BYTES: u64 = 128 * 1024;

/// How much of those is on its way, in bytes. With half of it 64 KiB came through at 2.5 to 3.4 GiB/s, with this at 3.4
/// to 3.6, and of 1 MiB less (Zen 4, two processors).
const FLIGHT_OF_MANY_BYTES: u64 = 2 * FLIGHT_BYTES;

/// How long is waited for a receiver that acknowledges nothing: several times what one that works takes for so much.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a sender remembers of it.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// How far was acknowledged when a receiver was waited for in vain: it is waited for again once that is more.
    in_vain_at: Option<u64>,
}

impl StreamSender {
    /// Lets the receiver make up with what is on its way, if it does so soon.
    pub(super) fn keep_flight_short<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        entering: Entering,
    ) -> BiasedGuard<'a, State> {
        // A call with a deadline has better use for its time.
        if entering.bytes < LONG_BYTES || entering.wait != Wait::Forever {
            return state;
        }
        let mut until = None;
        while state.has_long_flight(entering.bytes) {
            let now = Instant::now();
            let patience = *until.get_or_insert(now + PATIENCE);
            if now >= patience {
                state.flight.in_vain_at = Some(state.sending.settled().acked);
                break;
            }
            // What is only buffered can never be acknowledged.
            self.write(&mut state);
            state = self.wait_for_news(state, Some(patience));
        }
        state
    }
}

impl State {
    /// Whether a message is to wait for what is on its way.
    fn has_long_flight(&self, bytes: u64) -> bool {
        let rules = self.sending.rules();
        let in_flight = self.sending.unacknowledged_bytes();
        // Of less than that may be acknowledged all, and nobody has told.
        let most = if bytes <= MANY_BYTES { FLIGHT_OF_MANY_BYTES } else { FLIGHT_BYTES };
        let is_long = in_flight >= TOLD_BYTES && in_flight + bytes > most;
        // Where room is asked for, or made by dropping, the daemon has its own say.
        let may_wait = rules.when_full == WhenFull::Block && !rules.exact;
        let is_up = matches!(self.link, Link::Up(_)) && self.lane.is_none();
        is_long && may_wait && is_up && self.flight.in_vain_at != Some(self.sending.settled().acked)
    }
}
