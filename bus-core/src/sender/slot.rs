//! [`Slot`]: a message that its user writes where it will lie, and sends when it is written.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::outgoing::Outgoing;
use super::unsent::{Unsent, Why};
use super::{Route, Sender};
use crate::codec::Codec;
use crate::error::{SendError, SendTimeoutError, TrySendError};
use crate::local::LocalSender;
use crate::message::Headers;
use crate::stream::sender::{Encoded, LaneSlot, Loaned, PushError, StreamSender, Until, Wait};

/// A place to write a message into; [`commit`](Self::commit) sends it, and dropping it sends nothing.
///
/// In a lane it is memory that the receiver reads, so what is written there is not copied again by the bus. It lies
/// apart: this sender, its clones and other slots may send meanwhile, and the message takes its place in the order
/// when it is committed. Until then it takes its room in the window: a thread that holds slots and waits for room in
/// the same window may wait for itself.
///
/// Elsewhere it is a buffer that is sent as [`Outgoing::send_bytes`] sends. Its room is not kept, so that `commit`
/// may have to wait, as long as the call that lent it would have: for ever, not at all, or for the same time again.
///
/// What stands in it at first is anything, of earlier messages of this sender say: write all of it.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let sender = bus.raw_sender("pictures").open()?;
/// # let receiver = bus.raw_receiver("pictures").open()?;
/// let mut slot = sender.loan(3)?;
/// slot.copy_from_slice(b"abc");
/// slot.commit()?;
/// assert_eq!(receiver.recv()?, b"abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a slot that is dropped sends nothing"]
pub struct Slot<'a> {
    sender: &'a Sender<Vec<u8>>,
    /// Empty once it is sent.
    place: Option<Place<'a>>,
    codec: Codec,
    patience: Patience,
}

enum Place<'a> {
    Lane {
        stream: &'a StreamSender,
        slot: LaneSlot,
    },
    /// A message of a stream, with its headers as they travel.
    Stream {
        stream: &'a StreamSender,
        header_block: Vec<u8>,
        payload: Vec<u8>,
    },
    Local {
        local: &'a LocalSender<Vec<u8>>,
        headers: Headers,
        payload: Vec<u8>,
    },
}

/// For how long each of the two calls may wait.
#[derive(Clone, Copy)]
enum Patience {
    Forever,
    Never,
    For(Duration),
}

impl Patience {
    fn begin(self) -> Wait {
        match self {
            Self::Forever => Wait::Forever,
            Self::Never => Wait::Never,
            // A timeout beyond all clocks is none.
            Self::For(timeout) => Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until),
        }
    }
}

/// Senders of bytes: a message may be written where it will lie.
impl Sender<Vec<u8>> {
    /// Lends a place for a message of `len` bytes; waits while the window is used up. See [`Slot`].
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.raw_sender("pictures").open()?;
    /// let mut slot = sender.loan(1_000)?;
    /// slot.fill(0);
    /// slot[..4].copy_from_slice(&7_u32.to_le_bytes());
    /// slot.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`].
    pub fn loan(&self, len: usize) -> Result<Slot<'_>, SendError<()>> {
        self.outgoing().loan(len)
    }

    /// As [`loan`](Self::loan), if there is room at once.
    ///
    /// # Errors
    /// [`TrySendError`].
    pub fn try_loan(&self, len: usize) -> Result<Slot<'_>, TrySendError<()>> {
        self.outgoing().try_loan(len)
    }

    /// As [`loan`](Self::loan); waits for `timeout` at most.
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    pub fn loan_timeout(&self, len: usize, timeout: Duration) -> Result<Slot<'_>, SendTimeoutError<()>> {
        self.outgoing().loan_timeout(len, timeout)
    }
}

