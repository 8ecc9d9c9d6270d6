//! One measurement: the processes that it needs, started, let go and asked for their figures.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::child::Player;
use crate::ends::{Route, name};
use crate::options::Options;
use crate::payload::{LINE_BYTES, Lines};
use crate::process::ProcessorUse;
use crate::processors::Placement;
use crate::role::Role;
use crate::server::{Server, program};
use crate::traffic::{
    Consume, ConsumeLines, Consumed, FORTH, Form, Latency, Ping, Place, Pong, Produce, ProduceLines, Produced, Taking,
};

/// What goes through a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Traffic {
    /// One way.
    Flow(Flow),
    /// There and back, messages of 64 bytes: half a round trip.
    PingPong(Placement),
    /// Lines from a pipe.
    Lines,
}

/// Messages from producers to one consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) producers: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) form: Form,
    pub(crate) taking: Taking,
    pub(crate) placement: Placement,
}

/// What one measurement gives: one value, or the percentiles.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

impl Traffic {
    /// Measures once, between fresh ends at `server`.
    pub(crate) fn run(self, server: &Server, options: &Options) -> Result<Vec<Figure>> {
        match self {
            Self::Flow(flow) => flow.run(server, options),
            Self::PingPong(placement) => {
                Ok(percentiles(ping_pong_latency(server, placement, options.shortened(Duration::from_secs(1)))?))
            }
            Self::Lines => {
                let lines = if options.quick { 500_000 } else { 2_000_000 };
                let consumed = lines_from_pipe(server, lines)?;
                Ok(vec![rate(&consumed, LINE_BYTES)])
            }
        }
    }
}

impl Flow {
    /// The latency of a paced flow, the rate of another; then what a message cost the server.
    pub(crate) fn run(self, server: &Server, options: &Options) -> Result<Vec<Figure>> {
        let before = ProcessorUse::of(server.pid())?;
        let consumed = self.consume(server, options.shortened(Duration::from_secs(1)))?;
        let spent = ProcessorUse::of(server.pid())?.since(before);
        let mut figures = match self.form {
            Form::Paced(_) | Form::Awake(_) => percentiles(consumed.latency),
            Form::Send | Form::Feed => vec![rate(&consumed, self.payload_bytes)],
        };
        let value = spent.busy_ns as f64 / consumed.messages as f64;
        figures.push(Figure { label: "server's processor", unit: "ns", value });
        Ok(figures)
    }

    pub(crate) fn consume(self, server: &Server, lasts: Duration) -> Result<Consumed> {
        let Self { producers, payload_bytes, form, taking, placement } = self;
        let place = server.place();
        let role = Consume { place: place.clone(), producers, payload_bytes, taking };
        let produce = |producer| Role::Produce(Produce { place: place.clone(), producer, payload_bytes, form, lasts });
        consume_at(placement, Some(server), &Role::Consume(role), (0..producers).map(produce))
    }
}

/// Starts a consumer, then its producers, and lets them go together.
pub(crate) fn consume(consumer: &Role, producers: impl Iterator<Item = Role>) -> Result<Consumed> {
    consume_at(Placement::Anywhere, None, consumer, producers)
}

/// The same, with the consumer and its first producer where they are to run.
fn consume_at(
    placement: Placement,
    server: Option<&Server>,
    consumer: &Role,
    producers: impl Iterator<Item = Role>,
) -> Result<Consumed> {
    let mut consumer = Player::start(consumer)?;
    let mut players = producers.map(|role| Player::start(&role)).collect::<Result<Vec<_>>>()?;
    if let Some(producer) = players.first() {
        placement.put([producer.main_thread(), consumer.main_thread()], server.map(Server::main_thread))?;
    }
    for player in &mut players {
        player.go()?;
    }
    let consumed: Consumed = consumer.report()?;
    let mut sent = 0;
    for mut player in players {
        sent += player.report::<Produced>()?.messages;
        player.finish()?;
    }
    // It leaves in order: one that is killed may leave messages that it has not acknowledged.
    consumer.finish()?;
    ensure!(consumed.messages == sent, "{sent} messages were sent and {} came", consumed.messages);
    Ok(consumed)
}

fn percentiles(latency: Latency) -> Vec<Figure> {
    let figures = [("p50", latency.p50_ns), ("p99", latency.p99_ns), ("p99.9", latency.p999_ns)];
    figures.map(|(label, ns)| Figure { label, unit: "us", value: ns as f64 / 1e3 }).into()
}

/// Millions of messages a second for small ones, GiB a second for large ones.
pub(crate) fn rate(consumed: &Consumed, payload_bytes: usize) -> Figure {
    let seconds = consumed.elapsed_ns as f64 / 1e9;
    let messages = consumed.messages as f64;
    if payload_bytes < 16 * 1024 {
        Figure { label: "", unit: "M/s", value: messages / seconds / 1e6 }
    } else {
        let gib = messages * payload_bytes as f64 / f64::from(1 << 30);
        Figure { label: "", unit: "GiB/s", value: gib / seconds }
    }
}

/// Length of the messages that go there and back, in bytes.
const PING_BYTES: usize = 64;

/// Half a round trip between fresh ends at `server`.
pub(crate) fn ping_pong_latency(server: &Server, placement: Placement, lasts: Duration) -> Result<Latency> {
    let place = server.place();
    let mut pong = Player::start(&Role::Pong(Pong { place: place.clone(), payload_bytes: PING_BYTES }))?;
    let mut ping = Player::start(&Role::Ping(Ping { place, payload_bytes: PING_BYTES, lasts }))?;
    placement.put([ping.main_thread(), pong.main_thread()], Some(server.main_thread()))?;
    ping.go()?;
    let latency = ping.report()?;
    pong.report::<u64>()?;
    Ok(latency)
}

fn lines_from_pipe(server: &Server, lines: u64) -> Result<Consumed> {
    let place = server.place();
    let mut consumer = Player::start(&Role::ConsumeLines(ConsumeLines { place: place.clone(), lines }))?;
    let file = tempfile::NamedTempFile::new()?;
    write_lines(file.as_file(), lines)?;
    let mut cat = cat(file.path())?;
    let input = cat.stdout.take().context("cat without an output")?;
    let producer = line_producer(place, Stdio::from(input))?;
    let consumed = consumer.report()?;
    producer.finish()?;
    cat.wait()?;
    Ok(consumed)
}

/// `bus publish`, or what does the same for a relay.
fn line_producer(place: Place, input: Stdio) -> Result<Player> {
    match place.route {
        Route::Relay => Player::start_with(&Role::ProduceLines(ProduceLines { place }), input),
        Route::Bus | Route::Lane(_) => {
            let mut command = Command::new(program("bus")?);
            command.arg("--socket").arg(&place.socket).arg("publish").arg(name(FORTH)).stdin(input);
            Player::spawn("bus publish", command)
        }
    }
}

fn write_lines(file: &File, count: u64) -> Result<()> {
    let mut file = BufWriter::new(file);
    let mut lines = Lines::new();
    for _ in 0..count {
        file.write_all(lines.line())?;
        file.write_all(b"\n")?;
        lines.step();
    }
    Ok(file.flush()?)
}

fn cat(path: &Path) -> Result<Child> {
    Command::new("cat").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cat")
}
