//! [`AsyncSender`]: a sender whose calls are futures.
//!
//! A message that finds room is sent in the poll that brings it. One that does not, and everything that is to be
//! seen through, is a job for a thread that waits as any sender does; the future waits for the job's end. So what
//! was handed over goes its way whether or not anybody still waits for it.

use std::any::Any;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_sink::Sink;

use crate::error::{FlushError, SendError, SendTimeoutError, TrySendError};
use crate::limits::{ASYNC_UNAWAITED_MAX, DROP_FLUSH_MS};
use crate::sender::Sender;
use crate::stream::session::lock;

/// The end of a channel that sends, for tasks.
///
/// No future of it loses a value. One that is dropped after its first poll has handed its value over, which is
/// sent all the same; if that fails, the next [`flush`](Self::flush) gives the value back, or [`Sink::poll_ready`].
/// Where code of the value's type panics, so does the future. Of values that nobody awaits,
/// [`ASYNC_UNAWAITED_MAX`](crate::limits::ASYNC_UNAWAITED_MAX) may be under way.
///
/// A value is tried at once. Where the channel is exact the daemon is asked for its room then, and a daemon that does not
/// answer, or does not read, keeps the task's thread for 50 milliseconds at most; after that the thread of this sender
/// waits for it.
///
/// As a [`Sink`] it is ready when nothing that was given to it waits for room. Dropped, it keeps no task waiting: what
/// was handed over is seen through by its thread, for 5 seconds each at most, as by any sender that is dropped.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let bus = bus_core::Bus::in_process();
/// let mut jobs = bus.sender::<u32>("jobs").open()?.into_async()?;
/// jobs.send(7).await?;
/// jobs.flush().await?;
/// assert_eq!(bus.receiver::<u32>("jobs").open()?.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AsyncSender<T: Send + 'static> {
    // First, so that it goes first: the thread has another, and whoever lets go last waits until all is accepted.
    sender: Sender<T>,
    jobs: Given<T>,
    /// A flush of the sink that nobody has seen the end of.
    flushing: Option<u64>,
}

/// What a sink could not do.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// use bus_core::{SendError, SinkError};
///
/// let bus = bus_core::Bus::in_process();
/// let mut jobs = bus.sender::<u32>("jobs").open()?.into_async()?;
/// match jobs.flush().await {
///     Err(SinkError::Send(SendError::Disconnected(job))) => println!("{job} is not sent: the channel is closed"),
///     other => other?,
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError<T> {
    /// A value was not sent; it is in the error.
    #[error(transparent)]
    Send(SendError<T>),
    /// Not all that was sent is accepted.
    #[error(transparent)]
    Flush(FlushError),
}

/// The jobs, from the side that gives them. Once it is gone, the thread ends when all is done.
#[derive(Debug)]
struct Given<T>(Arc<Jobs<T>>);

/// What the thread does, in order.
#[derive(Debug)]
struct Jobs<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Job<T>>,
    /// Jobs that were given, and those that are done: a job's number is how many were given with it.
    given: u64,
    done: u64,
    /// Those that failed, and nobody has been told of.
    failed: VecDeque<(u64, Failure<T>)>,
    /// Who waits for a job. One at a time: a call has the sender to itself.
    waker: Option<Waker>,
    /// The sender is dropped.
    abandoned: bool,
}

#[derive(Debug)]
enum Job<T> {
    Send(T),
    Flush,
}

/// Why a job was not done.
enum Failure<T> {
    Error(SinkError<T>),
    /// Code of the value's type panicked.
    Panic(Box<dyn Any + Send>),
}

impl<T> std::fmt::Debug for Failure<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error(_) => "Error",
            Self::Panic(_) => "Panic",
        })
    }
}

impl<T> Failure<T> {
    /// What happened in the thread happens to whoever awaits it.
    fn into_error(self) -> SinkError<T> {
        match self {
            Self::Error(error) => error,
            Self::Panic(panic) => resume_unwind(panic),
        }
    }
}

/// How long the thread waits before it looks whether it was abandoned: as long as dropping a sender may take.
const PATIENCE: Duration = Duration::from_millis(DROP_FLUSH_MS);

