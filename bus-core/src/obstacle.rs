//! [`Obstacle`]: what was in the way of a message that was not sent.

use std::fmt;

use crate::name::ChannelName;

/// What was in the way of a message that was not sent: the errors of sending hold the value and little else, and
/// [`Sender::obstacle`](crate::Sender::obstacle) has the rest, with the figures that the sender knows.
///
/// ```
/// use bus_core::{Bus, ChannelOptions, Obstacle};
///
/// let bus = Bus::in_process();
/// bus.create("jobs", ChannelOptions { window: Some(1), ..Default::default() })?;
/// let sender = bus.sender::<u32>("jobs").open()?;
/// sender.send(1)?;
/// assert!(sender.try_send(2).is_err());
/// assert!(matches!(sender.obstacle(), Some(Obstacle::Window { messages: 1, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// So many messages of the sender are not acknowledged, and no more may be.
    Window {
        /// The channel.
        channel: ChannelName,
        /// The window, in messages.
        messages: u64,
    },
    /// Messages of the sender of so many bytes together are not acknowledged, and beside those it had no room.
    WindowBytes {
        /// The channel.
        channel: ChannelName,
        /// The window, in bytes.
        bytes: u64,
    },
    /// The channel is full.
    Capacity {
        /// The channel.
        channel: ChannelName,
        /// How many messages it holds at most; within one process that is known, and a daemon tells it in
        /// [`Bus::show`](crate::Bus::show).
        messages: Option<u64>,
    },
    /// The daemon took no more of what was sent before.
    Unread {
        /// The channel.
        channel: ChannelName,
    },
    /// The memory that the sender shares with the receiver is full.
    Lane {
        /// The channel.
        channel: ChannelName,
        /// How many messages of the sender are not acknowledged.
        unacknowledged: u64,
    },
    /// There was no daemon.
    Away {
        /// The channel.
        channel: ChannelName,
    },
    /// The channel was deleted.
    Deleted {
        /// The channel.
        channel: ChannelName,
    },
    /// The channel has no receiver, and the sender was opened with
    /// [`require_receiver`](crate::SenderBuilder::require_receiver).
    NoReceiver {
        /// The channel.
        channel: ChannelName,
    },
    /// The daemon has closed the sender, or did not let it in again.
    Refused {
        /// The channel.
        channel: ChannelName,
        /// What the daemon said.
        text: String,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { channel, messages } => {
                let unit = if *messages == 1 { "message" } else { "messages" };
                write!(
                    f,
                    "the window of {messages} {unit} for each sender of channel {channel} is used up: wait until its receiver acknowledges some, or raise it (`bus create --window`)"
                )
            }
            Self::WindowBytes { channel, bytes } => write!(
                f,
                "the window of {bytes} bytes for each sender of channel {channel} is used up: wait until its receiver acknowledges some, or raise window_bytes in the daemon's config"
            ),
            Self::Capacity { channel, messages } => {
                write!(f, "channel {channel} is full")?;
                if let Some(messages) = messages {
                    write!(f, " with {messages} of {messages} messages")?;
                }
                write!(f, ": wait for its receiver, or raise its capacity (`bus create --capacity`)")
            }
            Self::Unread { channel } => write!(
                f,
                "the daemon takes no more for channel {channel} at the moment: the channel is full, or the daemon is stopped or overloaded; `bus show {channel}` tells"
            ),
            Self::Lane { channel, unacknowledged } => write!(
                f,
                "the lane to the receiver of channel {channel} is full with {unacknowledged} unacknowledged messages: wait for the receiver"
            ),
            Self::Away { channel } => {
                write!(f, "no daemon serves channel {channel} at the moment: the next one is looked for")
            }
            Self::Deleted { channel } => {
                write!(f, "channel {channel} was deleted: open the sender again to make it anew")
            }
            Self::NoReceiver { channel } => {
                write!(f, "channel {channel} has no receiver, and this sender requires one: start a receiver first")
            }
            Self::Refused { channel, text } => write!(f, "the sender of channel {channel} was closed: {text}"),
        }
    }
}

/// The same, as an end keeps it: no more than a byte is written when a message is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    Window,
    WindowBytes,
    Capacity,
    Unread,
    Lane,
    Away,
    NoReceiver,
}

/// Why an end is closed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Deleted,
    /// The daemon said so.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use crate::{Bus, ChannelOptions, WhenFull};

    #[test]
    fn a_window_is_told_from_a_channel_that_is_full_with_the_figure_and_the_remedy() {
        let bus = Bus::in_process();
        let limited = |name, window, capacity, when_full| {
            bus.create(name, ChannelOptions { window, capacity, when_full, ..Default::default() }).unwrap();
            let sender = bus.sender::<u32>(name).open().unwrap();
            assert_eq!(sender.obstacle(), None);
            sender.send(1).unwrap();
            sender
        };
        let narrow = limited("narrow", Some(1), None, WhenFull::Block);
        let small = limited("small", None, Some(1), WhenFull::Block);
        let strict = limited("strict", None, Some(1), WhenFull::Reject);
        assert!(narrow.try_send(2).is_err() && small.try_send(2).is_err() && strict.send(2).is_err());
        let text = "the window of 1 message for each sender of channel narrow is used up: wait until its receiver acknowledges some, or raise it (`bus create --window`)";
        assert_eq!(narrow.obstacle().unwrap().to_string(), text);
        for full in [small, strict] {
            let text =
                "is full with 1 of 1 messages: wait for its receiver, or raise its capacity (`bus create --capacity`)";
            assert_eq!(full.obstacle().unwrap().to_string(), format!("channel {} {text}", full.channel()));
        }
    }
    #[test]
    fn of_a_closed_channel_the_one_reason_that_holds_is_told() {
        let bus = Bus::in_process();
        let deleted = bus.sender::<u32>("gone").open().unwrap();
        bus.delete("gone").unwrap();
        assert!(deleted.try_send(1).is_err());
        let text = "channel gone was deleted: open the sender again to make it anew";
        assert_eq!(deleted.obstacle().unwrap().to_string(), text);
        let lonely = bus.sender::<u32>("deserted").require_receiver().open().unwrap();
        assert!(lonely.try_send(1).is_err());
        let text = "channel deserted has no receiver, and this sender requires one: start a receiver first";
        assert_eq!(lonely.obstacle().unwrap().to_string(), text);
    }
}
