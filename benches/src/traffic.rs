//! The processes at both ends of a measured channel.
//!
//! The consumer holds the watch: a rate is what it has checked between its first and its last
//! message, a latency is taken between the stamp in the payload and the moment it is checked.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::child::{await_go, say, tell};
use crate::clock::{Pace, await_clock, now_ns};
use crate::ends::{Channel, Inlet, Outlet, Route};
use crate::payload::{Checker, LINE_BYTES, Lines, Maker};

/// Where an end attaches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) route: Route,
    pub(crate) socket: PathBuf,
}

impl Place {
    fn outlet(&self, channel: Channel) -> Result<Outlet> {
        Outlet::open(self.route, &self.socket, channel)
    }

    fn inlet(&self, channel: Channel) -> Result<Inlet> {
        Inlet::open(self.route, &self.socket, channel)
    }
}

/// The channel of one-way traffic, and of the pings.
pub(crate) const FORTH: Channel = 0;
/// The channel of the pongs.
const BACK: Channel = 1;

/// How long an end that stays awake, or is answered, sends before a latency is taken, in nanoseconds: until then processes start, and what
/// they fetch and map takes the processors from each other.
pub(crate) const WARMING_NS: u64 = 100_000_000;

/// How a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    /// Each message on its own, as fast as it goes.
    Send,
    /// In batches, as fast as it goes.
    Feed,
    /// Each message on its own, stamped, one per interval.
    Paced(Duration),
    /// The same, and the producer spends the interval awake.
    Awake(Duration),
}

/// Sends for a while.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Produce {
    pub(crate) place: Place,
    pub(crate) producer: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) form: Form,
    pub(crate) lasts: Duration,
}

/// What a producer has sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Produced {
    pub(crate) messages: u64,
}

impl Produce {
    pub(crate) fn play(self) -> Result<()> {
        let mut outlet = self.place.outlet(FORTH)?;
        let mut maker = Maker::new(self.producer, self.payload_bytes);
        await_go()?;
        let until_ns = now_ns() + self.lasts.as_nanos() as u64;
        match self.form {
            Form::Send => self.flood(&mut maker, until_ns, |payload| outlet.send(payload))?,
            Form::Feed => self.flood(&mut maker, until_ns, |payload| outlet.feed(payload))?,
            Form::Awake(interval) => {
                let mut at_ns = now_ns();
                let warm_ns = at_ns + WARMING_NS;
                while at_ns < until_ns + WARMING_NS {
                    at_ns = await_clock(at_ns + interval.as_nanos() as u64);
                    outlet.send(maker.next(if at_ns < warm_ns { 0 } else { at_ns }))?;
                }
            }
            Form::Paced(interval) => {
                let mut pace = Pace::every(interval);
                while now_ns() < until_ns {
                    pace.wait();
                    outlet.send(maker.next(now_ns()))?;
                }
            }
        }
        outlet.feed(maker.last())?;
        outlet.flush()?;
        tell(&Produced { messages: maker.made() })
    }

    fn flood(&self, maker: &mut Maker, until_ns: u64, mut put: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // Looking at the clock costs as much as a small message.
        let messages_per_look = (64 * 1024 / self.payload_bytes).max(1);
        while now_ns() < until_ns {
            for _ in 0..messages_per_look {
                put(maker.next(0))?;
            }
        }
        Ok(())
    }
}

/// Checks all that comes until each producer has sent its last message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Consume {
    pub(crate) place: Place,
    pub(crate) producers: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) taking: Taking,
}

/// How a consumer takes what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Taking {
    /// Each message as a value of its own.
    Value,
    /// All that are here, where they lie.
    Batch,
}

/// What a consumer has seen.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Consumed {
    pub(crate) messages: u64,
    /// Between the first message and the last.
    pub(crate) elapsed_ns: u64,
    /// Of stamped messages.
    pub(crate) latency: Latency,
}

/// Percentiles of a latency, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
        }
    }
}

/// For latencies of up to ten seconds, in nanoseconds.
pub(crate) fn latencies() -> Result<Histogram<u64>> {
    let longest_ns = 10_000_000_000;
    Ok(Histogram::new_with_max(longest_ns, 3)?)
}

impl Consume {
    pub(crate) fn play(self) -> Result<()> {
        let mut inlet = self.place.inlet(FORTH)?;
        let mut watch = Watch::new(self.producers, self.payload_bytes)?;
        say("ready")?;
        while watch.producers > 0 {
            match self.taking {
                Taking::Value => inlet.take(|payload| watch.look(payload))?,
                Taking::Batch => inlet.borrow_batch(|payload| watch.look(payload))?,
            }
        }
        tell(&watch.consumed()?)
    }
}

