//! [`Reserve`]: descriptors that nothing but accepting gets, when all others are in use.
//!
//! Lanes, gateways and connections share one table. When it is full, whoever would make room still has to come in: the
//! receiver that drains a channel, the order that deletes one.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How many there are: a receiver, with what it fetches, and some questions and orders.
pub(crate) const RESERVED_DESCRIPTORS: usize = 8;

/// Descriptors of nothing.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    held: Vec<OwnedFd>,
}

impl Reserve {
    /// As many as can be had, up to [`RESERVED_DESCRIPTORS`].
    pub(crate) fn fill(&mut self) {
        while self.is_short() {
            match rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(descriptor) => self.held.push(descriptor),
                Err(_) => return,
            }
        }
    }

    /// Whether some are in use.
    pub(crate) fn is_short(&self) -> bool {
        self.held.len() < RESERVED_DESCRIPTORS
    }

    /// Gives one, if that is what lacks.
    pub(crate) fn helps_against(&mut self, error: &std::io::Error) -> bool {
        error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) && self.held.pop().is_some()
    }
}
