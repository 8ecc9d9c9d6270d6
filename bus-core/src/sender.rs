//! [`Sender`]: the end that sends, on every route.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bus::{Bus, Place};
use crate::channel::Peers;
use crate::codec::{Codec, EncodeError};
use crate::error::{ConfirmError, FlushError, OpenError, PeersError, SendError, SendTimeoutError, TrySendError};
use crate::limits::{ENDPOINT_NAME_MAX_BYTES, TYPE_NAME_MAX_BYTES};
use crate::local::LocalSender;
use crate::message::{Headers, Message, SenderId};
use crate::name::ChannelName;
use crate::stream::sender::{Encoded, FlushOnDrop, PushError, SenderOptions, StreamSender, Until, Wait};
use crate::ticket::Ticket;
use crate::wire::{HeaderBlockError, TypeDeclaration, encode_headers};

/// Turns a value into bytes. Chosen when the sender is opened.
type Encode<T> = fn(Codec, &T, &mut Vec<u8>) -> Result<(), EncodeError>;

/// The end of a channel that sends values of type `T`.
///
/// A clone shares the endpoint: its place in the order, its route and its window.
/// [`try_new_endpoint`](Self::try_new_endpoint) opens another.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let sender = bus.sender::<&str>("greetings").open()?;
/// sender.send("hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sender<T> {
    route: Route<T>,
    builder: SenderBuilder<T>,
    channel: ChannelName,
}

enum Route<T> {
    Stream(Arc<FlushOnDrop>),
    Local(LocalSender<T>),
}

/// A message that could not be sent, and why.
struct Unsent<T> {
    value: T,
    why: Why,
}

enum Why {
    Timeout,
    Full,
    Away,
    Disconnected,
    TooLarge { bytes: u64, limit: u32 },
    Encode(EncodeError),
    Headers(HeaderBlockError),
}

