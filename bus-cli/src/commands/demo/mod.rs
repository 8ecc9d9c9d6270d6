//! `bus demo`: the bus at work. A daemon in a temporary folder, four producers and one consumer,
//! each a process of its own; then the proof that every message came, once and in order.
//!
//! This file is the parent of them all, which starts, watches and removes them; [`ends`] is what
//! the producers and the consumer do.

mod ends;
mod process;
mod report;

use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use bus_core::{Address, Bus, ConnectError};

use ends::{FOLDER_PREFIX, socket_in};
pub(crate) use ends::{consume, produce, serve};
use process::Process;
use report::{Progress, Report};

use crate::args::DemoArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::{self, grouped};
use crate::signals::{Signals, Work};

/// Shows it all.
pub(crate) fn run(args: &DemoArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let signals = Signals::take_charge()?;
    let work = signals.work()?;
    let shown = show(args, around, &work);
    match signals.came() {
        // What broke off did so because the user wanted it.
        Some(exit) => Err(Failure::silent(exit)),
        None => shown,
    }
}

/// A round of the demonstration.
struct Round {
    title: &'static str,
    channel: &'static str,
    /// Of each producer.
    messages: u64,
    /// Of each producer, a second; at full speed without.
    rate: Option<u32>,
}

fn show(args: &DemoArgs, around: &Surroundings, work: &Work<'_>) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir();
    let folder = folder.map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
    let socket = socket_in(folder.path());
    let mut daemon = start_daemon(folder.path())?;
    say(format_args!("daemon     pid {} at {}", daemon.pid(), socket.display()))?;

    let rounds = [
        Round { title: "at full speed", channel: "demo.speed", messages: args.messages, rate: None },
        Round { title: "one at a time", channel: "demo.latency", messages: PACED_MESSAGES, rate: Some(PACED_RATE) },
    ];
    for round in rounds {
        say(format_args!("\n{}", round.title))?;
        play(&round, &socket, around, work)?;
    }

    // It removes the folder.
    daemon.stop()?;
    say("\nEvery message came, once and in the order of its producer. Nothing is left behind.")
}

fn start_daemon(folder: &Path) -> Result<Process, Failure> {
    let mut daemon = Process::start("the daemon", |command| {
        command.arg("demo-daemon").arg(folder);
    })?;
    let address = Address::new(socket_in(folder))?;
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match Bus::connect_to(&address) {
            Ok(_) => return Ok(daemon),
            Err(ConnectError::Unreachable { .. }) if Instant::now() < deadline => {
                daemon.check_running()?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lets four producers and a consumer run, and checks what the consumer saw.
fn play(round: &Round, socket: &Path, around: &Surroundings, work: &Work<'_>) -> Result<(), Failure> {
    let messages = round.messages.to_string();
    let mut consumer = Process::start("the consumer", |command| {
        command.arg("demo-consumer").arg("--socket").arg(socket).arg(round.channel);
        command.args(["--producers", &PRODUCERS.to_string(), "--messages", &messages]);
    })?;
    if let Some(pidfd) = consumer.pidfd() {
        // A signal ends the consumer; its silence ends the rest.
        work.with_handler(pidfd);
    }
    let mut producers = Vec::new();
    for number in 0..PRODUCERS {
        producers.push(Process::start("a producer", |command| {
            command.arg("demo-producer").arg("--socket").arg(socket).arg(round.channel);
            command.args(["--producer", &number.to_string(), "--messages", &messages]);
            command.args(round.rate.iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
        })?);
    }
    let pids: Vec<String> = producers.iter().map(|producer| producer.pid().to_string()).collect();
    say(format_args!("producers  pids {}; consumer pid {}", pids.join(" "), consumer.pid()))?;

    let total = round.messages * u64::from(PRODUCERS);
    let report = hear(&mut consumer, total, around)?;
    for producer in &mut producers {
        producer.finish()?;
    }
    consumer.finish()?;
    let text = if round.rate.is_some() { report.latencies() } else { report.speed() };
    say(format_args!("{text}\n{}", report.proof(round.messages)))?;
    report.verify(round.messages, PRODUCERS)
}

/// Listens to the consumer until it reports.
fn hear(consumer: &mut Process, total: u64, around: &Surroundings) -> Result<Report, Failure> {
    let on_terminal = stderr().is_terminal();
    loop {
        match serde_json::from_str(&consumer.line()?) {
            Ok(Progress::Received(_)) if around.is_quiet() => {}
            Ok(Progress::Received(count)) => {
                let (before, after) = if on_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
                let line = format!("{before}{} of {} messages{after}", grouped(count), grouped(total));
                // Progress that cannot be shown is no reason to stop.
                let _ = stderr().write_all(line.as_bytes());
            }
            Ok(Progress::Done(report)) => {
                if on_terminal && !around.is_quiet() {
                    let _ = stderr().write_all(b"\r\x1b[K");
                }
                return Ok(report);
            }
            Err(error) => {
                return Err(Failure::new(Exit::Failed, format!("the consumer's report is unreadable: {error}")));
            }
        }
    }
}

fn say(line: impl std::fmt::Display) -> Result<Exit, Failure> {
    output::write(format!("{line}\n").as_bytes())
}

const PRODUCERS: u32 = 4;

/// Far below what the bus can do, so that what is measured is the way and not a queue.
const PACED_RATE: u32 = 500;
const PACED_MESSAGES: u64 = 1_000;

/// How long the daemon may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(10);
