//! The way in: sequence, windows, room, grants, the four policies, and what senders are told.

use bus_core::wire::{Flags, Kind, RefusedCode, Settled, Want};
use bus_core::{ChannelOptions, WhenFull};

use bus_daemon::broker::MESSAGE_COST_BYTES;

use crate::bench::{Bench, Heard, Outgoing, capacity};

fn policy(messages: u64, when_full: WhenFull) -> ChannelOptions {
    ChannelOptions { when_full, ..capacity(messages) }
}

fn settled(accepted: u64, acked: u64, dropped: u64) -> Settled {
    Settled { accepted, acked, dropped }
}

#[test]
fn messages_wait_for_a_receiver_and_then_arrive_in_order() {
    let bench = Bench::new();
    let (left, right) = (bench.sender("jobs"), bench.sender("jobs"));
    left.send(1);
    right.send(2);
    left.send(3);
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.values(), [1, 2, 3]);
    receiver.ack(3);
    assert_eq!(left.settled(), settled(2, 2, 0));
    assert_eq!(right.settled(), settled(1, 1, 0));
}

#[test]
fn a_gap_in_the_sequence_closes_the_sender_and_what_came_before_stays() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send(1);
    sender.send_with(Outgoing { sequence: 3, value: 3, bytes: 8, flags: 0 });
    assert!(sender.peer.closed().is_some());
    assert_eq!(bench.receiver("jobs").values(), [1]);
}

#[test]
fn a_message_over_the_limit_closes_its_sender_naming_the_limit() {
    let bench = Bench::new();
    bench.create("small", ChannelOptions { message_max_bytes: Some(100), ..ChannelOptions::default() });
    let sender = bench.sender("small");
    assert_eq!(sender.welcome.message_max_bytes, 100);
    sender.send_sized(1, 100);
    sender.send_sized(2, 101);
    assert!(sender.peer.closed().is_some_and(|reason| reason.contains("101") && reason.contains("100")));
    assert_eq!(bench.ledger("small").accepted, 1);
}

#[test]
fn a_full_channel_pauses_its_senders_and_an_acknowledgement_lets_them_go_on() {
    let bench = Bench::with(|rules| rules.capacity_messages = 2);
    let (left, right) = (bench.sender("jobs"), bench.sender("jobs"));
    left.send_all([1, 2, 3, 4]);
    right.send(5);
    assert!(left.peer.is_paused() && right.peer.is_paused());
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.values(), [1, 2]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [3]);
    receiver.ack(2);
    assert_eq!(receiver.values().len(), 2);
    receiver.ack(2);
    assert!(!left.peer.is_paused() && !right.peer.is_paused());
    assert_eq!(bench.ledger("jobs").acknowledged, 5);
}

#[test]
fn a_channel_is_full_by_bytes_but_an_empty_one_admits_any_legal_message() {
    let bench = Bench::with(|rules| rules.capacity_bytes = 100);
    let sender = bench.sender("jobs");
    sender.send_sized(1, 400);
    sender.send_sized(2, 8);
    assert!(sender.peer.is_paused());
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [2]);
}

#[test]
fn an_exact_channel_grants_room_before_a_message_is_sent() {
    let bench = Bench::new();
    bench.create("one", capacity(1));
    let (left, right) = (bench.sender("one"), bench.sender("one"));
    assert!(left.welcome.exact);
    left.want(1, 8, true);
    assert_eq!(left.peer.hear(), Heard::Granted(Want { number: 1, bytes: 8, wait: true }));
    right.want(1, 8, true);
    assert_eq!(right.peer.all_heard(), []);
    left.send(1);
    assert_eq!(left.settled(), settled(1, 0, 0));
    let receiver = bench.receiver("one");
    assert_eq!(receiver.values(), [1]);
    assert_eq!(right.peer.all_heard(), []);
    receiver.ack(1);
    assert!(matches!(right.peer.hear(), Heard::Granted(_)));
    right.send(2);
    assert_eq!(receiver.values(), [2]);
}

#[test]
fn a_try_on_a_full_exact_channel_is_told_at_once() {
    let bench = Bench::new();
    bench.create("one", policy(1, WhenFull::Reject));
    let sender = bench.sender("one");
    sender.want(1, 8, false);
    assert!(matches!(sender.peer.hear(), Heard::Granted(_)));
    sender.send(1);
    sender.settled();
    sender.want(2, 8, false);
    assert_eq!(sender.peer.hear(), Heard::Full(Want { number: 2, bytes: 8, wait: false }));
    let receiver = bench.receiver("one");
    receiver.ack(1);
    sender.settled();
    sender.want(3, 8, false);
    assert!(matches!(sender.peer.hear(), Heard::Granted(_)));
}

