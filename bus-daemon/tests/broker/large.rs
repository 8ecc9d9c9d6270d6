//! Large messages: room is asked for with the header, and what is read is charged before it is here.

use bus_core::wire::{FrameHeader, Kind, Reply, Request};
use bus_core::{ChannelOptions, WhenFull};
use bus_daemon::broker::{Announced, MESSAGE_COST_BYTES};

use crate::bench::{Bench, Heard, Outgoing, capacity, name};

const LARGE: usize = 20_000;
const LONG: usize = 70_000;
/// What one of them costs its user.
const COST: u64 = LARGE as u64 + MESSAGE_COST_BYTES;

#[test]
fn a_message_without_room_stays_with_its_sender_and_comes_when_there_is() {
    let bench = Bench::new();
    bench.create("jobs", capacity(1));
    let sender = bench.sender("jobs");
    sender.send(1);
    let before = bench.usage();
    assert_eq!(sender.announce(2, LARGE), Announced::NotNow);
    assert_eq!(bench.usage(), before, "what is not read is not charged");
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [2]);
}

/// Together they come to their receiver in other pages than they were sent in, and that costs a third of the speed.
#[test]
fn a_long_message_is_written_by_itself_and_shorter_ones_are_written_together() {
    let bench = Bench::new();
    let receiver = bench.receiver("jobs");
    let sender = bench.sender("jobs");
    receiver.peer.give_room(0);
    (0..3).for_each(|value| sender.send_sized(value, LARGE));
    assert!(receiver.peer.unwritten_bytes() > 3 * LARGE);
    receiver.peer.give_all_room();
    assert_eq!(receiver.values(), [0, 1, 2]);
    receiver.peer.give_room(0);
    (3..6).for_each(|value| sender.send_sized(value, LONG));
    let one = LONG..2 * LONG;
    assert!(one.contains(&receiver.peer.unwritten_bytes()), "{}", receiver.peer.unwritten_bytes());
    receiver.peer.give_room(10_000);
    assert!(receiver.peer.unwritten_bytes() < LONG, "the rest of the one that has begun");
    receiver.peer.give_all_room();
    assert_eq!(receiver.values(), [3, 4, 5]);
}

#[test]
fn what_is_read_is_charged_from_the_header_on() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    assert_eq!(sender.announce(1, LARGE), Announced::Keep);
    assert_eq!(bench.usage(), Some((1, 1, COST)));
    sender.send_sized(1, LARGE);
    assert_eq!(bench.usage(), Some((1, 1, COST)));
}

#[test]
fn half_a_message_of_a_sender_that_dies_is_charged_to_nobody() {
    let bench = Bench::new();
    let (sender, watcher) = (bench.sender("jobs"), bench.receiver("jobs"));
    assert_eq!(sender.announce(1, LARGE), Announced::Keep);
    sender.peer.cut();
    assert_eq!(bench.usage(), Some((1, 1, 0)));
    assert!(watcher.values().is_empty());
}

/// Twenty of them once took five times as much as their user may have.
#[test]
fn a_user_has_no_more_under_way_than_it_may_hold() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 2 * COST);
    bench.create("jobs", capacity(10));
    let senders: Vec<_> = (0..4).map(|_| bench.sender("jobs")).collect();
    let announced: Vec<Announced> = (0..4).map(|at| senders[at].announce(at as u64, LARGE)).collect();
    assert_eq!(announced, [Announced::Keep, Announced::Keep, Announced::NotNow, Announced::NotNow]);
    (0..2).for_each(|at| senders[at].send_sized(at as u64, LARGE));
    let receiver = bench.receiver("jobs");
    for value in 0..4 {
        assert_eq!(receiver.values(), [value], "after {value} messages");
        receiver.ack(1);
        bench.wait_ms(100);
    }
}

/// An empty channel takes a message of a user that may hold no more; not one of each sender.
#[test]
fn only_one_message_is_read_for_an_empty_channel_of_a_user_that_is_over_its_limit() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 10);
    let (one, two) = (bench.sender("jobs"), bench.sender("jobs"));
    assert_eq!(one.announce(1, LARGE), Announced::Keep);
    assert_eq!(two.announce(2, LARGE), Announced::NotNow);
    one.send_sized(1, LARGE);
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    bench.wait_ms(100);
    assert_eq!(receiver.values(), [2]);
}

