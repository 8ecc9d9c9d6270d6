//! [`Listener`]: the bound socket, and what accepting gives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::Listener as _;

use crate::connection::{self, Connection};
use crate::passing::let_descriptors_pass;
use crate::peer::Credentials;

/// The socket at which a bus is served.
pub(crate) struct Listener {
    inner: interprocess::local_socket::Listener,
}

/// What came of accepting.
pub(crate) enum Accepted {
    /// Nobody waits.
    Nobody,
    /// Somebody who is gone again, or of whom the kernel tells nothing: the next may be different.
    Lost,
    Connection(Connection, Credentials),
}

impl Listener {
    pub(crate) fn new(inner: interprocess::local_socket::Listener) -> Self {
        let listener = Self { inner };
        if let Err(error) = let_descriptors_pass(&listener, false) {
            tracing::warn!(%error, "anybody may pass descriptors to connections, which drop them");
        }
        listener
    }

    /// Takes the first who waits.
    ///
    /// # Errors
    /// Nobody can be taken at the moment, above all because there are no descriptors.
    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        let stream = match self.inner.accept() {
            Ok(stream) => stream,
            Err(error) => return without_connection(error),
        };
        let credentials = match Credentials::of(&stream) {
            Ok(credentials) => credentials,
            Err(error) => {
                tracing::warn!(%error, "somebody connected of whom the kernel does not tell the user, and is refused");
                return Ok(Accepted::Lost);
            }
        };
        let Stream::UdSocket(stream) = stream;
        Ok(Accepted::Connection(Connection::new(connection::Stream::Socket(OwnedFd::from(stream))), credentials))
    }
}

fn without_connection(error: io::Error) -> io::Result<Accepted> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Accepted::Nobody),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {
            Ok(Accepted::Lost)
        }
        _ => Err(error),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let interprocess::local_socket::Listener::UdSocket(listener) = &self.inner;
        listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// The others in the backlog were not let in before the next came.
    #[test]
    fn whoever_is_gone_before_being_accepted_does_not_keep_the_next_waiting() {
        for errno in [Errno::CONNABORTED, Errno::INTR] {
            assert!(matches!(without_connection(errno.into()), Ok(Accepted::Lost)), "{errno:?}");
        }
        assert!(matches!(without_connection(Errno::AGAIN.into()), Ok(Accepted::Nobody)));
    }

    #[test]
    fn a_full_descriptor_table_is_no_answer() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(without_connection(errno.into()).is_err(), "{errno:?}");
        }
    }
}
