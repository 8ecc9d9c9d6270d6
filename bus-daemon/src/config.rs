//! [`Config`]: everything that can be set about a daemon, in one list.
//!
//! Called by `busd` with a file ([`Config::load`]) and by an app that embeds the daemon with a
//! literal. Both go through [`Config::check`], so that a daemon never starts with a figure that it
//! could not keep. `file` finds the line and key of what is wrong, `units` reads sizes and
//! durations, `links` the gateways, `check` holds the limits. `kept` writes gateways into the file, and `edit` knows
//! where.

mod check;
mod edit;
mod file;
mod kept;
mod links;
mod units;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bus_core::limits;
use bus_core::{Address, AddressError, ChannelName, ChannelOptions, LinkSpec};
use serde::Deserialize;

pub use check::InvalidConfig;
pub use file::ConfigError;
pub(crate) use kept::{KeepError, KeptLinks};
pub use units::{UnitError, parse_duration};

/// The settings of a daemon. The keys of the file are the names of the fields, except that a
/// duration carries its unit in the value: `hello_timeout = "5s"` sets `hello_timeout_ms`.
///
/// ```
/// use bus_daemon::Config;
///
/// let config = Config { window_messages: 1_000, ..Config::default() };
/// config.check()?;
/// # Ok::<(), bus_daemon::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the bus is served; `None` is [`Address::of_user`].
    #[serde(deserialize_with = "units::address")]
    pub socket: Option<Address>,
    /// Permission bits of the socket: `0600`, or `0660` and `0666` to let others in whom
    /// `allowed_uids` names.
    #[serde(deserialize_with = "units::mode")]
    pub socket_mode: u32,
    /// The group of the socket, by id; the file takes a name too. `None` leaves the daemon's own.
    #[serde(deserialize_with = "units::group")]
    pub socket_group: Option<u32>,
    /// Users who may connect beside the daemon's own.
    #[serde(deserialize_with = "units::uids")]
    pub allowed_uids: Vec<u32>,

    /// Largest message (payload and headers together), in bytes.
    #[serde(deserialize_with = "units::message_bytes")]
    pub message_max_bytes: u32,
    /// How many messages one sender may have unacknowledged.
    #[serde(deserialize_with = "units::count_u32")]
    pub window_messages: u32,
    /// How many bytes one sender may have unacknowledged.
    #[serde(deserialize_with = "units::bytes")]
    pub window_bytes: u64,
    /// How many messages the daemon holds for one channel.
    #[serde(deserialize_with = "units::count_u64")]
    pub capacity_messages: u64,
    /// How many bytes the daemon holds for one channel.
    #[serde(deserialize_with = "units::bytes")]
    pub capacity_bytes: u64,
    /// How many messages are sent ahead to a receiver.
    #[serde(deserialize_with = "units::count_u64")]
    pub push_ahead_messages: u64,
    /// How many bytes are sent ahead to a receiver.
    #[serde(deserialize_with = "units::bytes")]
    pub push_ahead_bytes: u64,

    /// How many connections the daemon keeps, of all users. Beyond it, accepting waits.
    #[serde(deserialize_with = "units::count_u32")]
    pub connections_max: u32,
    /// How many gateways there are at once.
    #[serde(deserialize_with = "units::count_u32")]
    pub links_max: u32,
    /// What one user may take of the daemon.
    pub per_user: PerUser,

    /// How long a new connection may stay silent, in milliseconds.
    #[serde(rename = "hello_timeout", deserialize_with = "units::milliseconds")]
    pub hello_timeout_ms: u64,
    /// How long the ends of a former daemon count as present, in milliseconds.
    #[serde(rename = "resume_grace", deserialize_with = "units::milliseconds")]
    pub resume_grace_ms: u64,
    /// How long nothing was sent in a lane that is taken back, in milliseconds: its sender goes on by the stream
    /// until it is busy again. A sender that has asked for its lane keeps it.
    #[serde(rename = "lane_idle", deserialize_with = "units::milliseconds")]
    pub lane_idle_ms: u64,
    /// How many departed senders a channel remembers.
    #[serde(deserialize_with = "units::count_usize")]
    pub departed_senders_max: usize,
    /// How long a departed sender is remembered, in milliseconds.
    #[serde(rename = "departed_senders_ttl", deserialize_with = "units::milliseconds")]
    pub departed_senders_ttl_ms: u64,
    /// After how long without a peer and without a message the daemon ends, in milliseconds;
    /// `None` is never.
    #[serde(rename = "idle_exit", deserialize_with = "units::optional_milliseconds")]
    pub idle_exit_ms: Option<u64>,
    /// How long receivers may drain when the daemon is told to end, in milliseconds.
    #[serde(rename = "drain_timeout", deserialize_with = "units::milliseconds")]
    pub drain_timeout_ms: u64,
    /// How long the event loop looks for more after traffic before it sleeps, in microseconds; 0
    /// sleeps at once.
    #[serde(rename = "poll", deserialize_with = "units::microseconds")]
    pub poll_us: u64,

    /// Channels that exist from the start.
    #[serde(deserialize_with = "units::channels")]
    pub channels: BTreeMap<ChannelName, ChannelOptions>,
    /// Gateways that are made at the start: `[[link]]` in the file.
    #[serde(rename = "link", deserialize_with = "links::links")]
    pub links: Vec<LinkSpec>,
    /// The file that this was read from, in which `bus link --keep` writes gateways; `None` refuses that.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// What one user, over all of its connections, may take of the daemon.
