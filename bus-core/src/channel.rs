//! What can be said of a channel: its options, its peers and its ledger.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::name::ChannelName;

/// What happens to a message when the channel is full.
///
/// ```
/// assert_eq!("drop-oldest".parse(), Ok(bus_core::WhenFull::DropOldest));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The sender waits.
    #[default]
    Block,
    /// The send fails with `Full`.
    Reject,
    /// The oldest message that is not yet on its way to the receiver goes, and is counted.
    DropOldest,
    /// The new message goes, and is counted.
    DropNewest,
}

impl WhenFull {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Block, Self::Reject, Self::DropOldest, Self::DropNewest];

    /// The name in the shell: `block`, `reject`, `drop-oldest` or `drop-newest`.
    ///
    /// ```
    /// assert_eq!(bus_core::WhenFull::Block.name(), "block");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Reject => "reject",
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
        }
    }
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for WhenFull {
    type Err = UnknownWhenFull;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| UnknownWhenFull(name.to_owned()))
    }
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called {0:?}: choose block, reject, drop-oldest or drop-newest")]
pub struct UnknownWhenFull(String);

/// Options of a declared channel. What is `None` is the daemon's default.
///
/// A channel with a `capacity`, a `capacity_bytes` or a policy other than `block` is *exact*: the
/// daemon gives room for each message before it is sent.
///
/// ```
/// use bus_core::{ChannelOptions, WhenFull};
///
/// let options = ChannelOptions { capacity: Some(2), when_full: WhenFull::Block, ..Default::default() };
/// assert!(options.is_exact());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelOptions {
    /// How many messages the daemon holds.
    pub capacity: Option<u64>,
    /// How many bytes the daemon holds.
    pub capacity_bytes: Option<u64>,
    /// How many messages one sender may have unacknowledged.
    pub window: Option<u32>,
    /// Largest message, in bytes.
    pub message_max_bytes: Option<u32>,
    /// What happens when the channel is full.
    pub when_full: WhenFull,
}

impl ChannelOptions {
    /// Whether senders ask for room before each message.
    ///
    /// ```
    /// assert!(!bus_core::ChannelOptions::default().is_exact());
    /// ```
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.capacity.is_some() || self.capacity_bytes.is_some() || self.when_full != WhenFull::Block
    }
}

/// How many ends of each kind are at a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peers {
    /// Connected senders.
    pub senders: u32,
    /// Connected receivers, those in line included.
    pub receivers: u32,
}

impl Peers {
    /// So many of each.
    #[must_use]
    pub const fn new(senders: u32, receivers: u32) -> Self {
        Self { senders, receivers }
    }
}

/// The account of a channel. When nothing moves,
/// `accepted = acknowledged + queued + in_delivery + dropped + purged + expired + dead_lettered`.
///
/// ```
/// use bus_core::Ledger;
///
/// let ledger = Ledger { accepted: 3, acknowledged: 2, queued: 1, ..Default::default() };
/// assert!(ledger.balances());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Messages that the daemon took.
    pub accepted: u64,
    /// Messages that a receiver acknowledged.
    pub acknowledged: u64,
    /// Messages that wait for a receiver to claim them.
    pub queued: u64,
    /// Messages that a receiver has claimed and not acknowledged.
    pub in_delivery: u64,
    /// Messages dropped by policy.
    pub dropped: u64,
    /// Messages removed by purge, skip or delete.
    pub purged: u64,
    /// Messages that outlived their time.
    pub expired: u64,
    /// Messages moved to a dead-letter channel.
    pub dead_lettered: u64,
}

impl Ledger {
    /// Whether nothing disappeared uncounted.
    ///
    /// ```
    /// assert!(bus_core::Ledger::default().balances());
    /// ```
    #[must_use]
    pub fn balances(&self) -> bool {
        let gone = self.dropped + self.purged + self.expired + self.dead_lettered;
        self.accepted == self.acknowledged + self.queued + self.in_delivery + gone
    }
}

/// An end of a channel, as the daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its process; 0 where the operating system would not tell.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// The name that it gave itself: the program's by default.
    pub name: String,
    /// The sender's id; empty for receivers.
    pub sender: String,
    /// How its messages travel.
    pub route: String,
    /// Messages accepted from it, or acknowledged by it, over this connection.
    pub messages: u64,
    /// Messages of it that are not acknowledged, or that it has claimed.
    pub outstanding: u64,
    /// Whether it waits for room, in milliseconds; `None` when it does not.
    pub blocked_ms: Option<u64>,
}

impl PeerInfo {
    /// A peer on a stream of which nothing has come yet.
    #[must_use]
    pub fn new(pid: u32, uid: u32, name: String) -> Self {
        Self {
            pid,
            uid,
            name,
            sender: String::new(),
            route: "stream".to_owned(),
            messages: 0,
            outstanding: 0,
            blocked_ms: None,
        }
    }
}

/// Everything that `bus show` tells of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub channel: ChannelName,
    /// `mpsc`.
    pub kind: String,
    /// Whether it was made by `create`, and stays when it is empty and unattached.
    pub declared: bool,
    /// The codec of its typed ends, while any is known.
    pub codec: Option<Codec>,
    /// The type of its typed ends, while any is known.
    pub type_name: Option<String>,
    /// How many messages the daemon holds at most.
    pub capacity: u64,
    /// How many bytes the daemon holds at most.
    pub capacity_bytes: u64,
    /// How many messages one sender may have unacknowledged.
    pub window: u32,
    /// Largest message, in bytes.
    pub message_max_bytes: u32,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// Its account.
    pub ledger: Ledger,
    /// Bytes of the messages that are queued or in delivery.
    pub held_bytes: u64,
    /// How long the oldest message has been held, in milliseconds; `None` when there is none.
    pub oldest_ms: Option<u64>,
    /// The receiver, when there is one.
    pub receiver: Option<PeerInfo>,
    /// Receivers in line.
    pub standby: Vec<PeerInfo>,
    /// Senders, the first thousand of them.
    pub senders: Vec<PeerInfo>,
    /// How many senders there are.
    pub sender_count: u32,
}

impl ChannelInfo {
    /// An empty channel of that name; the broker fills in the rest.
    #[must_use]
    pub fn empty(channel: ChannelName) -> Self {
        Self {
            channel,
            kind: "mpsc".to_owned(),
            declared: false,
            codec: None,
            type_name: None,
            capacity: 0,
            capacity_bytes: 0,
            window: 0,
            message_max_bytes: 0,
            when_full: WhenFull::Block,
            ledger: Ledger::default(),
            held_bytes: 0,
            oldest_ms: None,
            receiver: None,
            standby: Vec::new(),
            senders: Vec::new(),
            sender_count: 0,
        }
    }
}

/// One line of `bus list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelSummary {
    /// Its name.
    pub channel: ChannelName,
    /// `mpsc`.
    pub kind: String,
    /// Its account.
    pub ledger: Ledger,
    /// Bytes of the messages that are queued or in delivery.
    pub held_bytes: u64,
    /// How many ends it has.
    pub peers: Peers,
}

impl ChannelSummary {
    /// The short form of `info`.
    #[must_use]
    pub fn new(channel: ChannelName, ledger: Ledger, held_bytes: u64, peers: Peers) -> Self {
        Self { channel, kind: "mpsc".to_owned(), ledger, held_bytes, peers }
    }
}

/// What an order such as `purge` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Messages removed and counted as purged.
    pub messages: u64,
    /// Messages on their way to the receiver: it gives them back at its next call, and they are
    /// removed and counted then.
    pub recalled: u64,
}
