//! The frame header: its bytes, and the checks before anything else is believed.

use crate::codec::Codec;
use crate::limits::HEADER_BLOCK_MAX_BYTES;

/// Version of the protocol. A daemon and a client must agree on it.
pub const PROTOCOL: u8 = 1;

/// Length of the fixed header, in bytes.
pub const HEADER_BYTES: usize = 32;

/// Length of the origin block of a `Deliver` frame, in bytes.
pub const ORIGIN_BYTES: usize = 24;

/// What every frame begins with.
pub const FRAME_MAGIC: [u8; 2] = *b"bU";

/// What a frame is. Numbers below 128 go up, the others down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The first frame of a connection: [`Hello`](super::Hello).
    Hello = 1,
    /// A message, with its sequence.
    Data = 2,
    /// Asks for room for one message: [`Want`](super::Want).
    Want = 3,
    /// Takes a [`Kind::Want`] back.
    Unwant = 4,
    /// What the receiver has taken and acknowledged: [`Progress`](super::Progress).
    Progress = 5,
    /// Answers [`Kind::Recall`]: [`Progress`](super::Progress); all that is not taken is given back.
    Recalled = 6,
    /// Asks to be told of the peers now and whenever they change.
    Watch = 7,
    /// A question or an order: [`Request`](super::Request).
    Request = 8,
    /// The endpoint leaves in order. A receiver's carries its last [`Progress`](super::Progress).
    Goodbye = 9,
    /// Asks for a [`Kind::Settled`] once all that came before is accepted.
    Confirm = 10,
    /// The sender has its lane mapped: [`LaneNamed`](super::LaneNamed).
    Moved = 11,
    /// The receiver reads a lane: [`Watching`](super::Watching).
    Watching = 12,
    /// The sender honours a receiver of its lane: [`Turned`](super::Turned).
    Turned = 13,
    /// The receiver has read a lane to its end: [`LaneDone`](super::LaneDone).
    LaneDone = 14,
    /// A sender that cannot ring its receiver yet has sent something in its lane: [`LaneNamed`](super::LaneNamed).
    Nudge = 15,
    /// The descriptors of a lane of an earlier daemon come with this: see [`LaneBrought`](super::LaneBrought).
    Brought = 16,
    /// Messages of a lane are skipped, as was ordered: [`LaneSkipped`](super::LaneSkipped).
    LaneSkipped = 17,
    /// The sender goes on by its stream: [`LaneLeft`](super::LaneLeft).
    LaneLeft = 18,

    /// Answers [`Kind::Hello`]: [`Welcome`](super::Welcome).
    Welcome = 128,
    /// Answers [`Kind::Hello`]: [`Refused`](super::Refused).
    Refused = 129,
    /// What is accepted and acknowledged: [`Settled`](super::Settled).
    Settled = 130,
    /// There is room for the message that was asked for: [`Want`](super::Want) of the same number.
    Granted = 131,
    /// There is no room, and the channel rejects: [`Want`](super::Want) of the same number.
    Full = 132,
    /// A message with its origin.
    Deliver = 133,
    /// Orders a receiver to give back what it has not claimed.
    Recall = 134,
    /// The standby receiver has the seat now.
    Seated = 135,
    /// All senders have left, and there is nothing after what was delivered.
    Ended = 136,
    /// Who is at the channel: [`Peers`](crate::Peers).
    Peers = 137,
    /// How many receivers there are, to senders that require one: [`Receivers`](super::Receivers).
    Receivers = 140,
    /// Answers [`Kind::Request`]: [`Reply`](super::Reply).
    Reply = 138,
    /// The daemon closes this connection: [`Closing`](super::Closing).
    Closing = 139,
    /// There is a lane for a sender: [`LaneOffered`](super::LaneOffered).
    LaneOffered = 141,
    /// A sender may send in its lane: [`LaneNamed`](super::LaneNamed).
    LaneKept = 142,
    /// A receiver reads a lane from now on: [`LaneGiven`](super::LaneGiven).
    LaneGiven = 143,
    /// A sender honours a receiver from now on: [`CursorGiven`](super::CursorGiven).
    CursorGiven = 144,
    /// Nobody writes to a lane any more: [`LaneNamed`](super::LaneNamed).
    SenderGone = 145,
    /// Orders a receiver to hand out no more of some messages of a lane: [`LaneSkip`](super::LaneSkip).
    LaneSkip = 146,
    /// A lane goes with its channel: [`LaneEnded`](super::LaneEnded).
    LaneEnded = 147,
    /// A sender does not need its lane: [`LaneNamed`](super::LaneNamed).
    LaneRecalled = 148,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 39] = [
        Self::Hello,
        Self::Data,
        Self::Want,
        Self::Unwant,
        Self::Progress,
        Self::Recalled,
        Self::Watch,
        Self::Request,
        Self::Goodbye,
        Self::Confirm,
        Self::Welcome,
        Self::Refused,
        Self::Settled,
        Self::Granted,
        Self::Full,
        Self::Deliver,
        Self::Recall,
        Self::Seated,
        Self::Ended,
        Self::Peers,
        Self::Receivers,
        Self::Reply,
        Self::Closing,
        Self::Moved,
        Self::Watching,
        Self::Turned,
        Self::LaneDone,
        Self::Nudge,
        Self::Brought,
        Self::LaneSkipped,
        Self::LaneSkip,
        Self::LaneEnded,
        Self::LaneOffered,
        Self::LaneKept,
        Self::LaneGiven,
        Self::CursorGiven,
        Self::SenderGone,
        Self::LaneLeft,
        Self::LaneRecalled,
    ];

    fn from_number(number: u8) -> Option<Self> {
        // Data and Deliver come millions of times a second; the others are looked for.
        match number {
            2 => Some(Self::Data),
            133 => Some(Self::Deliver),
            _ => Self::ALL.into_iter().find(|kind| *kind as u8 == number),
        }
    }

    /// Whether frames of this kind carry a message.
    #[must_use]
    pub fn carries_message(self) -> bool {
        matches!(self, Self::Data | Self::Deliver)
    }
}

