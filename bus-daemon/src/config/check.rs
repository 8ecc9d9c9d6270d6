//! The limits of every setting. [`Config::check`] is the one place that refuses a figure, whether it
//! came from a file, a flag or an app.

use std::fmt;

use bus_core::ChannelOptions;

use super::Config;

impl Config {
    /// Looks at every figure.
    ///
    /// ```
    /// use bus_daemon::Config;
    ///
    /// let error = Config { window_messages: 0, ..Config::default() }.check().unwrap_err();
    /// assert_eq!(error.to_string(), "window_messages is 0 messages: give 1 to 4294967295");
    /// ```
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first key that is out of its limits, the figure, the limits and
    /// the remedy.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let limits = [
            ("message_max_bytes", u64::from(self.message_max_bytes), 1, MESSAGE_LIMIT_BYTES, "bytes"),
            ("window_messages", self.window_messages.into(), 1, u32::MAX.into(), "messages"),
            ("window_bytes", self.window_bytes, 1, BYTES_LIMIT, "bytes"),
            ("capacity_messages", self.capacity_messages, 1, u32::MAX.into(), "messages"),
            ("capacity_bytes", self.capacity_bytes, 1, BYTES_LIMIT, "bytes"),
            ("push_ahead_messages", self.push_ahead_messages, 1, u32::MAX.into(), "messages"),
            ("push_ahead_bytes", self.push_ahead_bytes, 1, BYTES_LIMIT, "bytes"),
            ("connections_max", self.connections_max.into(), 1, CONNECTIONS_LIMIT, "connections"),
            ("links_max", self.links_max.into(), 0, LINKS_LIMIT, "gateways"),
            ("hello_timeout", self.hello_timeout_ms, 1, HOUR_MS, "ms"),
            ("resume_grace", self.resume_grace_ms, 0, HOUR_MS, "ms"),
            ("lane_idle", self.lane_idle_ms, 1, 24 * HOUR_MS, "ms"),
            ("departed_senders_max", self.departed_senders_max as u64, 0, SENDERS_LIMIT, "senders"),
            ("departed_senders_ttl", self.departed_senders_ttl_ms, 0, 24 * HOUR_MS, "ms"),
            ("idle_exit", self.idle_exit_ms.unwrap_or(1), 1, 365 * 24 * HOUR_MS, "ms"),
            ("drain_timeout", self.drain_timeout_ms, 0, HOUR_MS, "ms"),
            ("poll", self.poll_us, 0, POLL_LIMIT_US, "us"),
        ];
        let per_user = [
            ("connections_max", u64::from(self.per_user.connections_max), 1, CONNECTIONS_LIMIT, "connections"),
            ("channels_max", self.per_user.channels_max.into(), 1, CHANNELS_LIMIT, "channels"),
            ("queued_bytes_max", self.per_user.queued_bytes_max, 1, BYTES_LIMIT, "bytes"),
            ("lanes_max", self.per_user.lanes_max.into(), 0, LANES_LIMIT, "lanes"),
            ("lane_bytes_max", self.per_user.lane_bytes_max, 0, BYTES_LIMIT, "bytes"),
        ];
        for (key, figure, min, max, unit) in limits {
            within(|| Key::of([key]), figure, min, max, unit)?;
        }
        for (key, figure, min, max, unit) in per_user {
            within(|| Key::of(["per_user", key]), figure, min, max, unit)?;
        }
        for (name, options) in &self.channels {
            self.check_channel(name.as_str(), options)?;
        }
        self.check_access()
    }

    fn check_channel(&self, name: &str, options: &ChannelOptions) -> Result<(), InvalidConfig> {
        let message_max_bytes = options.message_max_bytes.map(u64::from);
        let limits = [
            ("capacity", options.capacity, u32::MAX.into(), "messages"),
            ("capacity_bytes", options.capacity_bytes, BYTES_LIMIT, "bytes"),
            ("window", options.window.map(u64::from), u32::MAX.into(), "messages"),
            ("message_max_bytes", message_max_bytes, MESSAGE_LIMIT_BYTES, "bytes"),
        ];
        for (key, figure, max, unit) in limits {
            if let Some(figure) = figure {
                within(|| Key::of(["channels", name, key]), figure, 1, max, unit)?;
            }
        }
        match options.message_max_bytes {
            Some(bytes) if bytes > self.message_max_bytes => Err(InvalidConfig::OverDaemon {
                key: Key::of(["channels", name, "message_max_bytes"]),
                bytes,
                limit: self.message_max_bytes,
            }),
            _ => Ok(()),
        }
    }

    fn check_access(&self) -> Result<(), InvalidConfig> {
        if self.allowed_uids.contains(&OVERFLOW_UID) {
            return Err(InvalidConfig::OverflowUid);
        }
        match (self.socket_mode, self.socket_group) {
            (0o600, None) | (0o660 | 0o666, _) => Ok(()),
            (0o600, Some(gid)) => Err(InvalidConfig::GroupWithoutMode { gid }),
            (mode, _) => Err(InvalidConfig::SocketMode { mode }),
        }
    }
}

