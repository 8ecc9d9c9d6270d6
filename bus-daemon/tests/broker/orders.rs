//! Orders of the shell: purge, skip, peek, delete, create, show.

use bus_core::wire::{ClosingCode, Kind, RefusedCode, Reply, Request};
use bus_core::{ChannelOptions, Removed};

use crate::bench::{Bench, Heard, Receiver, capacity, name};

fn removed(messages: u64, recalled: u64) -> Reply {
    Reply::Removed(Removed { messages, recalled })
}

fn marks(receiver: &Receiver) -> Vec<(u64, u32, bool)> {
    receiver.deliveries().iter().map(|delivery| (delivery.value, delivery.attempt, delivery.redelivered)).collect()
}

/// A channel with `sent` messages, of which its receiver has been sent all and claimed `claimed`.
fn story(sent: u64, claimed: u64) -> (Bench, crate::bench::Sender, Receiver, crate::bench::Control) {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    sender.send_all(1..=sent);
    assert_eq!(receiver.values().len() as u64, sent);
    receiver.claim(claimed);
    let control = bench.control();
    (bench, sender, receiver, control)
}

#[test]
fn purge_removes_all_that_no_receiver_has_and_counts_it() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=3);
    let control = bench.control();
    assert_eq!(control.ask(Request::Purge(name("jobs"))), removed(3, 0));
    assert_eq!(sender.settled().acked, 3);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.accepted, ledger.purged, ledger.queued), (3, 3, 0));
    sender.send(4);
    assert_eq!(bench.receiver("jobs").values(), [4]);
}

#[test]
fn purge_recalls_what_was_sent_ahead_and_not_what_was_claimed() {
    let (bench, sender, receiver, control) = story(4, 1);
    assert_eq!(control.ask(Request::Purge(name("jobs"))), removed(0, 3));
    assert_eq!(receiver.peer.all_heard(), [Heard::Recall]);
    sender.send(5);
    assert_eq!(receiver.values(), [0_u64; 0], "nothing is sent until the receiver has answered");
    receiver.answer_recall();
    assert_eq!(receiver.values(), [5]);
    receiver.ack(2);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.acknowledged, ledger.purged), (2, 3));
    assert_eq!(sender.settled().acked, 5);
}

#[test]
fn what_was_claimed_while_the_recall_was_on_its_way_is_kept() {
    let (bench, _sender, receiver, control) = story(4, 1);
    control.ask(Request::Purge(name("jobs")));
    receiver.claim(2);
    receiver.ack(2);
    receiver.peer.all_heard();
    receiver.answer_recall();
    receiver.ack(1);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.acknowledged, ledger.purged), (3, 1));
}

#[test]
fn a_receiver_that_dies_before_it_answers_a_purge_gets_its_claims_again_and_nothing_else() {
    let (bench, _sender, receiver, control) = story(4, 1);
    control.ask(Request::Purge(name("jobs")));
    receiver.peer.cut();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 2, true)]);
    assert_eq!(bench.ledger("jobs").purged, 3);
}

#[test]
fn skip_removes_the_head_alone() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=3);
    let control = bench.control();
    assert_eq!(control.ask(Request::Skip(name("jobs"))), removed(1, 0));
    assert_eq!(sender.settled().acked, 1, "the next daemon is not sent it again");
    assert_eq!(bench.receiver("jobs").values(), [2, 3]);
    assert_eq!(bench.ledger("jobs").purged, 1);
}

/// The log moved on beneath the seated receiver, whose next acknowledgement was then out of range.
#[test]
fn skip_recalls_a_head_that_was_sent_ahead() {
    let (bench, sender, receiver, control) = story(3, 0);
    assert_eq!(control.ask(Request::Skip(name("jobs"))), removed(0, 1));
    assert_eq!(receiver.peer.all_heard(), [Heard::Recall]);
    receiver.answer_recall();
    assert_eq!(receiver.values(), [2, 3]);
    receiver.ack(2);
    assert_eq!(sender.settled().acked, 3);
    let ledger = bench.ledger("jobs");
    assert_eq!((ledger.acknowledged, ledger.purged), (2, 1));
}

#[test]
fn skip_passes_over_what_is_claimed() {
    let (bench, _sender, receiver, control) = story(3, 1);
    control.ask(Request::Skip(name("jobs")));
    receiver.peer.all_heard();
    receiver.answer_recall();
    assert_eq!(receiver.values(), [3]);
    receiver.ack(2);
    assert_eq!(bench.ledger("jobs").purged, 1);
}

