//! The way out: claims, attempts, giving back, pushing ahead, and sockets that take little.

use bus_core::wire::{Flags, Kind, Progress};

use crate::bench::{Bench, Heard, Outgoing, capacity, data};

fn progress(taken: u64, acked: u64) -> Progress {
    Progress { taken, acked, head_given_back: 0 }
}

/// Value, attempt and mark of each delivery.
fn marks(receiver: &crate::bench::Receiver) -> Vec<(u64, u32, bool)> {
    receiver.deliveries().iter().map(|delivery| (delivery.value, delivery.attempt, delivery.redelivered)).collect()
}

#[test]
fn what_was_claimed_comes_again_marked_and_the_rest_unmarked() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=4);
    let first = bench.receiver("jobs");
    first.claim(3);
    first.ack(1);
    first.peer.cut();
    let second = bench.receiver("jobs");
    assert_eq!(marks(&second), [(2, 2, true), (3, 2, true), (4, 1, false)]);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.acknowledged, ledger.queued, ledger.in_delivery), (1, 3, 0));
}

#[test]
fn what_is_claimed_counts_as_in_delivery() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=3);
    receiver.claim(2);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.queued, ledger.in_delivery), (1, 2));
}

#[test]
fn a_claim_that_was_taken_back_leaves_no_mark() {
    let bench = Bench::new();
    let (sender, first) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=3);
    first.claim(3);
    first.tell(progress(0, 0));
    first.goodbye();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 1, false), (2, 1, false), (3, 1, false)]);
}

#[test]
fn each_giving_back_and_each_death_counts_an_attempt() {
    let bench = Bench::new();
    let (sender, first) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all([1, 2]);
    first.claim(1);
    first.give_back();
    first.give_back();
    first.claim(1);
    first.peer.cut();
    let second = bench.receiver("jobs");
    assert_eq!(marks(&second), [(1, 4, true), (2, 1, false)]);
    second.claim(1);
    second.peer.cut();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 5, true), (2, 1, false)]);
}

#[test]
fn an_acknowledgement_in_the_last_words_counts() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all([1, 2]);
    receiver.peer.say(Kind::Goodbye, &progress(1, 1));
    assert_eq!(bench.ledger("jobs").acknowledged, 1);
    assert_eq!(marks(&bench.receiver("jobs")), [(2, 1, false)]);
}

/// Whoever waits claims what comes next, so that it need not be claimed when it comes.
#[test]
fn the_next_message_may_be_claimed_before_it_comes() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.tell(progress(1, 0));
    sender.send_all([1, 2]);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.in_delivery, ledger.queued), (1, 1));
    receiver.peer.cut();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 2, true), (2, 1, false)]);
}

#[test]
fn a_claim_of_what_never_came_marks_nothing() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.tell(progress(1, 0));
    assert_eq!(bench.ledger("jobs").in_delivery, 0);
    receiver.peer.cut();
    sender.send(1);
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 1, false)]);
}

/// How many messages may be claimed before they come, by default.
const LAG: u64 = 512;

#[test]
fn what_was_claimed_in_advance_and_never_sent_is_not_marked() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.tell(progress(LAG, 0));
    receiver.peer.give_room(0);
    sender.send_all([1, 2]);
    receiver.peer.cut();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 1, false), (2, 1, false)]);
}

#[test]
fn on_an_exact_channel_no_more_than_the_next_message_is_claimed() {
    let bench = Bench::new();
    bench.create("jobs", capacity(100));
    let receiver = bench.receiver("jobs");
    assert_eq!(receiver.welcome.lag_messages, 1);
    receiver.tell(progress(2, 0));
    assert!(receiver.peer.closed().is_some());
}

#[test]
fn progress_that_cannot_be_closes_the_receiver_and_harms_nobody() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=3);
    for forged in
        [progress(4 + LAG, 0), progress(1, 2), progress(4, 4), progress(u64::MAX, 0), progress(u64::MAX, u64::MAX)]
    {
        let liar = bench.receiver("jobs");
        liar.tell(forged);
        assert!(liar.peer.closed().is_some(), "{forged:?} was believed");
    }
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 1, false), (2, 1, false), (3, 1, false)]);
}

#[test]
fn progress_does_not_go_back() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=3);
    receiver.ack(2);
    receiver.tell(progress(2, 1));
    assert!(receiver.peer.closed().is_some());
    assert_eq!(bench.ledger("jobs").acknowledged, 2);
}