impl<T: Send + 'static> Sender<T> {
    /// Sends `value`; waits while the window is used up.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`]; the value is in it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.outgoing().send(value)
    }

    /// Sends `value` if that is possible at once.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert!(sender.try_send(1).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrySendError`]; the value is in it.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.outgoing().try_send(value)
    }

    /// Sends `value`; waits for `timeout` at most. After `Timeout` it was never sent.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send_timeout(1, Duration::from_millis(10))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`]; the value is in it.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        // A timeout beyond all clocks is none.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.outgoing().push(value, wait, Until::Written).map(drop).map_err(Into::into)
    }

    /// Sends `value`; waits until `deadline` at most. After `Timeout` it was never sent.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send_deadline(1, Instant::now() + Duration::from_millis(10))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`]; the value is in it.
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.outgoing().send_deadline(value, deadline)
    }

    /// As [`send`](Self::send), but the message may stay in the sender's buffer until `flush`, or
    /// until the buffer is full.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// for number in 0..1_000 {
    ///     sender.feed(number)?;
    /// }
    /// sender.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`]; the value is in it.
    pub fn feed(&self, value: T) -> Result<(), SendError<T>> {
        self.outgoing().feed(value)
    }

    /// As [`feed`](Self::feed); waits until `deadline` at most.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.feed_deadline(1, Instant::now() + Duration::from_millis(10))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`]; the value is in it.
    pub fn feed_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.outgoing().feed_deadline(value, deadline)
    }

    /// Sends `value`, and waits until the daemon has accepted it: what any sender sends from now on
    /// comes after it.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send_confirmed(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`]; the value is in it, except after `Disconnected` by deletion, where
    /// [`refused`](Self::refused) has it.
    pub fn send_confirmed(&self, value: T) -> Result<(), SendError<T>>
    where
        T: Clone,
    {
        let kept = value.clone();
        match self.outgoing().confirmed(value, None) {
            Ok(()) => Ok(()),
            Err(Unconfirmed::Unsent(unsent)) => Err(unsent.into()),
            Err(Unconfirmed::Refused | Unconfirmed::Unknown(_)) => Err(SendError::Disconnected(kept)),
        }
    }

    /// As [`send_confirmed`](Self::send_confirmed); waits until `deadline` at most.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send_confirmed_deadline(1, Instant::now() + Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfirmError::Timeout`]: never sent. [`ConfirmError::Unknown`]: on its way;
    /// [`wait`](Self::wait) on the ticket is the retry.
    pub fn send_confirmed_deadline(&self, value: T, deadline: Instant) -> Result<(), ConfirmError<T>>
    where
        T: Clone,
    {
        let kept = value.clone();
        match self.outgoing().confirmed(value, Some(deadline)) {
            Ok(()) => Ok(()),
            Err(Unconfirmed::Unsent(unsent)) => Err(unsent.into()),
            Err(Unconfirmed::Refused) => Err(ConfirmError::Disconnected(kept)),
            Err(Unconfirmed::Unknown(ticket)) => Err(ConfirmError::Unknown(ticket)),
        }
    }

    /// Waits until everything that was sent is accepted.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.feed(1)?;
    /// sender.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FlushError::Disconnected`] when the channel was deleted meanwhile.
    pub fn flush(&self) -> Result<(), FlushError> {
        self.wait(&self.ticket(), None)
    }

    /// As [`flush`](Self::flush); waits until `deadline` at most.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.flush_deadline(Instant::now() + Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FlushError::Unknown`] when the time passed: wait on its ticket.
    pub fn flush_deadline(&self, deadline: Instant) -> Result<(), FlushError> {
        self.wait(&self.ticket(), Some(deadline))
    }

    /// Writes what [`feed`](Self::feed) has buffered, as far as the daemon's socket takes it now,
    /// and does not wait for anything.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.feed(1)?;
    /// sender.push_buffered();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn push_buffered(&self) {
        match &self.route {
            Route::Stream(stream) => stream.0.write_buffered(),
            Route::Local(_) => {}
        }
    }

    /// Stands for all that was sent so far.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.feed(1)?;
    /// let ticket = sender.ticket();
    /// sender.wait(&ticket, None)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        match &self.route {
            Route::Stream(stream) => stream.0.ticket(),
            Route::Local(local) => Ticket { sequence: local.last_sequence() },
        }
    }

    /// Waits until all that `ticket` stands for is accepted; until `deadline` at most.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.wait(&sender.ticket(), None)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FlushError`].
    pub fn wait(&self, ticket: &Ticket, deadline: Option<Instant>) -> Result<(), FlushError> {
        match &self.route {
            Route::Stream(stream) => stream.0.wait(*ticket, deadline),
            Route::Local(_) => Ok(()),
        }
    }

    /// What was sent and never accepted, after the channel was deleted.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert!(sender.refused().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn refused(&self) -> Vec<Message> {
        match &self.route {
            Route::Stream(stream) => stream.0.refused(),
            Route::Local(_) => Vec::new(),
        }
    }

    /// How many messages of this sender were dropped by the channel's policy, as last told.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert_eq!(sender.dropped(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn dropped(&self) -> u64 {
        match &self.route {
            Route::Stream(stream) => stream.0.dropped(),
            Route::Local(local) => local.dropped(),
        }
    }

    /// Who is at the channel now.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert_eq!(sender.peers()?.senders, 1);
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
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// let before = sender.peers()?;
    /// let receiver = bus.receiver::<u32>("numbers").open()?;
    /// assert_eq!(sender.peers_changed(before, None)?.receivers, 1);
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
            Route::Stream(stream) => stream.0.peers(from, deadline),
            Route::Local(local) => local.peers(from, deadline),
        }
    }

    /// The next message with headers, or in another codec.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// let headers = bus_core::Headers::new().with("trace", "7f");
    /// sender.outgoing().headers(&headers).send(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn outgoing(&self) -> Outgoing<'_, T> {
        Outgoing { sender: self, headers: None, codec: self.builder.codec }
    }

    /// Opens another endpoint with the same options: a sender of its own, with its own order and
    /// window.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// let other = sender.try_new_endpoint()?;
    /// assert_ne!(other.id(), sender.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn try_new_endpoint(&self) -> Result<Self, OpenError> {
        self.builder.clone().open()
    }

    /// The id of this sender on its bus.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// println!("{}", sender.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> SenderId {
        match &self.route {
            Route::Stream(stream) => stream.0.id(),
            Route::Local(local) => local.id(),
        }
    }

    /// The channel.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert_eq!(sender.channel().as_str(), "numbers");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// How many messages of this sender are not acknowledged.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.send(1)?;
    /// assert_eq!(sender.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.route {
            Route::Stream(stream) => stream.0.unacknowledged(),
            Route::Local(local) => local.unacknowledged(),
        }
    }

    /// Whether everything is acknowledged.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert!(sender.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let route = match &self.route {
            Route::Stream(stream) => Route::Stream(Arc::clone(stream)),
            Route::Local(local) => Route::Local(local.clone()),
        };
        Self { route, builder: self.builder.clone(), channel: self.channel.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// One message on its way: headers and codec, then any form of `send`.
#[derive(Debug)]
pub struct Outgoing<'a, T> {
    sender: &'a Sender<T>,
    headers: Option<&'a Headers>,
    codec: Codec,
}

