//! Bridges between channels of the bus and `crossbeam-channel`, so that `select!` and pools of threads go on
//! as they are while their other side moves to another process.
//!
//! Each bridge is one thread that sleeps while there is nothing to do. It ends as channels end, in both
//! directions:
//!
//! | bridge | ends when | and then |
//! |---|---|---|
//! | [`export`] | all crossbeam senders are gone and every value is sent | flushes, for as long as dropping a [`Sender`] would |
//! | | its source has ended, and there is no daemon for as long as that | hands back what is not sent, and both ends |
//! | | the channel of the bus is closed, or does not take a value | hands back the value, and both ends with what is left in them |
//! | [`import`] | the channel of the bus ends | lets go of the crossbeam sender |
//! | | all crossbeam receivers are gone | gives the message in hand back, and the seat up |
//! | | [`Bridge::stop`] is called, or its [`Imported`] is dropped | the same |
//!
//! Crossbeam tells a sender that its receivers are gone only when it sends: an import into a channel of one's own
//! notices that with the next message that comes, and until then holds its seat. [`Receiver::into_crossbeam`]
//! gives an end that tells.
//!
//! A message counts as acknowledged when the channel within the process has taken it. One that is to count only
//! once a thread has it goes through a channel of capacity 0.
//!
//! ```
//! use bus_core::{Bus, bridge};
//!
//! let bus = Bus::in_process();
//! let (work, source) = crossbeam_channel::bounded(16);
//! let exported = bridge::export(source, bus.sender::<u32>("jobs").open()?);
//! let jobs = bus.receiver::<u32>("jobs").until_disconnected().open()?.into_crossbeam(16);
//!
//! work.send(1)?;
//! drop(work);
//! crossbeam_channel::select! {
//!     recv(jobs) -> job => assert_eq!(job, Ok(1)),
//! }
//! exported.join()?;
//! assert!(jobs.recv().is_err());
//! jobs.end()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pump;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use self::pump::{pass_in, pass_out};
use crate::closing::Closing;
use crate::error::{FlushError, SendError, TryRecvError as NoValue};
use crate::name::ChannelName;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::signal::Signal;
use crate::stream::session::lock;

/// A bridge at work. It goes on when this is dropped.
///
/// ```
/// # use bus_core::{Bus, bridge};
/// # let bus = Bus::in_process();
/// let (values, source) = crossbeam_channel::unbounded();
/// let bridge = bridge::export(source, bus.sender::<u32>("numbers").open()?);
/// values.send(1)?;
/// drop(values);
/// bridge.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "what a bridge could not pass on is known to who joins it"]
pub struct Bridge<E> {
    running: Result<JoinHandle<Result<(), E>>, E>,
    /// An import has one.
    stop: Option<Arc<Stop>>,
}

/// Tells an import to end, wherever it waits.
#[derive(Debug)]
struct Stop {
    /// While it waits for room in the sink.
    said: Mutex<Closing>,
    /// While it waits for a message.
    signal: Signal,
}

impl<E: Send + 'static> Bridge<E> {
    /// Waits until the bridge has ended.
    ///
    /// ```
    /// # use bus_core::{Bus, bridge};
    /// # let bus = Bus::in_process();
    /// let (values, source) = crossbeam_channel::unbounded();
    /// let bridge = bridge::export(source, bus.sender::<u32>("numbers").open()?);
    /// values.send(1)?;
    /// drop(values);
    /// bridge.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Why it ended before its channel did: [`ExportError`] or [`ImportError`].
    ///
    /// # Panics
    /// When code of the values' type has panicked in the bridge: what came before that value is passed on. An import
    /// has given the rest back; of an export what it had taken behind that value is gone, and its source.
    pub fn join(self) -> Result<(), E> {
        self.running?.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Whether it has ended: [`join`](Self::join) does not wait then.
    ///
    /// ```
    /// # use bus_core::{Bus, bridge};
    /// # let bus = Bus::in_process();
    /// let (values, source) = crossbeam_channel::unbounded();
    /// let bridge = bridge::export(source, bus.sender::<u32>("numbers").open()?);
    /// assert!(!bridge.is_finished());
    /// # drop(values);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Gives `ends` to a thread of their own; to `refuse` where there is none to be had.
    fn start<Ends: Send + 'static>(
        name: &str,
        stop: Option<Arc<Stop>>,
        ends: Ends,
        work: impl FnOnce(Ends) -> Result<(), E> + Send + 'static,
        refuse: impl FnOnce(Ends, io::Error) -> E,
    ) -> Self {
        // Handed over once the thread is there: what is moved into one that cannot be started is lost.
        let (hand, take) = crossbeam_channel::bounded::<Ends>(1);
        let body = move || take.recv().map_or(Ok(()), work);
        let running = match thread::Builder::new().name(name.to_owned()).spawn(body) {
            Err(error) => Err(refuse(ends, error)),
            Ok(thread) => {
                // The thread waits for it.
                let _ = hand.send(ends);
                Ok(thread)
            }
        };
        Self { running, stop }
    }
}

