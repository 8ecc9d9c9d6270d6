//! What only this route promises, and what many threads do to it. The behaviour that it shares with
//! the other routes is in the conformance suite.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{LocalBus, LocalReceiver, LocalSender};
use crate::channel::{ChannelOptions, Peers, WhenFull};
use crate::codec::Codec;
use crate::error::{AdminError, Ended, OpenError};
use crate::message::Headers;
use crate::name::ChannelName;
use crate::stream::receiver::{NoMessage, Wait};
use crate::stream::sender::PushError;
use crate::wire::TypeDeclaration;

fn name() -> ChannelName {
    ChannelName::new("jobs").unwrap()
}

fn declares(type_name: &str) -> Option<TypeDeclaration> {
    Some(TypeDeclaration { codec: Codec::Bincode, type_name: type_name.to_owned() })
}

fn sender<T: Send + 'static>(bus: &LocalBus) -> LocalSender<T> {
    bus.sender(&name(), declares("T"), false).unwrap()
}

fn receiver<T: Send + 'static>(bus: &LocalBus) -> LocalReceiver<T> {
    bus.receiver(&name(), declares("T"), false, false).unwrap()
}

fn until_disconnected<T: Send + 'static>(bus: &LocalBus) -> LocalReceiver<T> {
    bus.receiver(&name(), declares("T"), false, true).unwrap()
}

fn with_capacity(capacity: u64, when_full: WhenFull) -> LocalBus {
    let bus = LocalBus::default();
    let options = ChannelOptions { capacity: Some(capacity), when_full, ..Default::default() };
    assert!(bus.create(&name(), options).unwrap());
    bus
}

fn push<T>(sender: &LocalSender<T>, value: T, wait: Wait) -> Result<u64, (T, PushError)> {
    sender.push(value, Headers::new(), Codec::Bincode, wait)
}

fn soon() -> Wait {
    Wait::Until(Instant::now() + Duration::from_secs(10))
}

/// Not `Clone`, not serialisable: it can only be moved.
#[derive(Debug, PartialEq)]
struct OnlyMoved(Box<u64>);

#[test]
fn a_value_is_moved_and_nothing_is_asked_of_its_type() {
    let bus = LocalBus::default();
    let (sender, receiver) = (sender(&bus), receiver::<OnlyMoved>(&bus));
    let value = OnlyMoved(Box::new(7));
    let address: *const u64 = &*value.0;
    push(&sender, value, Wait::Never).unwrap();
    let arrived = receiver.take(Wait::Never).unwrap().value;
    assert_eq!(&*arrived.0 as *const u64, address);
}

#[test]
fn another_type_of_the_same_name_is_refused_with_both_paths() {
    mod other {
        pub(super) struct OnlyMoved;
    }
    let bus = LocalBus::default();
    let _first = sender::<OnlyMoved>(&bus);
    let refused = bus.receiver::<other::OnlyMoved>(&name(), declares("T"), false, false).unwrap_err();
    let OpenError::TypeMismatch { text, .. } = refused else { panic!("{refused}") };
    assert!(text.contains("tests::OnlyMoved") && text.contains("other::OnlyMoved"), "{text}");
    assert!(text.contains("moved"), "{text}");
}

#[test]
fn a_raw_end_is_refused_where_values_of_a_type_are_moved() {
    let bus = LocalBus::default();
    let _typed = sender::<u32>(&bus);
    let refused = bus.receiver::<Vec<u8>>(&name(), None, false, false).unwrap_err();
    assert!(matches!(&refused, OpenError::TypeMismatch { text, .. } if text.contains("raw ends too")), "{refused}");
}

#[test]
fn a_refused_end_leaves_no_trace() {
    let bus = LocalBus::default();
    let first = sender::<u32>(&bus);
    assert!(bus.receiver::<String>(&name(), declares("T"), false, false).is_err());
    assert!(bus.receiver::<u32>(&name(), declares("U"), false, false).is_err());
    assert_eq!(first.peers(None, None).unwrap(), Peers::new(1, 0));
}