enum Unconfirmed<T> {
    Unsent(Unsent<T>),
    Refused,
    Unknown(Ticket),
}

impl<'a, T: Send + 'static> Outgoing<'a, T> {
    /// With these headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a Headers) -> Self {
        self.headers = Some(headers);
        self
    }

    /// In this codec. A raw sender says so what its bytes are.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.push(value, Wait::Forever, Until::Written).map(drop).map_err(Into::into)
    }

    /// See [`Sender::try_send`].
    ///
    /// # Errors
    /// [`TrySendError`].
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.push(value, Wait::Never, Until::Written).map(drop).map_err(Into::into)
    }

    /// See [`Sender::send_deadline`].
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.push(value, Wait::Until(deadline), Until::Written).map(drop).map_err(Into::into)
    }

    /// See [`Sender::feed`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn feed(&self, value: T) -> Result<(), SendError<T>> {
        self.push(value, Wait::Forever, Until::Buffered).map(drop).map_err(Into::into)
    }

    /// See [`Sender::feed_deadline`].
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    pub fn feed_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.push(value, Wait::Until(deadline), Until::Buffered).map(drop).map_err(Into::into)
    }

    fn confirmed(&self, value: T, deadline: Option<Instant>) -> Result<(), Unconfirmed<T>> {
        let wait = deadline.map_or(Wait::Forever, Wait::Until);
        let sequence = self.push(value, wait, Until::Confirmable).map_err(Unconfirmed::Unsent)?;
        match self.sender.wait(&Ticket { sequence }, deadline) {
            Ok(()) => Ok(()),
            Err(FlushError::Unknown(ticket)) => Err(Unconfirmed::Unknown(ticket)),
            Err(FlushError::Disconnected { .. }) => Err(Unconfirmed::Refused),
        }
    }

    fn push(&self, value: T, wait: Wait, until: Until) -> Result<u64, Unsent<T>> {
        match &self.sender.route {
            Route::Stream(stream) => {
                // Taken, not borrowed: encoding may run code that sends on its own.
                let mut scratch = SCRATCH.take();
                scratch.clear();
                let pushed = self.encode(&value, &mut scratch).and_then(|block_bytes| {
                    let (header_block, payload) = scratch.split_at(block_bytes);
                    let message = Encoded { codec: self.codec, header_block, payload };
                    stream.0.push(message, wait, until).map_err(Why::from)
                });
                SCRATCH.set(scratch);
                pushed.map_err(|why| Unsent { value, why })
            }
            Route::Local(local) => local
                .push(value, self.headers.cloned().unwrap_or_default(), self.codec, wait)
                .map_err(|(value, error)| Unsent { value, why: error.into() }),
        }
    }

    /// Header block, then payload. Returns the length of the first.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<usize, Why> {
        if let Some(headers) = self.headers {
            encode_headers(headers, out).map_err(Why::Headers)?;
        }
        let block_bytes = out.len();
        (self.sender.builder.encode)(self.codec, value, out).map_err(Why::Encode)?;
        Ok(block_bytes)
    }
}

