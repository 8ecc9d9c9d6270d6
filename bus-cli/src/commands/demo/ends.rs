//! What the daemon, the producers and the consumer of the demonstration do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus_core::{Address, Receiver, RecvTimeoutError, Sender};
use bus_daemon::{Config, Daemon};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::process::{end_with_parent, wait_for_parent};
use super::report::{Audit, Progress};
use crate::args::{DemoConsumerArgs, DemoDaemonArgs, DemoProducerArgs};
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::stdio;

/// What is sent: a struct of an app, typed on both sides.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) producer: u32,
    /// From 1.
    pub(super) number: u64,
    /// By the monotonic clock, which all processes of a machine share.
    pub(super) sent_at_ns: u64,
    value: f64,
}

/// Serves the bus of the demonstration until its parent lets go, and removes its folder: the last to go, it does so
/// also for a parent that was killed.
pub(crate) fn serve(args: &DemoDaemonArgs) -> Result<Exit, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{what}: {error}"));
    check_folder(&args.folder)?;
    // Ctrl-C comes to all processes of a terminal: it is the parent that leaves, and this one with it.
    let ignored = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default());
    ignored.map_err(|error| failed("cannot ignore signals", &error))?;
    let socket = Some(Address::new(socket_in(&args.folder))?);
    let daemon = Daemon::start(Config { socket, ..Config::default() });
    let daemon = daemon.map_err(|error| failed("the daemon cannot start", &error))?;
    wait_for_parent();
    let ended = daemon.shutdown();
    let removed = remove_folder(&args.folder);
    ended.map_err(|error| failed("the daemon has failed", &error))?;
    removed.map_err(|error| failed("cannot remove the temporary folder", &error))?;
    Ok(Exit::Done)
}

/// Whether a folder is one that a demonstration has made for this: it is removed in the end.
fn check_folder(folder: &Path) -> Result<(), Failure> {
    let refused = |why: &str| {
        let text = format!("{} {why}: run `bus demo`, which makes a folder of its own", folder.display());
        Err(Failure::new(Exit::Usage, text))
    };
    let name = folder.file_name().unwrap_or_default();
    if !name.as_encoded_bytes().starts_with(FOLDER_PREFIX.as_bytes()) {
        return refused("is no folder of a demonstration");
    }
    let entries = std::fs::read_dir(folder);
    let entries = entries.map_err(|error| Failure::io(format_args!("cannot read {}", folder.display()), &error))?;
    if entries.count() > 0 {
        return refused("is not empty");
    }
    Ok(())
}

/// Removes what the daemon leaves behind, and the folder if that was all.
fn remove_folder(folder: &Path) -> std::io::Result<()> {
    // The parent may be at it too, after an error.
    let unless_gone = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    for name in [SOCKET_NAME, LOCK_NAME, KEY_NAME] {
        std::fs::remove_file(folder.join(name)).or_else(unless_gone)?;
    }
    std::fs::remove_dir(folder).or_else(unless_gone)
}

/// Where the bus of a demonstration is served.
pub(super) fn socket_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET_NAME)
}

/// Sends the samples of one producer.
pub(crate) fn produce(args: &DemoProducerArgs, around: &Surroundings) -> Result<Exit, Failure> {
    end_with_parent()?;
    let sender: Sender<Sample> = around.connect()?.sender(&args.channel).open()?;
    let begun = Instant::now();
    for number in 1..=args.messages {
        let sample = |sent_at_ns| Sample { producer: args.producer, number, sent_at_ns, value: number as f64 };
        let sent = match args.rate {
            None => sender.feed(sample(monotonic_ns())),
            Some(rate) => {
                let due = Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
                sender.send(sample(monotonic_ns()))
            }
        };
        sent.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    }
    sender.flush()?;
    Ok(Exit::Done)
}

/// Receives the samples of all producers, and reports on them.
pub(crate) fn consume(args: &DemoConsumerArgs, around: &Surroundings) -> Result<Exit, Failure> {
    end_with_parent()?;
    let receiver: Receiver<Sample> = around.connect()?.receiver(&args.channel).open()?;
    let total = args.messages * u64::from(args.producers);
    let mut audit = Audit::new(args.producers);
    let mut told_at = Instant::now();
    let mut deadline = told_at + PATIENCE;
    for count in 1..=total {
        let sample = match receiver.recv_deadline(deadline) {
            Ok(sample) => sample,
            // The report says what is missing.
            Err(RecvTimeoutError::Timeout) => break,
            Err(error) => return Err(error.into()),
        };
        audit.note(&sample, monotonic_ns());
        if count % COUNTED_TOGETHER == 0 {
            let now = Instant::now();
            deadline = now + PATIENCE;
            if now - told_at >= TELL_INTERVAL {
                told_at = now;
                tell(&Progress::Received(count))?;
            }
        }
    }
    tell(&Progress::Done(audit.report()))?;
    Ok(Exit::Done)
}

fn tell(progress: &Progress) -> Result<(), Failure> {
    let told = serde_json::to_string(progress).map_err(std::io::Error::from);
    told.and_then(|line| stdio::output()?.write_all((line + "\n").as_bytes()))
        .map_err(|error| Failure::io("cannot report", &error))
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// With what the name of the folder of a demonstration begins.
pub(super) const FOLDER_PREFIX: &str = "bus-demo-";

/// What a daemon makes in it.
const SOCKET_NAME: &str = "bus.sock";
const LOCK_NAME: &str = "bus.sock.lock";
const KEY_NAME: &str = "key";

/// How long the consumer waits for a message before it takes the rest for lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the consumer tells how far it is, and after how many messages it looks at the clock.
const TELL_INTERVAL: Duration = Duration::from_millis(250);
const COUNTED_TOGETHER: u64 = 256;