/// Flags of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// `Data`: sent before over a connection that broke; `Deliver`: may have been handed out before.
    pub const REDELIVERED: u8 = 1;
    /// `Data`: answer with `Settled` as soon as it is accepted.
    pub const CONFIRM: u8 = 2;

    /// Whether all bits of `flag` are set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.0 & flag == flag
    }
}

/// The fixed header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: Kind,
    /// See [`Flags`].
    pub flags: Flags,
    /// How the payload is encoded.
    pub codec: Codec,
    /// The place among the messages of its sender; 0 in control frames.
    pub sequence: u64,
    /// Send time, nanoseconds since the Unix epoch; 0 in control frames.
    pub sent_at_ns: u64,
    /// Length of the body, in bytes.
    pub body_bytes: u32,
    /// Length of the header block, in bytes.
    pub header_block_bytes: u32,
}

/// Limits that a side holds the other to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest message: payload and header block, in bytes.
    pub message_max_bytes: u32,
    /// Largest control body, in bytes.
    pub control_max_bytes: u32,
}

impl FrameHeader {
    /// Where the flags stand, in bytes from the start.
    pub const FLAGS_AT: usize = 4;

    /// Where the sequence stands, in bytes from the start.
    pub const SEQUENCE_AT: usize = 8;

    /// The header of a control frame.
    #[must_use]
    pub fn control(kind: Kind, body_bytes: u32) -> Self {
        Self {
            kind,
            flags: Flags::default(),
            codec: Codec::Raw,
            sequence: 0,
            sent_at_ns: 0,
            body_bytes,
            header_block_bytes: 0,
        }
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&FRAME_MAGIC);
        bytes[2] = PROTOCOL;
        bytes[3] = self.kind as u8;
        bytes[4] = self.flags.0;
        bytes[5] = self.codec.id();
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sent_at_ns.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.header_block_bytes.to_le_bytes());
        bytes
    }

    /// Reads and checks a header. Returns `None` while fewer than [`HEADER_BYTES`] bytes are there.
    ///
    /// # Errors
    /// [`FrameError`] says which field is wrong; the connection cannot go on after it.
    #[inline]
    pub fn decode(bytes: &[u8], limits: FrameLimits) -> Result<Option<Self>, FrameError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            // A wrong start is refused at once, not after the rest has come.
            let start = bytes.len().min(2);
            return if bytes[..start] == FRAME_MAGIC[..start] { Ok(None) } else { Err(FrameError::Magic) };
        };
        if bytes[..2] != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[2] != PROTOCOL {
            return Err(FrameError::Protocol { theirs: bytes[2] });
        }
        let kind = Kind::from_number(bytes[3]).ok_or(FrameError::Kind { number: bytes[3] })?;
        let codec = Codec::from_id(bytes[5]).ok_or(FrameError::Codec { number: bytes[5] })?;
        if bytes[6..8] != [0, 0] {
            return Err(FrameError::Reserved);
        }
        let header = Self {
            kind,
            flags: Flags(bytes[4]),
            codec,
            sequence: u64_at(bytes, 8),
            sent_at_ns: u64_at(bytes, 16),
            body_bytes: u32_at(bytes, 24),
            header_block_bytes: u32_at(bytes, 28),
        };
        header.check_lengths(limits)?;
        Ok(Some(header))
    }

    fn check_lengths(&self, limits: FrameLimits) -> Result<(), FrameError> {
        if !self.kind.carries_message() {
            return match self.header_block_bytes {
                0 if self.body_bytes <= limits.control_max_bytes => Ok(()),
                0 => Err(FrameError::Control {
                    bytes: self.body_bytes,
                    limit: limits.control_max_bytes,
                    kind: self.kind,
                }),
                _ => Err(FrameError::Reserved),
            };
        }
        if self.header_block_bytes > HEADER_BLOCK_MAX_BYTES {
            return Err(FrameError::HeaderBlock { bytes: self.header_block_bytes });
        }
        let bytes = self.message_bytes();
        if bytes > u64::from(limits.message_max_bytes) {
            return Err(FrameError::Message { bytes, limit: limits.message_max_bytes });
        }
        Ok(())
    }

    /// Payload and header block together, in bytes: what limits and windows count.
    #[must_use]
    pub fn message_bytes(&self) -> u64 {
        u64::from(self.body_bytes) + u64::from(self.header_block_bytes)
    }

    /// The whole frame, this header included, in bytes.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        let origin = if self.kind == Kind::Deliver { ORIGIN_BYTES } else { 0 };
        HEADER_BYTES + origin + self.header_block_bytes as usize + self.body_bytes as usize
    }
}