impl Bridge<ImportError> {
    /// Tells an import to end now: what it has in hand is given back, and the seat is free. An export ends with
    /// those who send into its source.
    ///
    /// ```
    /// # use bus_core::{Bus, bridge};
    /// # let bus = Bus::in_process();
    /// let (sink, values) = crossbeam_channel::bounded::<u32>(1);
    /// let bridge = bridge::import(bus.receiver("numbers").open()?, sink);
    /// bridge.stop();
    /// bridge.join()?;
    /// assert!(bus.receiver::<u32>("numbers").open()?.is_seated());
    /// # drop(values);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop(&self) {
        if let Some(stop) = &self.stop {
            lock(&stop.said).close();
            stop.signal.raise();
        }
    }
}

impl Stop {
    fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { said: Mutex::default(), signal: Signal::new()? }))
    }

    /// Disconnected once it is said.
    fn watch(&self) -> crossbeam_channel::Receiver<Infallible> {
        lock(&self.said).watch()
    }
}

impl<E> fmt::Debug for Bridge<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").finish_non_exhaustive()
    }
}

/// Why an export ended before its source did, with both ends.
///
/// Nothing is lost: the value that was not sent is in [`fault`](Self::fault), those behind it are in
/// [`taken`](Self::taken) and then in [`values`](Self::values), and what was sent and refused since is in [`Sender::refused`].
/// What was sent and is on its way stays on its way while the sender lives, as after [`Sender::flush_deadline`]. Those who
/// send into the source notice only when this is dropped; until then they are held back as by a slow receiver.
///
/// ```
/// use bus_core::bridge::{self, ExportError, ExportFault};
/// use bus_core::{Bus, ChannelOptions, SendError, WhenFull};
///
/// let bus = Bus::in_process();
/// bus.create("one", ChannelOptions { capacity: Some(1), when_full: WhenFull::Reject, ..Default::default() })?;
/// let (values, source) = crossbeam_channel::unbounded();
/// for value in 0..3 {
///     values.send(value)?;
/// }
/// let failed = bridge::export(source, bus.sender::<u32>("one").open()?).join();
/// let ExportError { fault, taken, values: source, .. } = *failed.err().expect("the second has no room");
/// assert!(matches!(fault, ExportFault::Send(SendError::Full(1))));
/// assert_eq!(taken.into_iter().chain(source.try_iter()).collect::<Vec<_>>(), [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(thiserror::Error)]
#[error("export to channel {}: {}", sender.channel(), told(fault, sender))]
pub struct ExportError<T: Send + 'static> {
    /// What has happened.
    pub fault: ExportFault<T>,
    /// What was taken from there and not sent, in order.
    pub taken: Vec<T>,
    /// Where the values came from.
    pub values: crossbeam_channel::Receiver<T>,
    /// Where they went.
    pub sender: Sender<T>,
}

/// What has ended an export.
///
/// ```
/// use bus_core::bridge::{self, ExportFault};
///
/// let bus = bus_core::Bus::in_process();
/// let (values, source) = crossbeam_channel::unbounded::<u32>();
/// let bridge = bridge::export(source, bus.sender("jobs").open()?);
/// bus.delete("jobs")?;
/// assert!(matches!(bridge.join(), Err(error) if matches!(error.fault, ExportFault::Deleted)));
/// # drop(values);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportFault<T> {
    /// A value was not sent; it is in the error.
    #[error(transparent)]
    Send(SendError<T>),
    /// Not all is accepted though the source has ended: refused, or on its way still when the time had passed, or not
    /// sent because there was no daemon for so long.
    #[error(transparent)]
    Flush(FlushError),
    /// The channel was deleted while this waited for a value; [`Sender::refused`] has what was not accepted.
    #[error("the channel was deleted")]
    Deleted,
    /// There is no thread to be had.
    #[error("no thread can be started: {0}")]
    Thread(io::Error),
}

/// A fault with what was in the way, where it was.
fn told<T: Send + 'static>(fault: &ExportFault<T>, sender: &Sender<T>) -> String {
    match fault {
        ExportFault::Send(SendError::Full(_) | SendError::Disconnected(_)) => {
            sender.obstacle().map_or_else(|| fault.to_string(), |obstacle| obstacle.to_string())
        }
        fault => fault.to_string(),
    }
}

impl<T: Send + 'static> fmt::Debug for ExportError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExportError({self})")
    }
}

/// Why an import ended before its channel did.
///
/// ```
/// use bus_core::TryRecvError;
/// use bus_core::bridge::ImportError;
///
/// let bus = bus_core::Bus::in_process();
/// let jobs = bus.receiver::<u32>("jobs").open()?.into_crossbeam(16);
/// bus.delete("jobs")?;
/// assert!(jobs.recv().is_err());
/// assert!(matches!(jobs.end(), Err(ImportError::Recv { source: TryRecvError::Deleted, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The receiver was removed, or a message is no value of its type; that message is in the error.
    #[error("import from channel {channel}: {source}")]
    Recv {
        /// The channel.
        channel: ChannelName,
        /// What the receiver said.
        source: NoValue,
    },
    /// There is no thread to be had, or no descriptor.
    #[error("import from channel {channel}: no thread or descriptor is left: {source}")]
    Start {
        /// The channel.
        channel: ChannelName,
        /// What the system said.
        source: io::Error,
    },
}

