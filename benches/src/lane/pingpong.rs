//! Half a round trip between two ends that are awake: a message that finds nothing before it, and is answered at once.
//!
//! What takes a processor away for a moment, a tick of its clock or another process, delays one message here. Where
//! messages come by the clock it delays all that come meanwhile.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::bare::{Reader, Writer};
use super::ends::{RingWriter as _, Temper, Waiting};
use super::files::{Files, Place, Size};
use super::merge::Merge;
use crate::child::{Player, say};
use crate::clock::now_ns;
use crate::payload::{Checker, Maker};
use crate::role::Role;
use crate::traffic::{Latency, WARMING_NS, latencies};

/// Sends back what comes by one ring through another, until it is killed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pong {
    forth: Place,
    back: Place,
}

impl Pong {
    pub(crate) fn play(self) -> Result<()> {
        let mut line = Line::of(&self.forth, &self.back)?;
        say("ready")?;
        loop {
            let payload = line.hear()?;
            line.say(&payload)?;
        }
    }
}

/// Length of the messages, in bytes.
const MESSAGE_BYTES: usize = 64;

/// By the simplest ring, one each way. The benchmark itself is one of the two.
pub(crate) fn by_bare_rings(lasts: Duration) -> Result<Latency> {
    let size = Size::of(MESSAGE_BYTES);
    let (forth, back) = (Files::create(size)?, Files::create(size)?);
    let pong = Player::start(&Role::RingPong(Pong { forth: forth.place(), back: back.place() }))?;
    let mut line = Line::of(&back.place(), &forth.place())?;
    // On a thread of its own, as the other is.
    let measured = thread::spawn(move || {
        let _pong = pong;
        line.ping(lasts)
    });
    let histogram = measured.join().map_err(|_| anyhow!("the measurement panicked"))??;
    Ok(Latency::of(&histogram))
}

/// One end of two rings.
struct Line {
    heard: Merge<Reader>,
    said: Writer,
    waiting: Waiting,
}

impl Line {
    fn of(heard: &Place, said: &Place) -> Result<Self> {
        let reader = Reader::new(heard.reading_maps()?, heard.size);
        Ok(Self {
            heard: Merge::new([reader], heard.size.payload_bytes),
            said: Writer::new(said.writing_maps()?, said.size),
            waiting: Waiting::among(2, Temper::Eager),
        })
    }

    fn ping(&mut self, lasts: Duration) -> Result<Histogram<u64>> {
        let (mut maker, mut checker) = (Maker::new(0, MESSAGE_BYTES), Checker::new(1, MESSAGE_BYTES));
        let mut histogram = latencies()?;
        let warm_ns = now_ns() + WARMING_NS;
        let until_ns = warm_ns + lasts.as_nanos() as u64;
        loop {
            let sent_ns = now_ns();
            self.say(maker.next(sent_ns))?;
            checker.check(&self.hear()?)?;
            if sent_ns >= warm_ns {
                histogram.saturating_record((now_ns() - sent_ns) / 2);
            }
            if sent_ns >= until_ns {
                return Ok(histogram);
            }
        }
    }

    fn say(&mut self, payload: &[u8]) -> Result<()> {
        self.said.put(now_ns(), payload)?.then_some(()).context("a ring with one message is full")
    }

    fn hear(&mut self) -> Result<[u8; MESSAGE_BYTES]> {
        let mut heard = [0; MESSAGE_BYTES];
        let mut take = |payload: &[u8]| {
            heard = *payload.first_chunk().context("a message is short")?;
            Ok(())
        };
        while !self.heard.round(&mut take)? {
            self.waiting.pause();
        }
        self.waiting.end();
        Ok(heard)
    }
}
