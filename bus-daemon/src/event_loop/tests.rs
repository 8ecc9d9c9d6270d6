//! The loop by plain calls, where no peer can bring about what is tried.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bus_core::{Address, Bus};
use interprocess::local_socket::traits::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerNonblockingMode, ListenerOptions, ToFsName};
use mio::unix::SourceFd;

use super::*;
use crate::broker::Rules;
use crate::config::KeptLinks;
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
    let options = LoopOptions {
        started_at_ns: 0,
        poll: Duration::ZERO,
        idle_exit: None,
        drain: Duration::ZERO,
        connections_max: 10,
    };
    let links = Links::new(Address::new(folder.join("bus.sock")).unwrap(), 0, KeptLinks::new(None)).unwrap();
    EventLoop::new(Listener::new(listener), Silence(here, there), broker, links, options).unwrap()
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

/// It was told once that its client had gone, at a time when nobody read it, and was kept for ever.
#[test]
fn a_connection_by_memory_that_ends_while_it_is_held_back_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut event_loop = event_loop(folder.path());
    let (address, door) = (Address::new(folder.path().join("bus.sock")).unwrap(), event_loop.door());
    let opening = std::thread::spawn(move || {
        let bus = Bus::builder().address(address).door(door).connect().unwrap();
        bus.raw_sender("jobs").open().unwrap()
    });
    while !opening.is_finished() {
        turn(&mut event_loop);
    }
    let sender = opening.join().unwrap();
    assert_eq!(event_loop.connections.len(), 1);
    let (key, slot) = event_loop.connections.iter_mut().next().unwrap();
    slot.held_back = true;
    drop(sender);
    turn(&mut event_loop);
    assert_eq!(event_loop.connections.len(), 1, "nobody reads it");
    event_loop.connections[key].held_back = false;
    event_loop.queue(key);
    turn(&mut event_loop);
    assert!(event_loop.connections.is_empty());
}

fn turn(event_loop: &mut EventLoop<Silence>) {
    event_loop.look_into_memory();
    event_loop.read_unread();
    event_loop.carry_out();
}
