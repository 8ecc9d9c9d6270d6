//! `bus consume --exec`: a command for each message.
//!
//! The message is acknowledged when the command ends with 0. Otherwise it is given back, comes
//! again, and the command is run again, up to the number of attempts that was asked for.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use bus_core::framing::jsonl;
use bus_core::{BytesDelivery, Headers, MessageInfo, Receiver, SenderId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::consume::{Ends, Next};
use crate::args::ConsumeArgs;
use crate::exit::{Exit, Failure};
use crate::signals::{Signals, Work};
use crate::stdio;

/// Runs the command for each message.
pub(super) fn run(
    command: &OsStr,
    args: &ConsumeArgs,
    receiver: &mut Receiver<Vec<u8>>,
    ends: &mut Ends,
    signals: &Signals,
) -> Result<Exit, Failure> {
    let mut handling = Handling { command, args, signals, attempts: Attempts::default() };
    while ends.more_wanted() {
        let none_came = match receiver.next_bytes(ends.next_at()) {
            Ok(delivery) => {
                handling.handle(delivery, ends)?;
                continue;
            }
            Err(error) => error,
        };
        match ends.without_message(none_came, receiver)? {
            Next::Wait => {}
            Next::End => return Ok(Exit::Done),
        }
    }
    Ok(Exit::Done)
}

/// What is done with each message.
struct Handling<'a> {
    command: &'a OsStr,
    args: &'a ConsumeArgs,
    signals: &'a Signals,
    attempts: Attempts,
}

impl Handling<'_> {
    /// Acknowledges the message if the command takes it, and gives it back otherwise, until it was tried often
    /// enough.
    fn handle(&mut self, delivery: BytesDelivery<'_>, ends: &mut Ends) -> Result<(), Failure> {
        let Self { command, args, signals, .. } = *self;
        let work = signals.work()?;
        let info = delivery.info();
        let outcome = handle(command, args.channel.as_str(), &delivery, &work);
        let Err(reason) = outcome else {
            delivery.ack();
            return ends.came(1);
        };
        delivery.nack();
        drop(work);
        signals.sleep(SHARED_SIGNAL_PATIENCE)?;
        let attempt = self.attempts.count(&info);
        let message = format!("message {} of sender {} (pid {})", info.sequence, info.sender, info.pid);
        if attempt >= args.max_attempts {
            let text = format!("{message}: {reason} at attempt {attempt} of {}; given back", args.max_attempts);
            return Err(Failure::new(Exit::HandlerFailed, text).at(&args.channel));
        }
        stdio::tell(format_args!(
            "{}: {message}: {reason} at attempt {attempt} of {}",
            args.channel, args.max_attempts
        ));
        signals.sleep(ends.shortened(args.retry_delay))?;
        ends.check_time()
    }
}

/// Runs the command once. The error says how it failed.
fn handle(command: &OsStr, channel: &str, delivery: &BytesDelivery<'_>, work: &Work<'_>) -> Result<(), String> {
    let headers = delivery.headers().map_err(|error| error.to_string())?;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .envs(environment(channel, &delivery.info(), &headers))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the shell cannot be run: {error}"))?;
    let fed = feed(&mut child, delivery, work);
    let status = child.wait().map_err(|error| format!("the command cannot be waited for: {error}"))?;
    fed.map_err(|error| format!("the command cannot be given the payload: {error}"))?;
    if status.success() { Ok(()) } else { Err(describe(status)) }
}

/// Gives the command its input, and a signal that comes meanwhile.
fn feed(child: &mut Child, payload: &[u8], work: &Work<'_>) -> io::Result<()> {
    let Some(input) = child.stdin.take() else { return Ok(()) };
    let command = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    work.with_handler(command.try_clone()?);
    write_while_it_runs(input, payload, &command)
}

/// Writes the payload, as much as the command wants of it. A child that it leaves behind may hold
/// the pipe open and never read, so its own end ends the writing.
fn write_while_it_runs(mut input: ChildStdin, mut payload: &[u8], command: &OwnedFd) -> io::Result<()> {
    fcntl_setfl(&input, fcntl_getfl(&input)? | OFlags::NONBLOCK)?;
    while !payload.is_empty() {
        match input.write(payload) {
            Ok(bytes) => payload = &payload[bytes..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut events =
                    [PollFd::new(&input, PollFlags::OUT), PollFd::from_borrowed_fd(command.as_fd(), PollFlags::IN)];
                match poll(&mut events, None) {
                    Ok(_) if !events[1].revents().is_empty() => break,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the command ended with {code}"),
        (None, Some(signal)) => format!("the command was ended by signal {signal}"),
        (None, None) => format!("the command ended with {status}"),
    }
}

fn environment(channel: &str, info: &MessageInfo, headers: &Headers) -> Vec<(OsString, OsString)> {
    let of_headers = headers.iter().map(|(key, value)| (header_variable(key), value.to_owned()));
    // Behind the headers, so that none of them can pass for what the bus says.
    let of_bus = [
        ("BUS_CHANNEL", channel.to_owned()),
        ("BUS_SENDER", info.sender.to_string()),
        ("BUS_PID", info.pid.to_string()),
        ("BUS_SEQUENCE", info.sequence.to_string()),
        ("BUS_SENT_AT", jsonl::time(info.sent_at)),
        ("BUS_ATTEMPT", info.attempt.to_string()),
        ("BUS_REDELIVERED", info.redelivered.to_string()),
        ("BUS_CODEC", info.codec.to_string()),
    ];
    let of_bus = of_bus.map(|(name, value)| (name.to_owned(), value));
    // The environment holds no NUL: a value ends where one stands.
    let until_nul = |value: String| OsString::from(value.split('\0').next().unwrap_or_default());
    of_headers.chain(of_bus).map(|(name, value)| (OsString::from(name), until_nul(value))).collect()
}

/// `BUS_HEADER_CONTENT_TYPE` for `content-type`.
fn header_variable(key: &str) -> String {
    let upper = |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' };
    format!("BUS_HEADER_{}", key.chars().map(upper).collect::<String>())
}

/// Counts the attempts at the message at hand. A message that is given back comes again at once, so
/// there is never another in between.
#[derive(Debug, Default)]
struct Attempts {
    message: Option<(SenderId, u64)>,
    count: u32,
}

impl Attempts {
    fn count(&mut self, info: &MessageInfo) -> u32 {
        let message = Some((info.sender, info.sequence));
        self.count = if self.message == message { self.count + 1 } else { 1 };
        self.message = message;
        self.count
    }
}

/// How long a signal may take to be noticed when the command, which got it too, has already died of
/// it: Ctrl-C is for all processes of a terminal, and the command's end is no failure then.
const SHARED_SIGNAL_PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_becomes_a_legal_variable() {
        assert_eq!(header_variable("content-type"), "BUS_HEADER_CONTENT_TYPE");
        assert_eq!(header_variable("ä=1"), "BUS_HEADER___1");
    }
}
