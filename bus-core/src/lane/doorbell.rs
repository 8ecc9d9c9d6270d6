//! The doorbell: how who works wakes who sleeps.
//!
//! A pair of sockets. One end is polled, together with the control socket, by who sleeps; the other is in the
//! hands of everyone who may have to wake it. Neither can make the other wait: each call says that it does not,
//! because a flag on the descriptor itself is shared with the peer. A bell that is full has rung already.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

/// The end of who sleeps.
#[derive(Debug)]
pub struct Doorbell {
    socket: OwnedFd,
}

/// The end of who wakes.
#[derive(Debug)]
pub struct Ringer {
    socket: OwnedFd,
}

/// Makes both.
///
/// # Errors
/// What the system says: no descriptor left.
pub fn doorbell() -> io::Result<(Doorbell, Ringer)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (doorbell, ringer) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok((Doorbell { socket: doorbell }, Ringer { socket: ringer }))
}

impl Doorbell {
    /// From a descriptor of this process.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Takes the rings so far. To be called before looking for what was rung for.
    pub fn take(&self) {
        let mut rings = [0; 64];
        // Nothing there, or nobody left to ring: whoever slept looks for itself.
        let _ = recv(&self.socket, &mut rings[..], RecvFlags::DONTWAIT);
    }
}

impl Doorbell {
    /// Waits for a ring, at most until `deadline`.
    pub fn wait(&self, deadline: Instant) {
        let timeout = crate::transport::timespec(deadline.saturating_duration_since(Instant::now()));
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        // Interrupted or out of memory: whoever waits looks for itself.
        let rung = poll(&mut polled, Some(&timeout));
        if rung == Ok(1) && polled[0].revents().contains(PollFlags::HUP) {
            // Nobody is left to ring: it waits all the same.
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Ringer {
    /// Whether nobody has the other end any more.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::empty())];
        let looked = poll(&mut polled, Some(&rustix::time::Timespec::default()));
        looked == Ok(1) && polled[0].revents().contains(PollFlags::HUP)
    }

    /// From a descriptor of this process.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Wakes whoever polls the other end, now or the next time.
    pub fn ring(&self) {
        // A full bell has rung, and a sleeper that is gone needs none.
        let _ = send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Ringer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::time::Timespec;

    use super::*;

    fn has_rung(bell: &Doorbell) -> bool {
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
    }

    #[test]
    fn a_ring_is_heard_once_it_is_listened_for_and_not_again() {
        let (bell, ringer) = doorbell().unwrap();
        assert!(!has_rung(&bell));
        ringer.ring();
        assert!(has_rung(&bell));
        bell.take();
        assert!(!has_rung(&bell));
    }

    #[test]
    fn nobody_waits_for_a_bell_that_is_full_or_whose_owner_is_gone() {
        let (bell, ringer) = doorbell().unwrap();
        // The peer makes its end block for all: that is no matter.
        rustix::io::ioctl_fionbio(&ringer, false).unwrap();
        rustix::io::ioctl_fionbio(&bell, false).unwrap();
        for _ in 0..100_000 {
            ringer.ring();
        }
        for _ in 0..100_000 {
            bell.take();
        }
        bell.take();
        assert!(!ringer.is_deserted());
        drop(bell);
        assert!(ringer.is_deserted());
        ringer.ring();
    }
}
