//! The processes at both ends of measured rings: each producer has one, and the consumer reads them all.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::ends::{Kind, RingReader, RingWriter, Temper, Waiting};
use super::files::Place;
use super::merge::Merge;
use super::{bare, own};
use crate::child::{await_go, say, tell};
use crate::clock::{await_clock, now_ns};
use crate::payload::Maker;
use crate::traffic::{Produced, WARMING_NS, Watch};

/// How a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// As fast as it goes.
    Flood,
    /// One stamped message per interval, which the producer spends awake.
    Paced(Duration),
}

/// Sends for a while.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Produce {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) producer: u32,
    /// How many there are.
    pub(crate) producers: u32,
    pub(crate) pace: Pace,
    pub(crate) temper: Temper,
    pub(crate) lasts: Duration,
}

impl Produce {
    pub(crate) fn play(self) -> Result<()> {
        let (maps, size) = (self.place.writing_maps()?, self.place.size);
        match self.kind {
            Kind::Bare => self.produce(bare::Writer::new(maps, size)),
            Kind::Own => self.produce(own::Writer::new(maps, size)),
        }
    }

    fn produce(&self, mut writer: impl RingWriter) -> Result<()> {
        let mut maker = Maker::new(self.producer, self.place.size.payload_bytes);
        let mut waiting = Waiting::among(self.producers + 1, self.temper);
        await_go()?;
        let mut stamp_ns = now_ns();
        let warm_ns = stamp_ns + if self.pace == Pace::Flood { 0 } else { WARMING_NS };
        let until_ns = warm_ns + self.lasts.as_nanos() as u64;
        while stamp_ns < until_ns {
            stamp_ns = match self.pace {
                Pace::Flood => send(&mut writer, maker.next(0), now_ns(), &mut waiting)?,
                Pace::Paced(interval) => {
                    let at_ns = await_clock(stamp_ns + interval.as_nanos() as u64);
                    let payload = maker.next(if at_ns < warm_ns { 0 } else { at_ns });
                    send(&mut writer, payload, at_ns, &mut waiting)?
                }
            };
        }
        send(&mut writer, maker.last(), now_ns(), &mut waiting)?;
        tell(&Produced { messages: maker.made() })
    }
}

/// Sends as soon as there is room. Returns the stamp: when there was.
#[inline]
fn send(writer: &mut impl RingWriter, payload: &[u8], mut stamp_ns: u64, waiting: &mut Waiting) -> Result<u64> {
    while !writer.put(stamp_ns, payload)? {
        waiting.pause();
        stamp_ns = now_ns();
    }
    waiting.end();
    Ok(stamp_ns)
}

/// Checks all that comes until each producer has sent its last message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Consume {
    pub(crate) kind: Kind,
    /// One per producer.
    pub(crate) places: Vec<Place>,
    pub(crate) temper: Temper,
}

impl Consume {
    pub(crate) fn play(self) -> Result<()> {
        match self.kind {
            Kind::Bare => self.consume(|place| Ok(bare::Reader::new(place.reading_maps()?, place.size))),
            Kind::Own => self.consume(|place| Ok(own::Reader::new(place.reading_maps()?, place.size))),
        }
    }

    fn consume<R: RingReader>(&self, open: impl Fn(&Place) -> Result<R>) -> Result<()> {
        let readers = self.places.iter().map(open).collect::<Result<Vec<R>>>()?;
        let payload_bytes = self.places.first().map_or(0, |place| place.size.payload_bytes);
        let producers = readers.len() as u32;
        let mut merge = Merge::new(readers, payload_bytes);
        let mut watch = Watch::new(producers, payload_bytes)?;
        let mut waiting = Waiting::among(producers + 1, self.temper);
        say("ready")?;
        while watch.producers > 0 {
            if merge.round(|payload| watch.look(payload))? {
                waiting.end();
            } else {
                waiting.pause();
            }
        }
        tell(&watch.consumed()?)
    }
}
