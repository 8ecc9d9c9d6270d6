//! [`Rules`]: the limits and keys of a broker.

use std::time::Duration;

/// Limits and keys of a broker. The daemon's configuration fills it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Largest message, in bytes.
    pub message_max_bytes: u32,
    /// How many messages one sender may have unacknowledged.
    pub window_messages: u32,
    /// How many bytes one sender may have unacknowledged.
    pub window_bytes: u64,
    /// How many messages are held for a channel.
    pub capacity_messages: u64,
    /// How many bytes are held for a channel.
    pub capacity_bytes: u64,
    /// How many messages a receiver is sent ahead.
    pub push_ahead_messages: u64,
    /// How many bytes a receiver is sent ahead.
    pub push_ahead_bytes: u64,
    /// Connections of all users; the last of them are not for senders.
    pub connections_max: u32,
    /// Connections of one user with which a sender still comes in.
    pub user_connections_max: u32,
    /// Channels of one user.
    pub user_channels_max: u32,
    /// Bytes held for one user's channels, and of its senders that died before they had room.
    pub user_bytes_max: u64,
    /// Lanes of one user.
    pub user_lanes_max: u32,
    /// How long the rings of one user's lanes may be together, in bytes.
    pub user_lane_bytes_max: u64,
    /// How long a connection may stay without a hello, in milliseconds.
    pub hello_timeout_ms: u64,
    /// How long senders of an earlier daemon count as present, in milliseconds.
    pub resume_grace_ms: u64,
    /// How long after the daemon's start new receivers wait, because those that an earlier daemon had seated come
    /// first, in milliseconds; 0 where there was none.
    pub former_receivers_ms: u64,
    /// How many departed senders a channel remembers.
    pub departed_senders_max: usize,
    /// How long a departed sender is remembered, in milliseconds.
    pub departed_senders_ttl_ms: u64,
    /// What `CLOCK_MONOTONIC` said at the daemon's start, in nanoseconds.
    pub started_at_ns: u64,
    /// The wall clock less that, at the daemon's start, in nanoseconds.
    pub wall_clock_offset_ns: u64,
    /// How long nothing was sent in a lane that is taken back, in milliseconds.
    pub lane_idle_ms: u64,
    /// Users that may connect.
    pub allowed_uids: Vec<u32>,
    /// Key of the senders' tokens.
    pub token_key: [u8; 16],
    /// Seed of the senders' ids; differs at each start.
    pub seed: u64,
    /// Which `CLOCK_MONOTONIC` the daemon reads.
    pub clock: u64,
    /// The release that `about` tells.
    pub version: String,
    /// The process that `about` tells.
    pub pid: u32,
}

impl Default for Rules {
    fn default() -> Self {
        use bus_core::limits;
        Self {
            message_max_bytes: limits::MESSAGE_MAX_BYTES,
            window_messages: limits::WINDOW_MESSAGES,
            window_bytes: limits::WINDOW_BYTES,
            capacity_messages: limits::CAPACITY_MESSAGES,
            capacity_bytes: limits::CAPACITY_BYTES,
            push_ahead_messages: limits::PUSH_AHEAD_MESSAGES,
            push_ahead_bytes: limits::PUSH_AHEAD_BYTES,
            connections_max: u32::MAX,
            user_connections_max: 4_096,
            user_channels_max: 4_096,
            user_bytes_max: 1024 * 1024 * 1024,
            user_lanes_max: 256,
            user_lane_bytes_max: 16 * 1024 * 1024 * 1024,
            hello_timeout_ms: limits::HELLO_TIMEOUT_MS,
            resume_grace_ms: limits::RESUME_GRACE_MS,
            former_receivers_ms: 0,
            departed_senders_max: limits::DEPARTED_SENDERS_MAX,
            departed_senders_ttl_ms: limits::DEPARTED_SENDERS_TTL_MS,
            started_at_ns: 0,
            wall_clock_offset_ns: 0,
            lane_idle_ms: limits::LANE_IDLE_MS,
            allowed_uids: Vec::new(),
            token_key: [0; 16],
            seed: 0,
            clock: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 0,
        }
    }
}

impl Rules {
    /// A time since the daemon's start as `CLOCK_MONOTONIC` tells it, in nanoseconds.
    pub(super) fn nanoseconds(&self, since_start: Duration) -> u64 {
        self.started_at_ns.saturating_add(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }
}