#[test]
fn a_receiver_in_line_has_nothing_to_settle() {
    let bench = Bench::new();
    let _holder = bench.receiver("jobs");
    let waiting = bench.standby("jobs");
    waiting.tell(progress(0, 0));
    assert!(waiting.peer.closed().is_none());
    waiting.tell(progress(1, 1));
    assert!(waiting.peer.closed().is_some());
}

#[test]
fn a_receiver_is_sent_ahead_so_many_messages_and_no_more() {
    let bench = Bench::with(|rules| rules.push_ahead_messages = 3);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=6);
    assert_eq!(receiver.values(), [1, 2, 3]);
    receiver.claim(3);
    assert_eq!(receiver.values(), [0_u64; 0]);
    receiver.ack(2);
    assert_eq!(receiver.values(), [4, 5]);
}

#[test]
fn a_receiver_is_sent_ahead_so_many_bytes_but_always_one_message() {
    let bench = Bench::with(|rules| rules.push_ahead_bytes = 100);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_sized(1, 500);
    sender.send_sized(2, 40);
    sender.send_sized(3, 40);
    sender.send_sized(4, 40);
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [2, 3]);
    receiver.ack(1);
    assert_eq!(receiver.values(), [4]);
}

/// With a message half written the bound on bytes was forgotten for all that followed it.
#[test]
fn a_half_written_message_does_not_lift_the_bound_on_bytes() {
    let bench = Bench::with(|rules| rules.push_ahead_bytes = 100);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.peer.give_room(10);
    for value in 1..=6 {
        sender.send_sized(value, 40);
    }
    receiver.peer.give_all_room();
    assert_eq!(receiver.values(), [1, 2]);
}

#[test]
fn sockets_that_take_any_number_of_bytes_get_the_same_stream() {
    for step in 1..=70 {
        let bench = Bench::new();
        let receiver = bench.receiver("jobs");
        receiver.peer.give_room(0);
        let sender = bench.sender("jobs");
        sender.send_all(1..=5);
        receiver.peer.say(Kind::Watch, &());
        let mut values = Vec::new();
        while values.len() < 5 {
            receiver.peer.give_room(step);
            values.extend(receiver.peer.all_heard().into_iter().filter_map(|heard| match heard {
                Heard::Delivery(delivery) => Some(delivery.value),
                _ => None,
            }));
        }
        assert_eq!(values, [1, 2, 3, 4, 5], "in steps of {step} bytes");
        receiver.ack(5);
        assert_eq!(bench.ledger("jobs").acknowledged, 5);
    }
}

#[test]
fn half_a_delivery_was_not_handed_out() {
    let bench = Bench::new();
    let (sender, first) = (bench.sender("jobs"), bench.receiver("jobs"));
    first.peer.give_room(70);
    sender.send_all([1, 2]);
    assert_eq!(first.values(), [1]);
    first.claim(1);
    first.peer.cut();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 2, true), (2, 1, false)]);
}

#[test]
fn large_and_small_messages_keep_their_order() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    let sizes = [8, 20_000, 9, 16_384, 16_383, 200_000, 10];
    for (value, bytes) in (1..).zip(sizes) {
        sender.send_sized(value, bytes);
    }
    assert_eq!(receiver.values(), [1, 2, 3, 4, 5, 6, 7]);
    receiver.ack(7);
    sender.send_sized(8, 20_000);
    sender.send(9);
    assert_eq!(receiver.values(), [8, 9]);
}

#[test]
fn the_redelivered_mark_of_a_sender_reaches_the_receiver_and_its_confirm_flag_does_not() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_flagged(1, Flags::REDELIVERED | Flags::CONFIRM);
    sender.send_flagged(2, Flags::CONFIRM);
    assert_eq!(marks(&receiver), [(1, 1, true), (2, 1, false)]);
}

#[test]
fn frames_that_do_not_belong_close_their_peer_only() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send(1);
    let wrong = bench.sender("jobs");
    wrong.peer.say(Kind::Progress, &progress(0, 0));
    assert!(wrong.peer.closed().is_some());
    let wrong = bench.standby("jobs");
    wrong.peer.say_bytes(data(Outgoing { sequence: 1, value: 1, bytes: 8, flags: 0 }));
    assert!(wrong.peer.closed().is_some());
    let wrong = bench.control();
    wrong.peer.say(Kind::Request, &[255_u8; 3]);
    assert!(wrong.peer.closed().is_some());
    let wrong = bench.sender("jobs");
    wrong.peer.say(Kind::Settled, &progress(0, 0));
    assert!(wrong.peer.closed().is_some());
    receiver.ack(1);
    assert_eq!(bench.ledger("jobs").acknowledged, 1);
}
