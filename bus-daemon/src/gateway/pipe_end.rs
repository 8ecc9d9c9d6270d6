//! [`PipeEnd`]: the writing end of a pipe, at which a thread can wait and be told to stop.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::PollFlags;

use super::stop::Stop;

/// Writing waits for room, or for the order to stop: then it fails with [`STOPPED`].
pub(super) struct PipeEnd<'a> {
    pipe: File,
    stop: &'a Stop,
}

/// What writing fails with after the order to stop.
pub(super) const STOPPED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

impl<'a> PipeEnd<'a> {
    /// `pipe` must not wait by itself.
    pub(super) fn new(pipe: File, stop: &'a Stop) -> Self {
        Self { pipe, stop }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_deserted(&self) -> bool {
        let mut watched = [rustix::event::PollFd::new(&self.pipe, PollFlags::empty())];
        let polled = rustix::event::poll(&mut watched, Some(&rustix::time::Timespec::default()));
        polled.is_ok() && watched[0].revents().contains(PollFlags::ERR)
    }
}

impl Write for PipeEnd<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.pipe).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stop.is_given() {
                        return Err(STOPPED.into());
                    }
                    self.stop.wait_or([(self.pipe.as_fd(), PollFlags::OUT)], None)?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