/// Its turn was when its header came; others may have taken the room since.
#[test]
fn one_that_is_read_and_finds_no_room_is_the_first_to_have_some() {
    let bench = Bench::new();
    bench.create("jobs", capacity(1));
    let (slow, quick, third) = (bench.sender("jobs"), bench.sender("jobs"), bench.sender("jobs"));
    assert_eq!(slow.announce(1, LARGE), Announced::Keep);
    quick.send(2);
    third.send(3);
    slow.send_sized(1, LARGE);
    assert!(slow.peer.is_paused());
    let receiver = bench.receiver("jobs");
    let mut values = Vec::new();
    for _ in 0..3 {
        values.extend(receiver.values());
        receiver.ack(1);
    }
    assert_eq!(values, [2, 1, 3]);
}

#[test]
fn a_message_that_is_known_is_not_read_again() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_sized(1, LARGE);
    let again = bench.resume("jobs", &sender, 1);
    assert_eq!(again.announce(1, LARGE), Announced::Skip);
    again.send_with(Outgoing { sequence: 1, value: 1, bytes: LARGE, flags: 0 });
    assert_eq!(bench.ledger("jobs").accepted, 1);
}

#[test]
fn the_oldest_goes_when_the_newest_is_whole_and_not_before() {
    let bench = Bench::new();
    bench.create("jobs", ChannelOptions { when_full: WhenFull::DropOldest, ..capacity(1) });
    let sender = bench.sender("jobs");
    sender.send(1);
    assert_eq!(sender.announce(2, LARGE), Announced::Keep);
    assert_eq!(bench.ledger("jobs").dropped, 0);
    sender.send_sized(2, LARGE);
    assert_eq!(bench.ledger("jobs").dropped, 1);
    assert_eq!(bench.receiver("jobs").values(), [2]);
}

#[test]
fn a_sender_that_breaks_the_rules_is_closed_before_its_message_is_read() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.next_is(7);
    assert_eq!(sender.announce(1, LARGE), Announced::Skip);
    let told = sender.peer.all_heard().pop();
    assert!(matches!(&told, Some(Heard::Closing(closing)) if closing.text.contains("no gaps")), "{told:?}");
    assert_eq!(bench.usage(), None, "nothing is charged for it");
}

#[test]
fn a_channel_may_be_deleted_while_a_message_is_read() {
    let bench = Bench::new();
    let (sender, control) = (bench.sender("jobs"), bench.control());
    assert_eq!(sender.announce(1, LARGE), Announced::Keep);
    control.ask(Request::Delete(name("jobs")));
    assert!(bench.usage().is_some_and(|usage| usage.2 == 0), "{:?}", bench.usage());
    sender.send_sized(1, LARGE);
}

#[test]
fn room_is_not_granted_to_a_user_that_may_hold_no_more() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 10);
    bench.create("jobs", capacity(10));
    let sender = bench.sender("jobs");
    sender.send(1);
    sender.want(1, 8, false);
    let told = sender.peer.all_heard().pop();
    assert!(matches!(told, Some(Heard::Full(_))), "{told:?}");
    sender.want(2, 8, true);
    let receiver = bench.receiver("jobs");
    receiver.ack(1);
    bench.wait_ms(100);
    let told = sender.peer.all_heard();
    assert!(told.iter().any(|heard| matches!(heard, Heard::Granted(_))), "{told:?}");
}

#[test]
fn room_is_granted_where_the_oldest_make_it() {
    let bench = Bench::new();
    bench.create("jobs", ChannelOptions { when_full: WhenFull::DropOldest, ..capacity(1) });
    let sender = bench.sender("jobs");
    sender.send(1);
    sender.want(1, LARGE as u32, false);
    let told = sender.peer.all_heard().pop();
    assert!(matches!(told, Some(Heard::Granted(_))), "{told:?}");
    assert_eq!(bench.ledger("jobs").dropped, 0);
    sender.send_sized(2, LARGE);
    assert_eq!(bench.ledger("jobs").dropped, 1);
    assert_eq!(bench.receiver("jobs").values(), [2]);
}

