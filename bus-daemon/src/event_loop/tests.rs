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

    /// So that a test which waits in vain fails.
    fn alive_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
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
    // The keeper of this process may be holding the sender at this moment, and then it is the last to let go.
    let until = Instant::now() + Duration::from_secs(20);
    while !event_loop.connections[key].connection.deserted {
        assert!(Instant::now() < until, "the client does not hang up");
        turn(&mut event_loop);
        std::thread::yield_now();
    }
    assert_eq!(event_loop.connections.len(), 1, "nobody reads it");
    event_loop.connections[key].held_back = false;
    event_loop.queue(key);
    turn(&mut event_loop);
    assert!(event_loop.connections.is_empty());
}

/// What hangs on nobody being at the door, as lanes of dead senders do, waited for ever.
#[test]
fn a_daemon_whose_connections_are_all_in_use_knows_whether_anybody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let mut event_loop = event_loop(folder.path());
    event_loop.options.connections_max = 0;
    event_loop.accept();
    assert!(event_loop.accept_again_at.is_none(), "nobody is there");
    let waits = UnixStream::connect(folder.path().join("bus.sock")).unwrap();
    event_loop.accept();
    assert!(event_loop.accept_again_at.is_some(), "it is looked again");
    event_loop.options.connections_max = 1;
    event_loop.accept();
    assert_eq!((event_loop.open_sockets, event_loop.accept_again_at), (1, None));
    drop(waits);
}

/// A bell, a board and what rings it stayed open until the daemon ended.
#[test]
fn nothing_is_made_for_a_receiver_that_was_closed_after_it_had_asked() {
    use crate::broker::{LaneAction, LanePart, LaneSize};
    use bus_core::wire::LaneId;

    let folder = tempfile::tempdir().unwrap();
    let mut event_loop = event_loop(folder.path());
    let uid = rustix::process::geteuid().as_raw();
    let admit = |event_loop: &mut EventLoop<Silence>| {
        let (here, there) = UnixStream::pair().unwrap();
        let connection = Connection::new(Stream::Socket(OwnedFd::from(here)));
        (event_loop.admit(connection, Credentials { pid: 1, uid }, None).unwrap(), there)
    };
    let ((receiver_key, receiver), (fetch_key, _fetch)) = (admit(&mut event_loop), admit(&mut event_loop));
    let (lane, size) = (LaneId(1), LaneSize { ring_bytes: 4_096, message_max_bytes: 64 });
    event_loop.lanes.make(lane, size).unwrap();
    event_loop.lanes.new_cursor(lane).unwrap();
    let (receiver_id, fetch_id) = (event_loop.connections[receiver_key].peer, event_loop.connections[fetch_key].peer);
    drop(receiver);
    event_loop.ready(receiver_key, Readiness { readable: true, read_closed: true, writable: true, deserted: true });
    event_loop.read_unread();
    assert_eq!(event_loop.connections.len(), 1, "its receiver is gone");
    event_loop.do_lane(LaneAction::HandOver(fetch_id, lane, LanePart::ForReceiver(receiver_id)));
    assert!(event_loop.connections[fetch_key].closing.is_some());
    assert!(!event_loop.lanes.has_receiver(receiver_id));
}

/// Turns until a thread has done its work beside the loop. Returns what the thread does.
fn serve<T: Send + 'static>(
    event_loop: &mut EventLoop<Silence>,
    work: impl FnOnce() -> T + Send + 'static,
    mut look: impl FnMut(&EventLoop<Silence>),
) -> T {
    let (result, results) = std::sync::mpsc::channel();
    // Wakes the loop when there is a result.
    let (done, end) = UnixStream::pair().unwrap();
    let work = std::thread::spawn(move || (result.send(work()).unwrap(), drop(done)));
    event_loop.poll.registry().register(&mut SourceFd(&end.as_raw_fd()), OUTSIDE, Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(64);
    let mut now = Instant::now();
    let until = now + Duration::from_secs(60);
    loop {
        if let Ok(result) = results.try_recv() {
            work.join().unwrap();
            event_loop.poll.registry().deregister(&mut SourceFd(&end.as_raw_fd())).unwrap();
            return result;
        }
        now = event_loop.turn(&mut events, now).unwrap();
        look(event_loop);
        assert!(now < until, "the work beside the loop hangs");
    }
}

/// Not told of it any more, the loop heard nothing of what came after, or of the end.
#[test]
fn a_sender_of_many_small_messages_is_read_by_the_clock_and_told_of_again_when_it_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let mut event_loop = event_loop(folder.path());
    let address = Address::new(folder.path().join("bus.sock")).unwrap();
    let open = move || {
        let bus = Bus::connect_to(&address).unwrap();
        (bus.raw_sender("jobs").no_lane().open().unwrap(), bus.raw_receiver("jobs").open().unwrap())
    };
    let (sender, mut receiver) = serve(&mut event_loop, open, |_| ());
    let mut paced = 0_u32;
    // Until the clock has decided, which depends on when each of the two threads runs.
    for round in 0..1_000_u32 {
        let flow = sender.clone();
        let flood = move || {
            let numbers = || (0..20_000_u32).map(|number| [round, number].map(u32::to_le_bytes).concat());
            numbers().for_each(|payload| flow.send(payload).unwrap());
            flow.flush_deadline(Instant::now() + Duration::from_secs(30)).unwrap();
            numbers().for_each(|payload| assert_eq!(receiver.recv().unwrap(), payload));
            receiver
        };
        receiver = serve(&mut event_loop, flood, |event_loop| paced += u32::from(!event_loop.paced.keys.is_empty()));
        let by_clock = event_loop.connections.iter().filter(|(_, slot)| slot.pace.is_by_clock()).count();
        assert_eq!(by_clock, 0, "its question was heard, and answered");
        if paced > 100 {
            break;
        }
    }
    assert!(paced > 100, "the clock never decides");
    drop(receiver);
    serve(&mut event_loop, move || drop(sender), |_| ());
    let (mut events, mut now, until) =
        (Events::with_capacity(64), Instant::now(), Instant::now() + Duration::from_secs(20));
    while !event_loop.connections.is_empty() {
        // The keeper of this process may be the last to let go.
        now = event_loop.turn(&mut events, now).unwrap();
        assert!(now < until, "its end is not heard of");
    }
}

fn turn(event_loop: &mut EventLoop<Silence>) {
    event_loop.look_into_memory();
    event_loop.read_unread();
    event_loop.carry_out();
}

/// Its end came together with its beginning, was told of before the loop knew it, and it was kept for ever.
#[test]
fn a_connection_by_memory_that_ends_before_it_is_looked_at_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut event_loop = event_loop(folder.path());
    let (address, door) = (Address::new(folder.path().join("bus.sock")).unwrap(), event_loop.door());
    // The loop does other things for as long as who knocks has patience.
    let bus = Bus::builder().address(address).door(door).connect_timeout(Duration::from_millis(50)).connect();
    assert!(bus.is_err());
    for _ in 0..10 {
        turn(&mut event_loop);
    }
    assert!(event_loop.connections.is_empty(), "{} kept", event_loop.connections.len());
}