#[test]
fn a_receiver_that_dies_before_it_answers_a_skip_loses_the_first_that_it_had_not_claimed() {
    let (bench, _sender, receiver, control) = story(3, 1);
    control.ask(Request::Skip(name("jobs")));
    receiver.peer.cut();
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 2, true), (3, 1, false)]);
}

#[test]
fn each_of_two_skips_removes_one() {
    let (bench, _sender, receiver, control) = story(4, 0);
    assert_eq!(control.ask(Request::Skip(name("jobs"))), removed(0, 1));
    assert_eq!(control.ask(Request::Skip(name("jobs"))), removed(0, 1));
    receiver.peer.all_heard();
    receiver.answer_recall();
    assert_eq!(receiver.values(), [3, 4]);
    assert_eq!(bench.ledger("jobs").purged, 2);
}

#[test]
fn a_skip_does_not_undo_a_purge_that_waits_for_the_receiver() {
    let (bench, _sender, receiver, control) = story(4, 0);
    assert_eq!(control.ask(Request::Purge(name("jobs"))), removed(0, 4));
    control.ask(Request::Skip(name("jobs")));
    receiver.peer.all_heard();
    receiver.answer_recall();
    assert_eq!(receiver.values(), [0_u64; 0]);
    assert_eq!(bench.ledger("jobs").purged, 4);
}

#[test]
fn what_was_given_back_before_a_recall_keeps_its_attempts() {
    let (_bench, _sender, receiver, control) = story(2, 1);
    receiver.give_back();
    control.ask(Request::Purge(name("jobs")));
    receiver.claim(1);
    receiver.peer.all_heard();
    receiver.answer_recall();
    receiver.peer.cut();
    assert_eq!(marks(&_bench.receiver("jobs")), [(1, 3, true)]);
}

#[test]
fn an_answer_to_no_recall_closes_the_receiver() {
    let (bench, _sender, receiver, _control) = story(2, 0);
    receiver.answer_recall();
    assert!(receiver.peer.closed().is_some());
    assert_eq!(marks(&bench.receiver("jobs")), [(1, 1, false), (2, 1, false)]);
}

#[test]
fn a_recall_waits_for_a_half_written_message() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.peer.give_room(68);
    sender.send_all(1..=3);
    let control = bench.control();
    assert_eq!(control.ask(Request::Purge(name("jobs"))), removed(1, 2));
    receiver.peer.give_all_room();
    let heard = receiver.peer.all_heard();
    assert!(matches!(heard[..], [Heard::Delivery(_), Heard::Delivery(_), Heard::Recall]), "{heard:?}");
    receiver.answer_recall();
    assert_eq!(bench.ledger("jobs").purged, 3);
}

#[test]
fn purging_makes_room_for_those_who_wait() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let sender = bench.sender("jobs");
    sender.send_all([1, 2]);
    assert!(sender.peer.is_paused());
    bench.control().ask(Request::Purge(name("jobs")));
    assert!(!sender.peer.is_paused());
    assert_eq!(bench.receiver("jobs").values(), [2]);
}

#[test]
fn peek_copies_and_changes_nothing() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    sender.send_all(1..=5);
    let control = bench.control();
    let peek = |after, messages| Request::Peek { channel: name("jobs"), after, messages };
    let (copies, reply) = control.ask_with_copies(peek(0, 3));
    assert_eq!(copies.iter().map(|copy| copy.value).collect::<Vec<_>>(), [1, 2, 3]);
    let Reply::Peeked { next: Some(next) } = reply else { panic!("{reply:?}") };
    let (copies, reply) = control.ask_with_copies(peek(next, 10));
    assert_eq!(copies.iter().map(|copy| copy.value).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(reply, Reply::Peeked { next: None });
    assert_eq!(marks(&bench.receiver("jobs")), [1, 2, 3, 4, 5].map(|value| (value, 1, false)));
}

