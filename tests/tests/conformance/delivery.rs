//! Deliveries: acknowledged, given back, kept; and what the next receiver gets.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::SystemTime;

use bus_core::{Headers, RecvTimeoutError, TryRecvError};
use bus_tests::{MOMENT, World, eventually};

use crate::ends::{JOBS, assert_silent, in_time, next, receiver, sender, standby};

pub(crate) fn a_message_says_who_sent_it_when_and_how(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let before = SystemTime::now();
    sender.send(1).unwrap();
    let after = SystemTime::now();
    let delivery = receiver.next_delivery().unwrap();
    let info = delivery.info();
    assert_eq!((info.sender, info.pid, info.sequence), (sender.id(), std::process::id(), 1));
    assert_eq!((info.attempt, info.redelivered, info.codec), (1, false, bus_core::Codec::Bincode));
    assert!((before..=after).contains(&info.sent_at));
    assert!(delivery.headers().is_empty());
    delivery.ack();
}

pub(crate) fn headers_travel_with_their_message_also_when_it_comes_again(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let headers = Headers::new().with("trace", "7f").with("tenant", "ümläut").with("empty", "");
    sender.outgoing().headers(&headers).send(1).unwrap();
    sender.send(2).unwrap();
    receiver.next_delivery().unwrap().nack();
    let delivery = receiver.next_delivery().unwrap();
    assert_eq!(delivery.headers(), &headers);
    assert_eq!(delivery.ack(), 1);
    assert!(receiver.next_delivery().unwrap().headers().is_empty());
}

pub(crate) fn an_acknowledged_message_does_not_come_again(world: &World) {
    let (sender, mut first) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 1..=3 {
        sender.send(number).unwrap();
    }
    assert_eq!(first.next_delivery().unwrap().ack(), 1);
    assert_eq!(first.next_delivery().unwrap().into_owned().ack(), 2);
    drop(first);
    assert_eq!(next(&standby::<u32>(world)), 3);
}

pub(crate) fn a_message_given_back_comes_again_first_with_its_attempt_counted(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    for attempt in 1..=4 {
        let delivery = receiver.next_delivery().unwrap();
        let info = delivery.info();
        assert_eq!((*delivery, info.attempt, info.redelivered), (1, attempt, attempt > 1));
        match attempt {
            1 => delivery.nack(),
            2 => drop(delivery),
            3 => delivery.into_owned().nack(),
            _ => drop(delivery.into_owned()),
        }
    }
    assert_eq!(next(&receiver), 1);
    let delivery = receiver.next_delivery().unwrap();
    assert_eq!((*delivery, delivery.info().attempt, delivery.info().redelivered), (2, 1, false));
    delivery.ack();
}

pub(crate) fn a_panic_gives_the_delivery_back(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let delivery = receiver.next_delivery().unwrap();
        resume_unwind(Box::new(*delivery));
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&1_u32));
    let delivery = receiver.next_delivery().unwrap();
    assert_eq!((*delivery, delivery.info().attempt), (1, 2));
    delivery.ack();
}

pub(crate) fn order_waits_for_a_delivery_that_is_kept(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    let kept = receiver.next_delivery().unwrap().into_owned();
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout)));
    thread::scope(|scope| {
        let waits = scope.spawn(move || receiver.recv().unwrap());
        assert_eq!(kept.ack(), 1);
        assert_eq!(waits.join().unwrap(), 2);
    });
}

pub(crate) fn a_delivery_that_is_kept_outlives_its_receiver_and_keeps_the_seat(world: &World) {
    let (sender, mut first) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    let kept = first.next_delivery().unwrap().into_owned();
    drop(first);
    let second = standby::<u32>(world);
    assert_silent(&second);
    assert!(!second.is_seated());
    assert_eq!(kept.ack(), 1);
    sender.send(2).unwrap();
    assert_eq!(next(&second), 2);
    assert!(second.is_seated());
}

/// The receiver leaves in the middle of its work: the seat goes on with the message in hand.
pub(crate) fn the_next_receiver_gets_what_was_not_acknowledged_marked_and_what_was_not_taken_unmarked(world: &World) {
    let (sender, mut first) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 1..=3 {
        sender.send_confirmed(number).unwrap();
    }
    let taken = first.next_delivery().unwrap();
    assert_eq!(*taken, 1);
    drop(taken);
    drop(first);
    let mut second = standby::<u32>(world);
    for (number, attempt) in [(1, 2), (2, 1), (3, 1)] {
        let delivery = second.next_delivery_deadline(in_time()).unwrap();
        let info = delivery.info();
        assert_eq!((*delivery, info.attempt, info.redelivered), (number, attempt, attempt > 1));
        delivery.ack();
    }
    world.expect_ledger(JOBS, |ledger| (ledger.accepted, ledger.acknowledged) == (3, 3));
}

/// The same when the receiver has just been busy.
pub(crate) fn what_a_busy_receiver_never_took_is_not_marked(world: &World) {
    let (sender, mut first) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 0..200 {
        sender.send(number).unwrap();
    }
    eventually("all are here", || first.len() == 200);
    for number in 0..100 {
        assert_eq!(first.next_delivery().unwrap().ack(), number);
    }
    drop(first.next_delivery().unwrap());
    drop(first);
    let mut second = standby::<u32>(world);
    for number in 100..200 {
        let delivery = second.next_delivery_deadline(in_time()).unwrap();
        let info = delivery.info();
        let attempt = if number == 100 { 2 } else { 1 };
        assert_eq!((*delivery, info.attempt, info.redelivered), (number, attempt, number == 100));
        delivery.ack();
    }
}

pub(crate) fn attempts_are_counted_on_from_receiver_to_receiver(world: &World) {
    let sender = sender::<u32>(world);
    sender.send(1).unwrap();
    for attempt in [1, 3, 5] {
        let mut receiver = standby::<u32>(world);
        let delivery = receiver.next_delivery_deadline(in_time()).unwrap();
        assert_eq!(delivery.info().attempt, attempt);
        delivery.nack();
        let delivery = receiver.next_delivery_deadline(in_time()).unwrap();
        assert_eq!(delivery.info().attempt, attempt + 1);
    }
    eventually("the last receiver has left", || sender.peers().unwrap().receivers == 0);
    let left = world.ledger(JOBS).map(|ledger| (ledger.queued, ledger.in_delivery));
    assert!(matches!(left, None | Some((1, 0))), "{left:?}");
}
