//! Ends that go: the end of a stream, kick, vanishing channels, shutdown.

use bus_core::ChannelOptions;
use bus_core::wire::{ClosingCode, Progress, ReceiverHello, RefusedCode, Request, Role};
use bus_daemon::broker::Leftover;

use crate::bench::{Bench, Delivery, Heard, PID, known, name, receiver_hello, returning, sender_hello};

fn until_disconnected(channel: &str) -> ReceiverHello {
    ReceiverHello { until_disconnected: true, ..receiver_hello(channel) }
}

fn closing_code(heard: &Heard) -> Option<ClosingCode> {
    match heard {
        Heard::Closing(closing) => Some(closing.code),
        _ => None,
    }
}

#[test]
fn a_receiver_ends_when_the_last_sender_has_left_and_the_channel_is_drained() {
    let bench = Bench::new();
    let receiver = bench.receiver_hello(until_disconnected("jobs"));
    assert_eq!(receiver.peer.all_heard(), [], "no sender was here yet");
    let (left, right) = (bench.sender("jobs"), bench.sender("jobs"));
    left.send(1);
    left.goodbye();
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    right.peer.cut();
    assert_eq!(receiver.peer.all_heard(), [Heard::Ended]);
}

#[test]
fn messages_that_senders_left_behind_come_before_the_end() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all([1, 2]);
    sender.peer.cut();
    let receiver = bench.receiver_hello(until_disconnected("jobs"));
    assert_eq!((receiver.peer.hear(), receiver.peer.hear()), (delivery(&sender, 1), delivery(&sender, 2)));
    receiver.ack(2);
    assert_eq!(receiver.peer.all_heard(), [Heard::Ended]);
}

fn delivery(sender: &crate::bench::Sender, value: u64) -> Heard {
    let (sender, pid, attempt, redelivered) = (sender.id(), PID, 1, false);
    Heard::Delivery(Delivery { value, sender, pid, sequence: value, attempt, redelivered })
}

#[test]
fn a_receiver_that_does_not_wish_it_is_not_ended() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.goodbye();
    assert_eq!(receiver.peer.all_heard(), []);
}

/// The end was told as soon as everything was sent. What a skip then made the receiver give back
/// never came to it again.
#[test]
fn a_receiver_does_not_end_before_what_it_gave_back_has_come_again() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    let receiver = bench.receiver_hello(until_disconnected("jobs"));
    sender.send_all(1..=3);
    sender.goodbye();
    let control = bench.control();
    control.ask(Request::Skip(name("jobs")));
    receiver.answer_recall();
    let values: Vec<u64> = receiver
        .peer
        .all_heard()
        .into_iter()
        .skip_while(|heard| *heard != Heard::Recall)
        .filter_map(|heard| match heard {
            Heard::Delivery(delivery) => Some(delivery.value),
            _ => None,
        })
        .collect();
    assert_eq!(values, [2, 3]);
    receiver.ack(2);
    assert_eq!(receiver.peer.all_heard(), [Heard::Ended]);
}

#[test]
fn a_sender_that_comes_before_the_end_was_told_keeps_the_receiver() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver_hello(until_disconnected("jobs")));
    sender.send(1);
    sender.goodbye();
    let second = bench.sender("jobs");
    second.send(2);
    receiver.ack(2);
    assert!(!receiver.peer.all_heard().contains(&Heard::Ended));
    second.goodbye();
    assert_eq!(receiver.peer.all_heard(), [Heard::Ended]);
}

#[test]
fn what_comes_after_the_end_goes_to_the_next_receiver() {
    let bench = Bench::new();
    let (sender, first) = (bench.sender("jobs"), bench.receiver_hello(until_disconnected("jobs")));
    sender.goodbye();
    assert_eq!(first.peer.all_heard(), [Heard::Ended]);
    let late = bench.sender("jobs");
    late.send(1);
    assert_eq!(first.peer.all_heard(), []);
    first.goodbye();
    let second = bench.receiver_hello(until_disconnected("jobs"));
    assert_eq!(second.values(), [1]);
    second.ack(1);
    late.goodbye();
    assert_eq!(second.peer.all_heard(), [Heard::Ended]);
}