#[test]
fn delete_tells_senders_what_was_accepted_and_closes_everybody() {
    let bench = Bench::with(|rules| rules.capacity_messages = 2);
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    bench.be_busy();
    sender.send_all(1..=3);
    assert!(sender.peer.is_paused());
    receiver.values();
    let control = bench.control();
    assert_eq!(control.ask(Request::Delete(name("jobs"))), removed(2, 0));
    let heard = sender.peer.all_heard();
    assert!(matches!(&heard[0], Heard::Settled(settled) if settled.accepted == 2), "{heard:?}");
    assert!(matches!(&heard[1], Heard::Closing(closing) if closing.code == ClosingCode::Deleted), "{heard:?}");
    let heard = receiver.peer.all_heard();
    assert!(matches!(&heard[..], [Heard::Closing(closing)] if closing.code == ClosingCode::Deleted), "{heard:?}");
    assert_eq!(bench.channels(), [""; 0]);
    sender.peer.cut();
    receiver.peer.cut();
    bench.sender("jobs").send(1);
}

#[test]
fn delete_lets_a_half_written_message_end() {
    let bench = Bench::new();
    let (sender, receiver) = (bench.sender("jobs"), bench.receiver("jobs"));
    receiver.peer.give_room(40);
    sender.send_all([1, 2]);
    bench.control().ask(Request::Delete(name("jobs")));
    receiver.peer.give_all_room();
    let heard = receiver.peer.all_heard();
    assert!(matches!(&heard[..], [Heard::Delivery(it), Heard::Closing(_)] if it.value == 1), "{heard:?}");
}

#[test]
fn delete_closes_those_in_line_and_those_who_watch() {
    let bench = Bench::new();
    let (_holder, waiting, sender) = (bench.receiver("jobs"), bench.standby("jobs"), bench.sender("jobs"));
    sender.peer.say(Kind::Watch, &());
    bench.control().ask(Request::Delete(name("jobs")));
    assert!(waiting.peer.closed().is_some() && sender.peer.closed().is_some());
    assert!(bench.leftovers().is_empty());
}

#[test]
fn orders_about_no_channel_are_refused_by_name() {
    let bench = Bench::new();
    let control = bench.control();
    for order in [Request::Show, Request::Purge, Request::Skip, Request::Kick, Request::Delete] {
        let Reply::Refused(refused) = control.ask(order(name("none"))) else { panic!("not refused") };
        assert_eq!(refused.code, RefusedCode::NoSuchChannel);
        assert!(refused.text.contains("none"), "{}", refused.text);
    }
}

#[test]
fn create_twice_is_new_once_and_other_options_are_refused() {
    let bench = Bench::new();
    let control = bench.control();
    let create = |options| Request::Create(name("jobs"), options);
    assert_eq!(control.ask(create(capacity(2))), Reply::Created(true));
    assert_eq!(control.ask(create(capacity(2))), Reply::Created(false));
    let Reply::Refused(refused) = control.ask(create(capacity(3))) else { panic!("not refused") };
    assert_eq!(refused.code, RefusedCode::Exists);
}

#[test]
fn a_channel_in_use_can_be_declared_but_not_changed() {
    let bench = Bench::new();
    let sender = bench.sender("jobs");
    let control = bench.control();
    let create = |options| Request::Create(name("jobs"), options);
    let Reply::Refused(refused) = control.ask(create(capacity(2))) else { panic!("not refused") };
    assert_eq!(refused.code, RefusedCode::Exists);
    assert_eq!(control.ask(create(ChannelOptions::default())), Reply::Created(true));
    sender.goodbye();
    assert_eq!(bench.channels(), ["jobs"]);
}

#[test]
fn show_tells_who_waits_and_for_how_long() {
    let bench = Bench::with(|rules| rules.capacity_messages = 1);
    let sender = bench.sender("jobs");
    sender.send_all([1, 2]);
    bench.wait_ms(40);
    let control = bench.control();
    let Reply::Channel(info) = control.ask(Request::Show(name("jobs"))) else { panic!("no channel") };
    assert_eq!((info.sender_count, info.senders[0].blocked_ms, info.oldest_ms), (1, Some(40), Some(40)));
    assert!(info.receiver.is_none());
}

/// Two gibibytes went to a daemon whose user may hold one.
#[test]
fn a_largest_message_beyond_the_limit_is_refused_with_the_figure() {
    let bench = Bench::new();
    let limit = bus_core::limits::MESSAGE_MAX_BYTES_MAX;
    let options = ChannelOptions { message_max_bytes: Some(limit + 1), ..ChannelOptions::default() };
    let answer = bench.control().ask(Request::Create(name("jobs"), options));
    let Reply::Refused(refused) = answer else { panic!("{answer:?}") };
    assert_eq!(refused.code, RefusedCode::Limit);
    assert!(refused.text.contains("jobs") && refused.text.contains(&limit.to_string()), "{}", refused.text);
}
