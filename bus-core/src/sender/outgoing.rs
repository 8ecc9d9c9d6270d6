//! [`Outgoing`]: one message on its way, with its headers and its codec.

use std::cell::Cell;
use std::time::Instant;

use super::unsent::{Unsent, Why};
use super::{Route, Sender};
use crate::codec::Codec;
use crate::error::{FlushError, SendError, SendTimeoutError, TrySendError};
use crate::message::Headers;
use crate::stream::sender::{Encoded, Until, Wait};
use crate::ticket::Ticket;
use crate::wire::encode_headers;

/// One message on its way: headers and codec, then any form of `send`.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let sender = bus.sender::<u32>("numbers").open()?;
/// let headers = bus_core::Headers::new().with("trace", "7f");
/// sender.outgoing().headers(&headers).send(1)?;
/// let mut receiver = bus.receiver::<u32>("numbers").open()?;
/// assert_eq!(receiver.next_delivery()?.headers().value("trace"), Some("7f"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Outgoing<'a, T> {
    pub(super) sender: &'a Sender<T>,
    pub(super) headers: Option<&'a Headers>,
    pub(super) codec: Codec,
    pub(super) asks_for_room: bool,
}

/// Why a message is not confirmed.
pub(super) enum Unconfirmed<T> {
    Unsent(Unsent<T>),
    Refused,
    Unknown(Ticket),
}

