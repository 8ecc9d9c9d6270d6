//! Lanes of one channel have equal shares of its receiver.
//!
//! It is the rounds that keep that: what the two looks have shown is handed out before there are others. A receiver that
//! took the first lane with a message within each round passes; one that also looked anew before each message fails, with
//! all of them of one sender.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

use bus_core::{Bus, ChannelOptions, Receiver, Sender};
use bus_tests::{Daemon, PATIENCE, eventually, watch};

const SENDERS: usize = 4;

/// How many messages each may have in its lane: all have some there all the time, for a receiver that is slower.
const WINDOW: u32 = 1_024;

/// What the receiver does beside each message.
const WORK: Duration = Duration::from_micros(4);

/// Of so many messages each sender's are at least half of an even share.
const MESSAGES: usize = 40_000;

#[test]
fn none_of_several_busy_senders_in_lanes_is_starved() {
    watch("shares", share, || ());
}

fn share() {
    let daemon = Daemon::start();
    let bus = Bus::connect_to(daemon.address()).unwrap();
    bus.create("jobs", ChannelOptions { window: Some(WINDOW), ..ChannelOptions::default() }).unwrap();
    let receiver: Receiver<usize> = bus.receiver("jobs").open().unwrap();
    let senders: Vec<Sender<usize>> = (0..SENDERS).map(|_| bus.sender("jobs").lane().open().unwrap()).collect();
    eventually("all are in lanes", || {
        senders.iter().for_each(|sender| sender.send(0).unwrap());
        senders.iter().for_each(|_| assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), 0));
        senders.iter().all(Sender::is_in_lane)
    });
    let send = |(name, sender): (usize, Sender<usize>)| thread::spawn(move || while sender.send(name).is_ok() {});
    let sending: Vec<_> = senders.into_iter().enumerate().map(send).collect();
    let (mut shares, mut last, mut longest) = ([0; SENDERS], [0; SENDERS], [0; SENDERS]);
    for at in 0..MESSAGES {
        let name = receiver.recv_timeout(PATIENCE).unwrap();
        longest[name] = longest[name].max(at - last[name]);
        last[name] = at;
        shares[name] += 1;
        let begun = Instant::now();
        while begun.elapsed() < WORK {
            std::hint::spin_loop();
        }
    }
    println!("shares of {MESSAGES}: {shares:?}; the longest runs of others: {longest:?}");
    bus.delete("jobs").unwrap();
    sending.into_iter().for_each(|sending| sending.join().unwrap());
    assert!(shares.iter().all(|share| *share >= MESSAGES / SENDERS / 2), "{shares:?} of {MESSAGES}");
}