#[test]
fn an_idle_channel_may_be_used_with_another_type() {
    let bus = with_capacity(2, WhenFull::Block);
    drop(sender::<u32>(&bus));
    let typed = sender::<String>(&bus);
    push(&typed, "kept".to_owned(), Wait::Never).unwrap();
    drop(typed);
    assert!(bus.sender::<u32>(&name(), declares("T"), false).is_err(), "it holds a message");
    assert_eq!(receiver::<String>(&bus).take(Wait::Never).unwrap().value, "kept");
    sender::<u32>(&bus);
}

#[test]
fn a_channel_that_nobody_declared_vanishes_when_empty_and_unattached() {
    let bus = LocalBus::default();
    push(&sender(&bus), 1_u32, Wait::Never).unwrap();
    assert_eq!(receiver::<u32>(&bus).take(Wait::Never).unwrap().value, 1);
    assert!(matches!(bus.delete(&name()), Err(AdminError::NoSuchChannel { text }) if text.contains("jobs")));
}

#[test]
fn a_second_receiver_is_told_who_holds_the_channel() {
    let bus = LocalBus::default();
    let (_receiver, refused) = thread::scope(|scope| {
        let opened = thread::Builder::new().name("holder".into()).spawn_scoped(scope, || receiver::<u32>(&bus));
        let receiver = opened.unwrap().join().unwrap();
        (receiver, bus.receiver::<u32>(&name(), declares("T"), false, false).unwrap_err())
    });
    let OpenError::ReceiverTaken { text, .. } = refused else { panic!("{refused}") };
    assert!(text.contains("thread holder") && text.contains(&std::process::id().to_string()), "{text}");
}

#[test]
fn a_receiver_keeps_its_seat_while_a_delivery_is_out() {
    let bus = LocalBus::default();
    let (sender, first) = (sender::<u32>(&bus), receiver::<u32>(&bus));
    push(&sender, 1, Wait::Never).unwrap();
    push(&sender, 2, Wait::Never).unwrap();
    let (loan, envelope) = (first.clone(), first.lend(Wait::Never).unwrap());
    drop(first);
    let second = bus.receiver::<u32>(&name(), declares("T"), true, false).unwrap();
    assert!(!second.is_seated());
    loan.give_back(envelope);
    drop(loan);
    assert!(second.is_seated());
    let again = second.take(Wait::Never).unwrap();
    assert_eq!((again.value, again.info.attempt, again.info.redelivered), (1, 2, true));
    let untaken = second.take(Wait::Never).unwrap();
    assert_eq!((untaken.value, untaken.info.attempt, untaken.info.redelivered), (2, 1, false));
}

#[test]
fn a_loan_holds_up_the_next_message_and_its_return_lets_it_go() {
    let bus = LocalBus::default();
    let (sender, receiver) = (sender::<u32>(&bus), receiver::<u32>(&bus));
    push(&sender, 1, Wait::Never).unwrap();
    push(&sender, 2, Wait::Never).unwrap();
    let envelope = receiver.lend(Wait::Never).unwrap();
    assert_eq!(receiver.take(Wait::Never).unwrap_err(), NoMessage::Empty);
    assert_eq!(receiver.take(Wait::Until(Instant::now())).unwrap_err(), NoMessage::Timeout);
    let lender = receiver.clone();
    thread::scope(|scope| {
        let waits = scope.spawn(move || (receiver.take(soon()).unwrap().value, receiver.take(soon()).unwrap().value));
        lender.give_back(envelope);
        assert_eq!(waits.join().unwrap(), (1, 2));
    });
}