impl<'a, T: Send + 'static> Outgoing<'a, T> {
    /// With these headers.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// let headers = bus_core::Headers::new().with("trace", "7f");
    /// sender.outgoing().headers(&headers).send(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn headers(mut self, headers: &'a Headers) -> Self {
        self.headers = Some(headers);
        self
    }

    /// In this codec. A raw sender says so what its bytes are.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.raw_sender("documents").open()?;
    /// sender.outgoing().codec(bus_core::Codec::Json).send(b"{}".to_vec())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Asks for room in the channel before it is sent, also where the capacity is the daemon's default: `Full` and
    /// `Timeout` then say that the channel has none, and what is `Ok` is accepted. Else a message waits in the daemon's
    /// socket for room, and only `flush` tells. On a stream that costs a round trip for each message, in a lane
    /// nothing. What may stay in a buffer (`feed`) does not ask.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert!(sender.outgoing().asking_for_room().try_send(1).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn asking_for_room(mut self) -> Self {
        self.asks_for_room = true;
        self
    }

    /// When a call returns that does not buffer.
    fn until_written(&self) -> Until {
        if self.asks_for_room { Until::WrittenToRoom } else { Until::Written }
    }

    /// See [`Sender::send`].
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.outgoing().send(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.push(value, Wait::Forever, self.until_written()).map(drop).map_err(Into::into)
    }

    /// See [`Sender::try_send`].
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// assert!(sender.outgoing().try_send(1).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrySendError`].
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.push(value, Wait::Never, self.until_written()).map(drop).map_err(Into::into)
    }

    /// See [`Sender::send_deadline`].
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.outgoing().send_deadline(1, Instant::now() + Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.push(value, Wait::Until(deadline), self.until_written()).map(drop).map_err(Into::into)
    }

    /// See [`Sender::feed`].
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.outgoing().feed(1)?;
    /// sender.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`].
    pub fn feed(&self, value: T) -> Result<(), SendError<T>> {
        self.push(value, Wait::Forever, Until::Buffered).map(drop).map_err(Into::into)
    }

    /// See [`Sender::feed_deadline`].
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// sender.outgoing().feed_deadline(1, Instant::now() + Duration::from_secs(1))?;
    /// sender.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    pub fn feed_deadline(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.push(value, Wait::Until(deadline), Until::Buffered).map(drop).map_err(Into::into)
    }

    pub(super) fn confirmed(&self, value: T, deadline: Option<Instant>) -> Result<(), Unconfirmed<T>> {
        let wait = deadline.map_or(Wait::Forever, Wait::Until);
        let sequence = self.push(value, wait, Until::Confirmable).map_err(Unconfirmed::Unsent)?;
        match self.sender.wait(&Ticket { sequence }, deadline) {
            Ok(()) => Ok(()),
            Err(FlushError::Unknown(ticket)) => Err(Unconfirmed::Unknown(ticket)),
            Err(FlushError::Disconnected { .. } | FlushError::Forked) => Err(Unconfirmed::Refused),
        }
    }

    pub(super) fn push(&self, value: T, wait: Wait, until: Until) -> Result<u64, Unsent<T>> {
        if !self.sender.route.is_here() {
            return Err(Unsent { value, why: Why::Forked });
        }
        match &self.sender.route {
            Route::Stream(stream) => {
                // Taken, not borrowed: encoding may run code that sends on its own.
                let mut scratch = SCRATCH.take();
                scratch.clear();
                let pushed = self.encode(&value, &mut scratch).and_then(|block_bytes| {
                    let (header_block, payload) = scratch.split_at(block_bytes);
                    let message = Encoded { codec: self.codec, header_block, payload };
                    stream.0.push(&message, wait, until).map_err(Why::from)
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
    pub(super) fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<usize, Why> {
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
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.raw_sender("lines").open()?;
    /// sender.outgoing().send_bytes(b"a line", None)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError`]; the caller has the bytes.
    pub fn send_bytes(&self, payload: &[u8], deadline: Option<Instant>) -> Result<(), SendTimeoutError<()>> {
        let wait = deadline.map_or(Wait::Forever, Wait::Until);
        self.push_bytes(payload, wait, self.until_written()).map_err(Into::into)
    }

    /// As [`feed_deadline`](Self::feed_deadline); without a deadline it waits as long as it takes.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.raw_sender("lines").open()?;
    /// for line in "one\ntwo".lines() {
    ///     sender.outgoing().feed_bytes(line.as_bytes(), None)?;
    /// }
    /// sender.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
            Route::Stream(_) if !self.sender.route.is_here() => failed(0, Why::Forked),
            Route::Stream(stream) => {
                let block = match self.header_block() {
                    Ok(block) => block,
                    Err(why) => return failed(0, why),
                };
                let fed = stream.0.feed_all(self.codec, &block, payloads, Until::Buffered);
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

    pub(super) fn header_block(&self) -> Result<Vec<u8>, Why> {
        let mut block = Vec::new();
        if let Some(headers) = self.headers {
            encode_headers(headers, &mut block).map_err(Why::Headers)?;
        }
        Ok(block)
    }

    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.raw_sender("lines").open()?;
    /// assert!(sender.outgoing().try_send_bytes(b"a line").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrySendError`]; the caller has the bytes.
    pub fn try_send_bytes(&self, payload: &[u8]) -> Result<(), TrySendError<()>> {
        self.push_bytes(payload, Wait::Never, self.until_written()).map_err(Into::into)
    }

    fn push_bytes(&self, payload: &[u8], wait: Wait, until: Until) -> Result<(), Unsent<()>> {
        let unsent = |why| Unsent { value: (), why };
        let stream = match &self.sender.route {
            Route::Stream(stream) => stream,
            Route::Local(_) => {
                return self.push(payload.to_vec(), wait, until).map(drop).map_err(|error| unsent(error.why));
            }
        };
        if !self.sender.route.is_here() {
            return Err(unsent(Why::Forked));
        }
        let encoded;
        let header_block = match self.headers {
            None => &[][..],
            Some(_) => {
                encoded = self.header_block().map_err(unsent)?;
                &encoded[..]
            }
        };
        match stream.0.push(&Encoded { codec: self.codec, header_block, payload }, wait, until) {
            Ok(_) => Ok(()),
            Err(error) => Err(unsent(error.into())),
        }
    }
}

thread_local! {
    /// Where values are encoded: user code runs before any lock is taken, and nothing is allocated
    /// for a message.
    pub(super) static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
