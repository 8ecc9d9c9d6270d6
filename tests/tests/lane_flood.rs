//! Many messages through lanes, as fast as they go, between threads that fall asleep and wake each other all the time
//! and are stopped in the middle of that, because there are more of them than processors.
//!
//! A wake that is lost stops everything: the receiver sleeps, and the sender waits for room. (What the model of the ring
//! shows of two threads, here many do in earnest.)
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread;

use bus_core::{Bus, Receiver, Sender, Waiting};
use bus_tests::{Daemon, PATIENCE, watch};

/// More than there are processors, here and mostly elsewhere.
const PAIRS: u64 = 6;

const ROUNDS: u64 = 6;

const MESSAGES: u64 = 30_000;

#[test]
fn nobody_sleeps_with_work_when_both_ends_spin_for_a_while() {
    flood(Waiting::Adaptive);
}

#[test]
fn nobody_sleeps_with_work_when_both_ends_sleep_at_once() {
    flood(Waiting::Sleep);
}

fn flood(waiting: Waiting) {
    let body = move || {
        let daemon = Daemon::start();
        let pairs: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let bus = Bus::connect_to(daemon.address()).unwrap();
                thread::spawn(move || (0..ROUNDS).for_each(|round| pass(&bus, pair * ROUNDS + round, waiting)))
            })
            .collect();
        pairs.into_iter().for_each(|pair| pair.join().unwrap());
    };
    watch("flood", body, || ());
}

/// Sends them one by one, in runs, and by twos and threes, so that the receiver catches up again and again.
fn pass(bus: &Bus, number: u64, waiting: Waiting) {
    let channel = format!("jobs.{number}");
    let receiver: Receiver<u64> = bus.receiver(&channel).waiting(waiting).open().unwrap();
    let sender: Sender<u64> = bus.sender(&channel).lane().waiting(waiting).open().unwrap();
    let sends = thread::spawn(move || {
        for message in 0..MESSAGES {
            if message / 1_000 % 2 == 0 {
                sender.send(message).unwrap()
            } else {
                sender.feed(message).unwrap()
            }
            if message % 3 == number % 3 {
                (0..message % 200).for_each(|_| std::hint::spin_loop());
            }
        }
        sender.flush().unwrap();
    });
    for message in 0..MESSAGES {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), message, "on {channel}");
    }
    sends.join().unwrap();
}
