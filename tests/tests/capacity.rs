//! What a channel holds at most, where nobody has given it an exact capacity.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::Instant;

use bus_core::{Bus, Sender, TrySendError};
use bus_tests::{Daemon, PATIENCE, eventually, watch};

/// A try was `Ok` as long as the socket took the message, which was accepted whenever there was room.
#[test]
fn a_try_that_asks_for_room_says_that_a_channel_is_full_although_its_window_is_not() {
    with_daemon("a full channel", "capacity_messages = 5\n", |bus| {
        let sender = bus.raw_sender("jobs").no_lane().open().unwrap();
        let put = |number: u8| sender.outgoing().asking_for_room().try_send_bytes(&[number]);
        (0..5).for_each(|number| put(number).unwrap());
        assert!(matches!(put(5), Err(TrySendError::Full(()))));
        let late = sender.outgoing().asking_for_room().send_deadline(vec![6], Instant::now());
        assert!(late.is_err());
        let receiver = bus.raw_receiver("jobs").open().unwrap();
        for number in 0..5 {
            assert_eq!(receiver.recv().unwrap(), [number]);
        }
        eventually("there is room again", || put(7).is_ok());
        assert_eq!(receiver.recv().unwrap(), [7], "what was refused has not come");
        receiver.try_recv().unwrap_err();
    });
}

#[test]
fn what_departed_senders_left_in_lanes_counts_against_the_capacity() {
    with_daemon("left in lanes", "capacity_messages = 100\n", |bus| {
        let gone = in_lane(bus);
        let mut sent = bus.show("jobs").unwrap().ledger.accepted;
        while sent < 100 {
            gone.send(vec![0]).unwrap();
            sent = bus.show("jobs").unwrap().ledger.accepted;
        }
        drop(gone);
        eventually("it has left", || bus.show("jobs").unwrap().senders.is_empty());
        let sender = bus.raw_sender("jobs").lane().open().unwrap();
        let put = || sender.outgoing().asking_for_room().try_send_bytes(b"late");
        assert!(matches!(put(), Err(TrySendError::Full(()))));
        assert!(!sender.has_lane(), "nor may it leave more in a lane");
        let receiver = bus.raw_receiver("jobs").open().unwrap();
        (0..sent / 2).for_each(|_| drop(receiver.recv().unwrap()));
        let there_is = Instant::now() + PATIENCE;
        sender.outgoing().asking_for_room().send_deadline(b"late".to_vec(), there_is).unwrap();
        (0..sent - sent / 2).for_each(|_| assert_eq!(receiver.recv().unwrap(), [0]));
        assert_eq!(receiver.recv().unwrap(), b"late");
    });
}

#[test]
fn beside_what_departed_senders_left_in_lanes_a_stream_gets_no_more_than_the_rest_of_the_capacity() {
    with_daemon("the rest", "capacity_messages = 100\n", |bus| {
        let gone = in_lane(bus);
        while bus.show("jobs").unwrap().ledger.accepted < 60 {
            gone.send(vec![0]).unwrap();
        }
        drop(gone);
        eventually("it has left", || bus.show("jobs").unwrap().senders.is_empty());
        let left = bus.show("jobs").unwrap().ledger.queued;
        let sender = bus.raw_sender("jobs").no_lane().open().unwrap();
        // More than there is room for lies in the socket.
        (0..200).for_each(|_| sender.send(vec![1]).unwrap());
        eventually("the channel is full", || bus.show("jobs").unwrap().ledger.queued == 100);
        sender.flush_deadline(Instant::now() + PATIENCE / 100).unwrap_err();
        assert_eq!(bus.show("jobs").unwrap().ledger.queued, 100);
        let receiver = bus.raw_receiver("jobs").open().unwrap();
        (0..left).for_each(|_| assert_eq!(receiver.recv().unwrap(), [0]));
        (0..200).for_each(|_| assert_eq!(receiver.recv().unwrap(), [1]));
    });
}

/// A sender that has sent something in its lane.
fn in_lane(bus: &Bus) -> Sender<Vec<u8>> {
    let sender = bus.raw_sender("jobs").lane().open().unwrap();
    let began = Instant::now();
    // Few: the stream takes no more than the channel holds.
    while !sender.has_lane() && began.elapsed() < PATIENCE {
        sender.send(vec![0]).unwrap();
        thread::sleep(PATIENCE / 1_000);
    }
    sender
}

fn with_daemon(name: &str, config: &'static str, test: fn(&Bus)) {
    let body = move || {
        let daemon = Daemon::start_with(config);
        test(&Bus::builder().address(daemon.address().clone()).connect().unwrap());
    };
    watch(name, body, || ());
}
