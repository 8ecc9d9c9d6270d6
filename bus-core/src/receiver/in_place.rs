//! [`InPlaceDelivery`]: a message that is lent where it lies; nothing of it is copied.

use std::time::Instant;

use super::batch::BytesBatch;
use super::{Nothing, Receiver};
use crate::error::{RecvTimeoutError, TryRecvError};
use crate::lane::region::Map;
use crate::lane::ring::{Reader, Record};
use crate::message::{Headers, MessageInfo};
use crate::stream::receiver::{Copied, Wait};
use crate::wire::HeaderBlockError;

/// Receivers of bytes: a payload may be read in the very memory that its sender has written.
impl Receiver<Vec<u8>> {
    /// Waits for the next message, until `at` at most, and lends it where it lies. It pays for large messages from a
    /// sender that is trusted; see [`InPlaceDelivery::payload_in_place`].
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("pictures").open()?;
    /// # bus.raw_sender("pictures").open()?.send(b"abc".to_vec())?;
    /// let message = receiver.next_in_place(None)?;
    /// assert_eq!((message.len(), message.to_vec()), (3, b"abc".to_vec()));
    /// message.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    pub fn next_in_place(&mut self, at: Option<Instant>) -> Result<InPlaceDelivery<'_>, RecvTimeoutError> {
        let wait = at.map_or(Wait::Forever, Wait::Until);
        let batch = self.lend_batch(1, wait, Copied::None).map_err(Nothing::NoMessage)?;
        Ok(InPlaceDelivery { batch })
    }

    /// As [`next_in_place`](Self::next_in_place), if a message is here.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_next_in_place(&mut self) -> Result<InPlaceDelivery<'_>, TryRecvError> {
        let batch = self.lend_batch(1, Wait::Never, Copied::None).map_err(Nothing::NoMessage)?;
        Ok(InPlaceDelivery { batch })
    }
}

/// A message lent where it lies. Acknowledge it, or it comes again.
#[derive(Debug)]
#[must_use = "a delivery that is dropped is given back"]
pub struct InPlaceDelivery<'a> {
    batch: BytesBatch<'a>,
}

/// Where a payload lies.
pub(crate) enum Lying<'a> {
    /// In a lane.
    InRing(&'a Reader<Map, Map>, &'a Record),
    /// In this process.
    Here(&'a [u8]),
}

impl InPlaceDelivery<'_> {
    /// How long the payload is, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.lying() {
            Lying::InRing(_, record) => record.header.payload_bytes as usize,
            Lying::Here(payload) => payload.len(),
        }
    }

    /// Whether there is no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the payload: safe whoever the sender is.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        match self.lying() {
            Lying::InRing(reader, record) => {
                let mut payload = vec![0; record.header.payload_bytes as usize];
                reader.copy_payload(record, &mut payload);
                payload
            }
            Lying::Here(payload) => payload.to_vec(),
        }
    }

    pub(crate) fn lying(&self) -> Lying<'_> {
        self.batch.first_lying()
    }

    /// What the bus knows of the message.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        self.batch.first().info()
    }

    /// The headers that the sender set.
    ///
    /// # Errors
    /// [`HeaderBlockError::Malformed`] when the sender's bytes are no headers.
    pub fn headers(&self) -> Result<Headers, HeaderBlockError> {
        self.batch.first().headers()
    }

    /// Acknowledges the message.
    pub fn ack(self) {
        self.batch.ack();
    }

    /// Gives the message back: it comes again, first, with its attempt counted.
    pub fn nack(self) {
        drop(self);
    }
}
