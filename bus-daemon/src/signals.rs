//! [`Signals`]: being told to end, as a descriptor that the event loop waits on like any other.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

/// Readable when the daemon is to end. A signal handler may do almost nothing, so it writes one byte
/// here, and the loop does the rest.
#[derive(Debug)]
pub(crate) struct Signals {
    readable: UnixStream,
    writable: UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    /// Takes over `SIGTERM` and `SIGINT` of the process. When this is dropped the process ignores
    /// them, so it is for programs whose main work is the daemon.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn of_process() -> io::Result<Self> {
        let mut signals = Self::manual()?;
        for signal in [SIGTERM, SIGINT] {
            let registered = low_level::pipe::register(signal, signals.writable.try_clone()?)?;
            signals.registered.push(registered);
        }
        Ok(signals)
    }

    /// Leaves the process's signals alone: only a [`Stopper`] makes it readable.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn manual() -> io::Result<Self> {
        let (readable, writable) = UnixStream::pair()?;
        readable.set_nonblocking(true)?;
        writable.set_nonblocking(true)?;
        Ok(Self { readable, writable, registered: Vec::new() })
    }

    /// A handle for another thread that says what a signal would.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper { writable: self.writable.try_clone()? })
    }

    /// Takes what has come, and tells whether anything had. Call it before acting on it, and again
    /// after each readiness: what comes in between makes it readable anew.
    pub(crate) fn drain(&mut self) -> bool {
        let mut came = false;
        let mut bytes = [0; 64];
        loop {
            match self.readable.read(&mut bytes) {
                Ok(0) => return came,
                Ok(_) => came = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return came,
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for registered in self.registered.drain(..) {
            low_level::unregister(registered);
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

/// For `mio::unix::SourceFd`.
impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.readable.as_raw_fd()
    }
}

/// Tells a daemon in this process to end.
#[derive(Debug)]
pub(crate) struct Stopper {
    writable: UnixStream,
}

impl Stopper {
    /// Makes the [`Signals`] readable. Once is enough; more does no harm.
    pub(crate) fn stop(&self) {
        // Full: it is readable already. Closed: the daemon has ended.
        let _ = (&self.writable).write(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn is_readable(signals: &Signals) -> bool {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn a_signal_becomes_readable_once() {
        for signal in [SIGTERM, SIGINT] {
            let mut signals = Signals::of_process().unwrap();
            assert!(!is_readable(&signals) && !signals.drain());
            low_level::raise(signal).unwrap();
            assert!(is_readable(&signals));
            assert!(signals.drain());
            assert!(!is_readable(&signals) && !signals.drain());
        }
    }

    #[test]
    fn a_stopper_never_waits_and_outlives_the_daemon() {
        let mut signals = Signals::manual().unwrap();
        let stopper = signals.stopper().unwrap();
        for _ in 0..100_000 {
            stopper.stop();
        }
        assert!(signals.drain());
        assert!(!signals.drain());
        drop(signals);
        stopper.stop();
    }
}
