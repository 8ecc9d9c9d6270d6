//! Long messages on the stream: how many of them are on their way to a receiver.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

use bus_core::{Bus, Receiver, Sender};
use bus_tests::{Daemon, PATIENCE, watch};

const MESSAGE_BYTES: usize = 1024 * 1024;

/// The window of a stream has room for 16.
const MESSAGES: usize = 15;

fn sender(bus: &Bus) -> Sender<Vec<u8>> {
    bus.raw_sender("blobs").no_lane().open().unwrap()
}

/// What a receiver works on lies in the cache if no more than 1 MiB is on its way to it: else there were two or three.
#[test]
fn a_receiver_that_works_has_a_mebibyte_of_long_messages_on_its_way() {
    watch("flight", works, || ());
}

fn works() {
    const WORK: Duration = Duration::from_micros(450);
    const MANY: usize = 500;
    let daemon = Daemon::start();
    let bus = Bus::connect_to(daemon.address()).unwrap();
    let receiver: Receiver<Vec<u8>> = bus.raw_receiver("blobs").open().unwrap();
    let receiving = thread::spawn(move || {
        for _ in 0..MANY {
            receiver.recv_timeout(PATIENCE).unwrap();
            let begun = Instant::now();
            while begun.elapsed() < WORK {
                std::hint::spin_loop();
            }
        }
    });
    let (sender, payload) = (sender(&bus), vec![7; MESSAGE_BYTES]);
    let mut on_their_way: Vec<usize> = (0..MANY)
        .map(|_| {
            sender.outgoing().send_bytes(&payload, None).unwrap();
            sender.len()
        })
        .collect();
    receiving.join().unwrap();
    on_their_way.sort_unstable();
    // A receiver that does not run for a millisecond is waited for in vain: so now and then there are more.
    let usual = on_their_way[MANY / 2];
    assert_eq!(usual, 1, "as many were on their way");
}

/// The window is there for what no receiver has come to yet.
#[test]
fn where_no_receiver_works_all_of_the_window_is_used() {
    watch("window", waits, || ());
}

fn waits() {
    let daemon = Daemon::start();
    let bus = Bus::connect_to(daemon.address()).unwrap();
    let (sender, payload) = (sender(&bus), vec![7; MESSAGE_BYTES]);
    (0..MESSAGES).for_each(|_| sender.outgoing().send_bytes(&payload, None).unwrap());
    assert_eq!(sender.len(), MESSAGES);
    let receiver: Receiver<Vec<u8>> = bus.raw_receiver("blobs").open().unwrap();
    (0..MESSAGES).for_each(|_| assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), MESSAGE_BYTES));
    sender.flush().unwrap();
}
