//! [`Signal`]: a descriptor that is readable while it is raised.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::event::{EventfdFlags, eventfd};

use crate::stream::session::lock;

/// A flag that the kernel shows to who polls. Raising one that is raised costs no system call.
#[derive(Debug)]
pub(crate) struct Signal {
    descriptor: OwnedFd,
    /// Locked while the descriptor is changed, so that the two never differ.
    raised: Mutex<bool>,
}

impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { descriptor, raised: Mutex::new(false) })
    }

    pub(crate) fn raise(&self) {
        let mut raised = lock(&self.raised);
        if !std::mem::replace(&mut *raised, true) {
            // Of a counter at 0 this cannot fail.
            let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
        }
    }

    pub(crate) fn lower(&self) {
        let mut raised = lock(&self.raised);
        if std::mem::take(&mut *raised) {
            let _ = rustix::io::read(&self.descriptor, &mut [0_u8; 8]);
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::Signal;

    #[test]
    fn it_is_readable_while_it_is_raised() {
        let signal = Signal::new().unwrap();
        let is_readable = || poll(&mut [PollFd::new(&signal, PollFlags::IN)], Some(&Timespec::default())) == Ok(1);
        assert!(!is_readable());
        for _ in 0..2 {
            signal.raise();
            signal.raise();
            assert!(is_readable() && is_readable());
            signal.lower();
            signal.lower();
            assert!(!is_readable());
        }
    }
}
