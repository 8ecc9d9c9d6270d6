//! `bus publish`: from arguments, input or files into a channel.
//!
//! Lines go from the reader's buffer into the sender's without being allocated. Before a read that
//! may wait, everything that was read is on its way: a line never waits for the next one.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bus_core::{Bus, ChannelName, Codec, FlushError, Headers, Sender, limits};

use crate::args::{FramingArgs, PublishArgs, RunArgs};
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::counted;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::stdio::{self, Patient};
use bus_core::framing::{FrameReader, ReadError, jsonl};

/// Publishes everything, and waits until it is accepted.
pub(crate) fn run(args: &PublishArgs, around: &Surroundings) -> Result<Exit, Failure> {
    for path in args.file.iter().filter(|path| !is_input(path)) {
        // Before anything is published; a file that is misspelt should not be found half way.
        path.metadata().map_err(|error| Failure::io(format_args!("cannot open {}", path.display()), &error))?;
    }
    if args.file.iter().filter(|path| is_input(path)).count() > 1 {
        let text = "the argument '--file -' cannot be used twice: the input can be read once";
        return Err(Failure::new(Exit::Usage, text));
    }
    let _signals = Signals::take_charge()?;
    let bus = around.connect_within(args.timeout)?;
    let sender = bus.raw_sender(&args.channel);
    let sender = if args.require_receiver { sender.require_receiver() } else { sender };
    let sender = sender.open().map_err(|error| Failure::not_opened(error, args.timeout))?;
    let headers = args.headers();
    let mut publisher = Publisher {
        codec: args.codec,
        patience: Patience::new(args),
        pace: args.rate.map(Pace::new),
        progress: Progress::new(around.is_quiet()),
        ..Publisher::new(&args.channel, &sender, &headers, around)
    };
    let published = publisher.publish_all(args, around, &bus);
    publisher.finish(published, around)?;
    Ok(Exit::Done)
}

/// Publishes the messages that `source` writes, until it ends. None waits for room longer than until `deadline`.
pub(super) fn publish_output(
    source: std::io::Result<Patient>,
    sender: &Sender<Vec<u8>>,
    (args, deadline): (&RunArgs, Option<Instant>),
    (bus, around): (&Bus, &Surroundings),
) -> Result<(), Failure> {
    let headers = args.headers.iter().cloned().collect();
    let patience = deadline.map_or(Patience::Forever, Patience::UntilDeadline);
    let mut publisher = Publisher { patience, ..Publisher::new(sender.channel(), sender, &headers, around) };
    let limit = publisher.limit(bus);
    let published = publisher.publish_from(source, None, &args.framing, limit);
    publisher.finish(published, around)
}

/// Sends messages one after the other.
struct Publisher<'a> {
    channel: &'a str,
    sender: &'a Sender<Vec<u8>>,
    /// What every message gets.
    headers: &'a Headers,
    around: &'a Surroundings,
    codec: Codec,
    patience: Patience,
    pace: Option<Pace>,
    progress: Progress,
    /// How many messages were sent.
    sent: u64,
    /// Whether it stopped because those that were sent are not accepted.
    unaccepted: bool,
}

impl<'a> Publisher<'a> {
    fn new(
        channel: &'a ChannelName,
        sender: &'a Sender<Vec<u8>>,
        headers: &'a Headers,
        around: &'a Surroundings,
    ) -> Self {
        Self {
            channel: channel.as_str(),
            sender,
            headers,
            around,
            codec: Codec::Raw,
            patience: Patience::Forever,
            pace: None,
            progress: Progress::new(true),
            sent: 0,
            unaccepted: false,
        }
    }

    /// Waits until all is accepted, and says what became of it.
    fn finish(mut self, published: Result<(), Failure>, around: &Surroundings) -> Result<(), Failure> {
        self.progress.end();
        let accepted = self.flush();
        if accepted.is_err() {
            // Dropping the sender would wait once more for what has not come in time.
            std::mem::forget(self.sender.clone());
        }
        self.conclude(published, accepted)?;
        if self.sender.dropped() > 0 {
            let dropped = counted(self.sender.dropped(), "message");
            around.note(format_args!("{dropped} of {} dropped: {} was full", self.sent, self.channel));
        }
        Ok(())
    }

