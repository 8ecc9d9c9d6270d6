//! [`Receiver`]: the end that receives, on every route, and the deliveries that it lends.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::bus::{Bus, Place};
use crate::channel::Peers;
use crate::codec::{Codec, DecodeError};
use crate::error::{OpenError, PeersError, RecvError, RecvTimeoutError, TryRecvError, Undecodable};
use crate::limits::{ENDPOINT_NAME_MAX_BYTES, TYPE_NAME_MAX_BYTES};
use crate::local::{Envelope, LocalReceiver};
use crate::message::{Headers, Message, MessageInfo};
use crate::name::ChannelName;
use crate::sender::{ANSWER_PATIENCE, cut, declaration, short_type_name};
use crate::stream::receiver::{LentFrame, Loan, NoMessage, ReceiverOptions, StreamReceiver, Wait};
use crate::wire::{HeaderBlockError, decode_headers};

/// Turns bytes into a value. Chosen when the receiver is opened.
type Decode<T> = fn(Codec, &[u8]) -> Result<T, DecodeError>;

/// The end of a channel that receives values of type `T`. One at a time holds a channel.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let receiver = bus.receiver::<String>("greetings").open()?;
/// bus.sender::<String>("greetings").open()?.send("hello".to_owned())?;
/// assert_eq!(receiver.recv()?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Receiver<T> {
    route: Route<T>,
    decode: Decode<T>,
    /// Code of the type runs before a value is there.
    decodes: bool,
    expected: String,
    channel: ChannelName,
    /// One thread receives at a time.
    not_sync: PhantomData<Cell<()>>,
}

enum Route<T> {
    Stream(Arc<StreamReceiver>),
    Local(LocalReceiver<T>),
}

/// Why there is no value: the union of what the three forms can say.
enum Nothing {
    NoMessage(NoMessage),
    Undecodable(Box<Undecodable>),
}

