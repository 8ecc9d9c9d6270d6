//! A receiver that brings its lanes to a daemon which does not answer, or not at once: none of its calls waits for that
//! beyond its deadline, a try not at all, and nothing is lost or put out of order by it.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bus_core::limits::REPLY_MAX_BYTES;
use bus_core::wire::{FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, Role, read_control};
use bus_core::{Bus, Receiver, RecvTimeoutError, Sender, TryRecvError};
use bus_tests::{Daemon, PATIENCE, watch};

/// How many messages lie in the lane when its daemon is killed.
const LEFT: u64 = 100;

/// Far less than it is waited for a lane to be taken, and as much as a busy machine may hold anybody up.
const AT_ONCE: Duration = Duration::from_millis(500);

/// They waited for one that hears and says nothing: for a second, with the state of the receiver locked.
#[test]
fn no_call_waits_for_a_daemon_that_does_not_take_a_lane() {
    watch("not taken", not_taken, || ());
}

/// What becomes of a message that its user has in hand meanwhile does not depend on that, either.
#[test]
fn what_is_given_back_while_a_lane_is_brought_comes_again_first_and_counts_an_attempt() {
    watch("given back", given_back, || ());
}

fn not_taken() {
    let (first, next) = (Daemon::start(), Daemon::start());
    let (sender, receiver) = in_lane(&first);
    (0..LEFT).for_each(|number| sender.send(bytes(number)).unwrap());
    let desk = Desk::take_the_place_of(&first, &next);
    let mut received = Vec::new();
    let (mut trying, mut brought_at) = (true, None);
    // As long as it is waited for an answer, and a little more.
    while brought_at.is_none_or(|at: Instant| at.elapsed() < Duration::from_millis(1_500)) {
        assert!(brought_at.is_some() || desk.begun.elapsed() < PATIENCE, "it does not bring its lane");
        if desk.brought() > 0 {
            brought_at = brought_at.or(Some(Instant::now()));
        }
        let begin = Instant::now();
        let came = match trying {
            true => receiver.try_recv().map_err(|error| {
                assert!(matches!(error, TryRecvError::Empty | TryRecvError::Away), "{error}");
            }),
            false => receiver.recv_timeout(Duration::from_millis(10)).map_err(|error| {
                assert!(matches!(error, RecvTimeoutError::Timeout), "{error}");
            }),
        };
        let took = begin.elapsed();
        assert!(took < AT_ONCE, "a {} took {took:?}", if trying { "try" } else { "call of 10 ms" });
        received.extend(came);
        trying = !trying;
    }
    while received.len() < LEFT as usize {
        received.push(receiver.recv_timeout(PATIENCE).unwrap());
    }
    assert!(received.into_iter().eq((0..LEFT).map(bytes)), "each once, and in order");
}

fn given_back() {
    let (first, next) = (Daemon::start(), Daemon::start());
    let (sender, mut receiver) = in_lane(&first);
    (0..LEFT).for_each(|number| sender.send(bytes(number)).unwrap());
    let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap().into_owned();
    assert_eq!(*held, bytes(0));
    let desk = Desk::take_the_place_of(&first, &next);
    until("it brings its lane", || desk.brought() > 0);
    held.nack();
    for number in 0..LEFT {
        let delivery = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        let expected = if number == 0 { 2 } else { 1 };
        assert_eq!((delivery.as_slice(), delivery.info().attempt), (bytes(number).as_slice(), expected));
        delivery.ack();
    }
}

/// A sender and a receiver in a lane in which nothing is left.
fn in_lane(daemon: &Daemon) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let bus = Bus::builder().address(daemon.address().clone()).lanes().connect().unwrap();
    let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
    let sender: Sender<Vec<u8>> = bus.sender("jobs").lane().open().unwrap();
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

/// What stands at the address of a daemon that is gone: whoever comes is connected with another daemon, and who brings a
/// lane is heard, and not answered.
struct Desk {
    brought: Arc<AtomicUsize>,
    begun: Instant,
}

impl Desk {
    fn take_the_place_of(former: &Daemon, next: &Daemon) -> Self {
        former.kill();
        let path = former.address().path().to_owned();
        fs::remove_file(&path).unwrap();
        let (listener, next) = (UnixListener::bind(&path).unwrap(), next.address().path().to_owned());
        let brought = Arc::new(AtomicUsize::new(0));
        let (counted, unanswered) = (Arc::clone(&brought), Arc::new(Mutex::new(Vec::new())));
        // It ends with the process.
        thread::spawn(move || {
            for caller in listener.incoming() {
                let (mut caller, next) = (caller.unwrap(), next.clone());
                let (counted, unanswered) = (Arc::clone(&counted), Arc::clone(&unanswered));
                thread::spawn(move || {
                    let Ok((role, said)) = hello(&mut caller) else { return };
                    if let Role::LaneBrought(_) = role {
                        unanswered.lock().unwrap().push(caller);
                        counted.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    let Ok(mut daemon) = UnixStream::connect(next) else { return };
                    daemon.write_all(&said).unwrap();
                    let (caller_too, daemon_too) = (caller.try_clone().unwrap(), daemon.try_clone().unwrap());
                    thread::spawn(move || pass_on(daemon_too, caller_too));
                    pass_on(caller, daemon);
                });
            }
        });
        Self { brought, begun: Instant::now() }
    }

    /// How many lanes were brought.
    fn brought(&self) -> usize {
        self.brought.load(Ordering::SeqCst)
    }
}

fn hello(caller: &mut UnixStream) -> io::Result<(Role, Vec<u8>)> {
    let mut said = vec![0; HEADER_BYTES];
    caller.read_exact(&mut said)?;
    let limits = FrameLimits { message_max_bytes: 0, control_max_bytes: REPLY_MAX_BYTES };
    let header = FrameHeader::decode(&said, limits).unwrap().unwrap();
    said.resize(header.frame_bytes(), 0);
    caller.read_exact(&mut said[HEADER_BYTES..])?;
    let hello: Hello = read_control(Kind::Hello, &said[HEADER_BYTES..]).unwrap();
    Ok((hello.role, said))
}

fn pass_on(mut from: UnixStream, mut to: UnixStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
