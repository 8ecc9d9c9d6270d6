//! [`AsyncReceiver`]: a receiver whose calls are futures.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{RecvError, TryRecvError};
use crate::receiver::{OwnedDelivery, Receiver};

/// The end of a channel that receives, for tasks.
///
/// Every future of it may be dropped: a message is taken in the poll in which the future gives it, and before
/// that by nobody.
///
/// As a [`Stream`] it ends where the channel does: `None` after all senders have left; any other end is an error
/// first. A message that does not decode is an error between others.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
/// # runtime.block_on(async {
/// let bus = bus_core::Bus::in_process();
/// let mut jobs = bus.receiver::<u32>("jobs").open()?.into_async()?;
/// bus.sender::<u32>("jobs").open()?.send(7)?;
/// assert_eq!(jobs.recv().await?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AsyncReceiver<T> {
    // First, so that it goes first: the descriptor below is a copy of the receiver's.
    readiness: AsyncFd<OwnedFd>,
    receiver: Receiver<T>,
    /// The stream has said how it ended.
    ended: bool,
}

impl<T: Send + 'static> Receiver<T> {
    /// Makes its calls futures.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// # let _context = runtime.enter();
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.receiver::<u32>("jobs").open()?.into_async()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the system says: no descriptor left.
    ///
    /// # Panics
    /// Outside a runtime of tokio, or in one without its `io`.
    pub fn into_async(self) -> io::Result<AsyncReceiver<T>> {
        let descriptor = self.readiness()?.try_clone_to_owned()?;
        // What it is deprecated for is a descriptor that its owner may close, which an `OwnedFd` cannot be; the
        // one that replaces it is unsafe, and this library has that in one folder only.
        #[allow(deprecated)]
        let readiness = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        Ok(AsyncReceiver { readiness, receiver: self, ended: false })
    }
}

impl<T: Send + 'static> AsyncReceiver<T> {
    /// See [`Receiver::recv`]. Dropped before its end, it has taken nothing.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// # runtime.block_on(async {
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut jobs = bus.receiver::<u32>("jobs").open()?.into_async()?;
    /// # bus.sender::<u32>("jobs").open()?.send(7)?;
    /// assert_eq!(jobs.recv().await?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        poll_fn(|context| self.poll_with(context, |receiver| receiver.try_recv())).await
    }

    /// See [`Receiver::next_delivery`]; owned, so that it may be held while others are awaited. Nothing further
    /// comes until it is settled. Dropped before its end, this has taken nothing.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// # runtime.block_on(async {
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut jobs = bus.receiver::<u32>("jobs").open()?.into_async()?;
    /// # bus.sender::<u32>("jobs").open()?.send(7)?;
    /// let job = jobs.next_delivery().await?;
    /// drop(job); // given back
    /// let job = jobs.next_delivery().await?;
    /// assert_eq!((*job, job.info().attempt), (7, 2));
    /// job.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError`].
    pub async fn next_delivery(&mut self) -> Result<OwnedDelivery<T>, RecvError> {
        let lend = |receiver: &mut Receiver<T>| Ok(receiver.try_next_delivery()?.into_owned());
        poll_fn(|context| self.poll_with(context, lend)).await
    }

    /// The receiver within: for all that does not wait.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// # let _context = runtime.enter();
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.receiver::<u32>("jobs").open()?.into_async()?;
    /// assert!(jobs.get_ref().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &Receiver<T> {
        &self.receiver
    }

    /// The receiver again, out of its runtime.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// # let _context = runtime.enter();
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.receiver::<u32>("jobs").open()?.into_async()?;
    /// bus.sender::<u32>("jobs").open()?.send(7)?;
    /// assert_eq!(jobs.into_inner().recv()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_inner(self) -> Receiver<T> {
        self.receiver
    }

    /// Tries `take` whenever there may be something.
    fn poll_with<R>(
        &mut self,
        context: &mut Context<'_>,
        take: impl Fn(&mut Receiver<T>) -> Result<R, TryRecvError>,
    ) -> Poll<Result<R, RecvError>> {
        let Self { readiness, receiver, .. } = self;
        loop {
            let polled = ready!(readiness.poll_read_ready(context));
            let outcome = take(receiver);
            match (outcome, polled) {
                (Err(TryRecvError::Empty | TryRecvError::Away), Ok(mut seen)) => {
                    // The runtime waits for a change, and while the descriptor stays readable there may be none.
                    let mut polled = [PollFd::new(seen.get_inner(), PollFlags::IN)];
                    if poll(&mut polled, Some(&Timespec::default())) != Ok(0) {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    seen.clear_ready();
                }
                (Err(TryRecvError::Empty | TryRecvError::Away), Err(error)) => {
                    // The runtime is going down, and wakes nobody any more.
                    return Poll::Ready(Err(RecvError::Refused { text: error.to_string() }));
                }
                (outcome, _) => return Poll::Ready(outcome.map_err(last)),
            }
        }
    }
}

/// An error of a try that is none of waiting.
fn last(error: TryRecvError) -> RecvError {
    match error {
        TryRecvError::Kicked => RecvError::Kicked,
        TryRecvError::Replaced => RecvError::Replaced,
        TryRecvError::Deleted => RecvError::Deleted,
        TryRecvError::Refused { text } => RecvError::Refused { text },
        TryRecvError::Undecodable(undecodable) => RecvError::Undecodable(undecodable),
        TryRecvError::Forked => RecvError::Forked,
        TryRecvError::Disconnected | TryRecvError::Empty | TryRecvError::Away => RecvError::Disconnected,
    }
}

impl<T: Send + 'static> Unpin for AsyncReceiver<T> {}

impl<T: Send + 'static> Stream for AsyncReceiver<T> {
    type Item = Result<T, RecvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let receiver = self.get_mut();
        if receiver.ended {
            return Poll::Ready(None);
        }
        let next = ready!(receiver.poll_with(context, |receiver| receiver.try_recv()));
        receiver.ended = !matches!(next, Ok(_) | Err(RecvError::Undecodable(_)));
        Poll::Ready(Some(next).filter(|next| !matches!(next, Err(RecvError::Disconnected))))
    }
}
