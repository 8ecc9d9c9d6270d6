//! `bus consume`: from a channel to the output, or to a command.
//!
//! A message is acknowledged after the operating system has taken its bytes, so whatever ends this
//! process in between, the message comes again. To keep that fast, messages are taken, written and
//! acknowledged in batches of what is there: nothing waits for a batch to fill.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use bus_core::{
    AdminError, Bus, BytesBatch, BytesItem, ChannelName, ConnectError, Headers, Receiver, RecvTimeoutError, limits,
};

use super::exec;
use crate::args::{ConsumeArgs, UntilArgs};
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::printer::Printer;
use crate::signals::Signals;
use crate::stdio;

/// Consumes until one of the ends that were asked for.
pub(crate) fn run(args: &ConsumeArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let signals = Signals::take_charge()?;
    if args.exec.is_none() && stdio::output_goes_nowhere() {
        around.note("the output is closed or /dev/null: messages are thrown away");
    }
    // Its time runs from here: connecting is part of it.
    let mut ends = Ends::new(&args.channel, &args.until);
    let bus = around.connect_within(args.until.timeout)?;
    let mut receiver = open(&args.channel, &args.until, &bus)?;
    ends.begin_silence();
    if let Some(command) = &args.exec {
        return exec::run(command, args, &mut receiver, &mut ends, &signals);
    }
    let mut printer = Printer::new(args)?;
    while ends.more_wanted() {
        let none_came = match receiver.next_batch(ends.at_most(BATCH_MESSAGES), ends.next_at()) {
            Ok(batch) => {
                let _work = signals.work()?;
                match write_out(batch, &mut printer) {
                    (written, Ok(())) => ends.came(written)?,
                    // Who no longer reads has read enough.
                    (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
                    (_, Err(error)) => {
                        return Err(Failure::io("cannot write the output", &error).at(&args.channel).and(GIVEN_BACK));
                    }
                }
                continue;
            }
            Err(error) => error,
        };
        match ends.without_message(none_came, &receiver)? {
            Next::Wait => {}
            Next::End => return Ok(Exit::Done),
        }
    }
    Ok(Exit::Done)
}

/// Takes the seat, or a place in line.
pub(super) fn open(channel: &ChannelName, until: &UntilArgs, bus: &Bus) -> Result<Receiver<Vec<u8>>, Failure> {
    let mut receiver = bus.raw_receiver(channel);
    if until.until_disconnected {
        receiver = receiver.until_disconnected();
    }
    if until.standby {
        receiver = receiver.standby();
    }
    receiver.open().map_err(|error| Failure::not_opened(error, until.timeout))
}

/// Writes messages out, and acknowledges those that are written whole. Returns how many.
pub(super) fn write_out<W: Write>(batch: BytesBatch<'_>, printer: &mut Printer<W>) -> (u64, io::Result<()>) {
    let printed = batch
        .iter()
        .try_for_each(|message| printer.print(&message, || message.info(), || headers(&message)))
        .and_then(|()| printer.flush());
    let written = printer.take_written();
    batch.ack_first(written);
    (written as u64, printed)
}

/// Decides when there has been enough.
pub(super) struct Ends {
    channel: ChannelName,
    wanted: Option<u64>,
    messages_left: Option<u64>,
    timeout_at: Option<Instant>,
    idle: Option<Duration>,
    idle_at: Option<Instant>,
    until_empty: bool,
    /// How long to wait for a message before the daemon is asked again whether there are any.
    empty_pause: Duration,
    /// Since when no daemon answers that question.
    away_since: Option<Instant>,
}

/// What follows when no message came.
pub(super) enum Next {
    Wait,
    End,
}

impl Ends {
    pub(super) fn new(channel: &ChannelName, until: &UntilArgs) -> Self {
        let now = Instant::now();
        Self {
            channel: channel.clone(),
            wanted: until.messages,
            messages_left: until.messages,
            timeout_at: until.timeout.map(|timeout| now + timeout),
            idle: until.idle,
            idle_at: until.idle.map(|idle| now + idle),
            until_empty: until.until_empty,
            empty_pause: Duration::ZERO,
            away_since: None,
        }
    }

    /// No message can have come before.
    pub(super) fn begin_silence(&mut self) {
        self.idle_at = self.idle.map(|idle| Instant::now() + idle);
    }

    pub(super) fn more_wanted(&self) -> bool {
        self.messages_left != Some(0)
    }

    pub(super) fn at_most(&self, messages: usize) -> usize {
        self.messages_left.map_or(messages, |left| messages.min(usize::try_from(left).unwrap_or(messages)))
    }

    /// Until when to wait for the next message.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let look_at = self.until_empty.then(|| Instant::now() + self.empty_pause);
        [self.timeout_at, self.idle_at, look_at].into_iter().flatten().min()
    }

    /// So many messages are done with. Those that wait do not stop the time.
    pub(super) fn came(&mut self, messages: u64) -> Result<(), Failure> {
        if let Some(left) = &mut self.messages_left {
            *left -= messages;
        }
        self.begin_silence();
        self.empty_pause = Duration::ZERO;
        if self.more_wanted() { self.check_time() } else { Ok(()) }
    }

    /// How much of a pause the timeout leaves.
    pub(super) fn shortened(&self, pause: Duration) -> Duration {
        let rest = self.timeout_at.map(|at| at.saturating_duration_since(Instant::now()));
        rest.map_or(pause, |rest| pause.min(rest))
    }

    /// Fails once the timeout has passed.
    pub(super) fn check_time(&self) -> Result<(), Failure> {
        match self.timeout_at {
            Some(at) if at <= Instant::now() => Err(self.timed_out()),
            _ => Ok(()),
        }
    }

    /// No message came until `next_at`, or none can come.
    pub(super) fn without_message(
        &mut self,
        error: RecvTimeoutError,
        receiver: &Receiver<Vec<u8>>,
    ) -> Result<Next, Failure> {
        match error {
            RecvTimeoutError::Timeout => {}
            RecvTimeoutError::Disconnected => return Ok(Next::End),
            other => return Err(Failure::from(other).at(&self.channel)),
        }
        self.check_time()?;
        if self.idle_at.is_some_and(|at| at <= Instant::now()) {
            return Ok(Next::End);
        }
        if self.until_empty {
            if self.is_drained(receiver)? {
                return Ok(Next::End);
            }
            self.empty_pause = (self.empty_pause * 2).clamp(EMPTY_PAUSE_MIN, EMPTY_PAUSE_MAX);
        }
        Ok(Next::Wait)
    }

    /// Messages may be on their way here, and senders of an earlier daemon on theirs to it; the daemon knows. One
    /// that is away may be followed by another, to which senders bring what they hold.
    fn is_drained(&mut self, receiver: &Receiver<Vec<u8>>) -> Result<bool, Failure> {
        match receiver.is_drained() {
            Err(AdminError::Connect(ConnectError::Unreachable { .. }))
                if self.away_since.get_or_insert_with(Instant::now).elapsed() < AWAY_PATIENCE =>
            {
                Ok(false)
            }
            drained => {
                self.away_since = None;
                Ok(drained?)
            }
        }
    }

    fn timed_out(&self) -> Failure {
        let text = match (self.wanted, self.messages_left) {
            (Some(wanted), Some(left)) => format!("the time passed after {} of {wanted} messages", wanted - left),
            _ => "the time passed".to_owned(),
        };
        Failure::new(Exit::Timeout, text).at(&self.channel)
    }
}

/// The headers of a message; none when its sender wrote bytes that are no headers, which must not
/// keep its payload, and all messages behind it, from coming out.
pub(super) fn headers(message: &BytesItem<'_>) -> Headers {
    message.headers().unwrap_or_else(|error| {
        let info = message.info();
        stdio::tell(format_args!("message {} of sender {} (pid {}): {error}", info.sequence, info.sender, info.pid));
        Headers::new()
    })
}

/// What the user is told of messages that were taken and not written.
const GIVEN_BACK: &str = "what is not written comes again";

/// How many messages are written together at most. They count as taken while they are; more would
/// not make it faster.
pub(super) const BATCH_MESSAGES: usize = 1024;

/// How long `--until-empty` waits for messages that the daemon still counts, at first and at last.
const EMPTY_PAUSE_MIN: Duration = Duration::from_millis(1);
const EMPTY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// How long `--until-empty` waits for the next daemon: as long as that would wait for senders of this one.
const AWAY_PATIENCE: Duration = Duration::from_millis(limits::RESUME_GRACE_MS);
