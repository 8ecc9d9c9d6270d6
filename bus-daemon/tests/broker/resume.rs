//! Senders and receivers that come back: to the same daemon, and to the next.

use bus_core::wire::{Flags, ReceiverHello, RefusedCode, Resume, Role, SenderHello, Settled};

use crate::bench::{Bench, Heard, Outgoing, Receiver, known, receiver_hello, returning, sender_hello};

fn again(sequence: u64) -> Outgoing {
    Outgoing { sequence, value: sequence, bytes: 8, flags: Flags::REDELIVERED }
}

fn marks(receiver: &Receiver) -> Vec<(u64, u32, bool)> {
    receiver.deliveries().iter().map(|delivery| (delivery.value, delivery.attempt, delivery.redelivered)).collect()
}

#[test]
fn a_resumed_sender_goes_on_and_what_is_known_is_not_doubled() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=3);
    sender.peer.cut();
    receiver.ack(1);
    let resumed = bench.resume("jobs", &sender, 1);
    assert_eq!(resumed.id(), sender.id());
    assert_eq!(resumed.welcome.settled, Settled { accepted: 3, acked: 1, dropped: 0 });
    (2..=4).for_each(|sequence| resumed.send_with(again(sequence)));
    assert_eq!(receiver.values(), [1, 2, 3, 4]);
    assert_eq!(bench.ledger("jobs").accepted, 4);
}

#[test]
fn a_wrong_token_is_denied() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    let resume = |token| Some(Resume { sender: sender.id(), token, next_sequence: 1, last_sequence: 0 });
    let mut forged = sender.welcome.token;
    forged[3] ^= 1;
    for (channel, token) in [("jobs", forged), ("other", sender.welcome.token)] {
        let peer = bench.connect();
        peer.hello(Role::Sender(SenderHello { resume: resume(token), ..sender_hello(channel) }));
        assert_eq!(peer.hear_refusal().code, RefusedCode::Denied);
    }
    assert_eq!(bench.channels(), ["jobs"]);
}

#[test]
fn a_sender_that_comes_back_replaces_its_dead_connection() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    let resumed = bench.resume("jobs", &sender, 2);
    assert!(sender.peer.closed().is_some());
    resumed.send(2);
    assert_eq!(receiver.values(), [1, 2]);
}

/// They were in its old socket, and it had been told that they were sent: when it died before it had
/// sent them again they were lost.
#[test]
fn what_waits_in_a_replaced_connection_is_kept_when_the_sender_dies() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let sender = bench.sender("jobs");
    sender.send_all(1..=4);
    let resumed = bench.resume("jobs", &sender, 1);
    assert_eq!(resumed.welcome.settled.accepted, 1);
    assert!(sender.peer.closed().is_some());
    resumed.peer.cut();
    let receiver = bench.receiver("jobs");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.extend(marks(&receiver));
        receiver.ack(1);
    }
    assert_eq!(seen, [(1, 1, false), (2, 1, false), (3, 1, false), (4, 1, false)]);
    receiver.goodbye();
    bench.wait_ms(700_000);
    assert_eq!((bench.channels(), bench.usage()), (Vec::new(), None));
}

#[test]
fn what_waits_in_a_replaced_connection_is_not_doubled_when_it_is_sent_again() {
    let bench = Bench::with(|rules| rules.capacity_messages = 2);
    let sender = bench.sender("jobs");
    sender.send_all(1..=6);
    let resumed = bench.resume("jobs", &sender, 1);
    (1..=8).for_each(|sequence| resumed.send_with(again(sequence)));
    let receiver = bench.receiver("jobs");
    let mut values = Vec::new();
    for _ in 0..8 {
        values.extend(receiver.values());
        receiver.ack(1);
    }
    assert_eq!(values, (1..=8).collect::<Vec<_>>());
    assert_eq!(bench.ledger("jobs").accepted, 8);
}