    /// The largest message. Attached to it, the channel is there; without an answer the usual limit will do.
    fn limit(&self, bus: &Bus) -> u32 {
        bus.show(self.channel).map_or(limits::MESSAGE_MAX_BYTES, |info| info.message_max_bytes)
    }

    fn publish_all(&mut self, args: &PublishArgs, around: &Surroundings, bus: &Bus) -> Result<(), Failure> {
        if !args.messages.is_empty() {
            return self.publish_arguments(args);
        }
        let limit = self.limit(bus);
        if args.file.is_empty() {
            if std::io::stdin().is_terminal() {
                around.note("reading messages from the terminal; end with Ctrl-D");
            }
            return self.publish_from(stdio::input(), None, &args.framing, limit);
        }
        for path in &args.file {
            let file = if is_input(path) { stdio::input() } else { File::open(path).map(Patient::from) };
            self.publish_from(file, Some(path), &args.framing, limit)?;
        }
        Ok(())
    }

    fn publish_arguments(&mut self, args: &PublishArgs) -> Result<(), Failure> {
        for _ in 0..args.count {
            for message in &args.messages {
                self.publish(message.as_bytes())?;
            }
            self.progress.tell(self.sent);
        }
        Ok(())
    }

    /// Publishes the messages of one source.
    fn publish_from(
        &mut self,
        source: std::io::Result<Patient>,
        path: Option<&Path>,
        framing: &FramingArgs,
        limit: u32,
    ) -> Result<(), Failure> {
        let name = path.map_or("the input".to_owned(), |path| path.display().to_string());
        let source = source.map_err(|error| Failure::io(format_args!("cannot open {name}"), &error))?;
        let mut reader = FrameReader::new(source, &framing.framing(), limit as usize);
        let in_source = |failure: Failure| if path.is_some() { failure.at(&name) } else { failure };
        loop {
            let drained = match framing.jsonl {
                true => self.publish_ready_objects(&mut reader),
                false => self.publish_ready(&mut reader),
            };
            drained.map_err(in_source)?;
            if reader.has_ended() {
                return Ok(());
            }
            self.progress.tell(self.sent);
            self.before_read(reader.input())?;
            reader.read_more().map_err(|error| in_source(error.into()))?;
        }
    }

    fn publish_ready(&mut self, reader: &mut FrameReader<Patient>) -> Result<(), Failure> {
        if self.pace.is_none()
            && matches!(self.patience, Patience::Forever)
            && let Some(lines) = reader.ready_lines()
        {
            let outgoing = self.sender.outgoing().codec(self.codec);
            let outgoing = if self.headers.is_empty() { outgoing } else { outgoing.headers(self.headers) };
            let mut lines_taken = 0;
            let fed = outgoing.feed_all_bytes(lines.inspect(|_| lines_taken += 1));
            if let Err(error) = fed {
                // More lines are taken at once than are sent then: only the error knows.
                let failure = Failure::from(&error);
                self.sent += error.into_inner();
                return Err(self.not_sent(failure));
            }
            self.sent += lines_taken;
        }
        while let Some(message) = reader.next_ready()? {
            self.publish(message)?;
        }
        Ok(())
    }

    fn publish_ready_objects(&mut self, reader: &mut FrameReader<Patient>) -> Result<(), Failure> {
        loop {
            let number = reader.count() + 1;
            let Some(line) = reader.next_ready()? else { return Ok(()) };
            let parsed = jsonl::parse(line);
            let message = parsed.map_err(|error| {
                Failure::new(Exit::Failed, error.to_string()).at(format_args!("line {number} is no message"))
            })?;
            let headers = self.headers.iter().chain(message.headers.iter()).collect();
            self.send(&message.payload, &headers, message.codec.unwrap_or(self.codec))?;
        }
    }

    fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.send(payload, self.headers, self.codec)
    }

    fn send(&mut self, payload: &[u8], headers: &Headers, codec: Codec) -> Result<(), Failure> {
        if let Some(pace) = &self.pace {
            pace.wait_before(self.sent, self.sender);
        }
        let outgoing = self.sender.outgoing().codec(codec);
        let outgoing = if headers.is_empty() { outgoing } else { outgoing.headers(headers) };
        let outcome = match self.patience {
            Patience::Forever => outgoing.feed_bytes(payload, None).map_err(Failure::from),
            Patience::Within(limit) => {
                outgoing.feed_bytes(payload, Some(Instant::now() + limit)).map_err(Failure::from)
            }
            Patience::UntilDeadline(deadline) => outgoing.feed_bytes(payload, Some(deadline)).map_err(Failure::from),
            Patience::None => outgoing.asking_for_room().try_send_bytes(payload).map_err(Failure::from),
        };
        match outcome {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err(failure) => Err(self.not_sent(failure)),
        }
    }

    fn not_sent(&self, failure: Failure) -> Failure {
        let failure = match self.sender.obstacle() {
            Some(obstacle) => failure.because(&obstacle, || self.around.ask_about(self.channel)),
            None => failure,
        };
        failure.at(format_args!("message {} for {}", self.sent + 1, self.channel))
    }

    /// Nothing more is ready. What was read is sent off; and when the next read would wait, it is
    /// seen through, because nobody would write the rest meanwhile.
    fn before_read(&mut self, source: &Patient) -> Result<(), Failure> {
        self.sender.push_buffered();
        if source.is_ready() {
            return Ok(());
        }
        let accepted = self.flush();
        self.unaccepted = accepted.is_err();
        accepted.map_err(|error| self.not_accepted(error))
    }

    fn flush(&self) -> Result<(), FlushError> {
        match self.patience.flush_limit() {
            Some(limit) => self.sender.flush_deadline(Instant::now() + limit),
            None => self.sender.flush(),
        }
    }

    fn not_accepted(&self, error: FlushError) -> Failure {
        Failure::from(error).at(self.channel)
    }

    /// What the user is told in the end: why it stopped, and what became of what came before.
    fn conclude(&self, published: Result<(), Failure>, accepted: Result<(), FlushError>) -> Result<(), Failure> {
        match (published, accepted) {
            (Ok(()), Ok(())) => Ok(()),
            (Ok(()), Err(error)) => Err(self.not_accepted(error)),
            (Err(failure), _) if self.sent == 0 || self.unaccepted => Err(failure),
            (Err(failure), Ok(())) => Err(failure.and(self.before_it("was accepted", "were accepted"))),
            (Err(failure), Err(FlushError::Disconnected { refused, .. })) => {
                let refused = counted(refused as u64, "message");
                Err(failure.and(format_args!("{refused} before it not accepted")))
            }
            (Err(failure), Err(_)) => {
                Err(failure.and(self.before_it("may not be accepted", "may not all be accepted")))
            }
        }
    }

    /// `the message before it was accepted`, `the 7 messages before it were accepted`.
    fn before_it(&self, one: &str, many: &str) -> String {
        match self.sent {
            1 => format!("the message before it {one}"),
            sent => format!("the {sent} messages before it {many}"),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// How long a message may wait for room.
#[derive(Clone, Copy, Debug)]
enum Patience {
    Forever,
    Within(Duration),
    /// The time is for all messages together. One for which there is room is sent also later.
    UntilDeadline(Instant),
    None,
}

impl Patience {
    fn new(args: &PublishArgs) -> Self {
        match (args.no_wait, args.timeout) {
            (true, _) => Self::None,
            (false, Some(limit)) => Self::Within(limit),
            (false, None) => Self::Forever,
        }
    }

    /// How long what was sent may take to be accepted. A try does not wait for room, and the daemon
    /// answers at once unless it is away.
    fn flush_limit(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::Within(limit) => Some(limit),
            Self::UntilDeadline(deadline) => Some(deadline.saturating_duration_since(Instant::now()).max(LATE_FLUSH)),
            Self::None => Some(Duration::from_millis(limits::DROP_FLUSH_MS)),
        }
    }
}

/// Spreads messages over time.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    messages_per_second: f64,
}

impl Pace {
    fn new(messages_per_second: f64) -> Self {
        Self { begun: Instant::now(), messages_per_second }
    }

    /// Waits until the message behind `sent` others is due.
    fn wait_before(&self, sent: u64, sender: &Sender<Vec<u8>>) {
        let due = Duration::try_from_secs_f64(sent as f64 / self.messages_per_second).unwrap_or(Duration::MAX);
        let rest = due.saturating_sub(self.begun.elapsed());
        if !rest.is_zero() {
            sender.push_buffered();
            std::thread::sleep(rest);
        }
    }
}

/// `-` is the input.
fn is_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// How long the daemon has at least to accept what was sent just before a deadline, or after it.
const LATE_FLUSH: Duration = Duration::from_secs(1);
