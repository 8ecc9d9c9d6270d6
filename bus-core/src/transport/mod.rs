//! How bytes reach the daemon: a local socket, or memory within its own process. Knows bytes and
//! waiting, and no frame.

mod memory;
mod socket;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

pub use memory::{ClientEnd, DaemonEnd, memory_pair};
pub(crate) use socket::timespec;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    Writable,
    Either,
}

/// What a connection is ready for. Once it is closed, for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// A connection to a daemon. Reading and writing take `&self`; neither waits unless it says so.
#[derive(Debug)]
pub(crate) enum Connection {
    Socket(socket::Socket),
    Memory(ClientEnd),
}

impl Connection {
    /// Connects to a listening socket. It counts only after the daemon's `Welcome`.
    pub(crate) fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        socket::Socket::open(path, patience).map(Self::Socket)
    }

    /// One end of a pair, beside no daemon at all.
    #[cfg(test)]
    pub(crate) fn of_socket(socket: std::os::unix::net::UnixStream) -> Self {
        Self::Socket(socket::Socket { socket: OwnedFd::from(socket) })
    }

    /// Writes what fits now.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.send(slices),
            Self::Memory(memory) => memory.send(slices),
        }
    }

    /// Writes all of it, waiting until `deadline` where it must.
    pub(crate) fn send_all(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.send(&[IoSlice::new(bytes)]) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait(Interest::Writable, Some(deadline))?.is_none() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; 0 means that the other side has closed.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.receive(buffer),
            Self::Memory(memory) => memory.receive(buffer),
        }
    }

    /// Reads, and waits for the first byte.
    pub(crate) fn receive_blocking(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.receive_blocking(buffer),
            Self::Memory(memory) => {
                memory.wait(Interest::Readable, None);
                memory.receive(buffer)
            }
        }
    }

    /// Hangs up, whoever else still holds the connection. What was sent stays readable.
    pub(crate) fn hang_up(&self) {
        match self {
            Self::Socket(socket) => socket.hang_up(),
            Self::Memory(memory) => memory.hang_up(),
        }
    }

    /// Writes all of it, and passes descriptors with the first byte; to a connection whose socket is empty.
    pub(crate) fn send_descriptors(&self, slices: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.send_descriptors(slices, descriptors),
            Self::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Reads, and takes the descriptors that come with it.
    pub(crate) fn receive_descriptors(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        match self {
            Self::Socket(socket) => socket.receive_descriptors(buffer),
            Self::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Waits until the connection is ready for what is of interest; `None` when `deadline` passed first.
    pub(crate) fn wait(&self, interest: Interest, deadline: Option<Instant>) -> io::Result<Option<Ready>> {
        self.wait_or_ring(interest, None, deadline)
    }

    /// As [`wait`](Self::wait), or until the bell rings: ready for nothing, then.
    pub(crate) fn wait_or_ring(
        &self,
        interest: Interest,
        bell: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Option<Ready>> {
        match self {
            Self::Socket(socket) => socket.wait(interest, bell, deadline),
            Self::Memory(memory) => Ok(memory.wait(interest, deadline)),
        }
    }

    /// What can be polled for what it receives. In memory nothing tells of room to send.
    pub(crate) fn poll_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Self::Socket(socket) => Ok(socket.as_fd()),
            Self::Memory(memory) => memory.poll_fd(),
        }
    }

    /// What the kernel can be asked about; memory ends with its process.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Socket(socket) => Some(socket.as_fd()),
            Self::Memory(_) => None,
        }
    }
}
