//! Threads behind bridges, beside threads that hold the ends of the bus themselves.
//!
//! On both sides a value is a `Vec<u8>` of its own, and one process produces while another consumes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bus_core::{Receiver, Sender, bridge};
use crossbeam_channel::bounded;
use serde::{Deserialize, Serialize};

use crate::child::{await_go, say, tell};
use crate::clock::now_ns;
use crate::ends::{Route, Waits, bus, name};
use crate::measure::{consume, rate};
use crate::options::Options;
use crate::payload::Maker;
use crate::role::Role;
use crate::server::{Kind, Server};
use crate::table::{self, Need, Row};
use crate::traffic::{FORTH, Place, Produced, Watch};

const PAYLOAD_BYTES: usize = 64;

/// How many values may lie between a thread and its bridge.
const SLOTS: usize = 4096;

/// Whether a bridge stands between the thread and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bridging {
    None,
    Bridge,
}

/// Sends for a while.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProduceValues {
    place: Place,
    bridging: Bridging,
    lasts: Duration,
}

/// Checks all that comes until the producer has sent its last message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConsumeValues {
    place: Place,
    bridging: Bridging,
}

/// A daemon whose senders ask for lanes.
const LANES: Kind = Kind::DaemonWithLanes(Waits::Usual);

/// What is measured: who has a bridge, on which route.
const SCENARIOS: [(&str, Kind, Bridging, Bridging); 6] = [
    ("bridge beside stream, export", Kind::Daemon, Bridging::Bridge, Bridging::None),
    ("bridge beside stream, import", Kind::Daemon, Bridging::None, Bridging::Bridge),
    ("bridge beside stream, both", Kind::Daemon, Bridging::Bridge, Bridging::Bridge),
    ("bridge beside lane, export", LANES, Bridging::Bridge, Bridging::None),
    ("bridge beside lane, import", LANES, Bridging::None, Bridging::Bridge),
    ("bridge beside lane, both", LANES, Bridging::Bridge, Bridging::Bridge),
];

/// Measures what `options` select and prints each figure as soon as it is known.
pub(crate) fn measure_all(options: &Options) {
    for (name, kind, export, import) in SCENARIOS {
        if !options.selects(name) {
            continue;
        }
        match measure(name, kind, (export, import), options) {
            Ok(row) => table::print(&row),
            Err(error) => table::print_failed(name, &error),
        }
    }
}

/// Without and with bridges in turns.
fn measure(name: &str, kind: Kind, (export, import): (Bridging, Bridging), options: &Options) -> Result<Row> {
    // Each bridge may cost as much.
    let bridges = [export, import].into_iter().filter(|bridging| *bridging == Bridging::Bridge).count();
    let need = Need::RatioAtLeast(0.7_f64.powi(bridges as i32));
    let mut row = Row { name: name.to_owned(), unit: "M/s", floor: Vec::new(), subject: Vec::new(), need };
    for _ in 0..options.rounds {
        row.floor.push(flow(kind, Bridging::None, Bridging::None, options)?);
        row.subject.push(flow(kind, export, import, options)?);
    }
    Ok(row)
}

fn flow(kind: Kind, export: Bridging, import: Bridging, options: &Options) -> Result<f64> {
    let server = Server::start(kind)?;
    let lasts = options.shortened(Duration::from_secs(1));
    let consumer = Role::ConsumeValues(ConsumeValues { place: server.place(), bridging: import });
    let producer = Role::ProduceValues(ProduceValues { place: server.place(), bridging: export, lasts });
    let consumed = consume(&consumer, std::iter::once(producer))?;
    Ok(rate(&consumed, PAYLOAD_BYTES).value)
}

impl ProduceValues {
    pub(crate) fn play(self) -> Result<()> {
        let sender = bus(&self.place.socket)?.raw_sender(name(FORTH));
        let sender = if matches!(self.place.route, Route::Lane(_)) { sender.lane() } else { sender.no_lane() };
        let sender: Sender<Vec<u8>> = sender.open()?;
        await_go()?;
        let messages = match self.bridging {
            Bridging::None => {
                let messages = self.produce(|value| Ok(sender.feed(value)?))?;
                sender.flush()?;
                messages
            }
            Bridging::Bridge => {
                let (values, source) = bounded(SLOTS);
                let bridge = bridge::export(source, sender);
                let messages = self.produce(|value| values.send(value).ok().context("the bridge has ended"))?;
                drop(values);
                bridge.join()?;
                messages
            }
        };
        tell(&Produced { messages })
    }

    fn produce(&self, put: impl Fn(Vec<u8>) -> Result<()>) -> Result<u64> {
        const MESSAGES_PER_LOOK: u32 = 1024;
        let mut maker = Maker::new(0, PAYLOAD_BYTES);
        let until_ns = now_ns() + self.lasts.as_nanos() as u64;
        while now_ns() < until_ns {
            for _ in 0..MESSAGES_PER_LOOK {
                put(maker.next(0).to_vec())?;
            }
        }
        put(maker.last().to_vec())?;
        Ok(maker.made())
    }
}

impl ConsumeValues {
    pub(crate) fn play(self) -> Result<()> {
        let receiver: Receiver<Vec<u8>> = bus(&self.place.socket)?.raw_receiver(name(FORTH)).open()?;
        say("ready")?;
        let watch = match self.bridging {
            Bridging::None => check(|| Ok(receiver.recv()?))?,
            Bridging::Bridge => {
                let values = receiver.into_crossbeam(SLOTS);
                check(|| Ok(values.recv()?))?
            }
        };
        tell(&watch.consumed()?)
    }
}

fn check(take: impl Fn() -> Result<Vec<u8>>) -> Result<Watch> {
    let mut watch = Watch::new(1, PAYLOAD_BYTES)?;
    while watch.producers > 0 {
        watch.look(&take()?)?;
    }
    Ok(watch)
}
