//! [`Credentials`]: who is at the other end of a connection, as the kernel tells it.

use std::io;
use std::os::fd::AsFd;

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::StreamCommon;
use nix::sys::socket::{getsockopt, sockopt};

/// The process and user at the other end, as they were when it connected. Decisions rest on the
/// user alone: a pid may belong to another process by now, and is for messages to people.
///
/// ```
/// let credentials = bus_daemon::Credentials { pid: 7, uid: 1_000 };
/// println!("uid {} (pid {})", credentials.uid, credentials.pid);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process; 0 when it has none here, as from another pid namespace.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

impl Credentials {
    /// Asks the kernel about `stream`.
    ///
    /// ```
    /// use interprocess::local_socket::Stream;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (here, _there) = UnixStream::pair()?;
    /// let peer = bus_daemon::Credentials::of(&Stream::UdSocket(here.into()))?;
    /// assert_eq!(peer.pid, std::process::id());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the kernel does not tell, and the peer must then be refused.
    pub fn of(stream: &Stream) -> io::Result<Self> {
        let Stream::UdSocket(socket) = stream;
        match stream.peer_creds().map(|told| (told.pid(), told.euid())) {
            Ok((pid, Some(uid))) => Ok(Self { pid: pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0), uid }),
            // interprocess takes the pid 0 of a process in another namespace for a reset connection.
            Ok((_, None)) | Err(_) => Self::from_kernel(socket),
        }
    }

    fn from_kernel(socket: &impl AsFd) -> io::Result<Self> {
        let told = getsockopt(socket, sockopt::PeerCredentials).map_err(io::Error::from)?;
        if told.uid() == UNKNOWN_UID {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the kernel knows no user for this connection"));
        }
        Ok(Self { pid: u32::try_from(told.pid()).unwrap_or(0), uid: told.uid() })
    }
}

/// What the kernel gives for a socket that never had a peer.
const UNKNOWN_UID: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn own() -> Credentials {
        Credentials { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() }
    }

    #[test]
    fn both_ways_of_asking_tell_the_same() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert_eq!(Credentials::from_kernel(&here).unwrap(), own());
        assert_eq!(Credentials::of(&Stream::UdSocket(here.into())).unwrap(), own());
    }

    #[test]
    fn a_socket_without_a_peer_has_no_user() {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
        assert_eq!(Credentials::from_kernel(&socket).unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert!(Credentials::of(&Stream::UdSocket(socket.into())).is_err());
    }
}