impl<'a> Outgoing<'a, Vec<u8>> {
    /// As [`Sender::loan`].
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let sender = bus.raw_sender("pictures").open()?;
    /// let headers = bus_core::Headers::new().with("width", "2");
    /// let mut slot = sender.outgoing().headers(&headers).loan(2)?;
    /// slot.copy_from_slice(&[0, 255]);
    /// slot.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`].
    pub fn loan(&self, len: usize) -> Result<Slot<'a>, SendError<()>> {
        self.lend(len, Patience::Forever).map_err(Into::into)
    }

    /// As [`Sender::try_loan`].
    ///
    /// # Errors
    /// [`TrySendError`].
    pub fn try_loan(&self, len: usize) -> Result<Slot<'a>, TrySendError<()>> {
        self.lend(len, Patience::Never).map_err(Into::into)
    }

    /// As [`Sender::loan_timeout`].
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    pub fn loan_timeout(&self, len: usize, timeout: Duration) -> Result<Slot<'a>, SendTimeoutError<()>> {
        self.lend(len, Patience::For(timeout)).map_err(Into::into)
    }

    fn lend(&self, len: usize, patience: Patience) -> Result<Slot<'a>, Unsent<()>> {
        let unsent = |why| Unsent { value: (), why };
        let too_large = |_| unsent(Why::TooLarge { bytes: len as u64, limit: u32::MAX });
        let payload_bytes = u32::try_from(len).map_err(too_large)?;
        let wait = patience.begin();
        let place = match &self.sender.route {
            Route::Stream(stream) => {
                let stream = &*stream.0;
                let header_block = self.header_block().map_err(unsent)?;
                match stream.loan(&header_block, payload_bytes, wait).map_err(|error| unsent(error.into()))? {
                    Loaned::InLane(slot) => Place::Lane { stream, slot },
                    Loaned::Buffer(payload) => Place::Stream { stream, header_block, payload },
                }
            }
            Route::Local(local) => {
                local.await_window(wait).map_err(|error| unsent(error.into()))?;
                Place::Local { local, headers: self.headers.cloned().unwrap_or_default(), payload: vec![0; len] }
            }
        };
        Ok(Slot { sender: self.sender, place: Some(place), codec: self.codec, patience })
    }
}

impl<'a> Slot<'a> {
    /// Sends what was written.
    ///
    /// # Errors
    /// [`SendTimeoutError`], with the bytes in it: in a lane only `Disconnected`; elsewhere `Timeout` as well after
    /// [`Sender::loan_timeout`], and `Full` after [`Sender::try_loan`] or where the channel rejects.
    pub fn commit(mut self) -> Result<(), SendTimeoutError<Vec<u8>>> {
        let wait = self.patience.begin();
        let failed = |value, error| Err(Unsent { value, why: why_of(error) }.into());
        match self.place.take() {
            Some(Place::Lane { stream, slot }) => stream.commit(slot, self.codec, wait).or_else(|(slot, error)| {
                let payload = slot.payload().to_vec();
                stream.give_back(slot);
                failed(payload, error)
            }),
            Some(Place::Stream { stream, header_block, payload }) => {
                let message = Encoded { codec: self.codec, header_block: &header_block, payload: &payload };
                let sent = stream.push(&message, wait, Until::Written);
                sent.map(drop).or_else(|error| failed(payload, error))
            }
            Some(Place::Local { local, headers, payload }) => {
                let sent = local.push(payload, headers, self.codec, wait);
                sent.map(drop).or_else(|(payload, error)| failed(payload, error))
            }
            None => Ok(()),
        }
    }
}

fn why_of(error: PushError) -> Why {
    match error {
        // Of a try: it is as much in its way.
        PushError::Away => Why::Full,
        error => error.into(),
    }
}

impl Deref for Slot<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Some(Place::Lane { slot, .. }) => slot.payload(),
            Some(Place::Stream { payload, .. } | Place::Local { payload, .. }) => payload,
            None => &[],
        }
    }
}

impl DerefMut for Slot<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Some(Place::Lane { slot, .. }) => slot.payload_mut(),
            Some(Place::Stream { payload, .. } | Place::Local { payload, .. }) => payload,
            None => &mut [],
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(Place::Lane { stream, slot }) = self.place.take() {
            stream.give_back(slot);
        }
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("channel", &self.sender.channel).field("len", &self.len()).finish_non_exhaustive()
    }
}
