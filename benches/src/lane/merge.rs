//! The receiver of several rings: what was sent first is delivered first.
//!
//! One round: look at all rings, read the clock, look at all again. What the second look shows is delivered
//! by stamp, as long as something is left that the first look has shown; the rest waits for the next round.
//! If one send returned before another began, the second look cannot miss the first when the first look has
//! seen the other.

use anyhow::Result;

use super::ends::RingReader;
use crate::clock::now_ns;

/// Reads rings, one round after the other.
pub(crate) struct Merge<R> {
    rings: Vec<Ring<R>>,
    payload: Vec<u8>,
}

struct Ring<R> {
    reader: R,
    /// What the first look of this round has shown.
    first_look: u64,
    /// Of the next message.
    stamp_ns: Option<u64>,
}

impl<R: RingReader> Merge<R> {
    pub(crate) fn new(readers: impl IntoIterator<Item = R>, payload_bytes: usize) -> Self {
        let rings = readers.into_iter().map(|reader| Ring { reader, first_look: 0, stamp_ns: None }).collect();
        Self { rings, payload: vec![0; payload_bytes] }
    }

    /// One round. `false` when nothing was there.
    pub(crate) fn round(&mut self, mut deliver: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        for ring in &mut self.rings {
            ring.first_look = ring.reader.look()?;
        }
        let clock_ns = now_ns();
        let mut unfinished = 0;
        for ring in &mut self.rings {
            ring.reader.look()?;
            ring.read_stamp(clock_ns)?;
            unfinished += usize::from(ring.reader.position() < ring.first_look);
        }
        let was_any = unfinished > 0;
        while unfinished > 0 {
            let (oldest, until_ns) = self.oldest();
            let ring = &mut self.rings[oldest];
            // Until another ring has an older one.
            while ring.stamp_ns.is_some_and(|stamp_ns| stamp_ns <= until_ns) && unfinished > 0 {
                let was_unfinished = ring.reader.position() < ring.first_look;
                ring.reader.take(&mut self.payload)?;
                unfinished -= usize::from(was_unfinished && ring.reader.position() >= ring.first_look);
                deliver(&self.payload)?;
                ring.read_stamp(clock_ns)?;
            }
        }
        Ok(was_any)
    }

    /// The ring with the oldest message, and the stamp of the oldest in any other.
    #[inline]
    fn oldest(&self) -> (usize, u64) {
        let (mut oldest, mut oldest_ns, mut until_ns) = (0, u64::MAX, u64::MAX);
        for (index, ring) in self.rings.iter().enumerate() {
            let stamp_ns = ring.stamp_ns.unwrap_or(u64::MAX);
            if stamp_ns < oldest_ns {
                (oldest, until_ns, oldest_ns) = (index, oldest_ns, stamp_ns);
            } else {
                until_ns = until_ns.min(stamp_ns);
            }
        }
        (oldest, until_ns)
    }
}

impl<R: RingReader> Ring<R> {
    /// Stamps later than the clock count as the clock: nobody gets ahead by a wrong one.
    #[inline]
    fn read_stamp(&mut self, clock_ns: u64) -> Result<()> {
        self.stamp_ns = self.reader.stamp()?.map(|stamp_ns| stamp_ns.min(clock_ns));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ends::RingWriter;
    use super::super::files::{Files, Maps, Size};
    use super::super::{bare, own};
    use super::*;

    const SIZE: Size = Size { payload_bytes: 64, ring_bytes: 4096 };

    /// Three senders take turns, and each sends on when there is room again.
    fn messages_that_came<W: RingWriter, R: RingReader>(
        writer: fn(Maps, Size) -> W,
        reader: fn(Maps, Size) -> R,
        sent: u64,
    ) -> Vec<u64> {
        let files: Vec<Files> = (0..3).map(|_| Files::create(SIZE).unwrap()).collect();
        let mut writers: Vec<W> = files.iter().map(|files| writer(files.writing_maps().unwrap(), SIZE)).collect();
        let readers = files.iter().map(|files| reader(files.reading_maps().unwrap(), SIZE));
        let mut merge = Merge::new(readers, SIZE.payload_bytes);
        let mut came = Vec::new();
        let mut round = |merge: &mut Merge<R>| {
            let was_any = merge.round(|payload| {
                came.push(u64::from(payload[0]) | u64::from(payload[63]) << 8);
                Ok(())
            });
            was_any.unwrap()
        };
        for stamp_ns in 0..sent {
            let mut payload = [0; 64];
            [payload[0], payload[63]] = [stamp_ns as u8, (stamp_ns >> 8) as u8];
            while !writers[stamp_ns as usize % 3].put(stamp_ns, &payload).unwrap() {
                assert!(round(&mut merge), "full and empty at once");
            }
        }
        while round(&mut merge) {}
        came
    }

    #[test]
    fn messages_of_several_rings_come_once_and_in_the_order_of_their_stamps() {
        let sent: Vec<u64> = (0..5_000).collect();
        assert_eq!(messages_that_came(bare::Writer::new, bare::Reader::new, 5_000), sent);
        assert_eq!(messages_that_came(own::Writer::new, own::Reader::new, 5_000), sent);
    }
}