#[test]
fn deleting_a_channel_lets_go_of_what_waits_in_a_replaced_connection() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let sender = bench.sender("jobs");
    sender.send_all(1..=3);
    let _resumed = bench.resume("jobs", &sender, 1);
    let control = bench.control();
    control.ask(bus_core::wire::Request::Delete(crate::bench::name("jobs")));
    control.peer.cut();
    assert_eq!(bench.usage(), None);
}

/// Its channel vanished beneath it, because the dead connection was the last thing there.
#[test]
fn the_only_end_of_a_channel_may_replace_its_dead_connection() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    let resumed = bench.resume("jobs", &sender, 1);
    assert!(sender.peer.closed().is_some());
    resumed.send(1);
    assert_eq!(bench.receiver("jobs").values(), [1]);
}

/// As above: here its account was let go, because no departed sender was to be remembered.
#[test]
fn a_dead_connection_is_replaced_also_when_no_departed_sender_is_remembered() {
    let bench = Bench::with(|rules| rules.departed_senders_max = 0);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    bench.resume("jobs", &sender, 1).send(1);
    assert_eq!(receiver.values(), [1]);
}

#[test]
fn room_granted_to_a_dead_connection_is_free_again() {
    let bench = Bench::new();
    bench.create("one", crate::bench::capacity(1));
    let sender = bench.sender("one");
    let other = bench.sender("one");
    sender.want(1, 8, true);
    other.want(1, 8, true);
    let _resumed = bench.resume("one", &sender, 1);
    assert!(matches!(other.peer.hear(), Heard::Granted(_)));
}

#[test]
fn departed_senders_are_remembered_for_a_while_and_so_many() {
    let bench = Bench::with(|rules| (rules.departed_senders_max, rules.departed_senders_ttl_ms) = (1, 100_000));
    let receiver = bench.receiver("jobs");
    let (first, second) = (bench.sender("jobs"), bench.sender("jobs"));
    first.send(1);
    second.send(2);
    receiver.ack(2);
    first.peer.cut();
    bench.wait_ms(1);
    second.peer.cut();
    assert_eq!(bench.resume("jobs", &second, 1).welcome.settled.accepted, 1);
    assert_eq!(bench.resume("jobs", &first, 1).welcome.settled.accepted, 0, "the oldest is forgotten first");
}

#[test]
fn a_sender_that_said_goodbye_is_forgotten() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    receiver.ack(1);
    sender.goodbye();
    assert_eq!(bench.resume("jobs", &sender, 1).welcome.settled.accepted, 0);
}

#[test]
fn a_sender_that_said_goodbye_is_forgotten_when_its_last_message_is_acknowledged() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all([1, 2]);
    sender.goodbye();
    let resumed = bench.resume("jobs", &sender, 1);
    assert_eq!(resumed.welcome.settled.accepted, 2, "its messages are here");
    resumed.goodbye();
    receiver.ack(2);
    bench.wait_ms(700_000);
    assert_eq!(bench.resume("jobs", &sender, 1).welcome.settled.accepted, 0);
}

#[test]
fn departed_senders_are_forgotten_in_the_order_in_which_they_left() {
    let bench = Bench::with(|rules| rules.departed_senders_max = 100);
    let receiver = bench.receiver("jobs");
    let depart = |value| {
        let sender = bench.sender("jobs");
        sender.send(value);
        receiver.ack(1);
        sender.peer.cut();
        bench.wait_ms(1);
        sender
    };
    let senders: Vec<_> = (0..120).map(depart).collect();
    let accepted = |index: usize| bench.resume("jobs", &senders[index], 1).welcome.settled.accepted;
    assert_eq!((accepted(119), accepted(20), accepted(19), accepted(0)), (1, 1, 0, 0));
}

#[test]
fn the_next_daemon_takes_up_what_is_sent_again() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=5);
    bench.next_daemon();
    let resumed = bench.resume("jobs", &sender, 3);
    assert_eq!(resumed.welcome.settled, Settled { accepted: 2, acked: 2, dropped: 0 });
    (3..=5).for_each(|sequence| resumed.send_with(again(sequence)));
    assert_eq!(marks(&bench.receiver("jobs")), [(3, 1, true), (4, 1, true), (5, 1, true)]);
}