impl<T: Send + 'static> Sender<T> {
    /// Makes its calls futures. A thread stands by for those that have to wait.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.sender::<u32>("jobs").open()?.into_async()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the system says: no thread left.
    pub fn into_async(self) -> io::Result<AsyncSender<T>> {
        let state = State {
            waiting: VecDeque::new(),
            given: 0,
            done: 0,
            failed: VecDeque::new(),
            waker: None,
            abandoned: false,
        };
        let jobs = Arc::new(Jobs { state: Mutex::new(state), changed: Condvar::new() });
        let (sender, shared) = (self.clone(), Arc::clone(&jobs));
        thread::Builder::new().name("bus-async-send".into()).spawn(move || shared.work(&sender))?;
        Ok(AsyncSender { sender: self, jobs: Given(jobs), flushing: None })
    }
}

impl<T: Send + 'static> AsyncSender<T> {
    /// See [`Sender::send`]. The first poll hands the value over.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut jobs = bus.sender::<u32>("jobs").open()?.into_async()?;
    /// jobs.send(7).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`]; `Full` also when so many values are under way whose futures were dropped
    /// ([`ASYNC_UNAWAITED_MAX`](crate::limits::ASYNC_UNAWAITED_MAX)): [`flush`](Self::flush), and send it again.
    pub async fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        let Some(number) = self.hand_over(value)? else { return Ok(()) };
        match poll_fn(|context| self.jobs.poll_done(number, context)).await {
            Err(SinkError::Send(error)) => Err(error),
            Ok(()) | Err(SinkError::Flush(_)) => Ok(()),
        }
    }

    /// See [`Sender::flush`].
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut jobs = bus.sender::<u32>("jobs").open()?.into_async()?;
    /// jobs.send(7).await?;
    /// jobs.flush().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Also why a value was not sent whose future was dropped, one with each call.
    pub async fn flush(&mut self) -> Result<(), SinkError<T>> {
        poll_fn(|context| self.poll_seen_through(context)).await
    }

    /// The sender within: for all that does not wait.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.sender::<u32>("jobs").open()?.into_async()?;
    /// assert!(jobs.get_ref().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &Sender<T> {
        &self.sender
    }

    /// Sends the value at once, or makes it a job. `Ok` has the job's number.
    fn hand_over(&mut self, value: T) -> Result<Option<u64>, SendError<T>> {
        let is_idle = lock(&self.jobs.state).is_idle();
        let value = match is_idle {
            false => value,
            true => match self.sender.try_send(value) {
                Ok(()) => {
                    // A flush that was given before goes without it.
                    self.flushing = None;
                    return Ok(None);
                }
                Err(TrySendError::Full(value) | TrySendError::Away(value)) => value,
                Err(TrySendError::Disconnected(value)) => return Err(SendError::Disconnected(value)),
                Err(TrySendError::TooLarge { value, bytes, limit }) => {
                    return Err(SendError::TooLarge { value, bytes, limit });
                }
                Err(TrySendError::Encode { value, source }) => return Err(SendError::Encode { value, source }),
                Err(TrySendError::Headers { value, source }) => return Err(SendError::Headers { value, source }),
                Err(TrySendError::Forked(value)) => return Err(SendError::Forked(value)),
            },
        };
        let mut state = lock(&self.jobs.state);
        if state.waiting.len() + state.failed.len() >= ASYNC_UNAWAITED_MAX {
            return Err(SendError::Full(value));
        }
        self.flushing = None;
        Ok(Some(self.jobs.give(&mut state, Job::Send(value))))
    }

    fn poll_seen_through(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SinkError<T>>> {
        let number = *self.flushing.get_or_insert_with(|| self.jobs.give(&mut lock(&self.jobs.state), Job::Flush));
        let done = self.jobs.poll_all(number, context);
        if done.is_ready() {
            self.flushing = None;
        }
        done
    }
}

impl<T> State<T> {
    fn is_idle(&self) -> bool {
        self.given == self.done
    }
}