impl<T: Send + 'static> Receiver<T> {
    /// Waits for the next value. It is yours, so it is acknowledged.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(1)?;
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn recv(&self) -> Result<T, RecvError> {
        self.take(Wait::Forever).map_err(Into::into)
    }

    /// The next value, if one is here.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(matches!(receiver.try_recv(), Err(bus_core::TryRecvError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.take(Wait::Never).map_err(Into::into)
    }

    /// Waits for the next value, for `timeout` at most.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(receiver.recv_timeout(Duration::from_millis(1)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        // A timeout beyond all clocks is none.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.take(wait).map_err(Into::into)
    }

    /// Waits for the next value, until `deadline` at most.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(receiver.recv_deadline(Instant::now()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.take(Wait::Until(deadline)).map_err(Into::into)
    }

    /// Values as they come, until the channel ends or a value does not decode.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
    /// let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send(1)?;
    /// sender.send(2)?;
    /// drop(sender);
    /// assert_eq!(receiver.iter().sum::<u32>(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Values that are here.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert_eq!(receiver.try_iter().count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// Waits for the next message, and lends it: read it, then [`ack`](Delivery::ack) it. Dropped
    /// without that, it comes again, first.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(1)?;
    /// drop(receiver.next_delivery()?);
    /// let delivery = receiver.next_delivery()?;
    /// assert_eq!((*delivery, delivery.info().attempt), (1, 2));
    /// delivery.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn next_delivery(&mut self) -> Result<Delivery<'_, T>, RecvError> {
        self.lend(Wait::Forever).map_err(Into::into)
    }

    /// As [`next_delivery`](Self::next_delivery), if a message is here.
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_next_delivery(&mut self) -> Result<Delivery<'_, T>, TryRecvError> {
        self.lend(Wait::Never).map_err(Into::into)
    }

    /// As [`next_delivery`](Self::next_delivery), until `deadline` at most.
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    pub fn next_delivery_deadline(&mut self, deadline: Instant) -> Result<Delivery<'_, T>, RecvTimeoutError> {
        self.lend(Wait::Until(deadline)).map_err(Into::into)
    }

    /// How many messages are here.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert_eq!(receiver.len(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.route {
            Route::Stream(stream) => stream.len(),
            Route::Local(local) => local.len(),
        }
    }

    /// Whether no message is here.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(receiver.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this receiver holds the channel: `false` while it waits in line.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let first = bus.receiver::<u32>("numbers").open()?;
    /// let second = bus.receiver::<u32>("numbers").standby().open()?;
    /// assert!(first.is_seated() && !second.is_seated());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_seated(&self) -> bool {
        match &self.route {
            Route::Stream(stream) => stream.is_seated(),
            Route::Local(local) => local.is_seated(),
        }
    }

    /// Who is at the channel now.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert_eq!(receiver.peers()?.receivers, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PeersError`].
    pub fn peers(&self) -> Result<Peers, PeersError> {
        self.peers_from(None, Some(Instant::now() + ANSWER_PATIENCE))
    }

    /// Waits until the peers differ from `from`; until `deadline` at most.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// let before = receiver.peers()?;
    /// let sender = bus.sender::<u32>("numbers").open()?;
    /// assert_eq!(receiver.peers_changed(before, None)?.senders, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PeersError`].
    pub fn peers_changed(&self, from: Peers, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        self.peers_from(Some(from), deadline)
    }

    fn peers_from(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        match &self.route {
            Route::Stream(stream) => stream.peers(from, deadline),
            Route::Local(local) => local.peers(from, deadline),
        }
    }

    /// The channel.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert_eq!(receiver.channel().as_str(), "numbers");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    fn take(&self, wait: Wait) -> Result<T, Nothing> {
        match &self.route {
            Route::Local(local) => Ok(local.take(wait)?.value),
            Route::Stream(stream) => {
                // A value that does not survive its decoding comes again marked: it is claimed first.
                let loan = stream.next(wait, self.decodes)?;
                let decoded = self.decode(&loan.frame());
                loan.take(wait)?;
                decoded.map(|(value, _)| value)
            }
        }
    }

    fn lend(&mut self, wait: Wait) -> Result<Delivery<'_, T>, Nothing> {
        let (lender, envelope) = match &self.route {
            Route::Local(local) => (Lender::Local(local.clone()), local.lend(wait)?),
            Route::Stream(stream) => {
                let loan = stream.next(wait, true)?;
                let (value, headers) = match self.decode(&loan.frame()) {
                    Ok(decoded) => decoded,
                    Err(undecodable) => {
                        // The error owns the message now.
                        loan.settle(1);
                        return Err(undecodable);
                    }
                };
                let envelope = Envelope { value, headers, info: loan.frame().info() };
                loan.keep();
                (Lender::Stream(Arc::clone(stream)), envelope)
            }
        };
        Ok(Delivery { owned: OwnedDelivery { loan: Some((lender, envelope)) }, receiver: PhantomData })
    }

    fn decode(&self, frame: &LentFrame<'_>) -> Result<(T, Headers), Nothing> {
        let info = frame.info();
        let headers = match frame.header_block {
            [] => Headers::new(),
            block => decode_headers(block).unwrap_or_default(),
        };
        match (self.decode)(info.codec, frame.payload) {
            Ok(value) => Ok((value, headers)),
            Err(source) => {
                let message = Message { info, headers, payload: frame.payload.to_vec() };
                let expected = self.expected.clone();
                Err(Nothing::Undecodable(Box::new(Undecodable { message, expected, source })))
            }
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// A message lent to the receiver. Acknowledge it, or it comes again.
#[derive(Debug)]
#[must_use = "a delivery that is dropped is given back"]
pub struct Delivery<'a, T> {
    owned: OwnedDelivery<T>,
    receiver: PhantomData<&'a mut Receiver<T>>,
}

impl<T> Delivery<'_, T> {
    /// What the bus knows of the message.
    pub fn info(&self) -> &MessageInfo {
        self.owned.info()
    }

    /// The headers that the sender set.
    pub fn headers(&self) -> &Headers {
        self.owned.headers()
    }

    /// Acknowledges the message, and gives the value.
    pub fn ack(self) -> T {
        self.owned.ack()
    }

    /// Gives the message back: it comes again, first, with its attempt counted.
    pub fn nack(self) {
        self.owned.nack();
    }

    /// Keeps the message beyond this call. The order waits for it: the receiver gives nothing
    /// further until it is acknowledged or given back.
    pub fn into_owned(self) -> OwnedDelivery<T> {
        self.owned
    }
}

impl<T> Deref for Delivery<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.owned
    }
}

/// A [`Delivery`] that may leave the receiver, for another thread say.
#[must_use = "a delivery that is dropped is given back"]
pub struct OwnedDelivery<T> {
    /// Empty once it is settled.
    loan: Option<(Lender<T>, Envelope<T>)>,
}

enum Lender<T> {
    Stream(Arc<StreamReceiver>),
    Local(LocalReceiver<T>),
}

impl<T> OwnedDelivery<T> {
    fn envelope(&self) -> &Envelope<T> {
        let (_, envelope) = self.loan.as_ref().expect("settling takes the delivery by value");
        envelope
    }

    /// What the bus knows of the message.
    pub fn info(&self) -> &MessageInfo {
        &self.envelope().info
    }

    /// The headers that the sender set.
    pub fn headers(&self) -> &Headers {
        &self.envelope().headers
    }

    /// Acknowledges the message, and gives the value.
    pub fn ack(mut self) -> T {
        let (lender, envelope) = self.loan.take().expect("settling takes the delivery by value");
        match lender {
            Lender::Stream(stream) => stream.settle(true),
            Lender::Local(local) => local.acknowledge(),
        }
        envelope.value
    }

    /// Gives the message back: it comes again, first, with its attempt counted.
    pub fn nack(self) {
        drop(self);
    }
}

impl<T> Drop for OwnedDelivery<T> {
    fn drop(&mut self) {
        match self.loan.take() {
            Some((Lender::Stream(stream), _)) => stream.settle(false),
            Some((Lender::Local(local), envelope)) => local.give_back(envelope),
            None => {}
        }
    }
}

impl<T> Deref for OwnedDelivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.envelope().value
    }
}