#[test]
fn a_receiver_of_an_earlier_daemon_waits_for_its_senders_for_a_while() {
    let bench = Bench::with(|rules| rules.resume_grace_ms = 1_000);
    let (sender, other) = (bench.sender("jobs"), bench.sender("jobs"));
    bench.next_daemon();
    let returning = returning(true, vec![known(sender.id(), 3), known(other.id(), 1)]);
    let receiver = bench.receiver_hello(ReceiverHello { returning, ..until_disconnected("jobs") });
    let resumed = bench.resume("jobs", &sender, 4);
    resumed.send_with(crate::bench::Outgoing { sequence: 4, value: 4, bytes: 8, flags: 0 });
    resumed.goodbye();
    receiver.ack(1);
    assert!(!receiver.peer.all_heard().contains(&Heard::Ended), "the other may come back");
    bench.wait_ms(999);
    assert_eq!(receiver.peer.all_heard(), []);
    bench.wait_ms(1);
    assert_eq!(receiver.peer.all_heard(), [Heard::Ended]);
}

#[test]
fn a_kicked_receiver_may_still_say_how_far_it_is() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=3);
    receiver.claim(2);
    let waiting = bench.standby("jobs");
    let control = bench.control();
    control.ask(Request::Kick(name("jobs")));
    assert_eq!(receiver.peer.all_heard().last().and_then(closing_code), Some(ClosingCode::Kicked));
    assert_eq!(waiting.peer.all_heard(), []);
    sender.send(4);
    receiver.ack(1);
    receiver.goodbye();
    assert_eq!(waiting.peer.hear(), Heard::Seated);
    let marks: Vec<_> = waiting.deliveries().iter().map(|it| (it.value, it.attempt)).collect();
    assert_eq!(marks, [(2, 2), (3, 1), (4, 1)]);
}

#[test]
fn a_kicked_receiver_that_says_nothing_is_closed_and_all_that_it_was_sent_comes_again_marked() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=2);
    let control = bench.control();
    control.ask(Request::Kick(name("jobs")));
    bench.wait_ms(249);
    assert!(receiver.peer.closed().is_none());
    bench.wait_ms(1);
    assert!(receiver.peer.closed().is_some());
    let marks: Vec<_> = bench.receiver("jobs").deliveries().iter().map(|it| (it.value, it.redelivered)).collect();
    assert_eq!(marks, [(1, true), (2, true)]);
}

/// It was refused, because of the one that had been removed.
#[test]
fn who_comes_behind_a_kick_waits_for_the_seat_and_is_not_refused() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    let control = bench.control();
    control.ask(Request::Kick(name("jobs")));
    let next = bench.connect();
    next.hello(Role::Receiver(receiver_hello("jobs")));
    assert_eq!(next.all_heard(), []);
    receiver.goodbye();
    bench.wait_ms(0);
    assert!(matches!(next.all_heard()[..], [Heard::Welcome(_), Heard::Delivery(_)]));
    control.ask(Request::Kick(name("jobs")));
    let after = bench.connect();
    after.hello(Role::Receiver(receiver_hello("jobs")));
    bench.wait_ms(250);
    assert!(matches!(after.all_heard()[..], [Heard::Welcome(_), Heard::Delivery(_)]));
}

/// The rest of the message was forgotten, and the order to leave was read as its content.
#[test]
fn a_kicked_receiver_with_half_a_message_is_not_sent_something_else_in_its_place() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.peer.give_room(50);
    sender.send(1);
    let control = bench.control();
    control.ask(Request::Kick(name("jobs")));
    bench.wait_ms(300);
    receiver.peer.give_all_room();
    let heard = receiver.peer.all_heard();
    assert_eq!(heard.first(), Some(&delivery(&sender, 1)));
    assert_eq!(heard.last().and_then(closing_code), Some(ClosingCode::Kicked));
}

#[test]
fn there_is_nobody_to_kick_on_an_empty_seat() {
    let bench = Bench::new();
    let _sender = bench.sender("jobs");
    let control = bench.control();
    let reply = control.ask(Request::Kick(name("jobs")));
    assert!(matches!(reply, bus_core::wire::Reply::Refused(refused) if refused.code == RefusedCode::NoSuchChannel));
}