/// One that was called with a message which the daemon had by then kept its turn until all of it had come.
#[test]
fn the_line_does_not_wait_for_the_rest_of_a_message_that_is_known() {
    let bench = Bench::new();
    bench.create("jobs", capacity(1));
    let sender = bench.sender("jobs");
    sender.send(1);
    sender.send_sized(2, LARGE);
    let again = bench.resume("jobs", &sender, 2);
    assert_eq!(again.announce(2, LARGE), Announced::NotNow);
    let other = bench.sender("jobs");
    other.send(3);
    again.peer.stop();
    let receiver = bench.receiver("jobs");
    let mut values = Vec::new();
    for _ in 0..3 {
        values.extend(receiver.values());
        receiver.ack(1);
    }
    assert_eq!(values, [1, 2, 3]);
}

/// Any number of them were read for the same room.
#[test]
fn those_that_are_read_keep_their_room() {
    let bench = Bench::new();
    bench.create("jobs", capacity(2));
    let senders: Vec<_> = (0..3).map(|_| bench.sender("jobs")).collect();
    let announced: Vec<Announced> = (0..3).map(|at| senders[at].announce(at as u64, LARGE)).collect();
    assert_eq!(announced, [Announced::Keep, Announced::Keep, Announced::NotNow]);
    senders[0].peer.cut();
    assert!(!senders[2].peer.is_paused(), "what the first was to take is free");
    assert_eq!(bench.ledger("jobs").queued, 1);
}

#[test]
fn one_that_stops_in_the_middle_of_a_message_does_not_keep_its_room_for_ever() {
    let bench = Bench::new();
    bench.create("jobs", capacity(1));
    let (stopped, other) = (bench.sender("jobs"), bench.sender("jobs"));
    assert_eq!(stopped.announce(1, LARGE), Announced::Keep);
    stopped.peer.stop();
    assert_eq!(other.announce(2, LARGE), Announced::NotNow);
    bench.wait_ms(900);
    assert!(other.peer.is_paused());
    bench.wait_ms(200);
    assert_eq!(bench.receiver("jobs").values(), [2]);
}

/// It was kept, and nobody was charged for it.
#[test]
fn only_senders_send_what_is_large() {
    let bench = Bench::new();
    let control = bench.control();
    for kind in [Kind::Data, Kind::Deliver] {
        let header = FrameHeader { kind, ..FrameHeader::control(Kind::Deliver, LARGE as u32) };
        assert_eq!(control.peer.announce(&header), Announced::Skip, "{kind:?}");
    }
    assert!(control.peer.closed().is_some());
}

#[test]
fn a_sender_whose_whole_message_waits_is_blocked() {
    let bench = Bench::new();
    bench.create("jobs", capacity(1));
    let (slow, quick, control) = (bench.sender("jobs"), bench.sender("jobs"), bench.control());
    assert_eq!(slow.announce(1, LARGE), Announced::Keep);
    quick.send(2);
    slow.send_sized(1, LARGE);
    bench.wait_ms(40);
    let Reply::Channel(info) = control.ask(Request::Show(name("jobs"))) else { panic!("no channel") };
    let blocked: Vec<_> = info.senders.iter().map(|sender| sender.blocked_ms).collect();
    assert_eq!(blocked, [Some(40), None]);
}

/// It was dropped by a channel that was empty.
#[test]
fn what_is_refused_for_its_user_is_not_dropped() {
    let bench = Bench::with(|rules| rules.user_bytes_max = 10);
    bench.create("jobs", ChannelOptions { when_full: WhenFull::DropNewest, ..capacity(10) });
    let sender = bench.sender("jobs");
    sender.send(1);
    sender.peer.all_heard();
    sender.want(1, 8, false);
    assert_eq!(bench.ledger("jobs").dropped, 0);
    assert_eq!(sender.peer.all_heard(), [], "it waits");
    let receiver = bench.receiver("jobs");
    receiver.ack(1);
    bench.wait_ms(100);
    let told = sender.peer.all_heard();
    assert!(told.iter().any(|heard| matches!(heard, Heard::Granted(_))), "{told:?}");
}