#[test]
fn a_window_of_its_own_holds_each_sender_back() {
    let bus = LocalBus::default();
    bus.create(&name(), ChannelOptions { window: Some(2), ..Default::default() }).unwrap();
    let (eager, other, receiver) = (sender::<u32>(&bus), sender::<u32>(&bus), receiver::<u32>(&bus));
    push(&eager, 1, Wait::Never).unwrap();
    push(&eager, 2, Wait::Never).unwrap();
    assert_eq!(push(&eager, 3, Wait::Never), Err((3, PushError::Full)));
    push(&other, 4, Wait::Never).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| push(&eager, 3, soon()));
        receiver.take(soon()).unwrap();
        assert_eq!(blocked.join().unwrap(), Ok(3));
    });
    assert_eq!((eager.unacknowledged(), other.unacknowledged()), (2, 1));
}

#[test]
fn drop_oldest_spares_what_is_lent_and_waits_for_it() {
    let bus = with_capacity(1, WhenFull::DropOldest);
    let (sender, receiver) = (sender::<u32>(&bus), receiver::<u32>(&bus));
    push(&sender, 1, Wait::Never).unwrap();
    push(&sender, 2, Wait::Never).unwrap();
    assert_eq!(sender.dropped(), 1);
    let envelope = receiver.lend(Wait::Never).unwrap();
    assert_eq!(envelope.value, 2);
    assert_eq!(push(&sender, 3, Wait::Never), Err((3, PushError::Full)));
    thread::scope(|scope| {
        let blocked = scope.spawn(|| push(&sender, 3, soon()));
        // Given back and without a receiver, it is the oldest.
        receiver.give_back(envelope);
        drop(receiver);
        assert_eq!(blocked.join().unwrap(), Ok(3));
    });
    assert_eq!((sender.dropped(), sender.unacknowledged()), (2, 1));
}

#[test]
fn a_new_channel_of_a_deleted_name_is_not_touched_by_ends_of_the_old_one() {
    let bus = LocalBus::default();
    let old = sender::<u32>(&bus);
    push(&old, 1, Wait::Never).unwrap();
    assert_eq!(bus.delete(&name()).unwrap().messages, 1);
    let new = sender::<u32>(&bus);
    push(&new, 2, Wait::Never).unwrap();
    assert_eq!(push(&old, 3, Wait::Forever), Err((3, PushError::Disconnected)));
    drop(old);
    drop(new);
    assert_eq!(receiver::<u32>(&bus).take(Wait::Never).unwrap().value, 2);
}

#[test]
fn a_message_lent_while_its_channel_is_deleted_can_be_settled() {
    let bus = LocalBus::default();
    let (sender, receiver) = (sender::<u32>(&bus), receiver::<u32>(&bus));
    push(&sender, 1, Wait::Never).unwrap();
    let envelope = receiver.lend(Wait::Never).unwrap();
    assert_eq!(bus.delete(&name()).unwrap().messages, 1);
    receiver.give_back(envelope);
    assert_eq!(receiver.take(Wait::Forever).unwrap_err(), NoMessage::Ended(Ended::Deleted));
}

#[test]
fn clones_that_send_at_once_agree_on_the_order() {
    let bus = LocalBus::default();
    let (first, receiver) = (sender::<u32>(&bus), until_disconnected::<u32>(&bus));
    thread::scope(|scope| {
        for _ in 0..4 {
            let clone = first.clone();
            scope.spawn(move || {
                for value in 0..20_000 {
                    push(&clone, value, Wait::Forever).unwrap();
                }
            });
        }
        drop(first);
        for expected in 1..=80_000 {
            assert_eq!(receiver.take(soon()).unwrap().info.sequence, expected);
        }
        assert_eq!(receiver.take(soon()).unwrap_err(), NoMessage::Ended(Ended::Disconnected));
    });
}