fn within(key: impl Fn() -> Key, figure: u64, min: u64, max: u64, unit: &'static str) -> Result<(), InvalidConfig> {
    if (min..=max).contains(&figure) {
        return Ok(());
    }
    Err(InvalidConfig::OutOfRange { key: key(), figure, min, max, unit })
}

/// The way to a setting from the top of the file: `channels.jobs.capacity`.
///
/// ```
/// use bus_daemon::{Config, InvalidConfig};
///
/// let error = Config { poll_us: 20_000, ..Config::default() }.check();
/// let Err(InvalidConfig::OutOfRange { key, .. }) = error else { panic!("{error:?}") };
/// assert_eq!(key.to_string(), "poll");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<String>);

impl Key {
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        Self(parts.into_iter().map(str::to_owned).collect())
    }

    pub(super) fn parts(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            let bare = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            if bare { write!(f, "{dot}{part}")? } else { write!(f, "{dot}{part:?}")? }
        }
        Ok(())
    }
}

/// A setting with which no daemon starts.
///
/// ```
/// use bus_daemon::Config;
///
/// let error = Config { poll_us: 20_000, ..Config::default() }.check().unwrap_err();
/// assert_eq!(error.to_string(), "poll is 20000 us: give 0 to 10000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// A figure outside its limits.
    #[error("{key} is {figure} {unit}: give {min} to {max}")]
    OutOfRange {
        /// Which setting.
        key: Key,
        /// What it was set to.
        figure: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// A channel that takes larger messages than the daemon reads.
    #[error("{key} is {bytes} bytes, over the daemon's message_max_bytes of {limit}: raise that, or lower this")]
    OverDaemon {
        /// Which setting.
        key: Key,
        /// What it was set to.
        bytes: u32,
        /// The daemon's own limit.
        limit: u32,
    },
    /// Permission bits that make no sense for a socket.
    #[error("socket_mode is {mode:04o}: give 0600 (own user), 0660 (a group) or 0666 (whom allowed_uids names)")]
    SocketMode {
        /// What was given.
        mode: u32,
    },
    /// A group that the mode keeps out.
    #[error("socket_group is {gid}, and socket_mode 0600 keeps every group out: set socket_mode = \"0660\"")]
    GroupWithoutMode {
        /// The group's id.
        gid: u32,
    },
    /// The uid that stands for every user without one here.
    #[error("allowed_uids has {OVERFLOW_UID}, as which every unmapped user appears: list real users")]
    OverflowUid,
}

impl InvalidConfig {
    /// The setting that is to blame.
    pub(super) fn key(&self) -> Key {
        match self {
            Self::OutOfRange { key, .. } | Self::OverDaemon { key, .. } => key.clone(),
            Self::SocketMode { .. } => Key::of(["socket_mode"]),
            Self::GroupWithoutMode { .. } => Key::of(["socket_group"]),
            Self::OverflowUid => Key::of(["allowed_uids"]),
        }
    }
}

/// Largest message that can be configured, in bytes.
pub(super) const MESSAGE_LIMIT_BYTES: u64 = bus_core::limits::MESSAGE_MAX_BYTES_MAX as u64;

/// Largest byte limit, 1 TiB: beyond any machine's memory, so a slip of the unit.
const BYTES_LIMIT: u64 = 1 << 40;

/// The kernel's own bound on descriptors of one process (`fs.nr_open`).
const CONNECTIONS_LIMIT: u64 = 1 << 20;

/// Each is a thread or three.
const LINKS_LIMIT: u64 = 4_096;

/// Each is up to three descriptors of the daemon.
const LANES_LIMIT: u64 = 1 << 16;

const CHANNELS_LIMIT: u64 = 1 << 20;

/// Per channel; each costs the daemon about 100 bytes.
const SENDERS_LIMIT: u64 = 1_000_000;

const HOUR_MS: u64 = 3_600_000;

/// Longer than this the loop would burn a core to save one wake-up.
const POLL_LIMIT_US: u64 = 10_000;

/// `/proc/sys/kernel/overflowuid`, unless an administrator changed it.
const OVERFLOW_UID: u32 = 65_534;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_quoted_where_the_file_would_quote_it() {
        assert_eq!(Key::of(["channels", "orders.eu", "capacity"]).to_string(), "channels.\"orders.eu\".capacity");
        assert_eq!(Key::of(["per_user", "channels_max"]).to_string(), "per_user.channels_max");
    }
}
