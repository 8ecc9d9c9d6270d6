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
    ///
    /// ```
    /// use bus_core::WhenFull;
    ///
    /// assert!(WhenFull::ALL.iter().all(|policy| policy.name().parse() == Ok(*policy)));
    /// ```
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
///
/// ```
/// let unknown = "drop-all".parse::<bus_core::WhenFull>().unwrap_err();
/// assert!(unknown.to_string().contains("drop-oldest"));
/// ```
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

    /// What of these a channel with other options has otherwise, by the names of the shell; empty when they are equal.
    ///
    /// ```
    /// use bus_core::ChannelOptions;
    ///
    /// let known = ChannelOptions { capacity: Some(5), ..ChannelOptions::default() };
    /// let wanted = ChannelOptions { capacity: Some(2), window: Some(9), ..ChannelOptions::default() };
    /// assert_eq!(wanted.unlike(&known), "--capacity 5 instead of 2, the default --window instead of 9");
    /// assert_eq!(known.unlike(&known), "");
    /// ```
    #[must_use]
    pub fn unlike(&self, known: &Self) -> String {
        let figures = |options: &Self| {
            let (window, largest) = (options.window.map(u64::from), options.message_max_bytes.map(u64::from));
            [options.capacity, options.capacity_bytes, window, largest]
        };
        let names = ["--capacity", "--capacity-bytes", "--window", "--max-message"];
        let figures = names.into_iter().zip(figures(known).into_iter().zip(figures(self)));
        let mut unlike: Vec<String> = figures
            .filter_map(|(name, (known, wanted))| match (known, wanted) {
                (known, wanted) if known == wanted => None,
                (Some(known), Some(wanted)) => Some(format!("{name} {known} instead of {wanted}")),
                (Some(known), None) => Some(format!("{name} {known} instead of the default")),
                (None, wanted) => wanted.map(|wanted| format!("the default {name} instead of {wanted}")),
            })
            .collect();
        if known.when_full != self.when_full {
            unlike.push(format!("--when-full {} instead of {}", known.when_full, self.when_full));
        }
        unlike.join(", ")
    }
}

/// How many ends of each kind are at a channel.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let sender = bus.sender::<u32>("numbers").open()?;
/// let peers = sender.peers()?;
/// assert_eq!((peers.senders, peers.receivers), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    /// assert_eq!(bus_core::Peers::new(2, 1).senders, 2);
    /// ```
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
///
/// ```no_run
/// for sender in bus_core::Bus::connect()?.show("jobs")?.senders {
///     println!("{} (pid {}) by {}", sender.name, sender.pid, sender.route);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    /// let peer = bus_core::PeerInfo::new(7, 1_000, "importer".to_owned());
    /// assert_eq!((peer.route.as_str(), peer.messages), ("stream", 0));
    /// ```
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

/// What passes through a channel in a second, as it was over the last few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rates {
    /// Messages accepted.
    pub messages_in: u64,
    /// Their bytes; in a lane with the few that lie between messages.
    pub bytes_in: u64,
    /// Messages that left: acknowledged, most of them.
    pub messages_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Over how long that was looked at, in milliseconds.
    pub over_ms: u64,
}

impl Rates {
    /// So much has passed in `over_ms`: messages and bytes in, and out.
    ///
    /// ```
    /// let rates = bus_core::Rates::of((500, 32_000), (250, 16_000), 500);
    /// assert_eq!((rates.messages_in, rates.bytes_out), (1_000, 32_000));
    /// ```
    #[must_use]
    pub fn of((messages_in, bytes_in): (u64, u64), (messages_out, bytes_out): (u64, u64), over_ms: u64) -> Self {
        let per_second = |passed: u64| passed.saturating_mul(1_000) / over_ms.max(1);
        Self {
            messages_in: per_second(messages_in),
            bytes_in: per_second(bytes_in),
            messages_out: per_second(messages_out),
            bytes_out: per_second(bytes_out),
            over_ms,
        }
    }
}

/// Everything that `bus show` tells of a channel.
///
/// ```no_run
/// let jobs = bus_core::Bus::connect()?.show("jobs")?;
/// println!("{} of {} messages", jobs.ledger.queued, jobs.capacity);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// Senders of an earlier daemon that may still bring messages: a receiver named them and they are not back, or
    /// they are back and have not sent again all that they hold. At least 1 for the first moments of a daemon that
    /// follows one that died, because nobody may have named a sender yet. None is counted for longer than 10 s. And
    /// senders that have hung up in the middle of a long message, as a call does whose time is over, and connect again:
    /// for 2 s at most.
    pub awaited: u32,
    /// What passes through it; `None` until it has been looked at twice.
    pub rates: Option<Rates>,
    /// How many lanes it has.
    pub lanes: u32,
    /// Why a sender that wishes a lane has none, where a limit is to blame.
    pub no_lane: Option<String>,
}

impl ChannelInfo {
    /// An empty channel of that name; the broker fills in the rest.
    ///
    /// ```
    /// use bus_core::{ChannelInfo, ChannelName};
    ///
    /// assert_eq!(ChannelInfo::empty(ChannelName::new("jobs")?).kind, "mpsc");
    /// # Ok::<(), bus_core::ChannelNameError>(())
    /// ```
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
            awaited: 0,
            rates: None,
            lanes: 0,
            no_lane: None,
        }
    }
}

/// One line of `bus list`.
///
/// ```no_run
/// for channel in bus_core::Bus::connect()?.list()? {
///     println!("{}: {} waiting", channel.channel, channel.ledger.queued);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    /// use bus_core::{ChannelName, ChannelSummary, Ledger, Peers};
    ///
    /// let summary = ChannelSummary::new(ChannelName::new("jobs")?, Ledger::default(), 0, Peers::new(1, 0));
    /// assert_eq!(summary.peers.senders, 1);
    /// # Ok::<(), bus_core::ChannelNameError>(())
    /// ```
    #[must_use]
    pub fn new(channel: ChannelName, ledger: Ledger, held_bytes: u64, peers: Peers) -> Self {
        Self { channel, kind: "mpsc".to_owned(), ledger, held_bytes, peers }
    }
}

/// What an order such as `purge` did.
///
/// ```
/// let bus = bus_core::Bus::in_process();
/// bus.sender::<u32>("numbers").open()?.send(7)?;
/// let removed = bus.delete("numbers")?;
/// assert_eq!((removed.messages, removed.recalled), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Messages removed and counted as purged.
    pub messages: u64,
    /// Messages on their way to the receiver: it gives them back at its next call, and they are
    /// removed and counted then.
    pub recalled: u64,
}
