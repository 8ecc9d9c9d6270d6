//! Messages lent as bytes, alone or many at once: read where they arrived, nothing is allocated for them.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use super::{Nothing, Receiver, Route};
use crate::error::{RecvTimeoutError, TryRecvError};
use crate::local::{Envelope, LocalReceiver};
use crate::message::{Headers, MessageInfo};
use crate::stream::receiver::{LentFrame, Loan, NoMessage, Wait};
use crate::wire::{HeaderBlockError, decode_headers};

/// Receivers of bytes: payloads are read where they arrived, nothing is allocated for a message.
impl Receiver<Vec<u8>> {
    /// Waits for the next message, until `at` at most, and lends its bytes.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// let message = receiver.next_bytes(None)?;
    /// assert_eq!(&message[..], b"abc");
    /// message.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    pub fn next_bytes(&mut self, at: Option<Instant>) -> Result<BytesDelivery<'_>, RecvTimeoutError> {
        let batch = self.next_batch(1, at)?;
        Ok(BytesDelivery { batch })
    }

    /// As [`next_bytes`](Self::next_bytes), if a message is here.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_next_bytes(&mut self) -> Result<BytesDelivery<'_>, TryRecvError> {
        let batch = self.lend_batch(1, Wait::Never).map_err(Nothing::NoMessage)?;
        Ok(BytesDelivery { batch })
    }

    /// Waits for the next message, until `at` at most, and lends it with those that are here behind
    /// it: `messages` in all at most. They are acknowledged together.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// let batch = receiver.next_batch(100, None)?;
    /// for message in batch.iter() {
    ///     assert_eq!(&message[..], b"abc");
    /// }
    /// batch.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    pub fn next_batch(&mut self, messages: usize, at: Option<Instant>) -> Result<BytesBatch<'_>, RecvTimeoutError> {
        let wait = at.map_or(Wait::Forever, Wait::Until);
        Ok(self.lend_batch(messages, wait).map_err(Nothing::NoMessage)?)
    }

    fn lend_batch(&mut self, messages: usize, wait: Wait) -> Result<BytesBatch<'_>, NoMessage> {
        match &self.route {
            Route::Local(local) => {
                let envelope = local.lend(wait)?;
                Ok(BytesBatch { loan: Some(BatchLoan::Local { lender: local, envelope }) })
            }
            Route::Stream(stream) => {
                let mut loan = stream.lend_next(wait, true)?;
                loan.extend(messages);
                Ok(BytesBatch { loan: Some(BatchLoan::Stream(loan.hold())) })
            }
        }
    }
}

/// Messages lent together, as bytes. Dropped without an `ack`, all come again.
#[must_use = "a batch that is dropped is given back"]
pub struct BytesBatch<'a> {
    /// Empty once it is settled.
    loan: Option<BatchLoan<'a>>,
}

enum BatchLoan<'a> {
    Stream(Loan<'a>),
    Local { lender: &'a LocalReceiver<Vec<u8>>, envelope: Envelope<Vec<u8>> },
}

impl BytesBatch<'_> {
    /// How many messages there are: at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.loan {
            Some(BatchLoan::Stream(loan)) => loan.len(),
            Some(BatchLoan::Local { .. }) => 1,
            None => 0,
        }
    }

    /// Whether there are none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = BytesItem<'_>> {
        let (stream, local) = match &self.loan {
            Some(BatchLoan::Stream(loan)) => (Some(loan.frames().map(Item::Frame)), None),
            Some(BatchLoan::Local { envelope, .. }) => (None, Some(Item::Envelope(envelope))),
            None => (None, None),
        };
        stream.into_iter().flatten().chain(local).map(|item| BytesItem { item })
    }

    /// Acknowledges all of them.
    pub fn ack(self) {
        self.ack_first(usize::MAX);
    }

    /// Acknowledges the first `count`, and gives the others back.
    pub fn ack_first(mut self, count: usize) {
        self.settle(count);
    }

    fn settle(&mut self, count: usize) {
        match self.loan.take() {
            Some(BatchLoan::Stream(loan)) => loan.settle(count),
            Some(BatchLoan::Local { lender, envelope }) if count == 0 => lender.give_back(envelope),
            Some(BatchLoan::Local { lender, .. }) => lender.acknowledge(),
            None => {}
        }
    }
}

impl Drop for BytesBatch<'_> {
    fn drop(&mut self) {
        self.settle(0);
    }
}

impl fmt::Debug for BytesBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesBatch").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// One message of a [`BytesBatch`].
#[derive(Debug)]
pub struct BytesItem<'a> {
    item: Item<'a>,
}

#[derive(Debug)]
enum Item<'a> {
    Frame(LentFrame<'a>),
    Envelope(&'a Envelope<Vec<u8>>),
}

impl BytesItem<'_> {
    /// What the bus knows of the message.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        match &self.item {
            Item::Frame(frame) => frame.info(),
            Item::Envelope(envelope) => envelope.info.clone(),
        }
    }

    /// The headers that the sender set.
    ///
    /// # Errors
    /// [`HeaderBlockError::Malformed`] when the sender's bytes are no headers.
    pub fn headers(&self) -> Result<Headers, HeaderBlockError> {
        match &self.item {
            Item::Frame(frame) => decode_headers(frame.header_block),
            Item::Envelope(envelope) => Ok(envelope.headers.clone()),
        }
    }
}

impl Deref for BytesItem<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.item {
            Item::Frame(frame) => frame.payload,
            Item::Envelope(envelope) => &envelope.value,
        }
    }
}

/// One message lent as bytes. Dropped without an `ack`, it comes again.
#[derive(Debug)]
#[must_use = "a delivery that is dropped is given back"]
pub struct BytesDelivery<'a> {
    batch: BytesBatch<'a>,
}

impl BytesDelivery<'_> {
    fn item(&self) -> Item<'_> {
        match &self.batch.loan {
            Some(BatchLoan::Stream(loan)) => Item::Frame(loan.frame()),
            Some(BatchLoan::Local { envelope, .. }) => Item::Envelope(envelope),
            None => unreachable!("settling takes the delivery by value"),
        }
    }

    /// What the bus knows of the message.
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        BytesItem { item: self.item() }.info()
    }

    /// The headers that the sender set.
    ///
    /// # Errors
    /// [`HeaderBlockError::Malformed`] when the sender's bytes are no headers.
    pub fn headers(&self) -> Result<Headers, HeaderBlockError> {
        BytesItem { item: self.item() }.headers()
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

impl Deref for BytesDelivery<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.item() {
            Item::Frame(frame) => frame.payload,
            Item::Envelope(envelope) => &envelope.value,
        }
    }
}
