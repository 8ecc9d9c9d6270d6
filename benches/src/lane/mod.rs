//! What a ring of the library is held to, and the list of what is measured.
//!
//! Beside it, in turns: the [simplest ring](bare) that two processes can share, and [threads](threads) of one
//! process with a channel between them. The ends are [processes](flow) that do not sleep; each message is stamped
//! and published on its own, and the receiver [looks twice](merge) per round.

mod bare;
mod distance;
mod ends;
mod files;
pub(crate) mod flow;
pub(crate) mod instructions;
mod merge;
mod own;
pub(crate) mod pingpong;
mod taken;
pub(crate) mod threads;
pub(crate) mod wake;

use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::ends::{Kind, Temper};
use self::files::{Files, Size};
use self::flow::Pace;
use crate::child::Player;
use crate::ends::Waits;
use crate::measure::{self, Figure, Flow, consume, rate};
use crate::options::Options;
use crate::processors::{self, Placement};
use crate::role::Role;
use crate::scenario::flow as flow_between_ends;
use crate::server::{self, Server};
use crate::table::{self, Need, Row};
use crate::traffic::{Consumed, Form, Latency, Taking};

/// Figures that are measured together.
struct Probe {
    name: &'static str,
    measure: fn(&'static str, &Options) -> Result<Vec<Row>>,
}

const PROBES: &[Probe] = &[
    Probe { name: "processors, a line there and back", measure: distance },
    Probe { name: "processors, taken away for 3 us and more", measure: taken },
    Probe { name: "ring 64 B", measure: |name, options| beside_bare(name, flood(1, 64), options) },
    Probe { name: "ring 64 B, four to one", measure: |name, options| beside_bare(name, flood(4, 64), options) },
    Probe { name: "ring 64 B, patient", measure: |name, options| beside_bare(name, flood(1, 64).patient(), options) },
    Probe {
        name: "ring 64 B, four to one, patient",
        measure: |name, options| beside_bare(name, flood(4, 64).patient(), options),
    },
    Probe { name: "ring 1 KiB", measure: |name, options| beside_bare(name, flood(1, 1024), options) },
    Probe { name: "ring 1 KiB, four to one", measure: |name, options| beside_bare(name, flood(4, 1024), options) },
    Probe { name: "ring 64 KiB", measure: |name, options| beside_bare(name, flood(1, 64 * 1024), options) },
    Probe { name: "ring 1 MiB", measure: |name, options| beside_bare(name, flood(1, 1024 * 1024), options) },
    Probe { name: "library 64 B", measure: |name, options| beside_threads(name, flood(1, 64), options) },
    Probe { name: "library 64 B, four to one", measure: |name, options| beside_threads(name, flood(4, 64), options) },
    Probe { name: "library 1 KiB", measure: |name, options| library(name, flood(1, 1024), SMALL, options) },
    Probe {
        name: "library 1 KiB, four to one",
        measure: |name, options| library(name, flood(4, 1024), SMALL, options),
    },
    Probe { name: "library 64 KiB", measure: |name, options| library(name, flood(1, 64 * 1024), MEDIUM, options) },
    Probe { name: "library 1 MiB", measure: |name, options| library(name, flood(1, 1024 * 1024), LARGE, options) },
    Probe { name: "latency hot", measure: hot_latency },
    Probe { name: "library latency hot", measure: library_hot },
    Probe { name: "library latency hot, there and back", measure: library_hot_answered },
    Probe {
        name: "library latency sleeping, floor futex, two processors",
        measure: |name, options| library_sleeping(name, Placement::Apart, options),
    },
    Probe {
        name: "library latency sleeping, floor futex, one processor",
        measure: |name, options| processors::alone(|| library_sleeping(name, Placement::Anywhere, options)),
    },
    Probe {
        name: "library latency sleeping, floor futex, warm",
        measure: |name, options| processors::warm(|| library_sleeping(name, Placement::Apart, options)),
    },
    Probe { name: "latency doorbell, floor a pipe", measure: wake_latency },
    Probe { name: "instructions", measure: instructions },
];

/// What the library's ends are to reach of the simplest ring's rate.
const SMALL: Need = Need::RatioAtLeast(0.75);
const MEDIUM: Need = Need::AtLeastEither(9.0, 0.90);
const LARGE: Need = Need::RatioAtLeast(0.90);

/// What goes through rings, and how.
#[derive(Clone, Copy)]
struct Traffic {
    producers: u32,
    payload_bytes: usize,
    pace: Pace,
    temper: Temper,
}

/// As fast as it goes.
const fn flood(producers: u32, payload_bytes: usize) -> Traffic {
    Traffic { producers, payload_bytes, pace: Pace::Flood, temper: Temper::Eager }
}

impl Traffic {
    const fn patient(self) -> Self {
        Self { temper: Temper::Patient, ..self }
    }