impl<T: Send + 'static> Jobs<T> {
    fn give(&self, state: &mut State<T>, job: Job<T>) -> u64 {
        state.waiting.push_back(job);
        state.given += 1;
        self.changed.notify_one();
        state.given
    }

    /// Whether a job is done, and how.
    fn poll_done(&self, number: u64, context: &mut Context<'_>) -> Poll<Result<(), SinkError<T>>> {
        let mut state = lock(&self.state);
        if state.done < number {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let failed = state.failed.iter().position(|(failed, _)| *failed == number);
        let failure = failed.and_then(|at| state.failed.remove(at));
        drop(state);
        Poll::Ready(failure.map_or(Ok(()), |(_, failure)| Err(failure.into_error())))
    }

    /// Whether all jobs up to this one are done, or any has failed.
    fn poll_all(&self, number: u64, context: &mut Context<'_>) -> Poll<Result<(), SinkError<T>>> {
        let mut state = lock(&self.state);
        if let Some((_, failure)) = state.failed.pop_front() {
            drop(state);
            return Poll::Ready(Err(failure.into_error()));
        }
        if state.done < number {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Does what comes, until the sender is dropped and everything is done.
    fn work(&self, sender: &Sender<T>) {
        let mut state = lock(&self.state);
        loop {
            let Some(job) = state.waiting.pop_front() else {
                if state.abandoned {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            // Of the job nothing is used again that a panic may have left half done.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.see_through(sender, job)));
            state = lock(&self.state);
            state.done += 1;
            let failure = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Failure::Error(error)),
                Err(panic) => Some(Failure::Panic(panic)),
            };
            if let Some(failure) = failure {
                let number = state.done;
                state.failed.push_back((number, failure));
            }
            if let Some(waker) = state.waker.take() {
                drop(state);
                waker.wake();
                state = lock(&self.state);
            }
        }
    }

    fn see_through(&self, sender: &Sender<T>, mut job: Job<T>) -> Result<(), SinkError<T>> {
        loop {
            job = match job {
                Job::Send(value) => match sender.send_timeout(value, PATIENCE) {
                    Ok(()) => return Ok(()),
                    Err(SendTimeoutError::Timeout(value)) => Job::Send(value),
                    Err(error) => return Err(SinkError::Send(final_error(error))),
                },
                Job::Flush => match sender.flush_deadline(Instant::now() + PATIENCE) {
                    Ok(()) => return Ok(()),
                    Err(FlushError::Unknown(_)) => Job::Flush,
                    Err(error) => return Err(SinkError::Flush(error)),
                },
            };
            if lock(&self.state).abandoned {
                // As long as dropping any sender waits.
                return Ok(());
            }
        }
    }
}

/// An error of a timed call that is none of time.
fn final_error<T>(error: SendTimeoutError<T>) -> SendError<T> {
    match error {
        SendTimeoutError::Timeout(value) | SendTimeoutError::Full(value) => SendError::Full(value),
        SendTimeoutError::Disconnected(value) => SendError::Disconnected(value),
        SendTimeoutError::TooLarge { value, bytes, limit } => SendError::TooLarge { value, bytes, limit },
        SendTimeoutError::Encode { value, source } => SendError::Encode { value, source },
        SendTimeoutError::Headers { value, source } => SendError::Headers { value, source },
        SendTimeoutError::Forked(value) => SendError::Forked(value),
    }
}

impl<T> Deref for Given<T> {
    type Target = Jobs<T>;

    fn deref(&self) -> &Jobs<T> {
        &self.0
    }
}

impl<T> Drop for Given<T> {
    fn drop(&mut self) {
        lock(&self.state).abandoned = true;
        self.changed.notify_one();
    }
}

impl<T: Send + 'static> Unpin for AsyncSender<T> {}

impl<T: Send + 'static> Sink<T> for AsyncSender<T> {
    type Error = SinkError<T>;

    /// Ready when nothing that was handed over waits.
    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let given = lock(&self.jobs.state).given;
        self.jobs.poll_all(given, context)
    }

    fn start_send(self: Pin<&mut Self>, value: T) -> Result<(), Self::Error> {
        self.get_mut().hand_over(value).map(drop).map_err(SinkError::Send)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_seen_through(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_flush(context)
    }
}
