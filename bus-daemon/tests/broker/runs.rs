//! Messages that go in together.

use bus_core::wire::Flags;

use crate::bench::{Bench, Outgoing, Sender, capacity, data};

fn run(sender: &Sender, sequences: impl IntoIterator<Item = u64>) {
    let frame = |sequence| data(Outgoing { sequence, value: sequence, bytes: 8, flags: 0 });
    sender.peer.say_bytes(sequences.into_iter().flat_map(frame).collect());
}

#[test]
fn a_run_arrives_whole_and_in_order_and_is_in_the_ledger() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    run(&sender, 1..=100);
    assert_eq!(receiver.values(), (1..=100).collect::<Vec<_>>());
    receiver.ack(60);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.accepted, ledger.acknowledged, ledger.queued), (100, 60, 40));
    bench.be_idle();
    assert_eq!(sender.settled().acked, 60);
}

#[test]
fn whoever_waits_for_a_message_of_a_run_is_told() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    let confirmed = Outgoing { sequence: 2, value: 2, bytes: 8, flags: Flags::CONFIRM };
    let plain = |sequence| data(Outgoing { sequence, value: sequence, bytes: 8, flags: 0 });
    sender.peer.say_bytes([plain(1), data(confirmed), plain(3)].concat());
    assert_eq!(sender.settled().accepted, 3);
}

#[test]
fn acknowledgements_of_several_senders_reach_each_of_them() {
    let bench = Bench::new();
    let (first, second, receiver) = (bench.sender("jobs"), bench.sender("jobs"), bench.receiver("jobs"));
    run(&first, 1..=10);
    run(&second, 1..=5);
    run(&first, 11..=20);
    receiver.ack(18);
    bench.be_idle();
    assert_eq!((first.settled().acked, second.settled().acked), (13, 5));
    receiver.ack(2);
    bench.be_idle();
    assert_eq!(first.settled().acked, 15);
    assert_eq!(bench.ledger("jobs").acknowledged, 20);
}

#[test]
fn a_run_takes_no_more_than_the_room_there_is() {
    let bench = Bench::new();
    bench.create("ten", capacity(10));
    let sender = bench.sender("ten");
    run(&sender, 1..=10);
    assert_eq!(bench.ledger("ten").queued, 10);
    run(&sender, 11..=11);
    assert!(sender.peer.is_paused());
    assert_eq!(bench.ledger("ten").queued, 10);
}