/// Senders that block on a small channel, receivers that come, lend, give back and go: every message
/// arrives once, in the order of its sender, with its attempts counted.
#[test]
fn nothing_is_lost_or_swapped_between_senders_that_block_and_receivers_that_come_and_go() {
    const SENDERS: u64 = 4;
    const MESSAGES: u64 = 10_000;
    for capacity in [1, 2, 7, 1_000] {
        let bus = with_capacity(capacity, WhenFull::Block);
        let senders: Vec<_> = (0..SENDERS).map(|_| sender::<(u64, u64)>(&bus)).collect();
        thread::scope(|scope| {
            for (who, sender) in senders.into_iter().enumerate() {
                scope.spawn(move || {
                    for n in 0..MESSAGES {
                        push(&sender, (who as u64, n), Wait::Forever).unwrap();
                    }
                });
            }
            let mut next = HashMap::new();
            let mut arrived = 0;
            let mut attempt = 1;
            let mut step = 0_u64;
            'receivers: loop {
                let receiver = until_disconnected::<(u64, u64)>(&bus);
                for _ in 0..500 {
                    step += 1;
                    let envelope = match receiver.lend(soon()) {
                        Ok(envelope) => envelope,
                        Err(NoMessage::Ended(Ended::Disconnected)) => break 'receivers,
                        Err(other) => panic!("capacity {capacity}: {other:?}"),
                    };
                    assert_eq!(envelope.info.attempt, attempt, "capacity {capacity}, step {step}");
                    if step.is_multiple_of(3) {
                        attempt += 1;
                        receiver.give_back(envelope);
                        continue;
                    }
                    attempt = 1;
                    receiver.acknowledge();
                    let (who, n) = envelope.value;
                    let expected = next.entry(who).or_insert(0);
                    assert_eq!(n, *expected, "capacity {capacity}, sender {who}");
                    *expected += 1;
                    arrived += 1;
                }
            }
            assert_eq!(arrived, SENDERS * MESSAGES, "capacity {capacity}");
        });
    }
}

/// Whatever policy and however many threads: what was sent is received, dropped or removed.
#[test]
fn every_message_is_accounted_for_when_a_busy_channel_is_deleted() {
    for when_full in WhenFull::ALL {
        for round in 0..50 {
            let bus = with_capacity(3, when_full);
            let senders: Vec<_> = (0..3).map(|_| sender::<u64>(&bus)).collect();
            let receiver = receiver::<u64>(&bus);
            let (sent, start) = (AtomicU64::new(0), Barrier::new(5));
            let (taken, removed) = thread::scope(|scope| {
                for sender in &senders {
                    scope.spawn(|| {
                        start.wait();
                        loop {
                            match push(sender, 1, Wait::Forever) {
                                Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                                Err((1, PushError::Full)) if when_full == WhenFull::Reject => 0,
                                Err((1, PushError::Disconnected)) => break,
                                Err(other) => panic!("{when_full}: {other:?}"),
                            };
                        }
                    });
                }
                let taker = scope.spawn(|| {
                    start.wait();
                    let mut taken = 0;
                    while receiver.take(soon()).is_ok() {
                        taken += 1;
                    }
                    taken
                });
                start.wait();
                while sent.load(Ordering::Relaxed) < 20 {
                    thread::yield_now();
                }
                let removed = bus.delete(&name()).unwrap().messages;
                (taker.join().unwrap(), removed)
            });
            let dropped: u64 = senders.iter().map(LocalSender::dropped).sum();
            assert_eq!(sent.into_inner(), taken + removed + dropped, "{when_full}, round {round}");
        }
    }
}

#[test]
fn the_last_sender_to_leave_wakes_a_receiver_that_waits() {
    for _ in 0..1_000 {
        let bus = LocalBus::default();
        let (sender, receiver) = (sender::<u32>(&bus), until_disconnected::<u32>(&bus));
        thread::scope(|scope| {
            scope.spawn(move || push(&sender, 1, Wait::Forever));
            assert_eq!(receiver.take(soon()).unwrap().value, 1);
            assert_eq!(receiver.take(soon()).unwrap_err(), NoMessage::Ended(Ended::Disconnected));
        });
    }
}
