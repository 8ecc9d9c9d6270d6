//! Messages that are fed: on the stream they are buffered and written together, in a lane written one behind the other
//! and shown together.

use std::time::{Duration, Instant};

use super::mapped::SenderLane;
use super::{Encoded, LOOK_INTERVAL_NS, Link, PushError, Seen, State, StreamSender, Until, Wait, Written};
use crate::codec::Codec;
use crate::lane::ring::Growth;
use crate::lane::stamp::now_ns;
use crate::limits::FEED_BUFFER_BYTES;
use crate::stream::session::wall_clock_ns;

impl StreamSender {
    /// Buffers messages one after the other, and writes them when the buffer is full. `Err` says how many
    /// were taken before the one that was not.
    pub(crate) fn feed_all<'p>(
        &self,
        codec: Codec,
        header_block: &[u8],
        payloads: impl Iterator<Item = &'p [u8]>,
        until: Until,
    ) -> Result<(), (u64, PushError)> {
        let mut fed = 0;
        let mut payloads = payloads.fuse();
        let mut batch = Vec::with_capacity(FEED_MESSAGES_AT_ONCE);
        loop {
            // Its user's code, which may use this very sender: it runs before anything is locked.
            batch.clear();
            batch.extend(payloads.by_ref().take(FEED_MESSAGES_AT_ONCE));
            if batch.is_empty() {
                return Ok(());
            }
            let mut rest = &batch[..];
            while let Some((first, others)) = rest.split_first() {
                let message = Encoded { codec, header_block, payload: first };
                self.feed_one(&message, until).map_err(|error| (fed, error))?;
                let together = match self.has_lane() {
                    true => self.feed_lane(codec, header_block, others),
                    false => self.feed_together(codec, header_block, others),
                };
                rest = &others[together..];
                fed += 1 + together as u64;
            }
        }
    }

    fn feed_one(&self, message: &Encoded<'_>, until: Until) -> Result<(), PushError> {
        loop {
            // A lane goes on without a daemon: whether there is one is looked at when the receiver makes no room.
            let wait = match until == Until::BufferedWhileUp && self.has_lane() {
                true => Wait::Until(Instant::now() + LANE_ROOM_PATIENCE),
                false => Wait::Forever,
            };
            match self.push(message, wait, until) {
                Ok(_) => return Ok(()),
                Err(PushError::Timeout) if !matches!(self.state.lock().link, Link::Away) => {}
                Err(PushError::Timeout) => return Err(PushError::Away),
                Err(error) => return Err(error),
            }
        }
    }

    /// Buffers messages as long as there is nothing to decide. Returns how many.
    fn feed_together(&self, codec: Codec, header_block: &[u8], payloads: &[&[u8]]) -> usize {
        let mut state = self.state.lock();
        let sent_at_ns = wall_clock_ns();
        for (fed, payload) in payloads.iter().enumerate() {
            if !self.may_feed(&state, (header_block.len() + payload.len()) as u64) {
                return fed;
            }
            state.sending.push(&Encoded { codec, header_block, payload }, sent_at_ns, false);
        }
        payloads.len()
    }

    /// Whether a message may go into the buffer as it is.
    fn may_feed(&self, state: &State, bytes: u64) -> bool {
        let rules = state.sending.rules();
        let on_stream = state.lane.is_none() && !state.mapped.as_ref().is_some_and(SenderLane::is_kept);
        let is_free = matches!(state.link, Link::Up(_)) && !state.writing && !state.sending.wants_room() && on_stream;
        is_free
            && !rules.exact
            && !self.options.require_receiver
            && bytes <= u64::from(rules.message_max_bytes)
            && state.sending.unwritten() + (bytes as usize) < FEED_BUFFER_BYTES
            && state.sending.has_room(bytes)
    }

    /// Writes messages to the lane as long as there is nothing to decide, and shows them together. They have one time
    /// of sending. Returns how many.
    pub(super) fn feed_lane(&self, codec: Codec, header_block: &[u8], payloads: &[&[u8]]) -> usize {
        let mut state = self.state.lock();
        let limit = state.sending.rules().message_max_bytes as usize;
        let settled = state.sending.unacknowledged() == 0 && !self.options.require_receiver;
        let is_open = !matches!(state.link, Link::Closed);
        let Some(lane) = state.lane.as_mut().filter(|lane| settled && is_open && lane.ringer.is_some()) else {
            return 0;
        };
        let stamp_ns = now_ns();
        if stamp_ns.abs_diff(lane.looked_at_ns) >= LOOK_INTERVAL_NS {
            return 0;
        }
        // What was left by a call that found no room does not go for these.
        lane.writer.set_growth(Growth::Withheld);
        let (mut fed, mut bytes) = (0, 0);
        for payload in payloads {
            let message = Encoded { codec, header_block, payload };
            if header_block.len() + payload.len() > limit || lane.put(&message, stamp_ns).is_err() {
                break;
            }
            (fed, bytes) = (fed + 1, bytes + payload.len());
            if bytes >= SHOWN_BYTES {
                bytes = 0;
                lane.show();
            }
        }
        lane.show();
        fed
    }

    /// Writes what is buffered, without waiting for anything.
    pub(crate) fn write_buffered(&self) {
        self.write(&mut self.state.lock());
    }

    /// Writes what is buffered, and waits until the daemon's socket has all of it, or the channel is closed; until
    /// `deadline` at most.
    pub(crate) fn see_buffered_written(&self, deadline: Instant) -> Seen {
        let mut state = self.state.lock();
        loop {
            // What goes into a lane is there at once, whether or not there is a daemon.
            let seen = match self.write(&mut state) {
                _ if state.lane.is_some() || matches!(state.link, Link::Closed) => return Seen::Written,
                Written::All => return Seen::Written,
                Written::SocketFull => Seen::Unread,
                Written::NoLink => Seen::Away,
            };
            if Instant::now() >= deadline {
                return seen;
            }
            state = self.wait_for_news(state, Some(deadline));
        }
    }
}

/// How many messages are buffered at once at most, under one lock and with one time of sending: some ten
/// microseconds' work.
const FEED_MESSAGES_AT_ONCE: usize = 128;

/// How long a message waits for room in a lane before it is looked whether there is a daemon at all.
const LANE_ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// How much is written before it is shown, in bytes: a receiver that waits for more than that loses time.
const SHOWN_BYTES: usize = 16 * 1024;