/// Senders of bytes: no value is moved, nothing is allocated for a message.
impl Outgoing<'_, Vec<u8>> {
    /// As [`send_deadline`](Self::send_deadline); without a deadline it waits as long as it takes.
    ///
    /// # Errors
    /// [`SendTimeoutError`]; the caller has the bytes.
    pub fn send_bytes(&self, payload: &[u8], deadline: Option<Instant>) -> Result<(), SendTimeoutError<()>> {
        let wait = deadline.map_or(Wait::Forever, Wait::Until);
        self.push_bytes(payload, wait, Until::Written).map_err(Into::into)
    }

    /// As [`feed_deadline`](Self::feed_deadline); without a deadline it waits as long as it takes.
    ///
    /// # Errors
    /// [`SendTimeoutError`]; the caller has the bytes.
    pub fn feed_bytes(&self, payload: &[u8], deadline: Option<Instant>) -> Result<(), SendTimeoutError<()>> {
        let wait = deadline.map_or(Wait::Forever, Wait::Until);
        self.push_bytes(payload, wait, Until::Buffered).map_err(Into::into)
    }

    /// Feeds many messages, in order, at less than each would cost alone; waits as long as it takes. Those
    /// that go into the buffer together have one time of sending.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.raw_sender("lines").open()?;
    /// # let receiver = bus.raw_receiver("lines").open()?;
    /// sender.outgoing().feed_all_bytes(b"one,two,three".split(|byte| *byte == b','))?;
    /// sender.flush()?;
    /// assert_eq!(receiver.recv()?, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`], never for the time, at the first message that is not taken; its value is how
    /// many were.
    pub fn feed_all_bytes<'p>(
        &self,
        payloads: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<(), SendTimeoutError<u64>> {
        let mut payloads = payloads.into_iter();
        let failed = |fed, why| Err(Unsent { value: fed, why }.into());
        match &self.sender.route {
            Route::Stream(stream) => {
                let block = match self.header_block() {
                    Ok(block) => block,
                    Err(why) => return failed(0, why),
                };
                let fed = stream.0.feed_all(self.codec, &block, payloads);
                fed.or_else(|(fed, error)| failed(fed, error.into()))
            }
            Route::Local(_) => {
                let mut fed = 0;
                payloads
                    .try_for_each(|payload| {
                        self.push_bytes(payload, Wait::Forever, Until::Buffered)?;
                        fed += 1;
                        Ok(())
                    })
                    .or_else(|Unsent::<()> { why, .. }| failed(fed, why))
            }
        }
    }

    fn header_block(&self) -> Result<Vec<u8>, Why> {
        let mut block = Vec::new();
        if let Some(headers) = self.headers {
            encode_headers(headers, &mut block).map_err(Why::Headers)?;
        }
        Ok(block)
    }

    /// As [`try_send`](Self::try_send).
    ///
    /// # Errors
    /// [`TrySendError`]; the caller has the bytes.
    pub fn try_send_bytes(&self, payload: &[u8]) -> Result<(), TrySendError<()>> {
        self.push_bytes(payload, Wait::Never, Until::Written).map_err(Into::into)
    }

    fn push_bytes(&self, payload: &[u8], wait: Wait, until: Until) -> Result<(), Unsent<()>> {
        let unsent = |why| Unsent { value: (), why };
        let stream = match &self.sender.route {
            Route::Stream(stream) => stream,
            Route::Local(_) => {
                return self.push(payload.to_vec(), wait, until).map(drop).map_err(|error| unsent(error.why));
            }
        };
        let block = self.header_block().map_err(unsent)?;
        let message = Encoded { codec: self.codec, header_block: &block, payload };
        stream.0.push(message, wait, until).map(drop).map_err(|error| unsent(error.into()))
    }
}

thread_local! {
    /// Where values are encoded: user code runs before any lock is taken, and nothing is allocated
    /// for a message.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl From<PushError> for Why {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Timeout => Self::Timeout,
            PushError::Full => Self::Full,
            PushError::Away => Self::Away,
            PushError::Disconnected => Self::Disconnected,
            PushError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
        }
    }
}

