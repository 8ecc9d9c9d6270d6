//! [`Listener`]: the bound socket, and what accepting gives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::Listener as _;

use crate::connection::{self, Connection};
use crate::peer::Credentials;

/// The socket at which a bus is served.
pub(crate) struct Listener {
    inner: interprocess::local_socket::Listener,
}

/// What came of accepting.
pub(crate) enum Accepted {
    Nobody,
    Connection(Connection, Credentials),
}

impl Listener {
    pub(crate) fn new(inner: interprocess::local_socket::Listener) -> Self {
        Self { inner }
    }

    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        let stream = match self.inner.accept() {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {
                return Ok(Accepted::Nobody);
            }
            Err(error) => return Err(error),
        };
        let credentials = Credentials::of(&stream)?;
        let Stream::UdSocket(stream) = stream;
        Ok(Accepted::Connection(Connection::new(connection::Stream::Socket(OwnedFd::from(stream))), credentials))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let interprocess::local_socket::Listener::UdSocket(listener) = &self.inner;
        listener.as_fd()
    }
}