impl<T> fmt::Debug for OwnedDelivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.loan.as_ref().map(|(_, envelope)| &envelope.info);
        f.debug_struct("Delivery").field("info", &info).finish_non_exhaustive()
    }
}

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
                let mut loan = stream.next(wait, true)?;
                loan.extend(messages);
                Ok(BytesBatch { loan: Some(BatchLoan::Stream(loan)) })
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

/// See [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T: Send + 'static> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

/// See [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T: Send + 'static> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// Values of a receiver that nobody else needs.
#[derive(Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T: Send + 'static> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<'a, T: Send + 'static> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Send + 'static> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}

impl From<NoMessage> for Nothing {
    fn from(none: NoMessage) -> Self {
        Self::NoMessage(none)
    }
}

/// Sorts a failure into an operation's own error. What cannot happen there falls to the nearest.
macro_rules! from_nothing {
    ($error:ident: $empty:ident, $timeout:ident, $away:ident) => {
        impl From<Nothing> for $error {
            fn from(nothing: Nothing) -> Self {
                match nothing {
                    Nothing::NoMessage(NoMessage::Empty) => Self::$empty,
                    Nothing::NoMessage(NoMessage::Timeout) => Self::$timeout,
                    Nothing::NoMessage(NoMessage::Away) => Self::$away,
                    Nothing::NoMessage(NoMessage::Ended(ended)) => ended.into(),
                    Nothing::Undecodable(undecodable) => Self::Undecodable(undecodable),
                }
            }
        }
    };
}

from_nothing!(RecvError: Disconnected, Disconnected, Disconnected);
from_nothing!(TryRecvError: Empty, Empty, Away);
from_nothing!(RecvTimeoutError: Timeout, Timeout, Timeout);

/// Options of a receiver.
pub struct ReceiverBuilder<T> {
    bus: Bus,
    channel: String,
    decode: Decode<T>,
    codec: Codec,
    type_name: Option<String>,
    name: Option<String>,
    until_disconnected: bool,
    standby: bool,
}

impl<T: DeserializeOwned> ReceiverBuilder<T> {
    pub(crate) fn typed(bus: Bus, channel: &str) -> Self {
        let type_name = Some(short_type_name::<T>());
        Self::new(bus, channel, Codec::Bincode, type_name, |codec, bytes| codec.decode(bytes))
    }
}

impl ReceiverBuilder<Vec<u8>> {
    pub(crate) fn raw(bus: Bus, channel: &str) -> Self {
        Self::new(bus, channel, Codec::Raw, None, |_, bytes| Ok(bytes.to_vec()))
    }
}

impl<T> ReceiverBuilder<T> {
    fn new(bus: Bus, channel: &str, codec: Codec, type_name: Option<String>, decode: Decode<T>) -> Self {
        let channel = channel.to_owned();
        Self { bus, channel, decode, codec, type_name, name: None, until_disconnected: false, standby: false }
    }

    /// How values become bytes; bincode otherwise.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The name of the type; the last segment of the type's path otherwise.
    #[must_use]
    pub fn type_name(mut self, name: impl Into<String>) -> Self {
        self.type_name = Some(cut(name.into(), TYPE_NAME_MAX_BYTES));
        self
    }

    /// The name of the endpoint, as `bus show` tells it; the program's otherwise.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(cut(name.into(), ENDPOINT_NAME_MAX_BYTES));
        self
    }

    /// Ends with `Disconnected` once a sender was there, all have left and the channel is drained.
    #[must_use]
    pub fn until_disconnected(mut self) -> Self {
        self.until_disconnected = true;
        self
    }

    /// Waits in line when the channel has a receiver, and takes over when that one leaves or dies.
    #[must_use]
    pub fn standby(mut self) -> Self {
        self.standby = true;
        self
    }
}

impl<T: Send + 'static> ReceiverBuilder<T> {
    /// Opens the receiver.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError::ReceiverTaken`] when the channel has a receiver; see [`OpenError`].
    pub fn open(self) -> Result<Receiver<T>, OpenError> {
        let channel = ChannelName::new(&self.channel)?;
        let declares = declaration(self.codec, self.type_name.as_deref());
        let Self { standby, until_disconnected, .. } = self;
        let route = match &self.bus.place {
            Place::Daemon(dialer) => {
                let mut dialer = dialer.clone();
                if let Some(name) = &self.name {
                    dialer.name.clone_from(name);
                }
                let channel = channel.clone();
                let options = ReceiverOptions { dialer, channel, declares, standby, until_disconnected };
                Route::Stream(StreamReceiver::open(options)?)
            }
            Place::Process(local) => Route::Local(local.receiver(&channel, declares, standby, until_disconnected)?),
        };
        let decodes = self.type_name.is_some();
        let expected = self.type_name.unwrap_or_else(|| "bytes".to_owned());
        Ok(Receiver { route, decode: self.decode, decodes, expected, channel, not_sync: PhantomData })
    }
}

impl<T> fmt::Debug for ReceiverBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverBuilder").field("channel", &self.channel).finish_non_exhaustive()
    }
}