/// Sends what comes from `source` to a channel of the bus.
///
/// Values that wait together are sent together, 128 at most, as by [`Sender::feed`]; when there are no more, they
/// are on their way, as after [`Sender::send`]. From a channel with an exact capacity values are taken one by one.
///
/// While there is no daemon it waits for one, and takes on as many values as `source` may hold, but 128 at least: so it
/// notices that its source has ended, unless more lie there than that, and waits 5 seconds more. A daemon that is there
/// and takes nothing, because the channel is full, holds it back for as long as it does.
///
/// ```
/// # use bus_core::{Bus, bridge};
/// # let bus = Bus::in_process();
/// let (values, source) = crossbeam_channel::unbounded();
/// let bridge = bridge::export(source, bus.sender::<u32>("numbers").open()?);
/// values.send(7)?;
/// drop(values);
/// bridge.join()?;
/// assert_eq!(bus.receiver::<u32>("numbers").open()?.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export<T: Send + 'static>(
    source: crossbeam_channel::Receiver<T>,
    sender: Sender<T>,
) -> Bridge<Box<ExportError<T>>> {
    let failed = |(values, sender), (fault, taken)| Box::new(ExportError { fault, taken, values, sender });
    Bridge::start(
        "bus-export",
        None,
        (source, sender),
        move |(source, sender)| {
            let mut taken = Vec::new();
            let passed = pass_out(&source, &sender, &mut taken);
            passed.map_err(|fault| failed((source, sender), (fault, taken)))
        },
        move |ends, error| failed(ends, (ExportFault::Thread(error), Vec::new())),
    )
}

/// Sends what comes from a channel of the bus into `sink`.
///
/// ```
/// # use bus_core::{Bus, bridge};
/// # let bus = Bus::in_process();
/// let (sink, values) = crossbeam_channel::unbounded();
/// let bridge = bridge::import(bus.receiver::<u32>("numbers").until_disconnected().open()?, sink);
/// bus.sender::<u32>("numbers").open()?.send(7)?;
/// assert_eq!(values.iter().collect::<Vec<_>>(), [7]);
/// bridge.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn import<T: Send + 'static>(receiver: Receiver<T>, sink: crossbeam_channel::Sender<T>) -> Bridge<ImportError> {
    let channel = receiver.channel().clone();
    let unstarted = |source| ImportError::Start { channel, source };
    let stop = match Stop::new() {
        Ok(stop) => stop,
        Err(error) => return Bridge { running: Err(unstarted(error)), stop: None },
    };
    let told = Arc::clone(&stop);
    Bridge::start(
        "bus-import",
        Some(stop),
        (receiver, sink),
        move |(mut receiver, sink)| pass_in(&mut receiver, &sink, &told),
        |_, error| unstarted(error),
    )
}

/// The end of a channel of crossbeam that messages of the bus come to: for `select!`, and all that a
/// [`crossbeam_channel::Receiver`] is for. Dropped, it ends the bridge at once.
///
/// ```
/// let bus = bus_core::Bus::in_process();
/// let jobs = bus.receiver::<u32>("jobs").until_disconnected().open()?.into_crossbeam(16);
/// bus.sender::<u32>("jobs").open()?.send(7)?;
/// assert_eq!(jobs.iter().collect::<Vec<_>>(), [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Imported<T> {
    values: crossbeam_channel::Receiver<T>,
    /// Empty once it is joined.
    bridge: Option<Bridge<ImportError>>,
}

impl<T> Imported<T> {
    /// Stops the bridge, waits for its end, and lets go of what it has passed on and nobody has taken.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.receiver::<u32>("jobs").open()?.into_crossbeam(16);
    /// jobs.end()?;
    /// assert!(bus.receiver::<u32>("jobs").open()?.is_seated());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Why it ended before its channel did.
    pub fn end(mut self) -> Result<(), ImportError> {
        let Some(bridge) = self.bridge.take() else { return Ok(()) };
        bridge.stop();
        drop(self);
        bridge.join()
    }
}

impl<T> Drop for Imported<T> {
    fn drop(&mut self) {
        self.bridge.iter().for_each(Bridge::stop);
    }
}

impl<T> Deref for Imported<T> {
    type Target = crossbeam_channel::Receiver<T>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// Joins the channel to one of crossbeam, for `select!`. `capacity` messages may lie in it, which count as
    /// acknowledged; with 0, only what a thread has taken does.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let jobs = bus.receiver::<u32>("jobs").open()?.into_crossbeam(0);
    /// bus.sender::<u32>("jobs").open()?.send(7)?;
    /// crossbeam_channel::select! {
    ///     recv(jobs) -> job => assert_eq!(job, Ok(7)),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "dropped, it ends the bridge"]
    pub fn into_crossbeam(self, capacity: usize) -> Imported<T> {
        let (sink, values) = crossbeam_channel::bounded(capacity);
        Imported { values, bridge: Some(import(self, sink)) }
    }
}
