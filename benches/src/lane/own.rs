//! The subject: the ring of the library, one message per publication.

use anyhow::{Context as _, Result, bail, ensure};
use bus_core::Codec;
use bus_core::lane::layout::MessageHeader;
use bus_core::lane::region::Map;
use bus_core::lane::ring::{self, Bounds, Limits, NotWritten, Position, Record, Start};
use bus_core::wire::Flags;

use super::ends::{RingReader, RingWriter};
use super::files::{Maps, Size};

/// As many messages as a lane has in flight.
const WINDOW_MESSAGES: u64 = 65_536;

const GENERATION: u64 = 0;

/// The sender's end.
pub(crate) struct Writer {
    ring: ring::Writer<Map, Map>,
}

impl Writer {
    pub(crate) fn new(maps: Maps, size: Size) -> Self {
        let ring_bytes = size.ring_bytes as u64;
        let bounds = Bounds { first_bytes: ring_bytes, ring_bytes, window_messages: WINDOW_MESSAGES };
        Self { ring: ring::Writer::new(maps.data, maps.cursor, bounds) }
    }
}

impl RingWriter for Writer {
    #[inline]
    fn put(&mut self, stamp_ns: u64, payload: &[u8]) -> Result<bool> {
        let header = MessageHeader {
            flags: Flags(0),
            codec: Codec::Raw,
            sequence: self.ring.messages(),
            stamp_ns,
            payload_bytes: payload.len() as u32,
            header_block_bytes: 0,
        };
        match self.ring.write(&header, &[], payload) {
            Ok(()) => {
                self.ring.publish();
                Ok(true)
            }
            Err(NotWritten::Full) => Ok(false),
            Err(error) => bail!("the ring does not take a message: {error:?}"),
        }
    }
}

/// The receiver's end.
pub(crate) struct Reader {
    ring: ring::Reader<Map, Map>,
    at: Position,
    /// The message at `at`, once it was asked for.
    next: Option<Record>,
}

impl Reader {
    pub(crate) fn new(maps: Maps, size: Size) -> Self {
        let limits = Limits { ring_bytes: size.ring_bytes as u64, message_max_bytes: size.payload_bytes as u32 };
        let ring = ring::Reader::new(maps.data, maps.cursor, limits, GENERATION, Start::default());
        Self { ring, at: Position::default(), next: None }
    }
}

impl RingReader for Reader {
    #[inline]
    fn look(&mut self) -> Result<u64> {
        self.ring.look()?;
        Ok(self.ring.tail())
    }

    #[inline]
    fn position(&self) -> u64 {
        self.at.logical
    }

    #[inline]
    fn stamp(&mut self) -> Result<Option<u64>> {
        self.next = self.ring.record(self.at)?;
        Ok(self.next.as_ref().map(|record| record.header.stamp_ns))
    }

    #[inline(never)]
    fn take(&mut self, payload: &mut [u8]) -> Result<()> {
        let record = self.next.take().context("no message is there to be taken")?;
        let bytes = record.header.payload_bytes as usize;
        ensure!(bytes == payload.len(), "a message of {bytes} bytes came");
        self.ring.copy_payload(&record, payload);
        self.at = record.next;
        self.ring.acknowledge(self.at);
        Ok(())
    }
}