#[test]
fn a_channel_vanishes_when_it_is_empty_and_nobody_is_attached() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    sender.goodbye();
    receiver.peer.cut();
    assert_eq!(bench.channels(), ["jobs"], "it holds a message");
    let receiver = bench.receiver("jobs");
    receiver.ack(1);
    receiver.goodbye();
    assert_eq!(bench.channels(), [""; 0]);
    assert!(bench.is_idle());
}

#[test]
fn a_channel_whose_last_message_is_purged_vanishes() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send(1);
    sender.goodbye();
    let control = bench.control();
    control.ask(Request::Purge(name("jobs")));
    control.peer.cut();
    bench.wait_ms(120_000);
    assert_eq!(bench.channels(), [""; 0]);
}

#[test]
fn a_channel_vanishes_when_nobody_returned_to_it() {
    let bench = Bench::with(|rules| rules.resume_grace_ms = 1_000);
    let returning = returning(true, vec![known(77, 1)]);
    let receiver = bench.receiver_hello(ReceiverHello { returning, ..receiver_hello("jobs") });
    receiver.goodbye();
    bench.wait_ms(1_000);
    assert_eq!(bench.channels(), [""; 0]);
}

#[test]
fn a_declared_channel_stays() {
    let bench = Bench::new();
    bench.create("jobs", ChannelOptions::default());
    bench.sender("jobs").goodbye();
    assert_eq!(bench.channels(), ["jobs"]);
}

#[test]
fn a_closing_daemon_lets_nobody_in_takes_nothing_and_drains() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    let lonely = bench.sender("lonely");
    lonely.send(9);
    sender.send_all([1, 2]);
    bench.begin_shutdown();
    let late = bench.connect();
    late.hello(Role::Sender(sender_hello("jobs")));
    assert_eq!(late.hear_refusal().code, RefusedCode::ShuttingDown);
    sender.send(3);
    assert!(sender.peer.is_paused());
    assert!(!bench.is_drained());
    receiver.ack(2);
    assert!(bench.is_drained());
    assert_eq!(bench.leftovers(), [Leftover { channel: name("lonely"), messages: 1 }]);
    sender.peer.all_heard();
    bench.close_all();
    assert_eq!(sender.peer.all_heard().first().and_then(closing_code), Some(ClosingCode::ShuttingDown));
    assert!(sender.peer.closed().is_some() && receiver.peer.closed().is_some());
}

/// They were those of one that stood in line before it, and that does not end with its senders.
#[test]
fn who_comes_into_line_after_an_end_waits_for_other_senders() {
    let bench = Bench::new();
    let first = bench.receiver_hello(until_disconnected("jobs"));
    let second = bench.receiver_hello(ReceiverHello { standby: true, ..receiver_hello("jobs") });
    bench.sender("jobs").goodbye();
    assert!(first.peer.all_heard().contains(&Heard::Ended));
    first.goodbye();
    let third = bench.receiver_hello(ReceiverHello { standby: true, ..until_disconnected("jobs") });
    second.goodbye();
    assert!(!third.peer.all_heard().contains(&Heard::Ended));
    bench.sender("jobs").goodbye();
    assert!(third.peer.all_heard().contains(&Heard::Ended));
}

/// Its senders' connections end with it. That was told to the receiver as if they had left: `bus consume
/// --until-disconnected` ended with 0 in the middle of a flow, and what came by the next daemon nobody read.
#[test]
fn a_daemon_that_ends_ends_no_receiver() {
    let bench = Bench::new();
    // The first to be closed.
    let sender = bench.sender("jobs");
    let receiver = bench.receiver_hello(until_disconnected("jobs"));
    sender.send(1);
    receiver.ack(1);
    bench.begin_shutdown();
    bench.close_all();
    let heard = receiver.peer.all_heard();
    assert!(heard.iter().any(|heard| closing_code(heard) == Some(ClosingCode::ShuttingDown)));
    assert!(!heard.contains(&Heard::Ended), "{heard:?}");
}

#[test]
fn what_a_closed_peer_says_does_not_count() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all([1, 2]);
    receiver.peer.give_room(0);
    receiver.tell(Progress { taken: 9, acked: 9, head_given_back: 0 });
    receiver.tell(Progress { taken: 2, acked: 2, head_given_back: 0 });
    assert_eq!(bench.ledger("jobs").acknowledged, 0);
}
