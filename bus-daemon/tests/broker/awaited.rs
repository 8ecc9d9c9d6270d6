//! Senders of an earlier daemon, for which a receiver waits: until they are back, dead, or their time
//! is over.

use bus_core::wire::{KnownSender, ReceiverHello, Resume, Role, SenderHello};

use bus_daemon::broker::Announced;

use crate::bench::{
    Bench, Heard, Outgoing, PID, Receiver, Sender, known, receiver_hello, returning, rules, sender_hello,
};

/// Comes back from an earlier daemon, where it had these senders, and ends when nobody is left.
fn back(bench: &Bench, senders: Vec<KnownSender>) -> Receiver {
    let hello = receiver_hello("jobs");
    bench.receiver_hello(ReceiverHello { until_disconnected: true, returning: returning(true, senders), ..hello })
}

fn of_process(sender: u64, pid: u32) -> KnownSender {
    KnownSender { pid, ..known(sender, 1) }
}

fn has_ended(receiver: &Receiver) -> bool {
    receiver.peer.all_heard().contains(&Heard::Ended)
}

fn message(sequence: u64) -> Outgoing {
    Outgoing { sequence, value: sequence, bytes: 8, flags: 0 }
}

/// A sender comes back, does what is told, and leaves, all before its receiver is back.
fn back_and_gone(bench: &Bench, act: impl FnOnce(&Sender)) -> KnownSender {
    let sender = bench.sender("jobs");
    bench.next_daemon();
    let resumed = bench.resume("jobs", &sender, 2);
    act(&resumed);
    resumed.goodbye();
    known(sender.id(), 1)
}

/// A sender that has hung up in the middle of a large message, and a receiver that ends when nobody is left.
fn hung_up_in_a_message(bench: &Bench) -> (Sender, Receiver) {
    let sender = bench.sender("jobs");
    let receiver = bench.receiver_hello(ReceiverHello { until_disconnected: true, ..receiver_hello("jobs") });
    assert_eq!(sender.announce(1, 20_000), Announced::Keep);
    sender.peer.cut();
    (sender, receiver)
}

/// A call that has no more time for a long message hangs up in the middle of it, and comes back at once: meanwhile the
/// receiver was told that all had left.
#[test]
fn a_sender_that_hangs_up_in_the_middle_of_a_message_counts_as_present_until_it_is_back() {
    let bench = Bench::new();
    let (sender, receiver) = hung_up_in_a_message(&bench);
    assert!(!has_ended(&receiver));
    let back = bench.resume("jobs", &sender, 1);
    back.send_with(message(1));
    assert_eq!(receiver.values(), [1]);
    receiver.ack(1);
    assert!(!has_ended(&receiver));
    back.goodbye();
    assert!(has_ended(&receiver));
}

#[test]
fn a_sender_that_died_in_the_middle_of_a_message_is_not_awaited() {
    for process_is_gone in [true, false] {
        let bench = Bench::new();
        let (_, receiver) = hung_up_in_a_message(&bench);
        match process_is_gone {
            true => {
                bench.end_process(PID);
                bench.wait_ms(0);
            }
            false => {
                bench.wait_ms(1_999);
                assert!(!has_ended(&receiver));
                bench.wait_ms(1);
            }
        }
        assert!(has_ended(&receiver), "{process_is_gone}");
    }
}

/// It was awaited for ten seconds, because its receiver had named it.
#[test]
fn a_sender_that_was_back_and_left_a_message_is_not_awaited() {
    let bench = Bench::new();
    let sender = back_and_gone(&bench, |sender| sender.send_with(message(2)));
    let receiver = back(&bench, vec![sender]);
    assert_eq!(receiver.values(), [2]);
    receiver.ack(1);
    assert!(has_ended(&receiver));
}

#[test]
fn a_sender_that_was_back_is_not_awaited_also_when_its_channel_has_vanished() {
    let bench = Bench::new();
    let sender = back_and_gone(&bench, |_| ());
    assert_eq!(bench.channels(), [""; 0]);
    assert!(has_ended(&back(&bench, vec![sender])));
}

#[test]
fn a_sender_that_was_back_and_died_is_not_awaited() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    bench.next_daemon();
    bench.resume("jobs", &sender, 2).peer.cut();
    assert!(has_ended(&back(&bench, vec![known(sender.id(), 1)])));
}