#[test]
fn room_that_is_given_up_goes_to_the_next_who_waits() {
    let bench = Bench::new();
    bench.create("one", capacity(1));
    let (left, middle, right) = (bench.sender("one"), bench.sender("one"), bench.sender("one"));
    left.want(1, 8, true);
    middle.want(1, 8, true);
    right.want(1, 8, true);
    assert!(matches!(left.peer.hear(), Heard::Granted(_)));
    middle.peer.say(Kind::Unwant, &());
    left.peer.say(Kind::Unwant, &());
    assert_eq!(middle.peer.all_heard(), []);
    assert!(matches!(right.peer.hear(), Heard::Granted(_)));
    left.want(2, 8, true);
    right.peer.cut();
    assert!(matches!(left.peer.hear(), Heard::Granted(_)));
}

#[test]
fn a_message_larger_than_the_room_that_it_asked_for_does_not_block_the_channel() {
    let bench = Bench::new();
    bench.create("one", ChannelOptions { capacity: Some(1), ..ChannelOptions::default() });
    let (cheat, honest) = (bench.sender("one"), bench.sender("one"));
    cheat.want(1, 8, true);
    honest.want(1, 8, true);
    cheat.send_sized(1, 100);
    let receiver = bench.receiver("one");
    receiver.ack(receiver.values().len() as u64);
    assert!(matches!(honest.peer.all_heard()[..], [Heard::Granted(_), ..]), "the room is blocked for ever");
}

#[test]
fn drop_newest_keeps_the_old_and_counts_what_it_drops() {
    let bench = Bench::new();
    bench.create("news", policy(2, WhenFull::DropNewest));
    let sender = bench.sender("news");
    // It asks first, so that it need not keep what would only be dropped.
    assert!(sender.welcome.exact);
    sender.send_all(1..=5);
    assert_eq!(sender.settled(), settled(5, 0, 3));
    let ledger = bench.ledger("news");
    assert_eq!((ledger.accepted, ledger.queued, ledger.dropped), (5, 2, 3));
    let receiver = bench.receiver("news");
    let mut values = receiver.values();
    receiver.ack(1);
    values.extend(receiver.values());
    receiver.ack(1);
    assert_eq!(values, [1, 2]);
    assert_eq!(sender.settled(), settled(5, 5, 3));
}

#[test]
fn what_drop_newest_has_no_room_for_is_counted_before_it_is_sent() {
    let bench = Bench::new();
    bench.create("news", policy(1, WhenFull::DropNewest));
    let sender = bench.sender("news");
    sender.send(1);
    sender.want(1, 8, false);
    let heard = sender.peer.all_heard();
    assert!(heard.contains(&Heard::Settled(settled(1, 0, 1))), "{heard:?}");
    let ledger = bench.ledger("news");
    assert_eq!((ledger.accepted, ledger.queued, ledger.dropped), (2, 1, 1));
}

#[test]
fn drop_oldest_keeps_the_new_and_counts_what_it_drops() {
    let bench = Bench::new();
    bench.create("news", policy(2, WhenFull::DropOldest));
    let sender = bench.sender("news");
    sender.send_all(1..=5);
    assert_eq!(sender.settled(), settled(5, 3, 3));
    let receiver = bench.receiver("news");
    assert_eq!(receiver.values(), [4]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [5]);
    assert_eq!(bench.ledger("news").dropped, 3);
}

/// The head was dropped below a seated receiver, whose positions stayed behind the log: it was never
/// sent anything again.
#[test]
fn drop_oldest_reaches_a_receiver_that_was_sent_nothing_yet() {
    let bench = Bench::new();
    bench.create("news", policy(2, WhenFull::DropOldest));
    let receiver = bench.receiver("news");
    receiver.peer.give_room(0);
    let sender = bench.sender("news");
    sender.send_all(1..=5);
    receiver.peer.give_all_room();
    assert_eq!(receiver.values(), [4]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [5]);
    assert_eq!(bench.ledger("news").dropped, 3);
}

#[test]
fn drop_oldest_spares_what_is_on_its_way() {
    let bench = Bench::new();
    bench.create("news", policy(2, WhenFull::DropOldest));
    let receiver = bench.receiver("news");
    let sender = bench.sender("news");
    sender.send_all(1..=4);
    assert_eq!(receiver.values(), [1]);
    // The receiver has 1, and 2 and 3 are dropped: the sender need not keep them, or a stalled
    // delivery would fill its window.
    assert_eq!(sender.settled(), settled(4, 3, 2));
    receiver.ack(1);
    assert_eq!(receiver.values(), [4]);
    receiver.ack(1);
    assert_eq!(sender.settled(), settled(4, 4, 2));
}

#[test]
fn drop_oldest_with_only_a_half_written_message_waits_for_it() {
    let bench = Bench::new();
    bench.create("news", policy(1, WhenFull::DropOldest));
    let receiver = bench.receiver("news");
    receiver.peer.give_room(5);
    let sender = bench.sender("news");
    sender.send_all([1, 2]);
    assert!(sender.peer.is_paused());
    receiver.peer.give_all_room();
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [2]);
}

