//! Limits of what peers can make the broker keep, and what is charged for it.

use bus_core::wire::{Kind, Reply, Request};
use bus_daemon::broker::MESSAGE_COST_BYTES;

use crate::bench::{Bench, Heard, Outgoing, capacity, name};

/// More than this no peer can have waiting: the limit of its outbox, and one more frame.
const MOST_BYTES: usize = 1024 * 1024 + 4096;

/// An answer of `peek`, at most.
const PEEK_BYTES: usize = 1024 * 1024 + 64 * 1024;

#[test]
fn a_peer_that_does_not_read_its_answers_is_not_read() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    (0..30).for_each(|value| sender.send_sized(value, 37_000));
    let control = bench.control();
    control.peer.give_room(0);
    let peek = Request::Peek { channel: name("jobs"), after: 0, messages: 100 };
    for _ in 0..100 {
        control.peer.say(Kind::Request, &peek);
        assert!(
            control.peer.unwritten_bytes() < MOST_BYTES + PEEK_BYTES,
            "{} bytes wait",
            control.peer.unwritten_bytes()
        );
    }
    assert!(control.peer.is_paused());
    control.peer.give_all_room();
    assert!(!control.peer.is_paused());
    let replies = control.peer.all_heard().into_iter().filter(|heard| matches!(heard, Heard::Reply(_)));
    assert_eq!(replies.count(), 100);
}

/// What others do fills an outbox as well.
#[test]
fn a_watcher_that_does_not_read_is_told_the_last_change_when_it_does() {
    let bench = Bench::new();
    let watcher = bench.receiver("jobs");
    watcher.peer.say(Kind::Watch, &());
    watcher.peer.give_room(0);
    for _ in 0..20_000 {
        bench.sender("jobs").goodbye();
    }
    let stays = bench.sender("jobs");
    assert!(watcher.peer.unwritten_bytes() < MOST_BYTES, "{} bytes wait", watcher.peer.unwritten_bytes());
    watcher.peer.give_all_room();
    let last = watcher.peer.all_heard().pop();
    assert!(matches!(&last, Some(Heard::Peers(peers)) if peers.senders == 1), "{last:?}");
    stays.goodbye();
}

/// As many answers of some 40 bytes are more than fits.
const MESSAGES: u64 = 40_000;

#[test]
fn a_sender_that_does_not_read_is_told_the_last_of_its_messages_when_it_does() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(0..MESSAGES);
    sender.peer.give_room(0);
    (1..MESSAGES).for_each(|_| receiver.ack(1));
    bench.be_busy();
    receiver.ack(1);
    assert!(sender.peer.unwritten_bytes() < MOST_BYTES, "{} bytes wait", sender.peer.unwritten_bytes());
    bench.wait_ms(5);
    let next = bench.sleeps_ms();
    assert!(next.is_none_or(|ms| ms > 1_000), "nothing is due for who does not read, and yet in {next:?} ms");
    sender.peer.give_all_room();
    bench.wait_ms(5);
    let settled = sender.settled();
    assert_eq!((settled.accepted, settled.acked), (MESSAGES, MESSAGES));
}

#[test]
fn a_dead_sender_whose_messages_wait_is_charged_bytes_and_no_connection() {
    let bench = Bench::with(|rules| (rules.capacity_messages, rules.user_connections_max) = (1, 1));
    for value in 0..5 {
        let dead = bench.sender("jobs");
        dead.send_all([2 * value, 2 * value + 1]);
        dead.peer.die_waiting();
    }
    let (connections, channels, bytes) = bench.usage().unwrap();
    assert_eq!((connections, channels), (0, 1));
    assert!((5_000..10_000).contains(&bytes), "{bytes} bytes");
    let receiver = bench.receiver("jobs");
    let mut values = Vec::new();
    while values.len() < 10 {
        values.extend(receiver.values());
        receiver.ack(1);
    }
    values.sort_unstable();
    assert_eq!(values, (0..10).collect::<Vec<_>>());
    receiver.goodbye();
    assert_eq!(bench.usage(), None);
}

/// Else dead connections without end could be left behind.
#[test]
fn a_user_that_may_hold_no_more_bytes_pays_for_a_dead_sender_with_its_connection() {
    let bench = Bench::with(|rules| (rules.capacity_messages, rules.user_bytes_max) = (1, 500));
    let dead = bench.sender("jobs");
    dead.send_all([1, 2]);
    dead.peer.die_waiting();
    let held = MESSAGE_COST_BYTES + 8;
    assert_eq!(bench.usage(), Some((1, 1, held)));
    let receiver = bench.receiver("jobs");
    receiver.ack(1);
    assert_eq!(bench.usage(), Some((1, 1, held)), "the receiver's, and the second message");
}

#[test]
fn a_sender_is_blocked_since_its_window_is_full() {
    let bench = Bench::with(|rules| (rules.window_messages, rules.window_bytes) = (3, 1_000));
    let control = bench.control();
    let blocked_ms = || {
        let Reply::Channel(info) = control.ask(Request::Show(name("jobs"))) else { panic!("no channel") };
        info.senders[0].blocked_ms
    };
    let sender = bench.sender("jobs");
    sender.send_all([1, 2]);
    assert_eq!(blocked_ms(), None);
    sender.send(3);
    bench.wait_ms(70);
    assert_eq!(blocked_ms(), Some(70));
    let receiver = bench.receiver("jobs");
    receiver.ack(1);
    assert_eq!(blocked_ms(), None);
    receiver.ack(2);
    // Another of this size would be over the bytes of the window.
    sender.send_sized(4, 600);
    bench.wait_ms(5);
    assert_eq!(blocked_ms(), Some(5));
    receiver.ack(1);
    assert_eq!(blocked_ms(), None);
}

/// They were held for nothing, any number of them.
#[test]
fn messages_without_content_are_charged_as_well() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 10 * MESSAGE_COST_BYTES);
    bench.create("jobs", capacity(u64::MAX));
    let sender = bench.sender("jobs");
    (1..=11).for_each(|sequence| sender.send_with(Outgoing { sequence, value: 0, bytes: 0, flags: 0 }));
    assert!(sender.peer.is_paused());
    assert_eq!(bench.ledger("jobs").queued, 10);
}