#[test]
fn a_sender_that_only_another_receiver_has_named_is_awaited() {
    let bench = Bench::new();
    let sender = known(77, 1);
    let hello = ReceiverHello { standby: true, returning: returning(false, vec![sender]), ..receiver_hello("jobs") };
    let _in_line = bench.receiver_hello(hello);
    let receiver = back(&bench, vec![sender]);
    bench.wait_ms(rules().resume_grace_ms - 1);
    assert!(!has_ended(&receiver));
    bench.wait_ms(1);
    assert!(has_ended(&receiver));
}

#[test]
fn naming_a_sender_again_does_not_make_it_awaited_for_longer() {
    let bench = Bench::new();
    let receiver = back(&bench, vec![known(77, 1)]);
    bench.wait_ms(rules().resume_grace_ms - 1);
    let again = returning(false, vec![known(77, 1)]);
    let _in_line = bench.receiver_hello(ReceiverHello { standby: true, returning: again, ..receiver_hello("jobs") });
    bench.wait_ms(1);
    assert!(has_ended(&receiver));
}

#[test]
fn so_many_senders_that_were_here_are_remembered() {
    let bench = Bench::with(|rules| rules.departed_senders_max = 2);
    let senders: Vec<Sender> = (0..3).map(|_| bench.sender("jobs")).collect();
    bench.next_daemon();
    senders.iter().for_each(|sender| bench.resume("jobs", sender, 1).goodbye());
    let is_awaited = |sender: &Sender| {
        let receiver = back(&bench, vec![known(sender.id(), 1)]);
        let is_awaited = !has_ended(&receiver);
        receiver.goodbye();
        is_awaited
    };
    let awaited: Vec<bool> = senders.iter().rev().map(is_awaited).collect();
    assert_eq!(awaited, [false, false, true], "the first that left is forgotten");
}

/// A sender that had died with the daemon was awaited for ten seconds.
#[test]
fn a_sender_is_awaited_no_longer_when_its_process_is_gone() {
    let bench = Bench::new();
    let receiver = back(&bench, vec![of_process(77, 7), of_process(88, 8)]);
    bench.end_process(7);
    bench.wait_ms(1_000);
    assert!(!has_ended(&receiver), "the other lives");
    bench.end_process(8);
    bench.wait_ms(100);
    assert!(has_ended(&receiver));
}

#[test]
fn a_process_that_is_gone_already_is_not_awaited_at_all() {
    let bench = Bench::new();
    bench.end_process(7);
    let receiver = back(&bench, vec![of_process(77, 7)]);
    bench.wait_ms(0);
    assert!(has_ended(&receiver));
    receiver.goodbye();
    assert_eq!(bench.channels(), [""; 0]);
}

#[test]
fn many_processes_are_looked_at_in_turn() {
    let bench = Bench::new();
    (1_000..2_000).for_each(|pid| bench.end_process(pid));
    let living = of_process(1, 500);
    let senders = (1_000..2_000).map(|pid| of_process(u64::from(pid), pid)).chain([living]).collect();
    let receiver = back(&bench, senders);
    bench.wait_ms(1_000);
    assert!(!has_ended(&receiver), "one lives");
    bench.end_process(500);
    bench.wait_ms(100);
    assert!(has_ended(&receiver));
}

/// What it has sent before it died is on its way to us.
#[test]
fn a_dead_process_is_awaited_while_a_connection_of_it_has_not_been_heard() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    bench.next_daemon();
    let receiver = back(&bench, vec![of_process(sender.id(), PID)]);
    let connection = bench.connect();
    bench.end_process(PID);
    bench.wait_ms(1_000);
    assert!(!has_ended(&receiver));
    let resume = Some(Resume { sender: sender.id(), token: sender.welcome.token, next_sequence: 2, last_sequence: 0 });
    connection.hello(Role::Sender(SenderHello { resume, ..sender_hello("jobs") }));
    connection.say_bytes(crate::bench::data(message(2)));
    connection.cut();
    assert_eq!(receiver.values(), [2]);
    receiver.ack(1);
    assert!(has_ended(&receiver));
}

#[test]
fn a_connection_that_never_speaks_does_not_keep_a_dead_process_awaited() {
    let bench = Bench::new();
    let receiver = back(&bench, vec![of_process(77, PID)]);
    let silent = bench.connect();
    bench.end_process(PID);
    bench.wait_ms(100);
    assert!(!has_ended(&receiver));
    silent.cut();
    bench.wait_ms(100);
    assert!(has_ended(&receiver));
}

