//! [`Receiver`]: the end that receives, on every route.
//!
//! What it lends is in `delivery.rs` (values) and `batch.rs` (bytes); how it is opened, in `builder.rs`.

mod batch;
mod builder;
mod delivery;
mod in_place;
mod iter;
mod passing;
mod readiness;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::channel::{ChannelInfo, Peers};
use crate::codec::{Codec, DecodeError};
use crate::error::{AdminError, PeersError, RecvError, RecvTimeoutError, TryRecvError, Undecodable};
use crate::lane::region::Map;
use crate::lane::ring::Payload;
use crate::limits::PEERS_TIMEOUT_MS;
use crate::local::{Envelope, LocalReceiver};
use crate::message::{Headers, Message};
use crate::name::ChannelName;
use crate::stream::receiver::{Copied, Held, LentFrame, Loan, NoMessage, StreamReceiver, Wait};
use crate::wire::decode_headers;
use delivery::Lender;

pub use batch::{BytesBatch, BytesDelivery, BytesItem};
pub use builder::ReceiverBuilder;
pub use delivery::{Delivery, OwnedDelivery};
pub use in_place::InPlaceDelivery;
pub(crate) use in_place::Lying;
pub use iter::{IntoIter, Iter, TryIter};
pub(crate) use passing::Passed;

/// Turns bytes into a value. Chosen when the receiver is opened.
type Decode<T> = fn(Codec, &[u8]) -> Result<T, DecodeError>;

/// The same, from where a lane has them: with how many there are.
type DecodeFrom<T> = fn(Codec, Payload<'_, Map>, usize) -> Result<T, DecodeError>;

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
    decode_from: DecodeFrom<T>,
    /// Code of the type runs before a value is there.
    decodes: bool,
    expected: String,
    channel: ChannelName,
    /// One thread receives at a time.
    not_sync: PhantomData<Cell<()>>,
}

enum Route<T> {
    Stream(Held),
    Local(LocalReceiver<T>),
}

impl<T> Route<T> {
    /// Whether it was opened in this process: in a forked child nothing of it is touched.
    #[inline]
    fn is_here(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.origin.is_here(),
            Self::Local(local) => local.is_here(),
        }
    }

    fn check_here(&self) -> Result<(), NoMessage> {
        if self.is_here() { Ok(()) } else { Err(NoMessage::Forked) }
    }
}