#[test]
fn a_returning_receiver_tells_what_it_has_and_the_rest_stays_marked() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=5);
    bench.next_daemon();
    let returning = returning(true, vec![known(sender.id(), 2)]);
    let receiver = bench.receiver_hello(ReceiverHello { returning, ..receiver_hello("jobs") });
    let resumed = bench.resume("jobs", &sender, 1);
    assert_eq!(resumed.welcome.settled.acked, 2);
    (3..=5).for_each(|sequence| resumed.send_with(again(sequence)));
    assert_eq!(marks(&receiver), [(3, 1, true), (4, 1, true), (5, 1, true)]);
}

#[test]
fn it_is_the_same_when_the_sender_is_back_first() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=5);
    bench.next_daemon();
    let resumed = bench.resume("jobs", &sender, 1);
    (1..=5).for_each(|sequence| resumed.send_with(again(sequence)));
    let returning = returning(true, vec![known(sender.id(), 2)]);
    let receiver = bench.receiver_hello(ReceiverHello { returning, ..receiver_hello("jobs") });
    assert_eq!(marks(&receiver), [(3, 1, true), (4, 1, true), (5, 1, true)]);
    assert_eq!(resumed.settled().acked, 2);
    assert_eq!(bench.ledger("jobs").acknowledged, 2);
}

#[test]
fn who_held_the_channel_goes_before_those_who_were_in_line() {
    let bench = Bench::new();
    let came_first = ReceiverHello { standby: true, returning: returning(false, Vec::new()), ..receiver_hello("jobs") };
    let waiting = bench.receiver_hello(came_first);
    assert_eq!(waiting.welcome.place_in_line, 1);
    let holder = ReceiverHello { returning: returning(true, Vec::new()), ..receiver_hello("jobs") };
    let holder = bench.receiver_hello(holder);
    assert_eq!(holder.welcome.place_in_line, 0, "it has the seat");
    bench.wait_ms(2_000);
    assert_eq!(waiting.peer.all_heard(), []);
    holder.goodbye();
    assert_eq!(waiting.peer.hear(), Heard::Seated);
}

/// It was put in line, which it had not asked for, and waited there without a word.
#[test]
fn a_new_receiver_waits_while_the_seat_is_kept_free_and_is_refused_when_its_holder_is_back() {
    let bench = Bench::new();
    let came_first = ReceiverHello { standby: true, returning: returning(false, Vec::new()), ..receiver_hello("jobs") };
    let _in_line = bench.receiver_hello(came_first);
    let new = bench.connect();
    new.hello(Role::Receiver(receiver_hello("jobs")));
    assert_eq!(new.all_heard(), []);
    let holder = ReceiverHello { returning: returning(true, Vec::new()), ..receiver_hello("jobs") };
    assert_eq!(bench.receiver_hello(holder).welcome.place_in_line, 0);
    bench.wait_ms(1);
    assert_eq!(new.hear_refusal().code, RefusedCode::ReceiverTaken);
}

#[test]
fn a_new_receiver_is_refused_when_the_seat_that_was_kept_free_falls_to_the_line_and_has_it_when_there_is_none() {
    for is_in_line in [true, false] {
        let bench = Bench::new();
        let came_first =
            ReceiverHello { standby: true, returning: returning(false, Vec::new()), ..receiver_hello("jobs") };
        let first = bench.receiver_hello(came_first);
        let new = bench.connect();
        new.hello(Role::Receiver(receiver_hello("jobs")));
        let _sender = bench.sender("jobs");
        if !is_in_line {
            first.goodbye();
        }
        assert_eq!(new.all_heard(), []);
        bench.wait_ms(1_000);
        match is_in_line {
            true => assert_eq!(new.hear_refusal().code, RefusedCode::ReceiverTaken),
            false => assert!(matches!(new.hear(), Heard::Welcome(_))),
        }
    }
}