#[test]
fn a_confirmed_message_is_answered_even_when_it_is_dropped() {
    let bench = Bench::new();
    bench.create("news", policy(1, WhenFull::DropNewest));
    let sender = bench.sender("news");
    bench.be_busy();
    sender.send(1);
    assert_eq!(sender.peer.all_heard(), []);
    sender.send_flagged(2, Flags::CONFIRM);
    assert_eq!(sender.settled(), settled(2, 0, 1));
}

#[test]
fn a_sender_is_told_in_strides_and_of_the_rest_a_little_later() {
    let bench = Bench::with(|rules| rules.window_messages = 80);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    bench.be_busy();
    sender.send_all(1..=30);
    assert_eq!(sender.peer.all_heard(), []);
    receiver.ack(9);
    assert_eq!(sender.peer.all_heard(), []);
    receiver.ack(1);
    assert_eq!(sender.peer.all_heard(), [Heard::Settled(settled(30, 10, 0))]);
    receiver.ack(5);
    assert_eq!(sender.peer.all_heard(), []);
    bench.wait_ms(5);
    assert_eq!(sender.peer.all_heard(), [Heard::Settled(settled(30, 15, 0))]);
    bench.wait_ms(5);
    assert_eq!(sender.peer.all_heard(), []);
}

#[test]
fn bytes_count_as_a_stride_too() {
    let bench = Bench::with(|rules| rules.window_bytes = 8_000);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    bench.be_busy();
    sender.send_sized(1, 600);
    sender.send_sized(2, 600);
    receiver.ack(1);
    assert_eq!(sender.peer.all_heard(), []);
    receiver.ack(1);
    assert_eq!(sender.settled(), settled(2, 2, 0));
}

#[test]
fn the_last_acknowledgement_is_told_a_little_later() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    bench.be_busy();
    sender.send_all([1, 2]);
    receiver.ack(2);
    assert_eq!(sender.peer.all_heard(), []);
    bench.wait_ms(5);
    assert_eq!(sender.settled(), settled(2, 2, 0));
}

#[test]
fn whoever_asks_for_confirmation_is_answered_even_when_busy() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    bench.be_busy();
    sender.send(1);
    sender.send_flagged(2, Flags::CONFIRM);
    assert_eq!(sender.settled(), settled(2, 0, 0));
    sender.peer.say(Kind::Confirm, &());
    assert_eq!(sender.settled(), settled(2, 0, 0));
}

#[test]
fn a_confirmation_waits_until_the_message_has_room() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    sender.settled();
    sender.send_flagged(2, Flags::CONFIRM);
    assert_eq!(sender.peer.all_heard(), []);
    receiver.ack(1);
    assert_eq!(sender.settled(), settled(2, 1, 0));
}

#[test]
fn a_user_over_its_bytes_waits_and_goes_on_when_another_channel_makes_room() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 100 + 2 * MESSAGE_COST_BYTES);
    let (full, other) = (bench.sender("full"), bench.sender("other"));
    other.send_sized(1, 8);
    full.send_sized(2, 90);
    other.send_sized(3, 50);
    assert!(other.peer.is_paused());
    let receiver = bench.receiver("full");
    assert_eq!(receiver.values(), [2]);
    receiver.ack(1);
    bench.wait_ms(1_000);
    assert!(!other.peer.is_paused());
    assert_eq!(bench.receiver("other").values(), [1, 3]);
}

#[test]
fn an_empty_channel_admits_a_message_of_a_user_over_its_bytes() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 100 + 2 * MESSAGE_COST_BYTES);
    let (full, other) = (bench.sender("full"), bench.sender("other"));
    full.send_sized(1, 100);
    other.send(2);
    assert_eq!(bench.receiver("other").values(), [2]);
}

#[test]
fn options_that_let_nothing_through_are_refused() {
    let bench = Bench::new();
    let control = bench.control();
    let request = bus_core::wire::Request::Create(crate::bench::name("none"), capacity(0));
    let bus_core::wire::Reply::Refused(refused) = control.ask(request) else { panic!("not refused") };
    assert_eq!(refused.code, RefusedCode::Limit);
}

/// The room was granted to the message that waited unread behind its own question: neither it nor
/// anybody else went on, and the death of its sender was never noticed.
#[test]
fn a_sender_that_asks_for_room_and_does_not_wait_for_it_does_not_block_the_channel() {
    let bench = Bench::new();
    bench.create("one", capacity(1));
    let (honest, hasty, receiver) = (bench.sender("one"), bench.sender("one"), bench.receiver("one"));
    honest.send(1);
    hasty.want(1, 8, true);
    hasty.send(2);
    assert!(hasty.peer.is_paused());
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [2]);
}
