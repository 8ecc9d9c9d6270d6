//! Every limit of the bus in one list: its figure, its unit and why it is what it is.
//!
//! These are the defaults. The daemon's configuration and the options of a channel can change
//! those that have an option; an error that meets a limit names it.
//!
//! ```
//! use bus_core::limits::{MESSAGE_MAX_BYTES, WINDOW_MESSAGES};
//!
//! let batch = vec![vec![0; 1_024]; 10_000];
//! assert!(batch.len() < WINDOW_MESSAGES as usize, "it is absorbed before any receiver is there");
//! assert!(batch.iter().all(|message| message.len() < MESSAGE_MAX_BYTES as usize));
//! ```

/// Longest channel name, in bytes. Long enough for a dotted path, short enough for a log line.
pub const CHANNEL_NAME_MAX_BYTES: usize = 128;

/// Largest message (payload and headers together), in bytes. Checked before anything is allocated.
pub const MESSAGE_MAX_BYTES: u32 = 16 * 1024 * 1024;

/// What the largest message can be set to at most, in bytes. Frame lengths are 32 bits, a user may hold
/// 1 GiB in the daemon, and a larger message belongs in a file of which the bus carries the name.
pub const MESSAGE_MAX_BYTES_MAX: u32 = 1 << 30;

/// Largest header block of one message, in bytes. Headers are notes on a message, not its content.
pub const HEADER_BLOCK_MAX_BYTES: u32 = 64 * 1024;

/// How many messages one sender may have unacknowledged: a small batch is absorbed before any
/// receiver is there.
pub const WINDOW_MESSAGES: u32 = 65_536;

/// How many bytes one sender may have unacknowledged on a stream. The sender keeps a copy of each.
pub const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// How many messages the daemon holds for one channel, of all senders, living or gone.
pub const CAPACITY_MESSAGES: u64 = 65_536;

/// How many bytes the daemon holds for one channel, of all senders, living or gone.
pub const CAPACITY_BYTES: u64 = 256 * 1024 * 1024;

/// How many messages are sent ahead to a receiver that has not claimed them yet.
///
/// A receiver on another core needs about 25 us to be woken and to answer; at 5 million messages a
/// second that is 125 messages, and a reader that is scheduled away for a tick needs far more.
pub const PUSH_AHEAD_MESSAGES: u64 = 8_192;

/// How many bytes are sent ahead to a receiver, in bytes; one message of any legal size always is.
pub const PUSH_AHEAD_BYTES: u64 = 1024 * 1024;

/// How many messages a busy receiver claims at once. After its death these count as taken.
pub const CLAIM_MESSAGES: u64 = 64;

/// Largest body of a control frame that a client may send, in bytes: room for a receiver that
/// brings the last sequence of 10,000 senders.
pub const CONTROL_MAX_BYTES: u32 = 1024 * 1024;

/// Largest body of a control frame that the daemon may send, in bytes: the answer of `bus list`.
pub const REPLY_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// How long a new connection may stay silent, or stop in the middle of its hello, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;

/// How long a new daemon counts the senders and receivers of the old one as present, in ms.
pub const RESUME_GRACE_MS: u64 = 10_000;

/// How long new receivers wait when a daemon has died and the next one starts, in milliseconds: more than the
/// longest pause between two attempts to reconnect (256), so that whoever had a channel has it again.
pub const FORMER_RECEIVERS_MS: u64 = 300;

/// How long nothing was sent in a lane that is taken back, in milliseconds. Getting another takes a busy sender about a
/// millisecond, and costs the ends a few system calls: ten seconds make that nothing, while a program that works in
/// bursts keeps its lane from one to the next. A lane that is kept costs its receiver 8 ns at each look.
pub const LANE_IDLE_MS: u64 = 10_000;

/// How many departed senders a channel remembers, so that messages sent again are recognised.
pub const DEPARTED_SENDERS_MAX: usize = 10_000;

/// How long a departed sender is remembered, in milliseconds.
pub const DEPARTED_SENDERS_TTL_MS: u64 = 600_000;

/// How long dropping a sender waits for the daemon to accept what was sent, in milliseconds.
pub const DROP_FLUSH_MS: u64 = 5_000;

/// How many values of one `AsyncSender` may be under way whose futures nobody awaits any more, those included that
/// were not sent and that nobody has asked for: each is kept whole until then, so there is no saying how much memory
/// more would take.
pub const ASYNC_UNAWAITED_MAX: usize = 16;

/// How long a question about the peers waits for the daemon's answer, in milliseconds: far longer than a
/// daemon at work takes.
pub const PEERS_TIMEOUT_MS: u64 = 5_000;

/// How many bytes `feed` gathers before it writes. One write of this size costs about as much as
/// two of half of it, so more would only add latency.
pub const FEED_BUFFER_BYTES: usize = 64 * 1024;

/// How much may be acknowledged before its sender is told at once, in bytes, or an eighth of its window, if that is less:
/// it writes next where its memory is warm. Of less it is told some milliseconds later.
pub const TOLD_BYTES: u64 = 256 * 1024;

/// Longest name that an endpoint gives itself, in bytes; the rest is cut.
pub const ENDPOINT_NAME_MAX_BYTES: usize = 64;

/// Longest type name that an endpoint declares, in bytes.
pub const TYPE_NAME_MAX_BYTES: usize = 256;

/// How often in a row the command of a gateway is run again.
pub const LINK_RESTARTS: u32 = 10;

/// How many gateways a daemon keeps: each is a thread or two and a few descriptors.
pub const LINKS_MAX: u32 = 64;

/// Longest command, or path of a FIFO, of a gateway, in bytes.
pub const LINK_TARGET_MAX_BYTES: usize = 4_096;
