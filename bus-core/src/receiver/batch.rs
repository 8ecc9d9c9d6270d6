//! Messages lent as bytes, alone or many at once: read where they arrived, nothing is allocated for them.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use super::{Lying, Nothing, Receiver, Route};
use crate::error::{RecvTimeoutError, TryRecvError};
use crate::local::{Envelope, LocalReceiver};
use crate::message::{Headers, MessageInfo};
use crate::stream::receiver::{Copied, LentFrame, Loan, NoMessage, Wait};
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
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let mut receiver = bus.raw_receiver("bytes").open()?;
    /// assert!(receiver.try_next_bytes().is_err());
    /// bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// receiver.try_next_bytes()?.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_next_bytes(&mut self) -> Result<BytesDelivery<'_>, TryRecvError> {
        let batch = self.lend_batch(1, Wait::Never, Copied::All).map_err(Nothing::NoMessage)?;
        Ok(BytesDelivery { batch })
    }

    /// Waits for the next message, until `at` at most, and lends it with those that are here behind
    /// it: `messages` in all at most, and of lanes only what was there when it looked at them. They are
    /// acknowledged together.
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
        Ok(self.lend_batch(messages, wait, Copied::All).map_err(Nothing::NoMessage)?)
    }

    pub(super) fn lend_batch(
        &mut self,
        messages: usize,
        wait: Wait,
        copied: Copied,
    ) -> Result<BytesBatch<'_>, NoMessage> {
        self.route.check_here()?;
        match &self.route {
            Route::Local(local) => {
                let envelope = local.lend(wait)?;
                Ok(BytesBatch { loan: Some(BatchLoan::Local { lender: local, envelope }) })
            }
            Route::Stream(stream) => {
                let mut loan = stream.lend_next(wait, true, copied)?;
                loan.extend(messages);
                Ok(BytesBatch { loan: Some(BatchLoan::Stream(loan.hold())) })
            }
        }
    }
}

/// Messages lent together, as bytes. Dropped without an `ack`, all come again.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let mut receiver = bus.raw_receiver("bytes").open()?;
/// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
/// let batch = receiver.next_batch(100, None)?;
/// let bytes: usize = batch.iter().map(|message| message.len()).sum();
/// batch.ack();
/// # assert_eq!(bytes, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// The first message.
    pub(super) fn first(&self) -> BytesItem<'_> {
        let item = match &self.loan {
            Some(BatchLoan::Stream(loan)) => Item::Frame(loan.frame()),
            Some(BatchLoan::Local { envelope, .. }) => Item::Envelope(envelope),
            None => unreachable!("settling takes the batch by value"),
        };
        BytesItem { item }
    }

    /// Where the payload of the first lies.
    pub(super) fn first_lying(&self) -> Lying<'_> {
        if let Some(BatchLoan::Stream(loan)) = &self.loan
            && let Some((reader, record)) = loan.in_ring()
        {
            return Lying::InRing(reader, record);
        }
        match self.first().item {
            Item::Frame(frame) => Lying::Here(frame.payload()),
            Item::Envelope(envelope) => Lying::Here(&envelope.value),
        }
    }

    /// How many messages there are: at least one.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// assert_eq!(receiver.next_batch(100, None)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.loan {
            Some(BatchLoan::Stream(loan)) => loan.len(),
            Some(BatchLoan::Local { .. }) => 1,
            None => 0,
        }
    }

    /// Whether there are none: never.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// assert!(!receiver.next_batch(100, None)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages, in order.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// let batch = receiver.next_batch(100, None)?;
    /// for message in batch.iter() {
    ///     println!("{} sent {} bytes", message.info().sender, message.len());
    /// }
    /// batch.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = BytesItem<'_>> {
        let (mut frames, mut envelope) = match &self.loan {
            Some(BatchLoan::Stream(loan)) => (Some(loan.frames()), None),
            Some(BatchLoan::Local { envelope, .. }) => (None, Some(envelope)),
            None => (None, None),
        };
        std::iter::from_fn(move || {
            let item = match &mut frames {
                Some(frames) => Item::Frame(frames.next()?),
                None => Item::Envelope(envelope.take()?),
            };
            Some(BytesItem { item })
        })
    }

    /// Acknowledges all of them.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// receiver.next_batch(100, None)?.ack();
    /// assert!(receiver.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ack(self) {
        self.ack_first(usize::MAX);
    }

    /// Acknowledges the first `count`, and gives the others back.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// receiver.next_batch(100, None)?.ack_first(0);
    /// assert_eq!(receiver.next_bytes(None)?.info().attempt, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let mut receiver = bus.raw_receiver("bytes").open()?;
/// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
/// let batch = receiver.next_batch(100, None)?;
/// assert!(batch.iter().all(|message| &message[..] == b"abc"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// let batch = receiver.next_batch(100, None)?;
    /// assert!(batch.iter().all(|message| message.info().attempt == 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        match &self.item {
            Item::Frame(frame) => frame.info(),
            Item::Envelope(envelope) => envelope.info.clone(),
        }
    }

    /// The headers that the sender set.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// for message in receiver.next_batch(100, None)?.iter() {
    ///     assert!(message.headers()?.is_empty());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`HeaderBlockError::Malformed`] when the sender's bytes are no headers.
    pub fn headers(&self) -> Result<Headers, HeaderBlockError> {
        match &self.item {
            Item::Frame(frame) => decode_headers(frame.header_block()),
            Item::Envelope(envelope) => Ok(envelope.headers.clone()),
        }
    }
}

impl Deref for BytesItem<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.item {
            Item::Frame(frame) => frame.payload(),
            Item::Envelope(envelope) => &envelope.value,
        }
    }
}

/// One message lent as bytes. Dropped without an `ack`, it comes again.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let mut receiver = bus.raw_receiver("bytes").open()?;
/// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
/// drop(receiver.next_bytes(None)?); // given back
/// let again = receiver.next_bytes(None)?;
/// assert_eq!((&again[..], again.info().attempt), (&b"abc"[..], 2));
/// again.ack();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a delivery that is dropped is given back"]
pub struct BytesDelivery<'a> {
    batch: BytesBatch<'a>,
}

impl BytesDelivery<'_> {
    /// What the bus knows of the message.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// assert_eq!(receiver.next_bytes(None)?.info().sequence, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn info(&self) -> MessageInfo {
        self.batch.first().info()
    }

    /// The headers that the sender set.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// assert_eq!(receiver.next_bytes(None)?.headers()?.value("trace"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`HeaderBlockError::Malformed`] when the sender's bytes are no headers.
    pub fn headers(&self) -> Result<Headers, HeaderBlockError> {
        self.batch.first().headers()
    }

    /// Acknowledges the message.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// receiver.next_bytes(None)?.ack();
    /// assert!(receiver.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ack(self) {
        self.batch.ack();
    }

    /// Gives the message back: it comes again, first, with its attempt counted.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.raw_receiver("bytes").open()?;
    /// # bus.raw_sender("bytes").open()?.send(b"abc".to_vec())?;
    /// receiver.next_bytes(None)?.nack();
    /// assert_eq!(receiver.next_bytes(None)?.info().attempt, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nack(self) {
        drop(self);
    }
}

impl Deref for BytesDelivery<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self.batch.first().item {
            Item::Frame(frame) => frame.payload(),
            Item::Envelope(envelope) => &envelope.value,
        }
    }
}
