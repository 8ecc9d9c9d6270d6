//! A receiver in somebody else's event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Receiver, Route};
use crate::error::RecvError;

impl<T: Send + 'static> Receiver<T> {
    /// The descriptor of [`AsFd`], or why there is none.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let receiver = bus.receiver::<u32>("numbers").open()?;
    /// let descriptor = receiver.readiness()?;
    /// # let _ = descriptor;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the system says when it is asked for for the first time: no descriptor left. And in a process that was
    /// forked since the receiver was opened.
    pub fn readiness(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.route {
            _ if !self.route.is_here() => Err(io::Error::other(RecvError::Forked)),
            Route::Stream(stream) => stream.readiness(),
            Route::Local(local) => local.readiness(),
        }
    }
}

/// For `poll`, `mio` and async runtimes: readable while a message waits, or the end of the channel, on every
/// route and through every reconnection. Level-triggered; one for the life of the receiver.
///
/// It may be readable when nothing waits, as any descriptor may: take messages by
/// [`try_recv`](Receiver::try_recv) until it says `Empty` or `Away`. It is made when it is first asked for, and
/// costs who does not ask nothing.
///
/// ```
/// use std::os::fd::AsFd;
///
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// # let bus = bus_core::Bus::in_process();
/// let receiver = bus.receiver::<u32>("numbers").open()?;
/// let sender = bus.sender::<u32>("numbers").open()?;
/// let ready = || poll(&mut [PollFd::new(&receiver, PollFlags::IN)], Some(&Default::default()));
///
/// assert_eq!(ready()?, 0);
/// sender.send(7)?;
/// assert_eq!(ready()?, 1);
/// assert_eq!(receiver.try_recv()?, 7);
/// assert_eq!(ready()?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// `as_fd` panics when the process has no descriptor left for it, and in a forked child:
/// [`readiness`](Receiver::readiness) says so instead.
impl<T: Send + 'static> AsFd for Receiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.readiness() {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("no descriptor for the receiver of channel {}: {error}", self.channel),
        }
    }
}
