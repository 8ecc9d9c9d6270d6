//! The list of what is measured beside a floor.

use std::time::Duration;

use anyhow::Result;

use crate::ends::Waits;
use crate::measure::{Figure, Flow, Traffic};
use crate::options::Options;
use crate::processors::Placement;
use crate::server::{Kind, Server};
use crate::table::{self, Need, Row};
use crate::traffic::{Form, Taking};

/// One thing to measure on both sides.
struct Scenario {
    name: &'static str,
    sides: Sides,
    traffic: Traffic,
    /// Of the first figure; the others are shown.
    need: Need,
}

/// Floor and subject.
#[derive(Clone, Copy)]
struct Sides {
    floor: Kind,
    subject: Kind,
}

/// Both sleep as soon as there is nothing to do.
const SLEEPING: Sides = Sides { floor: Kind::SleepingRelay, subject: Kind::SleepingDaemon };
/// Both poll for a while first.
const POLLING: Sides = Sides { floor: Kind::PollingRelay, subject: Kind::PollingDaemon };
/// The daemon does as it does when nothing is configured.
const USUAL: Sides = Sides { floor: Kind::PollingRelay, subject: Kind::Daemon };
/// The same ends, on the stream and in a lane.
const LANE: Sides = Sides { floor: Kind::Daemon, subject: Kind::DaemonWithLanes(Waits::Usual) };

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    scenario("latency paced, sleeping", SLEEPING, paced(Placement::ServerApart), Need::RatioAtMost(1.10)),
    scenario("latency paced, polling", POLLING, paced(Placement::ServerApart), Need::RatioAtMost(1.20)),
    scenario("latency ping-pong, sleeping", SLEEPING, ping_pong(Placement::ServerApart), Need::RatioAtMost(1.10)),
    scenario("latency ping-pong, polling", POLLING, ping_pong(Placement::ServerApart), Need::RatioAtMost(1.20)),
    scenario("latency paced, sleeping, one processor", SLEEPING, paced(Placement::Together), Need::RatioAtMost(1.10)),
    scenario("latency paced, polling, one processor", POLLING, paced(Placement::Together), Need::RatioAtMost(1.20)),
    scenario("latency ping-pong, sleeping, one processor", SLEEPING, ping_pong(Placement::Together), Need::RatioAtMost(1.10)),
    scenario("latency ping-pong, polling, one processor", POLLING, ping_pong(Placement::Together), Need::RatioAtMost(1.20)),
    scenario("send 64 B, sleeping", SLEEPING, flow(1, 64, Form::Send), Need::RatioAtLeast(0.90)),
    scenario("send 64 B, polling", POLLING, flow(1, 64, Form::Send), Need::RatioAtLeast(0.90)),
    scenario("feed 64 B", USUAL, flow(1, 64, Form::Feed), Need::AtLeast(5.0)),
    scenario("feed 64 B, one by one", USUAL, one_by_one(64, Form::Feed), Need::Nothing),
    scenario("feed 1 KiB", USUAL, flow(1, 1024, Form::Feed), Need::AtLeast(1.3)),
    scenario("feed 64 B, four to one", USUAL, flow(4, 64, Form::Feed), Need::AtLeast(4.5)),
    scenario("send 64 KiB", USUAL, flow(1, 64 * 1024, Form::Send), Need::RatioAtLeast(0.90)),
    scenario("send 1 MiB", USUAL, flow(1, 1024 * 1024, Form::Send), Need::RatioAtLeast(0.90)),
    scenario("lane beside stream, latency paced", LANE, paced(Placement::ServerApart), Need::Nothing),
    scenario("lane beside stream, latency ping-pong", LANE, ping_pong(Placement::ServerApart), Need::Nothing),
    scenario("lane beside stream, send 64 B", LANE, flow(1, 64, Form::Send), Need::RatioAtLeast(1.0)),
    scenario("lane beside stream, send 64 B, four to one", LANE, flow(4, 64, Form::Send), Need::RatioAtLeast(1.0)),
    scenario("lane beside stream, send 1 KiB", LANE, flow(1, 1024, Form::Send), Need::RatioAtLeast(1.0)),
    scenario("lane beside stream, send 64 KiB", LANE, flow(1, 64 * 1024, Form::Send), Need::RatioAtLeast(1.0)),
    scenario("lane beside stream, send 1 MiB", LANE, flow(1, 1024 * 1024, Form::Send), Need::RatioAtLeast(1.0)),
    scenario("publish lines of 64 B", USUAL, Traffic::Lines, Need::AtLeast(5.0)),
];

/// Messages of 64 bytes, so far apart that every process on the way has gone to sleep.
pub(crate) const fn paced(placement: Placement) -> Traffic {
    let form = Form::Paced(Duration::from_micros(300));
    Traffic::Flow(Flow { producers: 1, payload_bytes: 64, form, taking: Taking::Value, placement })
}

/// Messages of 64 bytes, there and back.
const fn ping_pong(placement: Placement) -> Traffic {
    Traffic::PingPong(placement)
}

const fn scenario(name: &'static str, sides: Sides, traffic: Traffic, need: Need) -> Scenario {
    Scenario { name, sides, traffic, need }
}

/// As fast as it goes; the consumer takes all that is there together.
pub(crate) const fn flow(producers: u32, payload_bytes: usize, form: Form) -> Traffic {
    Traffic::Flow(Flow { producers, payload_bytes, form, taking: Taking::Batch, placement: Placement::Anywhere })
}

/// The consumer takes each message on its own.
const fn one_by_one(payload_bytes: usize, form: Form) -> Traffic {
    Traffic::Flow(Flow { producers: 1, payload_bytes, form, taking: Taking::Value, placement: Placement::Anywhere })
}

/// Measures what `options` select and prints each figure as soon as it is known.
pub(crate) fn measure_all(options: &Options) {
    for scenario in SCENARIOS.iter().filter(|scenario| options.selects(scenario.name)) {
        match scenario.measure(options) {
            Ok(rows) => rows.iter().for_each(table::print),
            Err(error) => table::print_failed(scenario.name, &error),
        }
    }
}

impl Scenario {
    /// Floor and subject in turns, so that what the machine does meanwhile falls on both.
    fn measure(&self, options: &Options) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for _ in 0..options.rounds {
            let floor = self.traffic.run(&Server::start(self.sides.floor)?, options)?;
            let subject = self.traffic.run(&Server::start(self.sides.subject)?, options)?;
            for (place, (floor, subject)) in floor.iter().zip(&subject).enumerate() {
                if rows.len() <= place {
                    rows.push(self.row(place, floor));
                }
                rows[place].floor.push(floor.value);
                rows[place].subject.push(subject.value);
            }
        }
        Ok(rows)
    }

    fn row(&self, place: usize, figure: &Figure) -> Row {
        let need = if place == 0 { self.need } else { Need::Nothing };
        let name = [self.name, figure.label].join(" ").trim_end().to_owned();
        Row { name, unit: figure.unit, floor: Vec::new(), subject: Vec::new(), need }
    }
}
