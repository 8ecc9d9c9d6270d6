//! What the producers and the consumer of the demonstration do.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bus_core::{Receiver, RecvTimeoutError, Sender};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::report::{Audit, Progress};
use crate::args::{DemoConsumerArgs, DemoProducerArgs};
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

/// Sends the samples of one producer.
pub(crate) fn produce(args: &DemoProducerArgs, around: &Surroundings) -> Result<Exit, Failure> {
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

/// How long the consumer waits for a message before it takes the rest for lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the consumer tells how far it is, and after how many messages it looks at the clock.
const TELL_INTERVAL: Duration = Duration::from_millis(250);
const COUNTED_TOGETHER: u64 = 256;
