//! Bodies of control frames: small, flat, without 128-bit integers.

use serde::{Deserialize, Serialize};

use crate::channel::{ChannelInfo, ChannelOptions, ChannelSummary, Removed, WhenFull};
use crate::codec::{Codec, decode_control, encode_control};
use crate::link::{LinkInfo, LinkSpec, Unlink};
use crate::name::ChannelName;
use crate::wire::{FrameHeader, HEADER_BYTES, Kind, LaneBrought, LaneHello, LaneWish};

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the endpoint calls itself; the daemon cuts it to 64 bytes.
    pub name: String,
    /// The process that speaks, for the case that the operating system does not tell.
    pub pid: u32,
    /// What the connection is for.
    pub role: Role,
    /// Which `CLOCK_MONOTONIC` its process reads: what the operating system calls its time namespace, 0 where it does
    /// not tell. Who reads another than the daemon has no lanes, whose order is that clock's.
    pub clock: u64,
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// One sender.
    Sender(SenderHello),
    /// One receiver.
    Receiver(ReceiverHello),
    /// Questions and orders.
    Control,
    /// Descriptors of a lane.
    Lane(LaneHello),
    /// A lane of an earlier daemon.
    LaneBrought(Box<LaneBrought>),
}

/// The type that an end declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeDeclaration {
    /// How values are encoded.
    pub codec: Codec,
    /// The name of the type.
    pub type_name: String,
}

/// A sender introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderHello {
    /// The channel.
    pub channel: ChannelName,
    /// Absent for raw ends.
    pub declares: Option<TypeDeclaration>,
    /// Wants to be told when there is no receiver.
    pub require_receiver: bool,
    /// Goes on with an earlier sender's id.
    pub resume: Option<Resume>,
    /// Whether it wishes a lane.
    pub lane: LaneWish,
}

/// Proof that a sender is the one that it was, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The id from `Welcome`.
    pub sender: u64,
    /// The token from `Welcome`.
    pub token: [u8; 16],
    /// The first sequence that it will send again, or next.
    pub next_sequence: u64,
    /// The last sequence that it will send again; below `next_sequence` when there is none.
    pub last_sequence: u64,
}

/// A receiver introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverHello {
    /// The channel.
    pub channel: ChannelName,
    /// Absent for raw ends.
    pub declares: Option<TypeDeclaration>,
    /// Waits in line when the seat is taken.
    pub standby: bool,
    /// Ends when all senders have left and the channel is drained.
    pub until_disconnected: bool,
    /// What it had from an earlier daemon; `None` at the first connection.
    pub returning: Option<Returning>,
    /// It can read lanes.
    pub reads_lanes: bool,
}

/// What a receiver brings to a new daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returning {
    /// The senders that it has heard of.
    pub senders: Vec<KnownSender>,
    /// The earlier daemon had seen a sender.
    pub sender_seen: bool,
    /// It held the channel, and was not in line.
    pub seated: bool,
    /// It read lanes. Then it is refused ([`RefusedCode::ReceiverTaken`]) where a receiver of another process has its
    /// seat by now.
    pub lanes: bool,
}

/// A sender as a receiver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSender {
    /// Its id.
    pub sender: u64,
    /// Its process.
    pub pid: u32,
    /// The last sequence that the receiver acknowledged.
    pub sequence: u64,
}

/// The daemon lets an endpoint in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Identifies this run of the daemon.
    pub daemon: u64,
    /// What the role needs.
    pub role: WelcomeRole,
}

/// What the role of an endpoint needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WelcomeRole {
    /// For a sender.
    Sender(SenderWelcome),
    /// For a receiver.
    Receiver(ReceiverWelcome),
    /// For questions and orders.
    Control,
    /// The descriptors come with it.
    Lane,
}

/// For a sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderWelcome {
    /// Its id.
    pub sender: u64,
    /// Needed to resume the id.
    pub token: [u8; 16],
    /// How many messages it may have unacknowledged.
    pub window_messages: u32,
    /// How many bytes it may have unacknowledged.
    pub window_bytes: u64,
    /// Largest message, in bytes.
    pub message_max_bytes: u32,
    /// It asks for room before each message.
    pub exact: bool,
    /// What happens when the channel is full.
    pub when_full: WhenFull,
    /// What the daemon has of it already.
    pub settled: Settled,
    /// Receivers at the channel.
    pub receivers: u32,
}

/// For a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverWelcome {
    /// Largest message, in bytes.
    pub message_max_bytes: u32,
    /// 0 when it has the seat, else its place in line.
    pub place_in_line: u32,
    /// How many messages it may acknowledge before it tells, and claim before they have come; 1 where
    /// each counts.
    pub lag_messages: u32,
    /// As many bytes, at most.
    pub lag_bytes: u32,
}

