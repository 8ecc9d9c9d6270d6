//! How much passes through a channel: read where it is counted anyway, once in a while, so that it costs a message
//! nothing; in lanes too, of which the daemon sees nothing else. Nobody wakes up for it.

use std::collections::VecDeque;

use bus_core::Rates;

use super::Broker;
use super::channel::ChannelId;

/// What has passed since the channel began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) messages_in: u64,
    pub(super) bytes_in: u64,
    pub(super) messages_out: u64,
    pub(super) bytes_out: u64,
}

/// Looks at what has passed when somebody is awake anyway, and remembers the last looks.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    /// When, in milliseconds, and how much had passed then; oldest first, [`LOOK_MS`] between them.
    looks: VecDeque<(u64, Passed)>,
    /// The last of all looks.
    latest: Option<(u64, Passed)>,
}

/// How far apart are the looks that are remembered, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// How long ago a look may be from which is counted, in milliseconds: what moved before is no rate of now.
const WINDOW_MS: u64 = 5_000;

/// How long a time has to be to say something of a second, in milliseconds.
const LEAST_MS: u64 = 100;

impl RateMeter {
    pub(super) fn look(&mut self, now_ms: u64, passed: Passed) {
        self.latest = Some((now_ms, passed));
        if self.looks.back().is_some_and(|(at_ms, _)| now_ms < at_ms + LOOK_MS) {
            return;
        }
        self.looks.push_back((now_ms, passed));
        while self.looks.front().is_some_and(|(at_ms, _)| at_ms + WINDOW_MS + LOOK_MS < now_ms) {
            self.looks.pop_front();
        }
    }

    /// What passes in a second; `None` when nobody has looked for so long that it is not known.
    pub(super) fn rates(&self, now_ms: u64, passed: Passed) -> Option<Rates> {
        let is_of_use = |at_ms: u64| at_ms + LEAST_MS <= now_ms;
        let in_window = self.looks.iter().find(|(at_ms, _)| at_ms + WINDOW_MS >= now_ms && is_of_use(*at_ms));
        // A little older, or of a time since which nothing has moved.
        let older = |(at_ms, then): &(u64, Passed)| *then == passed || at_ms + 2 * WINDOW_MS >= now_ms;
        let others = || self.latest.iter().chain(self.looks.back()).find(|look| older(look) && is_of_use(look.0));
        let (at_ms, then) = in_window.or_else(others).copied()?;
        // What is gone with a lane may be a little less than what was in it.
        let since = |now: u64, before: u64| now.saturating_sub(before);
        Some(Rates::of(
            (since(passed.messages_in, then.messages_in), since(passed.bytes_in, then.bytes_in)),
            (since(passed.messages_out, then.messages_out), since(passed.bytes_out, then.bytes_out)),
            now_ms - at_ms,
        ))
    }
}

impl Broker {
    /// Looks at what has passed through a channel.
    pub(super) fn look_at_rate(&mut self, channel_id: ChannelId) {
        let (now_ms, passed) = (self.now_ms, self.passed(channel_id));
        self.channel_mut(channel_id).rates.look(now_ms, passed);
    }

    /// What passes through a channel in a second.
    pub(super) fn rates(&self, channel_id: ChannelId) -> Option<Rates> {
        self.channel(channel_id).rates.rates(self.now_ms, self.passed(channel_id))
    }

    fn passed(&self, channel_id: ChannelId) -> Passed {
        let channel = self.channel(channel_id);
        let ledger = self.ledger(channel_id);
        let bytes_in = channel.log.appended_bytes() + channel.former_lane_bytes + self.published_bytes(channel_id);
        Passed {
            messages_in: ledger.accepted,
            bytes_in,
            messages_out: ledger.accepted - ledger.queued - ledger.in_delivery,
            bytes_out: bytes_in - (channel.log.bytes() + self.bytes_in_lanes(channel_id)).min(bytes_in),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(messages: u64) -> Passed {
        Passed { messages_in: messages, bytes_in: 64 * messages, messages_out: messages / 2, bytes_out: 32 * messages }
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut meter = RateMeter::default();
        for second in 0..60 {
            meter.look(second * 1_000, passed(10 * second));
        }
        let before = 10 * 59;
        for second in 60..70 {
            meter.look(second * 1_000, passed(before + 5_000 * (second - 59)));
        }
        let rates = meter.rates(70_000, passed(before + 5_000 * 11)).unwrap();
        assert_eq!((rates.messages_in, rates.bytes_in, rates.over_ms), (5_000, 64 * 5_000, WINDOW_MS));
        assert_eq!((rates.messages_out, rates.bytes_out), (2_500, 32 * 5_000));
    }

    #[test]
    fn a_channel_at_rest_has_no_rate_of_long_ago_and_nobody_looks_for_that() {
        let mut meter = RateMeter::default();
        meter.look(1_000, passed(0));
        meter.look(1_005, passed(100));
        let rates = meter.rates(600_000, passed(100)).unwrap();
        assert_eq!((rates.messages_in, rates.messages_out), (0, 0));
        assert_eq!(meter.rates(600_000, passed(101)), None, "one in ten minutes, and nobody knows when");
    }

    #[test]
    fn two_looks_at_one_moment_are_one_and_no_rate() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.rates(1_000, passed(7)), None);
        meter.look(1_000, passed(7));
        meter.look(1_001, passed(900));
        assert_eq!(meter.rates(1_001, passed(900)), None, "of a millisecond nobody knows a second");
        assert_eq!(meter.rates(2_000, passed(1_007)).unwrap().messages_in, 1_000);
    }
}
