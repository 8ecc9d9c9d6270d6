//! [`Sender`]: the end that sends, on every route.
//!
//! The way of one message is in `outgoing.rs`; how a sender is opened, in `builder.rs`.

mod batch;
mod builder;
mod outgoing;
mod slot;
mod unsent;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{ChannelInfo, Peers};
use crate::codec::{Codec, EncodeError};
use crate::error::{
    AdminError, ConfirmError, FlushError, OpenError, PeersError, SendError, SendTimeoutError, TrySendError,
};
use crate::limits::PEERS_TIMEOUT_MS;
use crate::local::LocalSender;
use crate::message::{Message, SenderId};
use crate::name::ChannelName;
use crate::obstacle::Obstacle;
use crate::stream::sender::{FlushOnDrop, Seen, Until, Wait};
use crate::ticket::Ticket;
use outgoing::Unconfirmed;

pub use builder::SenderBuilder;
pub use outgoing::Outgoing;
pub use slot::Slot;

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

impl<T> Route<T> {
    /// Whether it was opened in this process: in a forked child nothing of it is touched.
    #[inline]
    fn is_here(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.0.origin.is_here(),
            Self::Local(local) => local.is_here(),
        }
    }
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
            Route::Stream(stream) if self.route.is_here() => stream.0.write_buffered(),
            Route::Stream(_) | Route::Local(_) => {}
        }
    }

    /// The same, and waits until the daemon's socket has taken all of it; until `deadline` at most.
    pub(crate) fn see_buffered_written(&self, deadline: Instant) -> Seen {
        match &self.route {
            Route::Stream(stream) if self.route.is_here() => stream.0.see_buffered_written(deadline),
            Route::Stream(_) | Route::Local(_) => Seen::Written,
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
            _ if !self.route.is_here() => Ticket { sequence: 0 },
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
            _ if !self.route.is_here() => Err(FlushError::Forked),
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
            Route::Stream(stream) if self.route.is_here() => stream.0.refused(),
            Route::Stream(_) | Route::Local(_) => Vec::new(),
        }
    }

    /// What was in the way of the last message that this sender, or a clone of it, could not send, with the figures
    /// that it knows; `None` before the first. Once the channel is closed: why.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.sender::<u32>("numbers").open()?;
    /// if let Err(error) = sender.try_send(1) {
    ///     eprintln!("{}", sender.obstacle().map_or(error.to_string(), |obstacle| obstacle.to_string()));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        match &self.route {
            _ if !self.route.is_here() => None,
            Route::Stream(stream) => stream.0.obstacle(),
            Route::Local(local) => local.obstacle(),
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
            _ if !self.route.is_here() => 0,
            Route::Stream(stream) => stream.0.dropped(),
            Route::Local(local) => local.dropped(),
        }
    }

    /// How its channel stands: depth, bytes, age of the oldest message, rates, who is blocked and for how long, and the
    /// route of each end. The daemon answers; what goes through lanes it reads from their memory, and no end is slowed.
    ///
    /// ```no_run
    /// # let bus = bus_core::Bus::connect()?;
    /// let sender = bus.sender::<u32>("numbers").open()?;
    /// let stats = sender.stats()?;
    /// println!("{} queued, the oldest for {:?} ms", stats.ledger.queued, stats.oldest_ms);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Connect`] when no daemon answers, nor can be started where that is wanted;
    /// [`AdminError::NoSuchChannel`] when it was deleted; [`AdminError::Unsupported`] within one process.
    pub fn stats(&self) -> Result<ChannelInfo, AdminError> {
        match &self.route {
            Route::Stream(stream) => stream.0.stats(),
            Route::Local(_) => Err(AdminError::Unsupported { what: "stats" }),
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
        self.peers_from(None, Some(Instant::now() + Duration::from_millis(PEERS_TIMEOUT_MS)))
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
            _ if !self.route.is_here() => Err(PeersError::Forked),
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
        Outgoing { sender: self, headers: None, codec: self.builder.codec, asks_for_room: false }
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

    /// Disconnected once the channel is closed: for those who wait on channels within the process.
    pub(crate) fn closed(&self) -> crossbeam_channel::Receiver<Infallible> {
        match &self.route {
            _ if !self.route.is_here() => crossbeam_channel::bounded(0).1,
            Route::Stream(stream) => stream.0.closed(),
            Route::Local(local) => local.closed(),
        }
    }

    /// The id of this sender on its bus; 0 in a process that was forked since it was opened.
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
            _ if !self.route.is_here() => SenderId(0),
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

    /// Whether what is sent next goes through a lane.
    #[doc(hidden)]
    #[must_use]
    pub fn has_lane(&self) -> bool {
        match &self.route {
            Route::Stream(stream) if self.route.is_here() => stream.0.has_lane(),
            Route::Stream(_) | Route::Local(_) => false,
        }
    }

    /// Whether what is sent next goes through a lane whose receiver it can wake itself.
    #[doc(hidden)]
    #[must_use]
    pub fn is_in_lane(&self) -> bool {
        match &self.route {
            Route::Stream(stream) if self.route.is_here() => stream.0.is_in_lane(),
            Route::Stream(_) | Route::Local(_) => false,
        }
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
            _ if !self.route.is_here() => 0,
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
