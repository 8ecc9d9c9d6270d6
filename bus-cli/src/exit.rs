//! How a verb ends: the exit codes, and the one place where every error is given its code.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::process::ExitCode;
use std::time::Duration;

use bus_core::{
    Address, AddressError, AdminError, ChannelInfo, ConnectError, FlushError, Obstacle, OpenError, RecvTimeoutError,
    SendTimeoutError, TrySendError, WhenFull,
};

use crate::output::counted;

/// The exit codes. Scripts depend on them; they are listed in `bus --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Timeout = 4,
    Closed = 5,
    Full = 6,
    Denied = 7,
    HandlerFailed = 8,
    ReceiverTaken = 9,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    pub(crate) const ALL: [Self; 12] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Unreachable,
        Self::Timeout,
        Self::Closed,
        Self::Full,
        Self::Denied,
        Self::HandlerFailed,
        Self::ReceiverTaken,
        Self::Interrupted,
        Self::Terminated,
    ];

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "an error, such as a message over the limit",
            Self::Usage => "wrong usage, a malformed channel name included",
            Self::Unreachable => "no daemon answers",
            Self::Timeout => "the time passed",
            Self::Closed => "the channel was closed: deleted, its receiver removed, or without the required receiver",
            Self::Full => "the channel is full",
            Self::Denied => "access denied",
            Self::HandlerFailed => "the command of --exec failed",
            Self::ReceiverTaken => "the channel has a receiver",
            Self::Interrupted => "interrupted (Ctrl-C)",
            Self::Terminated => "terminated (SIGTERM)",
        }
    }

    /// All codes with their meanings, for the help text.
    pub(crate) fn table() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a verb ended before its work was done: the code, and what the user is told.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// An ending without a word, such as after Ctrl-C.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// An error of the operating system, with what was tried.
    pub(crate) fn io(what: impl fmt::Display, source: &io::Error) -> Self {
        Self::new(Exit::Failed, format!("{what}: {source}"))
    }

    /// There is no connection. Where `--timeout` was given and has passed, that is why.
    pub(crate) fn not_connected(error: ConnectError, timeout: Option<Duration>) -> Self {
        match (error, timeout) {
            (ConnectError::Unreachable { address, source }, Some(Duration::ZERO))
                if source.kind() == io::ErrorKind::TimedOut =>
            {
                let text = format!("--timeout 0 leaves no time for the daemon at {address} to answer: give it longer");
                Self::new(Exit::Timeout, text)
            }
            (ConnectError::Unreachable { address, source }, Some(_)) if source.kind() == io::ErrorKind::TimedOut => {
                let text =
                    format!("the time passed before the daemon at {address} answered: it may be stopped or overloaded");
                Self::new(Exit::Timeout, text)
            }
            (error, _) => error.into(),
        }
    }

    /// The same for an end of a channel.
    pub(crate) fn not_opened(error: OpenError, timeout: Option<Duration>) -> Self {
        match error {
            OpenError::Connect(error) => Self::not_connected(error, timeout),
            error => error.into(),
        }
    }

    /// The same, with the place in front: `message 7: ...`.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        Self { exit: self.exit, text: format!("{place}: {}", self.text) }
    }

    /// The same, with a note behind: `...; 6 messages before it were accepted`.
    pub(crate) fn and(self, note: impl fmt::Display) -> Self {
        Self { exit: self.exit, text: format!("{}; {note}", self.text) }
    }

    /// The same, with what was in the way of a message: the error of sending it does not say so.
    pub(crate) fn because(self, obstacle: &Obstacle, ask: impl FnOnce() -> Option<ChannelInfo>) -> Self {
        let reason = || match obstacle {
            Obstacle::Deleted { channel } => format!("channel {channel} was deleted: publish again to make it anew"),
            Obstacle::NoReceiver { channel } => {
                format!(
                    "channel {channel} has no receiver, and --require-receiver asks for one: start a consumer first"
                )
            }
            Obstacle::Capacity { .. } | Obstacle::Unread { .. } => {
                ask().and_then(|info| full_text(&info)).unwrap_or_else(|| obstacle.to_string())
            }
            _ => obstacle.to_string(),
        };
        let text = match self.exit {
            Exit::Full | Exit::Closed => reason(),
            Exit::Timeout => format!(
                "the time passed before there was room, and the message was not sent: {}; or give it longer",
                reason()
            ),
            _ => return self,
        };
        Self { text, ..self }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.text.is_empty()
    }
}