/// The daemon does not let an endpoint in, or does not carry out an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs.
    pub code: RefusedCode,
    /// For people: names the channel, the figure and the remedy.
    pub text: String,
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusedCode {
    /// Another protocol version.
    Version,
    /// A frame that makes no sense here.
    Protocol,
    /// Another user, or a wrong token.
    Denied,
    /// The channel has a receiver.
    ReceiverTaken,
    /// The channel carries another type or codec.
    TypeMismatch,
    /// A limit of the user or the daemon.
    Limit,
    /// No such channel.
    NoSuchChannel,
    /// The channel exists with other options.
    Exists,
    /// The daemon is closing.
    ShuttingDown,
    /// The daemon does not know the lane that the sender has: it may come without. Or nothing of a lane waits for the ticket.
    LaneUnknown,
}

/// What the daemon has of a sender; both are cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// All up to here are accepted.
    pub accepted: u64,
    /// All up to here are out of the daemon's hands.
    pub acked: u64,
    /// How many of this sender's messages were dropped by policy.
    pub dropped: u64,
}

/// Asks for, or grants, room for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Counts the wants of a connection.
    pub number: u64,
    /// Size of the message, in bytes.
    pub bytes: u32,
    /// Wait for room, or answer [`Kind::Full`] at once.
    pub wait: bool,
}

/// How far a receiver is, in deliveries of this connection; cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// All up to here are claimed: they may have been handed out.
    pub taken: u64,
    /// All up to here are acknowledged.
    pub acked: u64,
    /// How often the delivery after `acked` was given back.
    pub head_given_back: u32,
}

/// How many receivers are at the channel; tells senders that require one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receivers {
    /// Those in line included.
    pub count: u32,
}

/// The daemon closes a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// For programs.
    pub code: ClosingCode,
    /// For people.
    pub text: String,
}

/// Why the daemon closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClosingCode {
    /// The daemon ends; another may follow at the same address.
    ShuttingDown,
    /// The channel was deleted.
    Deleted,
    /// The receiver was removed by `kick`.
    Kicked,
    /// The peer broke the protocol or a limit.
    Fault,
}

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// All channels.
    List,
    /// One channel.
    Show(ChannelName),
    /// Declares a channel.
    Create(ChannelName, ChannelOptions),
    /// Removes a channel, what it holds and its ends.
    Delete(ChannelName),
    /// Removes what a channel holds.
    Purge(ChannelName),
    /// Removes the head of a channel.
    Skip(ChannelName),
    /// Removes the receiver.
    Kick(ChannelName),
    /// Copies of what is held: at most `messages` from the `after`-th on, as `Deliver` frames.
    Peek {
        /// The channel.
        channel: ChannelName,
        /// Position from an earlier answer; 0 begins at the head.
        after: u64,
        /// How many at most.
        messages: u32,
    },
    /// Who serves this bus.
    About,
    /// Makes a gateway.
    Link(Box<LinkSpec>),
    /// Ends gateways. Those of the daemon's config are removed from there.
    Unlink(Unlink),
    /// All gateways.
    Links,
    /// Ends gateways. Those of the daemon's config stay there.
    UnlinkForNow(Unlink),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `List`.
    Channels(Vec<ChannelSummary>),
    /// To `Show`.
    Channel(Box<ChannelInfo>),
    /// To `Create`: whether it is new.
    Created(bool),
    /// To `Delete`, `Purge` and `Skip`.
    Removed(Removed),
    /// To `Kick`: the process that was removed.
    Kicked {
        /// Its pid.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// To `Peek`, after the copies: where to go on, or `None` at the end.
    Peeked {
        /// For the next `Peek`.
        next: Option<u64>,
    },
    /// To `About`.
    About {
        /// Release of the daemon.
        version: String,
        /// Its process.
        pid: u32,
        /// How long it has served, in milliseconds.
        uptime_ms: u64,
        /// Connections now.
        connections: u32,
    },
    /// The order was not carried out.
    Refused(Refused),
    /// To `Link`, when it is up.
    Linked(Box<LinkInfo>),
    /// To `Links`; to `Unlink` and `UnlinkForNow`, when they are gone.
    Links(Vec<LinkInfo>),
}

/// Appends a control frame.
pub fn put_control<T: Serialize>(kind: Kind, body: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    encode_control(body, out);
    let body_bytes = u32::try_from(out.len() - start - HEADER_BYTES).expect("control bodies are small");
    out[start..start + HEADER_BYTES].copy_from_slice(&FrameHeader::control(kind, body_bytes).encode());
}

/// Reads the body of a control frame.
///
/// # Errors
/// [`ControlError`] when the bytes are not exactly one `T`.
pub fn read_control<T: serde::de::DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, ControlError> {
    decode_control(body).map_err(|reason| ControlError { kind, reason })
}

/// A control body that does not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of a {kind:?} frame is malformed: {reason}")]
pub struct ControlError {
    /// The kind of frame.
    pub kind: Kind,
    /// What is wrong.
    pub reason: String,
}
