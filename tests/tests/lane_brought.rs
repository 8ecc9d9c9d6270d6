//! Lanes that their receiver brings to the next daemon: where it lies about how far it came, nobody but itself has less
//! of that.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bus_core::limits::REPLY_MAX_BYTES;
use bus_core::wire::{
    FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, LaneEnd, LaneStart, Role, put_control, read_control,
};
use bus_core::{Address, Bus, Receiver, RecvTimeoutError, Sender, TryRecvError};
use bus_tests::{Daemon, PATIENCE, watch};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// How many messages lie in the lane when its daemon is killed.
const LEFT: u64 = 100;

/// It was given the lane where it said that it stood, found no message there, and its sender was said to have written
/// nonsense.
#[test]
fn a_receiver_that_lies_of_where_it_stood_to_the_next_daemon_is_given_what_is_provable() {
    let lies: [(&str, Lie); 5] = [
        ("within a message", |start| (start.logical, start.place) = (start.logical + 8, start.place + 8)),
        ("in the payload of the next", |start| (start.logical, start.place) = (start.logical + 32, start.place + 32)),
        ("at another place", |start| start.place += 40),
        ("behind more messages", |start| start.messages += 5),
        ("before what it has acknowledged", |start| *start = LaneStart::default()),
    ];
    for (what, lie) in lies {
        watch(what, move || lied(what, lie), || ());
    }
}

/// It brought them by the thread that had called, or under a lock that this one needed: a try took one second or two.
#[test]
fn a_call_that_may_not_wait_does_not_wait_until_a_daemon_that_stops_has_the_lanes() {
    watch("a daemon that stops", does_not_wait, || ());
}

fn does_not_wait() {
    /// Far less than a daemon has to take a lane, and far more than anything else takes.
    const AT_ONCE: Duration = Duration::from_millis(500);
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let address = Address::new(folder.path().join("bus.sock")).unwrap();
    let desk = Desk::open(address.path(), daemon.address(), |_| ());
    let (sender, receiver) = in_lane(&address);
    daemon.kill();
    // Its lane goes on.
    sender.send(bytes(0)).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(0));
    desk.stops(true);
    daemon.start_again();
    let begin = Instant::now();
    let mut asked_at = None;
    while asked_at.is_none_or(|asked_at: Instant| asked_at.elapsed() < AT_ONCE) {
        assert!(begin.elapsed() < PATIENCE, "no lane is brought");
        for within in [Duration::ZERO, Duration::from_millis(10)] {
            let called = Instant::now();
            let nothing = match within {
                Duration::ZERO => matches!(receiver.try_recv(), Err(TryRecvError::Empty | TryRecvError::Away)),
                within => matches!(receiver.recv_timeout(within), Err(RecvTimeoutError::Timeout)),
            };
            let took = called.elapsed();
            assert!(nothing && took < AT_ONCE, "{took:?} for what has {within:?}; asked {asked_at:?}");
        }
        if asked_at.is_none() && desk.asked() > 0 {
            asked_at = Some(Instant::now());
        }
    }
    desk.stops(false);
    sender.send(bytes(1)).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(1));
}

/// What it says is true is believed: that it came further than its sender has seen.
#[test]
fn a_receiver_that_tells_the_truth_to_the_next_daemon_is_given_no_message_again() {
    watch("the truth", || lied("the truth", |_| ()), || ());
}

/// What a receiver makes of the place where it stands.
type Lie = fn(&mut LaneStart);

fn lied(what: &str, lie: Lie) {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let address = Address::new(folder.path().join("bus.sock")).unwrap();
    let desk = Desk::open(address.path(), daemon.address(), lie);
    let (sender, receiver) = in_lane(&address);
    let (other_sender, other) = in_lane_of(&address, "other");
    (0..LEFT).for_each(|number| sender.send(bytes(number)).unwrap());
    (0..10).for_each(|number| assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(number)));
    daemon.kill();
    until("both have noticed that", || other.try_recv().is_err_and(|error| matches!(error, TryRecvError::Empty)));
    daemon.start_again();
    until("both bring their lanes", || {
        let _ = (receiver.len(), other.len());
        desk.brought() >= 2
    });
    for number in 10..LEFT {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(number), "{what}");
    }
    until("everything is acknowledged", || sender.is_empty());
    sender.send(bytes(LEFT)).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(LEFT), "{what}");
    assert!(sender.has_lane(), "{what}: nobody blames it\n{}", daemon.log());
    let is_named = daemon.log().contains("what no receiver says");
    assert_eq!(is_named, what != "the truth", "{what}:\n{}", daemon.log());
    other_sender.send(bytes(1)).unwrap();
    assert_eq!(other.recv_timeout(PATIENCE).unwrap(), bytes(1), "{what}: the other lane");
    assert!(other_sender.has_lane(), "{what}: the other lane");
    let bus = Bus::connect_to(daemon.address()).unwrap();
    until("all is counted", || {
        let ledger = bus.show("jobs").unwrap().ledger;
        ledger.balances() && ledger.queued + ledger.in_delivery == 0
    });
}