    /// Floor and subject in turns, so that what the machine does meanwhile falls on both.
    fn both(self, options: &Options) -> Result<[Consumed; 2]> {
        Ok([self.run(Kind::Bare, options)?, self.run(Kind::Own, options)?])
    }

    /// The simplest ring and the library's ends in turns.
    fn bare_and_library(self, options: &Options) -> Result<[Figure; 2]> {
        let bare = rate(&self.run(Kind::Bare, options)?, self.payload_bytes);
        let flow = flow_between_ends(self.producers, self.payload_bytes, Form::Send);
        let figures = flow.run(&Server::start(server::Kind::DaemonWithLanes(Waits::Usual))?, options)?;
        Ok([bare, figures.into_iter().next().context("a flow has a rate")?])
    }

    fn run(self, kind: Kind, options: &Options) -> Result<Consumed> {
        let Self { producers, payload_bytes, pace, temper } = self;
        let lasts = options.shortened(LASTS);
        let rings = (0..producers).map(|_| Files::create(Size::of(payload_bytes))).collect::<Result<Vec<_>>>()?;
        let consumer = flow::Consume { kind, places: rings.iter().map(Files::place).collect(), temper };
        let produce = rings.iter().zip(0..).map(|(ring, producer)| {
            Role::RingProduce(flow::Produce { kind, place: ring.place(), producer, producers, pace, temper, lasts })
        });
        consume(&Role::RingConsume(consumer), produce)
    }
}

/// So far apart are messages that find nothing before them.
const HOT: Duration = Duration::from_micros(5);

const HOT_RING: Traffic = Traffic { pace: Pace::Paced(HOT), ..flood(1, 64) };

/// How long an ordinary measurement lasts.
const LASTS: Duration = Duration::from_secs(1);

/// Measures what `options` select and prints each figure as soon as it is known.
pub(crate) fn measure_all(options: &Options) {
    for probe in PROBES.iter().filter(|probe| options.selects(probe.name)) {
        match (probe.measure)(probe.name, options) {
            Ok(rows) => rows.iter().for_each(table::print),
            Err(error) => table::print_failed(probe.name, &error),
        }
    }
}

/// Of the machine alone: several times for each round, because it changes.
fn distance(name: &str, options: &Options) -> Result<Vec<Row>> {
    if available_parallelism().map_or(1, usize::from) < 2 {
        bail!("there is one processor");
    }
    let measure = |_| {
        sleep(Duration::from_millis(20));
        distance::there_and_back_ns()
    };
    let floor = (0..options.rounds * 5).map(measure).collect();
    Ok(vec![Row { floor, ..row(name, "ns", Need::Nothing) }])
}

/// Of the machine alone, as well.
fn taken(name: &str, options: &Options) -> Result<Vec<Row>> {
    let floor = (0..options.rounds).map(|_| taken::per_mille(options.shortened(LASTS))).collect::<Result<_>>()?;
    Ok(vec![Row { floor, ..row(name, "/1000", Need::Nothing) }])
}

/// Beside the simplest ring.
fn beside_bare(name: &str, traffic: Traffic, options: &Options) -> Result<Vec<Row>> {
    let mut row = row(name, "", Need::Nothing);
    for _ in 0..options.rounds {
        row.add(traffic.both(options)?.map(|consumed| rate(&consumed, traffic.payload_bytes)));
    }
    Ok(vec![row])
}

/// The ends as users have them, with a daemon, raw payloads and deliveries in batches.
fn library(name: &str, traffic: Traffic, need: Need, options: &Options) -> Result<Vec<Row>> {
    let mut row = row(name, "", need);
    for _ in 0..options.rounds {
        row.add(traffic.bare_and_library(options)?);
    }
    Ok(vec![row])
}

/// The same with messages of 64 bytes, and then beside threads of one process as well.
fn beside_threads(name: &str, traffic: Traffic, options: &Options) -> Result<Vec<Row>> {
    let mut beside_bare = row(name, "", SMALL);
    let mut beside_threads = row(&format!("{name}, floor threads"), "", Need::RatioAtLeast(1.0));
    for _ in 0..options.rounds {
        let [bare, library] = traffic.bare_and_library(options)?;
        let threads = threads::Threads { producers: traffic.producers, lasts: options.shortened(LASTS) };
        let threads: Consumed = Player::start(&Role::Threads(threads))?.report()?;
        beside_bare.add([bare, library]);
        beside_threads.add([rate(&threads, threads::MESSAGE_BYTES), library]);
    }
    Ok(vec![beside_bare, beside_threads])
}

/// One way, both ends awake, so far apart that every message finds an empty ring.
fn hot_latency(name: &str, options: &Options) -> Result<Vec<Row>> {
    let mut rows = ["p50", "p99.9"].map(|label| row(&format!("{name} {label}"), "ns", Need::Nothing));
    for _ in 0..options.rounds {
        let [floor, subject] = HOT_RING.both(options)?.map(|consumed| consumed.latency);
        rows[0].floor.push(floor.p50_ns as f64);
        rows[0].subject.push(subject.p50_ns as f64);
        rows[1].floor.push(floor.p999_ns as f64);
        rows[1].subject.push(subject.p999_ns as f64);
    }
    Ok(rows.into())
}

/// The same between ends as users have them, both awake; the receiver takes each message as a value of its own.
fn library_hot(name: &str, options: &Options) -> Result<Vec<Row>> {
    let flow = Flow {
        producers: 1,
        payload_bytes: 64,
        form: Form::Awake(HOT),
        taking: Taking::Value,
        placement: Placement::Anywhere,
    };
    let floor = || Ok(HOT_RING.run(Kind::Bare, options)?.latency);
    let subject = |server: &Server| Ok(flow.consume(server, options.shortened(LASTS))?.latency);
    hot_percentiles(name, options, floor, subject)
}

/// Half a round trip between such ends.
fn library_hot_answered(name: &str, options: &Options) -> Result<Vec<Row>> {
    let floor = || pingpong::by_bare_rings(options.shortened(LASTS));
    let subject = |server: &Server| measure::ping_pong_latency(server, Placement::Anywhere, options.shortened(LASTS));
    hot_percentiles(name, options, floor, subject)
}

/// Floor and subject in turns, the subject's ends awake.
fn hot_percentiles(
    name: &str,
    options: &Options,
    floor: impl Fn() -> Result<Latency>,
    subject: impl Fn(&Server) -> Result<Latency>,
) -> Result<Vec<Row>> {
    let needs = [("p50", Need::RatioAtMost(2.0)), ("p99", Need::Nothing), ("p99.9", Need::AtMost(3_000.0))];
    let mut rows = needs.map(|(label, need)| row(&format!("{name} {label}"), "ns", need));
    let percentiles = |latency: Latency| [latency.p50_ns, latency.p99_ns, latency.p999_ns];
    for _ in 0..options.rounds {
        let floor = percentiles(floor()?);
        let subject = percentiles(subject(&Server::start(server::Kind::DaemonWithLanes(Waits::Spinning))?)?);
        for (row, (floor, subject)) in rows.iter_mut().zip(floor.into_iter().zip(subject)) {
            row.floor.push(floor as f64);
            row.subject.push(subject as f64);
        }
    }
    Ok(rows.into())
}

/// Half a round trip between ends that sleep at once, beside two processes that wake each other by a word of
/// memory.
fn library_sleeping(name: &str, placement: Placement, options: &Options) -> Result<Vec<Row>> {
    let mut row = row(&format!("{name} p50"), "us", Need::RatioAtMost(1.2));
    for _ in 0..options.rounds {
        row.floor.push(wake::by_futex(placement, options.shortened(LASTS))?.p50_ns as f64 / 1e3);
        let server = Server::start(server::Kind::DaemonWithLanes(Waits::Sleeping))?;
        let figures = measure::Traffic::PingPong(placement).run(&server, options)?;
        row.subject.extend(figures.first().map(|figure| figure.value));
    }
    Ok(vec![row])
}

/// From ringing until the other process, which sleeps, has come back.
fn wake_latency(name: &str, options: &Options) -> Result<Vec<Row>> {
    let mut row = row(&format!("{name} p50"), "us", Need::Nothing);
    for _ in 0..options.rounds {
        row.floor.push(wake::by_pipe(options.shortened(LASTS))?.p50_ns as f64 / 1e3);
        row.subject.push(wake::by_doorbell(options.shortened(LASTS))?.p50_ns as f64 / 1e3);
    }
    Ok(vec![row])
}

/// They do not depend on the moment: one round.
fn instructions(name: &str, _: &Options) -> Result<Vec<Row>> {
    let (bare, own) = (instructions::per_message(Kind::Bare)?, instructions::per_message(Kind::Own)?);
    let of = |what: &str, floor, subject| {
        let name = format!("{name} of 64 B: {what}");
        Row { floor: vec![floor], subject: vec![subject], ..row(&name, "", Need::Nothing) }
    };
    Ok(vec![of("write, publish", bare.writing, own.writing), of("look to acknowledge", bare.reading, own.reading)])
}

fn row(name: &str, unit: &'static str, need: Need) -> Row {
    Row { name: name.to_owned(), unit, floor: Vec::new(), subject: Vec::new(), need }
}