/// Sorts a failure into an operation's own error. What cannot happen there falls to the nearest.
macro_rules! from_unsent {
    ($error:ident: $timeout:ident, $away:ident) => {
        impl<T> From<Unsent<T>> for $error<T> {
            fn from(Unsent { value, why }: Unsent<T>) -> Self {
                match why {
                    Why::Timeout => Self::$timeout(value),
                    Why::Full => Self::Full(value),
                    Why::Away => Self::$away(value),
                    Why::Disconnected => Self::Disconnected(value),
                    Why::TooLarge { bytes, limit } => Self::TooLarge { value, bytes, limit },
                    Why::Encode(source) => Self::Encode { value, source },
                    Why::Headers(source) => Self::Headers { value, source },
                }
            }
        }
    };
}

from_unsent!(SendError: Full, Disconnected);
from_unsent!(TrySendError: Full, Away);
from_unsent!(SendTimeoutError: Timeout, Timeout);
from_unsent!(ConfirmError: Timeout, Timeout);

/// Options of a sender.
pub struct SenderBuilder<T> {
    bus: Bus,
    channel: String,
    encode: Encode<T>,
    codec: Codec,
    type_name: Option<String>,
    name: Option<String>,
    require_receiver: bool,
    values: PhantomData<fn(T)>,
}

impl<T: Serialize> SenderBuilder<T> {
    pub(crate) fn typed(bus: Bus, channel: &str) -> Self {
        let type_name = Some(short_type_name::<T>());
        Self::new(bus, channel, Codec::Bincode, type_name, |codec, value, out| codec.encode(value, out))
    }
}

impl SenderBuilder<Vec<u8>> {
    pub(crate) fn raw(bus: Bus, channel: &str) -> Self {
        Self::new(bus, channel, Codec::Raw, None, |_, value, out| {
            out.extend_from_slice(value);
            Ok(())
        })
    }
}

impl<T> SenderBuilder<T> {
    fn new(bus: Bus, channel: &str, codec: Codec, type_name: Option<String>, encode: Encode<T>) -> Self {
        let channel = channel.to_owned();
        Self { bus, channel, encode, codec, type_name, name: None, require_receiver: false, values: PhantomData }
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

    /// Sends fail with `Disconnected` while there is no receiver.
    #[must_use]
    pub fn require_receiver(mut self) -> Self {
        self.require_receiver = true;
        self
    }
}

impl<T: Send + 'static> SenderBuilder<T> {
    /// Opens the sender.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").codec(bus_core::Codec::Json).open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self) -> Result<Sender<T>, OpenError> {
        let channel = ChannelName::new(&self.channel)?;
        let declares = declaration(self.codec, self.type_name.as_deref());
        let route = match &self.bus.place {
            Place::Daemon(dialer) => {
                let mut dialer = dialer.clone();
                if let Some(name) = &self.name {
                    dialer.name.clone_from(name);
                }
                let require_receiver = self.require_receiver;
                let options = SenderOptions { dialer, channel: channel.clone(), declares, require_receiver };
                Route::Stream(Arc::new(FlushOnDrop(StreamSender::open(options)?)))
            }
            Place::Process(local) => Route::Local(local.sender(&channel, declares, self.require_receiver)?),
        };
        Ok(Sender { route, builder: self, channel })
    }
}

impl<T> Clone for SenderBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            channel: self.channel.clone(),
            encode: self.encode,
            codec: self.codec,
            type_name: self.type_name.clone(),
            name: self.name.clone(),
            require_receiver: self.require_receiver,
            values: PhantomData,
        }
    }
}

impl<T> fmt::Debug for SenderBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderBuilder")
            .field("channel", &self.channel)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

/// What an end declares of its type. Raw ends declare nothing.
pub(crate) fn declaration(codec: Codec, type_name: Option<&str>) -> Option<TypeDeclaration> {
    type_name.map(|name| TypeDeclaration { codec, type_name: name.to_owned() })
}

/// The last segment of a type's path, generics included: `Job` for `producer::Job`.
pub(crate) fn short_type_name<T>() -> String {
    let full = std::any::type_name::<T>();
    let (path, generics) = full.find('<').map_or((full, ""), |at| full.split_at(at));
    let last = path.rsplit("::").next().unwrap_or(path);
    cut(format!("{last}{generics}"), TYPE_NAME_MAX_BYTES)
}

pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// How long a question about the peers may take.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
