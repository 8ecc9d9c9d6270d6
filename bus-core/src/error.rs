//! Errors: one small type for each operation; those of `send` hand the value back.

use std::io;
use std::path::PathBuf;

use crate::address::{Address, AddressError};
use crate::codec::{DecodeError, EncodeError};
use crate::message::Message;
use crate::name::{ChannelName, ChannelNameError};
use crate::ticket::Ticket;
use crate::wire::{HeaderBlockError, RefusedCode};

/// Why there is no connection to a bus.
///
/// ```
/// use bus_core::{Address, Bus, ConnectError};
///
/// let nowhere = Address::new("/nonexistent/bus.sock")?;
/// assert!(matches!(Bus::connect_to(&nowhere), Err(ConnectError::Unreachable { .. })));
/// # Ok::<(), bus_core::AddressError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address could be found.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answers at the address.
    #[error("no daemon answers at {address} ({source}): start one with `busd --socket {address}`")]
    Unreachable {
        /// Where it was tried.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system or the daemon does not let this user in.
    #[error("access to the bus at {address} is denied: {text}")]
    Denied {
        /// Where it was tried.
        address: Address,
        /// Who refused, and why.
        text: String,
    },
    /// The daemon answered, and refused.
    #[error("the daemon at {address} refused: {text}")]
    Refused {
        /// Where it was tried.
        address: Address,
        /// Its reason.
        text: String,
    },
    /// What answers is no daemon of this protocol.
    #[error("what answers at {address} is no daemon of this release: {text}")]
    Protocol {
        /// Where it was tried.
        address: Address,
        /// What was wrong with the answer.
        text: String,
    },
    /// A daemon was to be started and was not.
    #[error("the daemon {} could not be started: {source}", program.display())]
    Autostart {
        /// What was run.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Why an end of a channel could not be opened.
///
/// ```
/// use bus_core::{Bus, OpenError};
///
/// let bus = Bus::in_process();
/// let first = bus.receiver::<u32>("numbers").open()?;
/// assert!(matches!(bus.receiver::<u32>("numbers").open(), Err(OpenError::ReceiverTaken { .. })));
/// assert!(matches!(bus.sender::<String>("numbers").open(), Err(OpenError::TypeMismatch { .. })));
/// # drop(first);
/// # Ok::<(), OpenError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The channel has a receiver.
    #[error("{text}")]
    ReceiverTaken {
        /// The channel.
        channel: ChannelName,
        /// Who holds it, and the remedy.
        text: String,
    },
    /// The channel carries another type or codec.
    #[error("{text}")]
    TypeMismatch {
        /// The channel.
        channel: ChannelName,
        /// Both types.
        text: String,
    },
    /// Not for this user.
    #[error("{text}")]
    Denied {
        /// Who refused, and why.
        text: String,
    },
    /// A limit of the user or of the daemon.
    #[error("{text}")]
    Limit {
        /// The limit and the figure.
        text: String,
    },
    /// The daemon is ending. The next one lets ends in again.
    #[error("{text}")]
    ShuttingDown {
        /// What to do.
        text: String,
    },
    /// Another refusal.
    #[error("{text}")]
    Refused {
        /// The reason.
        text: String,
    },
}

impl OpenError {
    pub(crate) fn from_refusal(address: &Address, channel: &ChannelName, code: RefusedCode, text: String) -> Self {
        let channel = channel.clone();
        match code {
            RefusedCode::ReceiverTaken => Self::ReceiverTaken { channel, text },
            RefusedCode::TypeMismatch => Self::TypeMismatch { channel, text },
            RefusedCode::Denied => Self::Denied { text },
            RefusedCode::Limit => Self::Limit { text },
            RefusedCode::Version => Self::Connect(ConnectError::Protocol { address: address.clone(), text }),
            RefusedCode::ShuttingDown => Self::ShuttingDown { text },
            RefusedCode::Protocol | RefusedCode::NoSuchChannel | RefusedCode::Exists | RefusedCode::LaneUnknown => {
                Self::Refused { text }
            }
        }
    }
}

/// Why a question or an order to the daemon failed.
///
/// ```
/// use bus_core::{AdminError, Bus};
///
/// let bus = Bus::in_process();
/// assert!(matches!(bus.delete("jobs"), Err(AdminError::NoSuchChannel { .. })));
/// assert!(matches!(bus.list(), Err(AdminError::Unsupported { what: "list" })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No such channel.
    #[error("{text}")]
    NoSuchChannel {
        /// Names the channel.
        text: String,
    },
    /// Not for this user.
    #[error("{text}")]
    Denied {
        /// Who refused, and why.
        text: String,
    },
    /// A gateway that is to take messages from a channel that has a receiver.
    #[error("{text}")]
    ReceiverTaken {
        /// Who holds it, and the remedy.
        text: String,
    },
    /// Another refusal.
    #[error("{text}")]
    Refused {
        /// The reason.
        text: String,
    },
    /// A bus in one process has no daemon that could be asked.
    #[error("a bus in one process has no daemon: {what} needs one")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
}

