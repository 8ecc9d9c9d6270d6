//! What the bus costs while little or nothing moves: resident memory and processor time.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::child::Player;
use crate::ends::Channel;
use crate::idle::{BlockedSender, IdleReceiver, IdleSenders, StoppedReceiver};
use crate::options::Options;
use crate::process::{ProcessorUse, resident_mib};
use crate::processors::Placement;
use crate::role::Role;
use crate::scenario::{flow, paced};
use crate::server::{Kind, Server};
use crate::table::{self, Need, Row};
use crate::traffic::Form;

/// A group of figures that are measured together.
struct Probe {
    name: &'static str,
    measure: fn(&Options) -> Result<Vec<Row>>,
}

const PROBES: &[Probe] = &[
    Probe { name: "idle daemon and consumer", measure: idle },
    Probe { name: "2,000 idle senders", measure: idle_senders },
    Probe { name: "consumer stops", measure: stopped_receiver },
];

/// Measures what `options` select and prints each figure.
pub(crate) fn measure_all(options: &Options) {
    for probe in PROBES.iter().filter(|probe| options.selects(probe.name)) {
        match (probe.measure)(options) {
            Ok(rows) => rows.iter().for_each(table::print),
            Err(error) => table::print_failed(probe.name, &error),
        }
    }
}

/// The channel of the ends that do nothing.
const QUIET: Channel = 9;
/// The channel of the traffic.
const BUSY: Channel = 0;

/// How long an idle process is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Time for what a new connection causes to be over.
const SETTLING: Duration = Duration::from_millis(500);

fn idle(_: &Options) -> Result<Vec<Row>> {
    let daemon = Server::start(Kind::Daemon)?;
    sleep(SETTLING);
    let resident = resident_mib(daemon.pid())?;
    let receiver = Player::start(&Role::IdleReceiver(IdleReceiver { place: daemon.place(), channel: QUIET }))?;
    sleep(SETTLING);
    let before = [ProcessorUse::of(daemon.pid())?, ProcessorUse::of(receiver.pid())?];
    sleep(WATCHED);
    let daemon_use = ProcessorUse::of(daemon.pid())?.since(before[0]);
    let receiver_use = ProcessorUse::of(receiver.pid())?.since(before[1]);
    Ok(vec![
        row("idle daemon: resident", "MiB", resident, Need::AtMost(8.0)),
        row("idle daemon: processor in 2 s", "us", daemon_use.busy_ns as f64 / 1e3, Need::AtMost(0.0)),
        row("idle daemon: wake-ups in 2 s", "", daemon_use.runs as f64, Need::AtMost(0.0)),
        row("idle consumer: processor in 2 s", "us", receiver_use.busy_ns as f64 / 1e3, Need::AtMost(0.0)),
        row("idle consumer: wake-ups in 2 s", "", receiver_use.runs as f64, Need::AtMost(0.0)),
    ])
}

/// How many times the usual rounds are taken where a difference of a twentieth is looked for: of two servers that are the
/// same, the medians of nine differ by more.
const ROUNDS: u32 = 4;

/// How many senders are connected and silent.
const IDLE_SENDERS: usize = 2_000;

fn idle_senders(options: &Options) -> Result<Vec<Row>> {
    let alone = Server::start(Kind::Daemon)?;
    let crowded = Server::start(Kind::Daemon)?;
    let open_senders = |channel| {
        let role = IdleSenders { place: crowded.place(), channel, count: IDLE_SENDERS / 2 };
        Player::start(&Role::IdleSenders(role))
    };
    // Half of them at the channel of the busy pair, half at another.
    let _holders = [open_senders(BUSY)?, open_senders(QUIET)?];
    let quiet_resident = resident_mib(crowded.pid())?;
    let mut rows = vec![row("2,000 idle senders: daemon resident", "MiB", quiet_resident, Need::AtMost(40.0))];
    let beside = [
        ("busy pair beside 2,000 idle senders", flow(1, 64, Form::Feed), Need::RatioAtLeast(0.95)),
        ("latency beside 2,000 idle senders", paced(Placement::ServerApart), Need::RatioAtMost(1.05)),
    ];
    for (name, traffic, need) in beside {
        let mut row = Row { name: name.to_owned(), unit: "", floor: Vec::new(), subject: Vec::new(), need };
        for round in 0..ROUNDS * options.rounds {
            let mut sides = [(&alone, &mut row.floor), (&crowded, &mut row.subject)];
            // What comes second may find the machine in another state.
            sides.rotate_left(round as usize % 2);
            for (server, values) in sides {
                let figure = traffic.run(server, options)?.swap_remove(0);
                row.unit = figure.unit;
                values.push(figure.value);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn stopped_receiver(_: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (payload_bytes, size) in [(64, "64 B"), (1024, "1 KiB"), (64 * 1024, "64 KiB")] {
        let daemon = Server::start(Kind::Daemon)?;
        let place = daemon.place();
        let stopped = StoppedReceiver { place: place.clone(), channel: BUSY };
        let receiver = Player::start(&Role::StoppedReceiver(stopped))?;
        let blocked = BlockedSender { place, channel: BUSY, payload_bytes };
        let mut sender = Player::start(&Role::BlockedSender(blocked))?;
        let held: u64 = sender.report()?;
        let mut shown = |what: &str, unit, value| {
            rows.push(row(&format!("consumer stops, {size}: {what}"), unit, value, Need::Nothing));
        };
        shown("held", "msgs", held as f64);
        shown("daemon", "MiB", resident_mib(daemon.pid())?);
        shown("sender", "MiB", resident_mib(sender.pid())?);
        shown("consumer", "MiB", resident_mib(receiver.pid())?);
    }
    Ok(rows)
}

fn row(name: &str, unit: &'static str, value: f64, need: Need) -> Row {
    Row { name: name.to_owned(), unit, floor: Vec::new(), subject: vec![value], need }
}