/// What the consumer keeps count of.
pub(crate) struct Watch {
    checker: Checker,
    started_ns: Option<u64>,
    latency: Histogram<u64>,
    /// Those that have not sent their last message.
    pub(crate) producers: u32,
}

impl Watch {
    pub(crate) fn new(producers: u32, payload_bytes: usize) -> Result<Self> {
        let checker = Checker::new(producers, payload_bytes);
        Ok(Self { checker, started_ns: None, latency: latencies()?, producers })
    }

    /// Checks one message.
    pub(crate) fn look(&mut self, payload: &[u8]) -> Result<()> {
        self.started_ns.get_or_insert_with(now_ns);
        let seen = self.checker.check(payload)?;
        if seen.stamp_ns != 0 {
            self.latency.saturating_record(now_ns() - seen.stamp_ns);
        }
        self.producers -= u32::from(seen.last);
        Ok(())
    }

    /// What was seen up to now.
    pub(crate) fn consumed(&self) -> Result<Consumed> {
        let elapsed_ns = now_ns() - self.started_ns.context("no message came")?;
        Ok(Consumed { messages: self.checker.checked(), elapsed_ns, latency: Latency::of(&self.latency) })
    }
}

/// Sends a message, waits until it is back, and so on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) place: Place,
    pub(crate) payload_bytes: usize,
    pub(crate) lasts: Duration,
}

impl Ping {
    /// Reports half of the round trips as [`Latency`].
    pub(crate) fn play(self) -> Result<()> {
        let mut outlet = self.place.outlet(FORTH)?;
        let mut inlet = self.place.inlet(BACK)?;
        let mut maker = Maker::new(0, self.payload_bytes);
        let mut checker = Checker::new(1, self.payload_bytes);
        let mut histogram = latencies()?;
        await_go()?;
        let warm_ns = now_ns() + WARMING_NS;
        let until_ns = warm_ns + self.lasts.as_nanos() as u64;
        loop {
            let sent_ns = now_ns();
            let last = sent_ns >= until_ns;
            outlet.send(if last { maker.last() } else { maker.next(sent_ns) })?;
            inlet.take(|payload| checker.check(payload))?;
            if sent_ns >= warm_ns {
                histogram.saturating_record((now_ns() - sent_ns) / 2);
            }
            if last {
                return tell(&Latency::of(&histogram));
            }
        }
    }
}

/// Sends back what comes, until the last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pong {
    pub(crate) place: Place,
    pub(crate) payload_bytes: usize,
}

impl Pong {
    pub(crate) fn play(self) -> Result<()> {
        let mut inlet = self.place.inlet(FORTH)?;
        let mut checker = Checker::new(1, self.payload_bytes);
        let mut outlet = self.place.outlet(BACK)?;
        say("ready")?;
        loop {
            let seen = inlet.take(|payload| {
                let seen = checker.check(payload)?;
                outlet.send(payload)?;
                Ok(seen)
            })?;
            if seen.last {
                outlet.flush()?;
                return tell(&checker.checked());
            }
        }
    }
}

/// Sends the lines of its input in batches: what `bus publish` does, with nothing around it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProduceLines {
    pub(crate) place: Place,
}

impl ProduceLines {
    pub(crate) fn play(self) -> Result<()> {
        let mut outlet = self.place.outlet(FORTH)?;
        say("ready")?;
        let mut input = std::io::stdin().lock();
        let mut line = Vec::with_capacity(LINE_BYTES + 1);
        while input.read_until(b'\n', &mut line)? > 0 {
            outlet.feed(line.strip_suffix(b"\n").unwrap_or(&line))?;
            line.clear();
        }
        outlet.flush()
    }
}

/// Checks so many lines.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConsumeLines {
    pub(crate) place: Place,
    pub(crate) lines: u64,
}

impl ConsumeLines {
    pub(crate) fn play(self) -> Result<()> {
        let mut inlet = self.place.inlet(FORTH)?;
        let mut due = Lines::new();
        say("ready")?;
        let mut started_ns = None;
        let mut count = 0;
        while count < self.lines {
            inlet.borrow_batch(|line| {
                started_ns.get_or_insert_with(now_ns);
                ensure!(line == due.line(), "line {count} is wrong");
                due.step();
                count += 1;
                Ok(())
            })?;
        }
        let elapsed_ns = now_ns() - started_ns.context("no line was asked for")?;
        tell(&Consumed { messages: self.lines, elapsed_ns, latency: Latency::of(&latencies()?) })
    }
}