/// A sender and a receiver in a lane in which nothing is left.
fn in_lane(address: &Address) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    in_lane_of(address, "jobs")
}

fn in_lane_of(address: &Address, channel: &str) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let bus = Bus::builder().address(address.clone()).lanes().connect().unwrap();
    let receiver: Receiver<Vec<u8>> = bus.receiver(channel).open().unwrap();
    let sender: Sender<Vec<u8>> = bus.sender(channel).lane().open().unwrap();
    until("the sender is in its lane", || {
        sender.send(Vec::new()).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap();
        sender.is_in_lane()
    });
    until("everything is acknowledged", || sender.is_empty());
    (sender, receiver)
}

fn bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        thread::yield_now();
    }
}

/// What stands between a daemon and its callers. Who brings a lane as its receiver is passed on with another place where
/// it stood.
struct Desk {
    brought: Arc<AtomicUsize>,
    /// How many lanes receivers have asked it to take while it had stopped.
    asked: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Desk {
    /// It is open for as long as the process lives.
    fn open(path: &Path, daemon: &Address, lie: Lie) -> Self {
        let (listener, daemon) = (UnixListener::bind(path).unwrap(), daemon.path().to_owned());
        let brought = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&brought);
        let came = Arc::new(Mutex::new(Vec::new()));
        let (asked, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let desk = Self { brought, asked: Arc::clone(&asked), stopped: Arc::clone(&stopped) };
        thread::spawn(move || {
            for caller in listener.incoming() {
                let (mut caller, daemon) = (caller.unwrap(), daemon.clone());
                let (counted, came) = (Arc::clone(&counted), Arc::clone(&came));
                let (asked, stopped) = (Arc::clone(&asked), Arc::clone(&stopped));
                thread::spawn(move || {
                    let Ok(mut hello) = hello(&mut caller) else { return };
                    let mut of_receiver = None;
                    if let Role::LaneBrought(brought) = &mut hello.role {
                        let is_receiver = brought.by == LaneEnd::Receiver;
                        if is_receiver && stopped.load(Ordering::SeqCst) {
                            asked.fetch_add(1, Ordering::SeqCst);
                            // Until the caller has had enough.
                            let _ = caller.read(&mut [0]);
                            return;
                        }
                        if !is_receiver && !came.lock().unwrap().contains(&brought.channel) {
                            // It comes again. The first that brings a lane says where its receiver stands.
                            return;
                        }
                        of_receiver = is_receiver.then(|| brought.channel.clone());
                        if is_receiver && brought.channel.as_str() == "jobs" {
                            lie(&mut brought.start);
                        }
                    }
                    let Ok(daemon) = UnixStream::connect(daemon) else { return };
                    let mut said = Vec::new();
                    put_control(Kind::Hello, &hello, &mut said);
                    if send(&daemon, &said, &[]).is_err() {
                        return;
                    }
                    let (caller_too, daemon_too) = (caller.try_clone().unwrap(), daemon.try_clone().unwrap());
                    thread::spawn(move || pass_on(&daemon_too, &caller_too));
                    pass_on(&caller, &daemon);
                    if let Some(channel) = of_receiver {
                        came.lock().unwrap().push(channel);
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        desk
    }

    /// From now on it answers nobody who brings a lane as its receiver; or does.
    fn stops(&self, stops: bool) {
        self.stopped.store(stops, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many lanes were brought by their receivers.
    fn brought(&self) -> usize {
        self.brought.load(Ordering::SeqCst)
    }
}

fn hello(caller: &mut UnixStream) -> io::Result<Hello> {
    let mut said = vec![0; HEADER_BYTES];
    caller.read_exact(&mut said)?;
    let limits = FrameLimits { message_max_bytes: 0, control_max_bytes: REPLY_MAX_BYTES };
    let header = FrameHeader::decode(&said, limits).unwrap().unwrap();
    said.resize(header.frame_bytes(), 0);
    caller.read_exact(&mut said[HEADER_BYTES..])?;
    Ok(read_control(Kind::Hello, &said[HEADER_BYTES..]).unwrap())
}

/// Passes on all that comes, with descriptors, until one of both has gone.
fn pass_on(from: &UnixStream, to: &UnixStream) {
    while let Ok((bytes, descriptors)) = receive(from) {
        if bytes.is_empty() || send(to, &bytes, &descriptors).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn receive(from: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(passed) => Some(passed),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}

fn send(to: &UnixStream, mut bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        (bytes, descriptors) = (&bytes[sent..], Vec::new());
    }
    Ok(())
}