///
/// ```
/// use bus_daemon::{Config, PerUser};
///
/// let per_user = PerUser { connections_max: 100, ..PerUser::default() };
/// Config { per_user, ..Config::default() }.check()?;
/// # Ok::<(), bus_daemon::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerUser {
    /// How many connections.
    #[serde(deserialize_with = "units::count_u32")]
    pub connections_max: u32,
    /// How many channels that its ends made.
    #[serde(deserialize_with = "units::count_u32")]
    pub channels_max: u32,
    /// How many bytes of messages that its senders left with the daemon. Each message counts 128 bytes
    /// besides its own.
    #[serde(deserialize_with = "units::bytes")]
    pub queued_bytes_max: u64,
    /// How many lanes that its senders have. All others stay on the stream.
    #[serde(deserialize_with = "units::count_u32")]
    pub lanes_max: u32,
    /// How many bytes of memory its lanes may grow to together. Each counts as long as its ring can become, 64 MiB or
    /// twice the largest message, and takes that only when its receiver does not keep up.
    #[serde(deserialize_with = "units::bytes")]
    pub lane_bytes_max: u64,
}

impl Default for PerUser {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            channels_max: 4_096,
            queued_bytes_max: 1024 * 1024 * 1024,
            // Four receivers with all lanes that one reads; each is a few descriptors of the daemon.
            lanes_max: 256,
            // As many rings of the usual length.
            lane_bytes_max: 16 * 1024 * 1024 * 1024,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: None,
            socket_mode: 0o600,
            socket_group: None,
            allowed_uids: Vec::new(),
            message_max_bytes: limits::MESSAGE_MAX_BYTES,
            window_messages: limits::WINDOW_MESSAGES,
            window_bytes: limits::WINDOW_BYTES,
            capacity_messages: limits::CAPACITY_MESSAGES,
            capacity_bytes: limits::CAPACITY_BYTES,
            push_ahead_messages: limits::PUSH_AHEAD_MESSAGES,
            push_ahead_bytes: limits::PUSH_AHEAD_BYTES,
            connections_max: CONNECTIONS_MAX,
            links_max: limits::LINKS_MAX,
            per_user: PerUser::default(),
            hello_timeout_ms: limits::HELLO_TIMEOUT_MS,
            resume_grace_ms: limits::RESUME_GRACE_MS,
            lane_idle_ms: limits::LANE_IDLE_MS,
            departed_senders_max: limits::DEPARTED_SENDERS_MAX,
            departed_senders_ttl_ms: limits::DEPARTED_SENDERS_TTL_MS,
            idle_exit_ms: None,
            drain_timeout_ms: DRAIN_TIMEOUT_MS,
            poll_us: default_poll_us(),
            channels: BTreeMap::new(),
            links: Vec::new(),
            file: None,
        }
    }
}

impl Config {
    /// Where this daemon serves.
    ///
    /// ```
    /// use bus_daemon::Config;
    ///
    /// let config = Config { socket: Some(bus_core::Address::new("/run/bus/bus.sock")?), ..Config::default() };
    /// assert_eq!(config.address()?.to_string(), "/run/bus/bus.sock");
    /// # Ok::<(), bus_core::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// [`AddressError`] when no socket is set and none can be derived from the environment.
    pub fn address(&self) -> Result<Address, AddressError> {
        self.socket.clone().map_or_else(Address::of_user, Ok)
    }
}

/// Four users at their limit.
const CONNECTIONS_MAX: u32 = 16_384;

const DRAIN_TIMEOUT_MS: u64 = 5_000;

/// About two wake-ups of a sleeping core: a peer that answers at once is met awake.
const POLL_US: u64 = 50;

/// On a single core the peer could not run while the daemon looks for its answer.
fn default_poll_us() -> u64 {
    let alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    if alone { 0 } else { POLL_US }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_own_limits() {
        Config::default().check().unwrap();
    }
}