impl<T> Drop for Route<T> {
    fn drop(&mut self) {
        match self {
            Self::Stream(stream) if stream.origin.is_here() => stream.leave(),
            Self::Stream(_) | Self::Local(_) => {}
        }
    }
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
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(receiver.try_next_delivery().is_err());
    /// bus.sender::<u32>("numbers").open()?.send(7)?;
    /// assert_eq!(receiver.try_next_delivery()?.ack(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TryRecvError`].
    pub fn try_next_delivery(&mut self) -> Result<Delivery<'_, T>, TryRecvError> {
        self.lend(Wait::Never).map_err(Into::into)
    }

    /// As [`next_delivery`](Self::next_delivery), until `deadline` at most.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let bus = bus_core::Bus::in_process();
    /// let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert!(receiver.next_delivery_deadline(Instant::now()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
            _ if !self.route.is_here() => 0,
            Route::Stream(stream) => {
                let len = stream.len();
                stream.show();
                len
            }
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
            _ if !self.route.is_here() => false,
            Route::Stream(stream) => {
                let seated = stream.is_seated();
                stream.show();
                seated
            }
            Route::Local(local) => local.is_seated(),
        }
    }

    /// Whether nothing is left to receive: this receiver holds the channel, no message is queued or in delivery, in
    /// a lane or in the daemon, and no sender is awaited ([`ChannelInfo::awaited`]). A sender that is connected may
    /// send more at any time. Asks the daemon; with a daemon that has not heard of this receiver yet, the answer
    /// is no.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").open()?;
    /// bus.sender::<u32>("numbers").open()?.send(1)?;
    /// assert!(!receiver.is_drained()?);
    /// receiver.recv()?;
    /// assert!(receiver.is_drained()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Connect`] when no daemon answers; see [`AdminError`].
    pub fn is_drained(&self) -> Result<bool, AdminError> {
        match &self.route {
            Route::Stream(stream) => {
                let drained = stream.is_drained();
                stream.show();
                drained
            }
            Route::Local(local) => Ok(local.is_drained()),
        }
    }

    /// How its channel stands: depth, bytes, age of the oldest message, rates, who is blocked and for how long, and the
    /// route of each end. The daemon answers; what goes through lanes it reads from their memory, and no end is slowed.
    ///
    /// ```no_run
    /// # let bus = bus_core::Bus::connect()?;
    /// let receiver = bus.receiver::<u32>("numbers").open()?;
    /// let stats = receiver.stats()?;
    /// println!("{} queued, the oldest for {:?} ms", stats.ledger.queued, stats.oldest_ms);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Connect`] when no daemon answers, nor can be started where that is wanted;
    /// [`AdminError::NoSuchChannel`] when it was deleted; [`AdminError::Unsupported`] within one process.
    pub fn stats(&self) -> Result<ChannelInfo, AdminError> {
        match &self.route {
            Route::Stream(stream) => stream.stats(),
            Route::Local(_) => Err(AdminError::Unsupported { what: "stats" }),
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
        self.peers_from(None, Some(Instant::now() + Duration::from_millis(PEERS_TIMEOUT_MS)))
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
            _ if !self.route.is_here() => Err(PeersError::Forked),
            Route::Stream(stream) => {
                let peers = stream.peers(from, deadline);
                stream.show();
                peers
            }
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
        self.route.check_here()?;
        match &self.route {
            Route::Local(local) => Ok(local.take(wait)?.value),
            Route::Stream(stream) => {
                let decode = |frame: &LentFrame<'_>| (self.decode)(frame.codec(), frame.payload());
                let failed = |frame: &LentFrame<'_>, source| self.undecodable(frame, frame.payload().to_vec(), source);
                if let Some(value) = stream.take_alone(decode, failed) {
                    return value;
                }
                // A value that does not survive its decoding comes again marked: it is claimed first.
                let (loan, value) = self.decode_next(stream, wait, self.decodes)?;
                loan.take(wait)?;
                value
            }
        }
    }

    fn lend(&mut self, wait: Wait) -> Result<Delivery<'_, T>, Nothing> {
        self.route.check_here()?;
        let (lender, envelope) = match &self.route {
            Route::Local(local) => (Lender::Local(local.clone()), local.lend(wait)?),
            Route::Stream(stream) => {
                let (loan, value) = self.decode_next(stream, wait, true)?;
                let value = match value {
                    Ok(value) => value,
                    Err(undecodable) => {
                        // The error owns the message now.
                        loan.settle(1);
                        return Err(undecodable);
                    }
                };
                let headers = headers_of(&loan.frame());
                let envelope = Envelope { value, headers, info: loan.frame().info() };
                loan.keep();
                (Lender::Stream(stream.clone()), envelope)
            }
        };
        Ok(Delivery::new(lender, envelope))
    }

    /// Waits for the next message, and decodes it: a large one from where its lane has it.
    #[inline]
    fn decode_next<'a>(
        &self,
        stream: &'a StreamReceiver,
        wait: Wait,
        claim: bool,
    ) -> Result<(Loan<'a>, Result<T, Nothing>), NoMessage> {
        loop {
            let loan = stream.lend_next(wait, claim, Copied::Small)?;
            if loan.in_ring().is_none() {
                let value = self.decode(&loan.frame());
                return Ok((loan, value));
            }
            if let Some(value) = self.decode_in_ring(&loan) {
                return Ok((loan, value));
            }
        }
    }

    #[inline]
    fn decode(&self, frame: &LentFrame<'_>) -> Result<T, Nothing> {
        let value = (self.decode)(frame.codec(), frame.payload());
        value.map_err(|source| self.undecodable(frame, frame.payload().to_vec(), source))
    }

    /// Decodes the first message of those that are lent from where its lane has it. `None` when what was read may be another
    /// message by now: it is another receiver's, or comes by another way.
    #[inline(never)]
    fn decode_in_ring(&self, loan: &Loan<'_>) -> Option<Result<T, Nothing>> {
        let (reader, record) = loan.in_ring()?;
        let codec = record.header.codec;
        let bytes = record.header.payload_bytes as usize;
        let value = (self.decode_from)(codec, reader.payload(record), bytes).map_err(|source| {
            let mut payload = vec![0; bytes];
            reader.copy_payload(record, &mut payload);
            self.undecodable(&loan.frame(), payload, source)
        });
        reader.is_still_honoured().then_some(value)
    }

    #[cold]
    fn undecodable(&self, frame: &LentFrame<'_>, payload: Vec<u8>, source: DecodeError) -> Nothing {
        let message = Message { info: frame.info(), headers: headers_of(frame), payload };
        let (expected, channel) = (self.expected.clone(), self.channel.clone());
        Nothing::Undecodable(Box::new(Undecodable { message, expected, source, channel }))
    }
}

fn headers_of(frame: &LentFrame<'_>) -> Headers {
    match frame.header_block() {
        [] => Headers::new(),
        block => decode_headers(block).unwrap_or_default(),
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("channel", &self.channel).finish_non_exhaustive()
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
                    Nothing::NoMessage(NoMessage::Forked) => Self::Forked,
                    Nothing::Undecodable(undecodable) => Self::Undecodable(undecodable),
                }
            }
        }
    };
}

from_nothing!(RecvError: Disconnected, Disconnected, Disconnected);
from_nothing!(TryRecvError: Empty, Empty, Away);
from_nothing!(RecvTimeoutError: Timeout, Timeout, Timeout);
