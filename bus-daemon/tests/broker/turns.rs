//! Whose turn it is on a full channel.

use bus_core::wire::{Kind, Request};

use crate::bench::{Bench, Heard, Receiver, Sender, capacity, name};

/// Senders that always have more to send: each has `frames` waiting.
fn crowd(bench: &Bench, senders: u64, frames: u64) -> Vec<Sender> {
    let crowd: Vec<Sender> = (0..senders).map(|_| bench.sender("jobs")).collect();
    for number in 0..frames {
        crowd.iter().zip(0..).for_each(|(sender, who)| sender.send(1_000 * who + number));
    }
    crowd
}

/// Acknowledges `acks` times so many, or what is there, and counts whose messages came.
fn shares(receiver: &Receiver, senders: usize, acks: u64, each: u64) -> Vec<u64> {
    let mut shares = vec![0; senders];
    let mut here = 0;
    for _ in 0..acks {
        for value in receiver.values() {
            shares[value as usize / 1_000] += 1;
            here += 1;
        }
        receiver.ack(each.min(here));
        here -= each.min(here);
    }
    shares
}

/// All were resumed at once, and the first of them took the room: two of four got nothing.
#[test]
fn senders_of_a_full_channel_have_equal_shares() {
    let bench = Bench::with(|rules| rules.capacity_messages = 4);
    let _crowd = crowd(&bench, 4, 500);
    let shares = shares(&bench.receiver("jobs"), 4, 400, 1);
    assert!(shares.iter().all(|share| (95..=105).contains(share)), "{shares:?}");
}

#[test]
fn senders_have_equal_shares_also_when_much_room_is_made_at_once() {
    let bench = Bench::with(|rules| rules.capacity_messages = 400);
    let _crowd = crowd(&bench, 4, 900);
    let shares = shares(&bench.receiver("jobs"), 4, 6, 400);
    let fair = shares.iter().sum::<u64>() / 4;
    assert!(fair > 500, "{shares:?}");
    assert!(shares.iter().all(|share| share.abs_diff(fair) <= fair / 6), "{shares:?}");
}

#[test]
fn whoever_comes_later_does_not_pass_those_who_wait() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let (first, second, third) = (bench.sender("jobs"), bench.sender("jobs"), bench.sender("jobs"));
    first.send(1);
    second.send(2);
    third.send(3);
    first.send(4);
    let receiver = bench.receiver("jobs");
    let mut values = Vec::new();
    for _ in 0..4 {
        values.extend(receiver.values());
        receiver.ack(1);
    }
    assert_eq!(values, [1, 2, 3, 4]);
}

#[test]
fn a_large_message_that_waits_is_not_passed_by_small_ones_for_ever() {
    let bench = Bench::with(|rules| rules.capacity_bytes = 100);
    let (small, large) = (bench.sender("jobs"), bench.sender("jobs"));
    small.send_all(0..5);
    large.send_sized(90, 90);
    small.send_all(5..20);
    let receiver = bench.receiver("jobs");
    let mut values = Vec::new();
    for _ in 0..21 {
        values.extend(receiver.values());
        receiver.ack(1);
    }
    assert_eq!(values.iter().position(|value| *value == 90), Some(5), "{values:?}");
    assert_eq!(values.len(), 21);
}

/// A sender that sends again what an earlier daemon had does not ask for room first.
#[test]
fn whoever_asks_first_does_not_pass_a_frame_that_waits() {
    let bench = Bench::new();
    bench.create("one", capacity(1));
    let (asks, sends) = (bench.sender("one"), bench.sender("one"));
    asks.send(1);
    sends.send(2);
    asks.want(1, 8, true);
    let receiver = bench.receiver("one");
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [2]);
    asks.peer.all_heard();
    receiver.ack(1);
    assert!(matches!(asks.peer.all_heard()[..], [Heard::Granted(_)]));
}

#[test]
fn senders_that_ask_for_room_are_granted_it_in_turn() {
    let bench = Bench::new();
    bench.create("one", capacity(1));
    let crowd: Vec<Sender> = (0..3).map(|_| bench.sender("one")).collect();
    let receiver = bench.receiver("one");
    crowd.iter().for_each(|sender| sender.want(1, 8, true));
    let mut shares = [0; 3];
    for round in 2..62 {
        let is_granted =
            |sender: &Sender| sender.peer.all_heard().iter().any(|heard| matches!(heard, Heard::Granted(_)));
        let who = crowd.iter().position(is_granted).expect("somebody is granted the room");
        shares[who] += 1;
        crowd[who].send(0);
        crowd[who].want(round, 8, true);
        receiver.ack(1);
    }
    assert_eq!(shares, [20, 20, 20]);
}

/// Its turn came, and it was not read: everybody waited for it.
#[test]
fn a_sender_that_does_not_read_loses_its_turn_and_nobody_waits_for_it() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let (deaf, other) = (bench.sender("jobs"), bench.sender("jobs"));
    deaf.peer.say(Kind::Watch, &());
    deaf.send_all([1, 2]);
    other.send(3);
    assert!(deaf.peer.is_paused() && other.peer.is_paused());
    deaf.peer.give_room(0);
    for _ in 0..30_000 {
        bench.standby("jobs").goodbye();
    }
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [3], "the first in line is not read");
    deaf.peer.give_all_room();
    receiver.ack(1);
    assert_eq!(receiver.values(), [2]);
}

#[test]
fn the_death_of_the_first_in_line_lets_the_next_go_on() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let (first, second, third) = (bench.sender("jobs"), bench.sender("jobs"), bench.sender("jobs"));
    first.send(1);
    second.send(2);
    third.send(3);
    second.peer.cut();
    let control = bench.control();
    control.ask(Request::Purge(name("jobs")));
    assert_eq!(bench.receiver("jobs").values(), [3]);
}

/// The sender waited for an eighth of the channel, which nobody was there to drain.
#[test]
fn a_message_that_is_skipped_lets_a_sender_on_when_there_is_no_receiver() {
    let bench = Bench::with(|rules| rules.capacity_messages = 100);
    let sender = bench.sender("jobs");
    sender.send_all(0..101);
    assert!(sender.peer.is_paused());
    bench.control().ask(Request::Skip(name("jobs")));
    assert!(!sender.peer.is_paused());
    assert_eq!(bench.ledger("jobs").queued, 100);
}