/// The seat was kept free only in a channel that the receivers found empty.
#[test]
fn who_held_the_channel_goes_before_the_line_also_when_a_sender_is_back_first() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    bench.next_daemon();
    let _resumed = bench.resume("jobs", &sender, 1);
    let came_first = ReceiverHello { standby: true, returning: returning(false, Vec::new()), ..receiver_hello("jobs") };
    assert_eq!(bench.receiver_hello(came_first).welcome.place_in_line, 1);
    let holder = ReceiverHello { returning: returning(true, Vec::new()), ..receiver_hello("jobs") };
    assert_eq!(bench.receiver_hello(holder).welcome.place_in_line, 0);
}

#[test]
fn the_line_moves_up_when_the_holder_does_not_come_back() {
    let bench = Bench::new();
    let returning = returning(false, Vec::new());
    let waiting = bench.receiver_hello(ReceiverHello { standby: true, returning, ..receiver_hello("jobs") });
    bench.wait_ms(1_000);
    assert_eq!(waiting.peer.hear(), Heard::Seated);
}

/// What a receiver saw under an earlier daemon was taken for all that anybody had seen.
#[test]
fn a_receiver_that_did_not_hold_the_channel_cannot_tell_what_others_have_seen() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=3);
    // It held the channel once, and saw the first message; then it was in line behind another.
    bench.next_daemon();
    let resumed = bench.resume("jobs", &sender, 1);
    (1..=3).for_each(|sequence| resumed.send_with(again(sequence)));
    let holder = bench.receiver("jobs");
    assert_eq!(holder.values(), [1, 2, 3]);
    holder.claim(3);
    let stale = || returning(false, vec![known(sender.id(), 1)]);
    bench.receiver_hello(ReceiverHello { standby: true, returning: stale(), ..receiver_hello("jobs") });
    bench.next_daemon();
    let resumed = bench.resume("jobs", &sender, 1);
    (1..=3).for_each(|sequence| resumed.send_with(again(sequence)));
    let receiver = bench.receiver_hello(ReceiverHello { standby: true, returning: stale(), ..receiver_hello("jobs") });
    bench.wait_ms(1_000);
    let heard = receiver.peer.all_heard();
    let unmarked = heard.iter().any(|heard| matches!(heard, Heard::Delivery(delivery) if !delivery.redelivered));
    assert!(!unmarked, "the other receiver has seen all three: {heard:?}");
}

#[test]
fn a_sender_of_another_daemon_can_be_anywhere_in_its_sequence() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    bench.next_daemon();
    let far = u64::MAX / 2;
    let resumed = bench.resume("jobs", &sender, far);
    resumed.send_with(again(far - 1));
    resumed.send_with(again(far));
    assert_eq!(bench.ledger("jobs").accepted, 1);
}

/// Who was in line could have the messages of others taken for known, and they were lost.
#[test]
fn a_receiver_in_line_is_not_believed_what_it_says_of_the_senders() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    bench.wait_ms(11_000);
    let liar = returning(false, vec![known(sender.id(), 100)]);
    bench.receiver_hello(ReceiverHello { returning: liar, ..receiver_hello("jobs") });
    sender.send(2);
    assert_eq!(receiver.values(), [1, 2]);
}

/// They overflowed.
#[test]
fn sequences_that_nobody_can_have_reached_are_refused() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    let resume = Resume { sender: sender.id(), token: sender.welcome.token, next_sequence: u64::MAX, last_sequence: 0 };
    let peer = bench.connect();
    peer.hello(Role::Sender(SenderHello { resume: Some(resume), ..sender_hello("jobs") }));
    assert_eq!(peer.hear_refusal().code, RefusedCode::Protocol);
    let peer = bench.connect();
    let returning = returning(true, vec![known(sender.id(), u64::MAX)]);
    peer.hello(Role::Receiver(ReceiverHello { returning, ..receiver_hello("jobs") }));
    assert_eq!(peer.hear_refusal().code, RefusedCode::Protocol);
}
