//! A process that writes anything over the memory that it shares costs its peer the lane, and nobody anything else.
//!
//! The memory of this process is searched for: there is one test here, so that what is found is its own.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::Instant;

use bus_core::{Bus, Receiver, Sender, TryRecvError};
use bus_tests::processes::{Dice, Stage};
use bus_tests::{PATIENCE, Route, watch};

/// How much is sent after the lane was scribbled over: more than a window.
const BEHIND: u64 = 100_000;

#[test]
fn whoever_scribbles_costs_its_peer_the_lane_alone() {
    let body = || {
        let stage = Stage::new(Dice::from_environment(), Route::Lane);
        let bus = stage.bus();
        let (sender, receiver, sent) = in_a_lane(&bus, "first");
        // Its sender waited for ever for room that nobody gave.
        scribble_over(&cursors());
        goes_on(sender, &receiver);
        assert_eq!(acknowledged(&bus, "first"), sent + BEHIND);
        drop(receiver);
        let (sender, receiver, sent) = in_a_lane(&bus, "second");
        scribble_over(&tails());
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
        goes_on(sender, &receiver);
        assert_eq!(acknowledged(&bus, "second"), sent + BEHIND);
    };
    watch("scribbled", body, || ());
}

/// Both ends of a channel, with nothing under way.
fn in_a_lane(bus: &Bus, channel: &str) -> (Sender<u64>, Receiver<u64>, u64) {
    let mut sent = 0;
    let sender: Sender<u64> = bus.sender(channel).lane().open().unwrap();
    let receiver: Receiver<u64> = bus.receiver(channel).open().unwrap();
    until("the sender is in its lane", || {
        sender.send(0).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap();
        sent += 1;
        sender.is_in_lane()
    });
    until("everything is acknowledged", || sender.is_empty());
    (sender, receiver, sent)
}

/// The lane is gone, and nothing is lost.
fn goes_on(sender: Sender<u64>, receiver: &Receiver<u64>) {
    let sending = {
        let sender = sender.clone();
        thread::spawn(move || (0..BEHIND).for_each(|number| sender.send(number).unwrap()))
    };
    // Before anything is received: what was scribbled over is written again by whoever goes on.
    until("the sender has lost its lane", || !sender.has_lane());
    for expected in 0..BEHIND {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), expected);
    }
    sending.join().unwrap();
    until("everything is acknowledged", || sender.is_empty());
}

fn acknowledged(bus: &Bus, channel: &str) -> u64 {
    let ledger = bus.show(channel).unwrap().ledger;
    assert!(ledger.balances() && ledger.accepted == ledger.acknowledged, "{ledger:?}");
    ledger.acknowledged
}

fn scribble_over(places: &[u64]) {
    assert_eq!(places.len(), 1);
    let memory = OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    memory.write_all_at(&[0xff; 8], places[0]).unwrap();
}

/// Where receivers of this process say how far they are.
fn cursors() -> Vec<u64> {
    shared_memory().filter(|(_, bytes)| *bytes == 4096).map(|(place, _)| place).collect()
}

/// Where senders of this process say how far they are.
fn tails() -> Vec<u64> {
    shared_memory().filter(|(_, bytes)| *bytes > 4096).map(|(place, _)| place).collect()
}

/// What this process may write of memory that it shares: place and length.
fn shared_memory() -> impl Iterator<Item = (u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let found: Vec<(u64, u64)> = maps
        .lines()
        .filter(|line| line.contains(" rw-s ") && line.contains("memfd:"))
        .map(|line| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let place = |hex| u64::from_str_radix(hex, 16).unwrap();
            (place(from), place(to) - place(from))
        })
        .collect();
    found.into_iter()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        thread::yield_now();
    }
}
