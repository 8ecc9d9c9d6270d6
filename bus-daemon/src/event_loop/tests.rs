//! The loop by plain calls, where no peer can bring about what is tried.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use interprocess::local_socket::traits::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerNonblockingMode, ListenerOptions, ToFsName};
use mio::unix::SourceFd;

use super::*;
use crate::broker::Rules;
use crate::connection::Stream;
use crate::peer::Credentials;

/// Never has news.
struct Silence(UnixStream, #[allow(dead_code, reason = "held open")] UnixStream);

impl Outside for Silence {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn wants_end(&mut self) -> bool {
        false
    }

    fn alive_interval(&self) -> Option<Duration> {
        None
    }

    fn alive(&self) {}
}

fn event_loop(folder: &std::path::Path) -> EventLoop<Silence> {
    let name = folder.join("bus.sock").to_fs_name::<GenericFilePath>().unwrap();
    let listener = ListenerOptions::new().name(name).create_sync().unwrap();
    listener.set_nonblocking(ListenerNonblockingMode::Both).unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let broker = Broker::new(Rules { allowed_uids: vec![uid], ..Rules::default() });
    let options = LoopOptions { poll: Duration::ZERO, idle_exit: None, drain: Duration::ZERO, connections_max: 10 };
    EventLoop::new(Listener::new(listener), Silence(here, there), broker, options).unwrap()
}

/// The slot was used after it was dropped.
#[test]
fn a_connection_that_cannot_be_watched_is_dropped_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut event_loop = event_loop(folder.path());
    let (here, _there) = UnixStream::pair().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let connection = Connection::new(Stream::Socket(OwnedFd::from(here)));
    let key = event_loop.admit(connection, Credentials { pid: 1, uid }, None).unwrap();
    let fd = event_loop.connections[key].connection.fd().unwrap();
    event_loop.poll.registry().deregister(&mut SourceFd(&fd)).unwrap();
    event_loop.connections[key].connection.write_blocked = true;
    event_loop.connections[key].watched_for_room = true;
    event_loop.ready(key, Readiness { readable: false, read_closed: false, writable: true, deserted: false });
    assert!(event_loop.connections.is_empty());
    assert_eq!(event_loop.open_sockets, 0);
    assert!(event_loop.broker.is_idle());
}