/// Defines an error of a sending call: the outcomes of its own, and those that all share.
macro_rules! send_errors {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident($content:ty) = $text:literal,)* }) => {
        $(#[$meta])*
        ///
        /// As in crossbeam it holds the value and little else: the name of the channel is at hand in
        /// [`Sender::channel`](crate::Sender::channel), and what was in the way, with the figures, in
        /// [`Sender::obstacle`](crate::Sender::obstacle).
        #[derive(thiserror::Error)]
        #[non_exhaustive]
        pub enum $name<T> {
            $($(#[$variant_meta])* #[error($text)] $variant($content),)*
            /// The channel was deleted, or it has no receiver and the sender requires one.
            #[error("the channel is closed to this sender: `Sender::obstacle` says why")]
            Disconnected(T),
            /// The message is over the limit; nothing was sent.
            #[error("message of {bytes} bytes is over the limit of {limit} bytes: split it, or raise max-message")]
            TooLarge {
                /// The value.
                value: T,
                /// Its size with headers, in bytes.
                bytes: u64,
                /// The limit, in bytes.
                limit: u32,
            },
            /// The value does not encode; nothing was sent.
            #[error("{source}")]
            Encode {
                /// The value.
                value: T,
                /// What the codec said.
                source: EncodeError,
            },
            /// The headers do not fit; nothing was sent.
            #[error("{source}")]
            Headers {
                /// The value.
                value: T,
                /// The limit and the figure.
                source: HeaderBlockError,
            },
            /// The sender was opened in a process that has forked this one since; nothing was sent.
            #[error("the sender was opened before this process was forked: open one in this process")]
            Forked(T),
        }

        impl<T> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

send_errors! {
    /// Why `send`, `feed` or `send_confirmed` did not send.
    ///
    /// ```
    /// use bus_core::{Bus, SendError};
    ///
    /// let bus = Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").require_receiver().open()?;
    /// assert!(matches!(sender.send(7), Err(SendError::Disconnected(7))));
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    SendError {
        /// The channel is full, and made to reject then.
        Full(T) = "the channel is full, and rejects what does not fit: wait for its receiver, or raise its capacity",
    }
}

send_errors! {
    /// Why `try_send` did not send.
    ///
    /// ```
    /// use bus_core::{Bus, ChannelOptions, TrySendError};
    ///
    /// let bus = Bus::in_process();
    /// bus.create("one", ChannelOptions { capacity: Some(1), ..Default::default() })?;
    /// let sender = bus.sender::<u32>("one").open()?;
    /// assert!(sender.try_send(1).is_ok());
    /// assert!(matches!(sender.try_send(2), Err(TrySendError::Full(2))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    TrySendError {
        /// The window is used up, or the channel is full.
        Full(T) = "the window is used up, or the channel is full: `Sender::obstacle` says which, and what to do",
        /// There is no daemon at the moment.
        Away(T) = "the daemon is away: it is looked for again at the next call",
    }
}

send_errors! {
    /// Why `send_timeout`, `send_deadline` or `feed_deadline` did not send.
    ///
    /// ```
    /// use bus_core::{Bus, ChannelOptions, SendTimeoutError};
    /// use std::time::Duration;
    ///
    /// let bus = Bus::in_process();
    /// bus.create("one", ChannelOptions { capacity: Some(1), ..Default::default() })?;
    /// let sender = bus.sender::<u32>("one").open()?;
    /// sender.send(1)?;
    /// let late = sender.send_timeout(2, Duration::from_millis(1));
    /// assert!(matches!(late, Err(SendTimeoutError::Timeout(2))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    SendTimeoutError {
        /// The time passed; the message was never sent.
        Timeout(T) = "the time passed before there was room, and the message was not sent: give it longer; `Sender::obstacle` says what was in the way",
        /// The channel is full, and made to reject then.
        Full(T) = "the channel is full, and rejects what does not fit: wait for its receiver, or raise its capacity",
    }
}

send_errors! {
    /// Why `send_confirmed_deadline` has no confirmation.
    ///
    /// ```
    /// use bus_core::{ConfirmError, Sender};
    /// use std::time::{Duration, Instant};
    ///
    /// /// Gives up after two seconds, and knows then whether the value may arrive all the same.
    /// fn confirmed(sender: &Sender<u32>, value: u32) -> Result<(), ConfirmError<u32>> {
    ///     let soon = || Instant::now() + Duration::from_secs(1);
    ///     match sender.send_confirmed_deadline(value, soon()) {
    ///         Err(ConfirmError::Unknown(ticket)) => {
    ///             sender.wait(&ticket, Some(soon())).map_err(|_| ConfirmError::Unknown(ticket))
    ///         }
    ///         known => known,
    ///     }
    /// }
    /// # confirmed(&bus_core::Bus::in_process().sender("numbers").open()?, 7)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ConfirmError {
        /// The time passed; the message was never sent.
        Timeout(T) = "the time passed before there was room, and the message was not sent: give it longer; `Sender::obstacle` says what was in the way",
        /// The time passed; the message is on its way. Waiting on the ticket again is the retry.
        Unknown(Ticket) = "the time passed before the daemon confirmed: the message is on its way, wait on its ticket",
        /// The channel is full, and made to reject then.
        Full(T) = "the channel is full, and rejects what does not fit: wait for its receiver, or raise its capacity",
    }
}

macro_rules! into_inner {
    ($name:ident: $($own:ident),*) => {
        impl<T> $name<T> {
            /// The value that was not sent.
            ///
            /// ```
            /// # use bus_core::SendError;
            /// assert_eq!(SendError::Disconnected(7).into_inner(), 7);
            /// ```
            pub fn into_inner(self) -> T {
                match self {
                    $(Self::$own(value))|* | Self::Disconnected(value) | Self::Forked(value) => value,
                    Self::TooLarge { value, .. } | Self::Encode { value, .. } | Self::Headers { value, .. } => value,
                }
            }
        }
    };
}

into_inner!(SendError: Full);
into_inner!(TrySendError: Full, Away);
into_inner!(SendTimeoutError: Timeout, Full);

impl<T> ConfirmError<T> {
    /// The value, unless it is on its way.
    ///
    /// ```
    /// # use bus_core::ConfirmError;
    /// assert_eq!(ConfirmError::Timeout(7).into_inner(), Some(7));
    /// ```
    pub fn into_inner(self) -> Option<T> {
        match self {
            Self::Unknown(_) => None,
            Self::Timeout(value) | Self::Full(value) | Self::Disconnected(value) | Self::Forked(value) => Some(value),
            Self::TooLarge { value, .. } | Self::Encode { value, .. } | Self::Headers { value, .. } => Some(value),
        }
    }
}

/// Why `flush` did not see everything accepted.
///
/// ```
/// use bus_core::{Bus, FlushError};
/// use std::time::{Duration, Instant};
///
/// # let bus = Bus::in_process();
/// # let sender = bus.sender::<u32>("numbers").open()?;
/// sender.feed(7)?;
/// match sender.flush_deadline(Instant::now() + Duration::from_secs(1)) {
///     Ok(()) => {}
///     Err(FlushError::Unknown(ticket)) => sender.wait(&ticket, None)?,
///     Err(error) => eprintln!("{error}: {:?}", sender.refused()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The channel is closed. `Sender::refused` has the messages.
    #[error(
        "channel {channel} was closed before {refused} messages of this sender were accepted: `Sender::refused` has them"
    )]
    Disconnected {
        /// The channel.
        channel: ChannelName,
        /// How many were sent and never accepted.
        refused: usize,
    },
    /// The time passed. What is on its way stays on its way: wait on the ticket again.
    #[error("the time passed before the daemon confirmed all up to message {}: wait on the ticket", .0.sequence)]
    Unknown(Ticket),
    /// The sender was opened in a process that has forked this one since.
    #[error("the sender was opened before this process was forked: open one in this process")]
    Forked,
}

