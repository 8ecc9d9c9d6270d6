//! The floor within one process: threads and a bounded channel.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};

use crate::child::{say, tell};
use crate::clock::now_ns;
use crate::payload::Maker;
use crate::traffic::{Consumed, Watch};

/// Length of the messages, in bytes: they are moved whole, so it is part of their type.
pub(crate) const MESSAGE_BYTES: usize = 64;

/// How many may be under way.
const SLOTS: usize = 4096;

/// Producers and the consumer, each a thread.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Threads {
    pub(crate) producers: u32,
    pub(crate) lasts: Duration,
}

impl Threads {
    pub(crate) fn play(self) -> Result<()> {
        say("ready")?;
        let (sender, receiver) = bounded(SLOTS);
        let until_ns = now_ns() + self.lasts.as_nanos() as u64;
        let consumed = std::thread::scope(|scope| {
            for producer in 0..self.producers {
                let sender = sender.clone();
                scope.spawn(move || produce(producer, until_ns, &sender));
            }
            consume(self.producers, receiver)
        })?;
        tell(&consumed)
    }
}

/// Ends early when the consumer is gone, which says why.
fn produce(producer: u32, until_ns: u64, sender: &Sender<[u8; MESSAGE_BYTES]>) -> Option<()> {
    const MESSAGES_PER_LOOK: u32 = 1024;
    let mut maker = Maker::new(producer, MESSAGE_BYTES);
    while now_ns() < until_ns {
        for _ in 0..MESSAGES_PER_LOOK {
            sender.send(*maker.next(0).first_chunk()?).ok()?;
        }
    }
    sender.send(*maker.last().first_chunk()?).ok()
}

fn consume(producers: u32, receiver: Receiver<[u8; MESSAGE_BYTES]>) -> Result<Consumed> {
    let mut watch = Watch::new(producers, MESSAGE_BYTES)?;
    while watch.producers > 0 {
        watch.look(&receiver.recv().context("a producer has ended early")?)?;
    }
    watch.consumed()
}