/// Its number says nothing of the process that bears the same number here.
#[test]
fn processes_are_not_looked_at_for_a_receiver_of_another_pid_namespace() {
    for kernel_says in [0, PID + 1] {
        let bench = Bench::new();
        bench.end_process(7);
        let hello = receiver_hello("jobs");
        let returning = returning(true, vec![of_process(77, 7)]);
        let hello = ReceiverHello { until_disconnected: true, returning, ..hello };
        let receiver = bench.receiver_hello_as(kernel_says, hello);
        bench.wait_ms(rules().resume_grace_ms - 1);
        assert!(!has_ended(&receiver));
        bench.wait_ms(1);
        assert!(has_ended(&receiver));
    }
}

#[test]
fn receivers_are_told_only_the_process_that_the_kernel_tells() {
    let bench = Bench::new();
    let receiver = bench.receiver("jobs");
    for kernel_says in [PID + 1, 0] {
        bench.sender_hello_as(kernel_says, sender_hello("jobs")).send(1);
        assert_eq!(receiver.deliveries()[0].pid, kernel_says);
    }
}

#[test]
fn the_daemon_wakes_up_by_itself_only_while_a_known_process_is_awaited() {
    let bench = Bench::new();
    let receiver = back(&bench, vec![of_process(77, 0)]);
    bench.wait_ms(0);
    assert!(bench.sleeps_ms().is_some_and(|ms| ms > 1_000), "{:?}", bench.sleeps_ms());
    let hello =
        ReceiverHello { standby: true, returning: returning(false, vec![known(88, 1)]), ..receiver_hello("jobs") };
    let _in_line = bench.receiver_hello(hello);
    bench.wait_ms(0);
    assert_eq!(bench.sleeps_ms(), Some(100));
    bench.end_process(PID);
    bench.wait_ms(200);
    assert!(bench.sleeps_ms().is_some_and(|ms| ms > 1_000), "{:?}", bench.sleeps_ms());
    assert!(!has_ended(&receiver), "nobody knows of the other");
}

/// `bus consume --until-empty` ended while senders of the daemon that had died held messages.
#[test]
fn a_sender_is_awaited_until_it_has_brought_what_it_said() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    bench.next_daemon();
    let receiver = back(&bench, vec![known(sender.id(), 1)]);
    assert_eq!(bench.show("jobs").awaited, 1, "it is not back");
    let resumed = bench.resume_with("jobs", &sender, 2, 3);
    assert_eq!(bench.show("jobs").awaited, 1, "it is back, and empty-handed");
    resumed.send_with(message(2));
    assert_eq!(bench.show("jobs").awaited, 1, "it has more");
    resumed.send_with(message(3));
    assert_eq!(bench.show("jobs").awaited, 0);
    assert_eq!(receiver.values(), [2, 3]);
}

#[test]
fn a_sender_that_does_not_bring_what_it_said_is_awaited_for_its_time() {
    let bench = Bench::new();
    let (sender, other) = (bench.sender("jobs"), bench.sender("jobs"));
    bench.next_daemon();
    let _receiver = back(&bench, vec![]);
    let leaves = bench.resume_with("jobs", &sender, 1, 1);
    assert_eq!(bench.show("jobs").awaited, 1);
    leaves.goodbye();
    assert_eq!(bench.show("jobs").awaited, 0, "it brings nothing any more");
    let _stays = bench.resume_with("jobs", &other, 1, 1);
    bench.wait_ms(rules().resume_grace_ms - 1);
    assert_eq!(bench.show("jobs").awaited, 1);
    bench.wait_ms(1);
    assert_eq!(bench.show("jobs").awaited, 0);
}

#[test]
fn a_daemon_that_follows_one_that_died_awaits_senders_that_nobody_has_named() {
    let bench = Bench::with(|rules| rules.former_receivers_ms = 1_300);
    let _sender = bench.sender("jobs");
    // A bench begins at 1,000.
    bench.wait_ms(1_599);
    assert_eq!(bench.show("jobs").awaited, 1);
    bench.wait_ms(1);
    assert_eq!(bench.show("jobs").awaited, 0);
}