/// Why `peers` has no answer.
///
/// ```
/// use bus_core::{Bus, PeersError};
/// use std::time::Instant;
///
/// let bus = Bus::in_process();
/// let sender = bus.sender::<u32>("numbers").open()?;
/// let now = sender.peers()?;
/// assert!(matches!(sender.peers_changed(now, Some(Instant::now())), Err(PeersError::Timeout)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeersError {
    /// The channel is closed.
    #[error("the channel is closed: open the end again")]
    Disconnected,
    /// The time passed before anything changed.
    #[error("the time passed before the peers changed")]
    Timeout,
    /// There is no daemon at the moment.
    #[error("the daemon is away: ask again when the next one serves")]
    Away,
    /// The end was opened in a process that has forked this one since.
    #[error("the end was opened before this process was forked: open one in this process")]
    Forked,
}

/// A message that is no value of the receiver's type. It is acknowledged: the error owns it now.
///
/// ```
/// use bus_core::{Bus, Receiver, RecvError};
///
/// /// The next value; what is none is put aside.
/// fn next(receiver: &Receiver<u32>, aside: &mut Vec<Vec<u8>>) -> Result<u32, RecvError> {
///     loop {
///         match receiver.recv() {
///             Err(RecvError::Undecodable(undecodable)) => aside.push(undecodable.message.payload),
///             other => return other,
///         }
///     }
/// }
/// # let bus = Bus::in_process();
/// # let receiver = bus.receiver::<u32>("numbers").open()?;
/// # bus.sender::<u32>("numbers").open()?.send(7)?;
/// # assert_eq!(next(&receiver, &mut Vec::new())?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error(
    "a message of {} bytes in codec {} on channel {channel} is no {expected}: {source}",
    message.payload.len(),
    message.info.codec
)]
pub struct Undecodable {
    /// The message as it came.
    pub message: Message,
    /// The type of the receiver.
    pub expected: String,
    /// What the codec said.
    pub source: DecodeError,
    /// The channel.
    pub channel: ChannelName,
}