/// Where a delivered message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sender's id.
    pub sender: u64,
    /// When the daemon accepted it, in nanoseconds of `CLOCK_MONOTONIC`: its place among the messages that
    /// come to the receiver by other ways.
    pub accepted_at_ns: u64,
    /// The sender's process.
    pub pid: u32,
    /// How often the message was handed out, this time included.
    pub attempt: u32,
}

impl Origin {
    /// The block as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ORIGIN_BYTES] {
        let mut bytes = [0; ORIGIN_BYTES];
        bytes[..8].copy_from_slice(&self.sender.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.accepted_at_ns.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.pid.to_le_bytes());
        bytes[20..].copy_from_slice(&self.attempt.to_le_bytes());
        bytes
    }

    /// Reads the block.
    #[must_use]
    pub fn decode(bytes: &[u8; ORIGIN_BYTES]) -> Self {
        Self {
            sender: u64_at(bytes, 0),
            accepted_at_ns: u64_at(bytes, 8),
            pid: u32_at(bytes, 16),
            attempt: u32_at(bytes, 20),
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

/// A header that cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first two bytes are not `bU`.
    #[error("the peer does not speak the bus protocol: a frame must begin with the bytes \"bU\"")]
    Magic,
    /// Another version.
    #[error("the peer speaks protocol version {theirs}, and this side speaks {PROTOCOL}: bring both to one release")]
    Protocol {
        /// The version that the frame names.
        theirs: u8,
    },
    /// No such kind.
    #[error("no frame is of kind {number}")]
    Kind {
        /// The number in the frame.
        number: u8,
    },
    /// No such codec.
    #[error("no codec has number {number}")]
    Codec {
        /// The number in the frame.
        number: u8,
    },
    /// A field that must be zero is not.
    #[error("a reserved field of the frame is not zero")]
    Reserved,
    /// A message over the limit.
    #[error("message of {bytes} bytes is over the limit of {limit} (max-message)")]
    Message {
        /// Payload and headers, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u32,
    },
    /// A header block over the limit.
    #[error("header block of {bytes} bytes is over the limit of {HEADER_BLOCK_MAX_BYTES}")]
    HeaderBlock {
        /// Its length in bytes.
        bytes: u32,
    },
    /// A control body over the limit.
    #[error("{kind:?} frame with a body of {bytes} bytes is over the limit of {limit}")]
    Control {
        /// The kind of frame.
        kind: Kind,
        /// Its length in bytes.
        bytes: u32,
        /// The limit, in bytes.
        limit: u32,
    },
}