/// That a channel is full, if it is.
fn full_text(info: &ChannelInfo) -> Option<String> {
    let rejects = if info.when_full == WhenFull::Reject { ", and rejects what does not fit" } else { "" };
    let held = info.ledger.queued + info.ledger.in_delivery;
    let lacks_bytes = info.held_bytes + u64::from(info.message_max_bytes) > info.capacity_bytes;
    let (held, most, option) = match held >= info.capacity {
        true => (held, counted(info.capacity, "message"), "--capacity"),
        false if held > 0 && lacks_bytes => (info.held_bytes, counted(info.capacity_bytes, "byte"), "--capacity-bytes"),
        false => return None,
    };
    let channel = &info.channel;
    Some(format!(
        "channel {channel} is full with {held} of {most}{rejects}: wait for its receiver, or raise its capacity (`bus create {option}`)"
    ))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        let exit = match error {
            AddressError::Nowhere => Exit::Unreachable,
            // A path that cannot be a socket's was typed, or set in the environment.
            _ => Exit::Usage,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit = match error {
            ConnectError::Address(error) => return error.into(),
            ConnectError::Unreachable { address, source } => {
                let remedy = match source.kind() {
                    // A daemon would not take its place either.
                    io::ErrorKind::ConnectionRefused if is_another_file(&address) => {
                        ": it is no socket: choose another place with --socket or BUS_SOCKET".to_owned()
                    }
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        format!("; start one with `bus daemon --socket {address}`")
                    }
                    io::ErrorKind::NotADirectory => ": choose another place with --socket or BUS_SOCKET".to_owned(),
                    io::ErrorKind::TimedOut => ": it may be stopped or overloaded".to_owned(),
                    _ => String::new(),
                };
                return Self::new(Exit::Unreachable, format!("no daemon answers at {address}: {source}{remedy}"));
            }
            ConnectError::Autostart { .. } | ConnectError::Protocol { .. } => Exit::Unreachable,
            ConnectError::Denied { .. } => Exit::Denied,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

/// Whether something else than a socket lies there.
fn is_another_file(address: &Address) -> bool {
    std::fs::metadata(address.path()).is_ok_and(|found| !found.file_type().is_socket())
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit = match error {
            OpenError::Connect(error) => return error.into(),
            OpenError::Name(_) => Exit::Usage,
            OpenError::ReceiverTaken { .. } => Exit::ReceiverTaken,
            OpenError::Denied { .. } => Exit::Denied,
            // As when it has ended, a moment later.
            OpenError::ShuttingDown { .. } => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let exit = match error {
            AdminError::Connect(error) => return error.into(),
            AdminError::Name(_) => Exit::Usage,
            AdminError::Denied { .. } => Exit::Denied,
            AdminError::ReceiverTaken { .. } => Exit::ReceiverTaken,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl<T> From<SendTimeoutError<T>> for Failure {
    fn from(error: SendTimeoutError<T>) -> Self {
        Self::from(&error)
    }
}

impl<T> From<&SendTimeoutError<T>> for Failure {
    fn from(error: &SendTimeoutError<T>) -> Self {
        let exit = match error {
            SendTimeoutError::Timeout(_) => Exit::Timeout,
            SendTimeoutError::Full(_) => Exit::Full,
            SendTimeoutError::Disconnected(_) => Exit::Closed,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl<T> From<TrySendError<T>> for Failure {
    fn from(error: TrySendError<T>) -> Self {
        let exit = match error {
            TrySendError::Full(_) => Exit::Full,
            TrySendError::Away(_) => Exit::Unreachable,
            TrySendError::Disconnected(_) => Exit::Closed,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<FlushError> for Failure {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::Disconnected { refused, .. } => {
                let were = if refused == 1 { "was" } else { "were" };
                let refused = counted(refused as u64, "message");
                Self::new(Exit::Closed, format!("the channel was closed before {refused} {were} accepted"))
            }
            FlushError::Unknown(_) => Self::new(
                Exit::Timeout,
                "the time passed before the daemon had accepted every message: what it has not may still arrive",
            ),
            _ => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<RecvTimeoutError> for Failure {
    fn from(error: RecvTimeoutError) -> Self {
        let exit = match error {
            RecvTimeoutError::Timeout => Exit::Timeout,
            RecvTimeoutError::Disconnected
            | RecvTimeoutError::Kicked
            | RecvTimeoutError::Replaced
            | RecvTimeoutError::Deleted => Exit::Closed,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own() {
        let mut codes = Exit::ALL.map(Exit::code).to_vec();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130, 143]);
    }

    #[test]
    fn an_unreachable_daemon_is_named_with_the_remedy() {
        let address = Address::new("/run/bus/x.sock").unwrap();
        let source = io::ErrorKind::NotFound.into();
        let failure = Failure::from(OpenError::Connect(ConnectError::Unreachable { address, source }));
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.to_string().contains("`bus daemon --socket /run/bus/x.sock`"), "{failure}");
    }

    #[test]
    fn a_daemon_that_is_there_and_silent_needs_no_second_one() {
        let address = Address::new("/run/bus/x.sock").unwrap();
        let source = io::Error::new(io::ErrorKind::TimedOut, "no answer within 5000 ms");
        let failure = Failure::from(ConnectError::Unreachable { address, source });
        let text = "no daemon answers at /run/bus/x.sock: no answer within 5000 ms: it may be stopped or overloaded";
        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Unreachable, text));
    }

    #[test]
    fn sending_errors_have_the_codes_of_the_table() {
        let code = |error: SendTimeoutError<()>| Failure::from(error).exit.code();
        assert_eq!(code(SendTimeoutError::Timeout(())), 4);
        assert_eq!(code(SendTimeoutError::Disconnected(())), 5);
        assert_eq!(code(SendTimeoutError::Full(())), 6);
        assert_eq!(code(SendTimeoutError::TooLarge { value: (), bytes: 2, limit: 1 }), 1);
    }

    #[test]
    fn who_was_not_accepted_is_counted() {
        let closed = |refused| FlushError::Disconnected { channel: "jobs".parse().unwrap(), refused };
        let failure = Failure::from(closed(1));
        assert_eq!(failure.exit, Exit::Closed);
        assert_eq!(failure.to_string(), "the channel was closed before 1 message was accepted");
        assert_eq!(Failure::from(closed(3)).to_string(), "the channel was closed before 3 messages were accepted");
    }

    #[test]
    fn a_place_and_a_note_stand_around_the_reason() {
        let failure = Failure::new(Exit::Failed, "over the limit").at("message 7").and("6 were accepted");
        assert_eq!(failure.to_string(), "message 7: over the limit; 6 were accepted");
    }
}
