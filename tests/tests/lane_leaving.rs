//! Receivers of lanes that leave in order: what they have only claimed nobody has seen, and their senders are not left
//! asking for them.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use bus_core::{Bus, Receiver, Sender};
use bus_tests::processes::{Dice, Stage};
use bus_tests::{PATIENCE, Route, watch};

/// All that was claimed together counted as an attempt, each time that a receiver came for one message.
#[test]
fn what_a_receiver_has_only_claimed_is_not_marked_for_the_next() {
    on_stage("claimed", |_, bus| {
        let (sender, receiver) = in_a_lane(bus);
        (0..100).for_each(|number| sender.send(number).unwrap());
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), 0);
        drop(receiver);
        for number in 1..10 {
            let mut next: Receiver<u64> = bus.receiver("jobs").open().unwrap();
            let message = next.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
            let info = message.info().clone();
            assert_eq!((*message, info.attempt, info.redelivered), (number, 1, false));
            message.ack();
        }
        let channel = bus.show("jobs").unwrap();
        assert_eq!(channel.ledger.in_delivery, 0, "nobody is there to have it");
        assert!(sender.has_lane());
    });
}

/// And what one has given back is.
#[test]
fn what_a_receiver_has_given_back_is_marked_for_the_next_and_what_lies_behind_it_is_not() {
    on_stage("given back", |_, bus| {
        let (sender, mut receiver) = in_a_lane(bus);
        (0..10).for_each(|number| sender.send(number).unwrap());
        receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap().nack();
        drop(receiver);
        let mut next: Receiver<u64> = bus.receiver("jobs").open().unwrap();
        for (number, attempt) in [(0, 2), (1, 1), (2, 1)] {
            let message = next.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
            let info = message.info().clone();
            assert_eq!((*message, info.attempt, info.redelivered), (number, attempt, attempt > 1));
            message.ack();
        }
    });
}

fn on_stage(name: &str, test: fn(&mut Stage, &Bus)) {
    let body = move || {
        let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
        let bus = stage.bus();
        test(&mut stage, &bus);
    };
    watch(name, body, || ());
}

/// Both ends of a channel, with nothing under way.
fn in_a_lane(bus: &Bus) -> (Sender<u64>, Receiver<u64>) {
    let sender: Sender<u64> = bus.sender("jobs").lane().open().unwrap();
    let receiver: Receiver<u64> = bus.receiver("jobs").open().unwrap();
    let begin = Instant::now();
    while !sender.is_in_lane() || !sender.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "the sender never came into its lane");
        sender.send(u64::MAX).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), u64::MAX);
    }
    (sender, receiver)
}
