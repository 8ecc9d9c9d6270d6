//! [`Stop`]: tells a thread to stop, also while it waits for a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::Errno;
use rustix::time::Timespec;

/// An order to stop that is given once and for all.
#[derive(Debug)]
pub(super) struct Stop {
    is_given: AtomicBool,
    /// Readable from the order on.
    descriptor: OwnedFd,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { is_given: AtomicBool::new(false), descriptor })
    }

    pub(super) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
        // It fails only when it is readable already, beyond all counting.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }

    pub(super) fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Acquire)
    }

    /// Waits for the order, for `timeout` at most. Whether it is given.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        self.wait_or([], Some(timeout))?;
        Ok(self.is_given())
    }

    /// Waits for the order or for any of these descriptors, for `timeout` at most. What these are ready for.
    pub(super) fn wait_or<const N: usize>(
        &self,
        others: [(BorrowedFd<'_>, PollFlags); N],
        timeout: Option<Duration>,
    ) -> io::Result<[PollFlags; N]> {
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(FAR_AWAY));
        let mut watched = Vec::with_capacity(N + 1);
        watched.extend(others.iter().map(|(fd, interest)| PollFd::from_borrowed_fd(*fd, *interest)));
        watched.push(PollFd::new(&self.descriptor, PollFlags::IN));
        match rustix::event::poll(&mut watched, timeout.as_ref()) {
            // Whoever is woken by a signal looks again.
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = [PollFlags::empty(); N];
        ready.iter_mut().zip(&watched).for_each(|(ready, watched)| *ready = watched.revents());
        Ok(ready)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A day: nobody waits longer without looking again.
const FAR_AWAY: Timespec = Timespec { tv_sec: 86_400, tv_nsec: 0 };