macro_rules! receive_errors {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        ///
        /// As in crossbeam it says what has happened and little else: the name of the channel is at hand in
        /// [`Receiver::channel`](crate::Receiver::channel).
        #[derive(Debug, thiserror::Error)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_meta])* #[error($text)] $variant,)*
            /// All senders have left, and every message has been received.
            #[error("all senders have left, and the channel is drained")]
            Disconnected,
            /// Another took the seat by order of `kick`.
            #[error("the receiver was removed from the channel by kick")]
            Kicked,
            /// Others have gone on without this receiver, which read lanes: it was stopped, or did not answer, when it
            /// was to leave or when the daemon was restarted. It has acknowledged nothing since.
            #[error("another receiver has taken this one's place: what it had not acknowledged comes there again")]
            Replaced,
            /// The channel was deleted.
            #[error("the channel was deleted")]
            Deleted,
            /// The daemon would not let the receiver in again.
            #[error("{text}")]
            Refused {
                /// The reason.
                text: String,
            },
            /// The message does not decode. The next call gives the next message.
            #[error(transparent)]
            Undecodable(Box<Undecodable>),
            /// The receiver was opened in a process that has forked this one since.
            #[error("the receiver was opened before this process was forked: open one in this process")]
            Forked,
        }

        impl From<Ended> for $name {
            fn from(ended: Ended) -> Self {
                match ended {
                    Ended::Disconnected => Self::Disconnected,
                    Ended::Kicked => Self::Kicked,
                    Ended::Replaced => Self::Replaced,
                    Ended::Deleted => Self::Deleted,
                    Ended::Refused(text) => Self::Refused { text },
                }
            }
        }
    };
}

/// Why a receiver has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Disconnected,
    Kicked,
    Replaced,
    Deleted,
    Refused(String),
}

receive_errors! {
    /// Why `recv` has no value.
    ///
    /// ```
    /// use bus_core::{Bus, RecvError};
    ///
    /// let bus = Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
    /// drop(bus.sender::<u32>("numbers").open()?);
    /// assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    RecvError {}
}

receive_errors! {
    /// Why `try_recv` has no value.
    ///
    /// ```
    /// use bus_core::{Bus, TryRecvError};
    ///
    /// let bus = Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    /// bus.delete("numbers")?;
    /// assert!(matches!(receiver.try_recv(), Err(TryRecvError::Deleted)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    TryRecvError {
        /// No message waits.
        Empty = "the channel is empty",
        /// There is no daemon at the moment.
        Away = "the daemon is away: it is looked for again at the next call",
    }
}

receive_errors! {
    /// Why `recv_timeout` or `recv_deadline` has no value.
    ///
    /// ```
    /// use bus_core::{Bus, RecvTimeoutError};
    /// use std::time::Duration;
    ///
    /// let bus = Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").open()?;
    /// let late = receiver.recv_timeout(Duration::from_millis(1));
    /// assert!(matches!(late, Err(RecvTimeoutError::Timeout)));
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    RecvTimeoutError {
        /// The time passed.
        Timeout = "the time passed before a message came",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_accepted_is_told_with_the_channel_the_figure_and_the_remedy() {
        let closed = FlushError::Disconnected { channel: "jobs".parse().unwrap(), refused: 3 };
        let text = "channel jobs was closed before 3 messages of this sender were accepted: `Sender::refused` has them";
        assert_eq!(closed.to_string(), text);
        let unknown = FlushError::Unknown(Ticket { sequence: 7 });
        let text = "the time passed before the daemon confirmed all up to message 7: wait on the ticket";
        assert_eq!(unknown.to_string(), text);
    }

    /// A call returns it, mostly with nothing in it.
    #[test]
    fn an_error_of_flush_is_small() {
        assert!(size_of::<FlushError>() <= 4 * size_of::<usize>());
    }
}
