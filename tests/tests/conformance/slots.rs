//! Messages that are written where they will lie, and sent when they are written.

use std::thread;

use bus_core::{ChannelOptions, Codec, Headers, Receiver, SendError, SendTimeoutError, Sender, TrySendError};
use bus_tests::{MOMENT, PATIENCE, Route, World, eventually};

use crate::ends::{JOBS, assert_silent, in_time, next};

fn ends(world: &World) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    in_use(world, &sender, &receiver);
    (sender, receiver)
}

/// Where there can be a lane they are in it from now on.
pub(crate) fn in_use(world: &World, sender: &Sender<Vec<u8>>, receiver: &Receiver<Vec<u8>>) {
    eventually("messages go where they will go", || {
        sender.send(b"first".to_vec()).unwrap();
        assert_eq!(next(receiver), b"first");
        eventually("it is acknowledged", || sender.is_empty());
        sender.is_in_lane() || world.route() != Route::Lane
    });
}

pub(crate) fn what_is_written_into_a_slot_arrives_as_any_message_does(world: &World) {
    let (sender, mut receiver) = ends(world);
    let headers = Headers::new().with("shape", "long");
    for len in [0, 1, 7, 8, 4_096, 100_000, 3_000_000] {
        let mut slot = sender.outgoing().codec(Codec::Json).headers(&headers).loan(len).unwrap();
        assert_eq!(slot.len(), len);
        slot.fill(len as u8);
        slot.commit().unwrap();
        let message = receiver.next_bytes(Some(in_time())).unwrap();
        assert_eq!(
            (message.len(), message.info().codec, message.headers().unwrap()),
            (len, Codec::Json, headers.clone())
        );
        assert!(message.iter().all(|byte| *byte == len as u8));
        assert_eq!(message.info().sender, sender.id());
        message.ack();
    }
    let mut slot = sender.loan(5).unwrap();
    slot.copy_from_slice(b"plain");
    slot.commit().unwrap();
    assert_eq!(next(&receiver), b"plain");
}

pub(crate) fn a_slot_that_is_dropped_sends_nothing(world: &World) {
    let (sender, receiver) = ends(world);
    for _ in 0..1_000 {
        let mut slot = sender.loan(10_000).unwrap();
        slot.fill(1);
    }
    assert_silent(&receiver);
    sender.send(b"after".to_vec()).unwrap();
    assert_eq!(next(&receiver), b"after");
    eventually("nothing is unacknowledged", || sender.is_empty());
}

/// Also what its clones send meanwhile, in whole messages.
pub(crate) fn a_slot_takes_its_place_in_the_order_when_it_is_committed(world: &World) {
    let (sender, receiver) = ends(world);
    let clone = sender.clone();
    let mut expected = Vec::new();
    for round in 0..200_u32 {
        let number = |step: u32| (round * 10 + step).to_le_bytes();
        let (mut first, mut second) = (sender.loan(4).unwrap(), clone.loan(4).unwrap());
        first.copy_from_slice(&number(3));
        clone.send(number(1).to_vec()).unwrap();
        second.copy_from_slice(&number(2));
        second.commit().unwrap();
        let third = sender.loan(1_000).unwrap();
        first.commit().unwrap();
        drop(third);
        sender.send(number(4).to_vec()).unwrap();
        expected.extend((1..=4).map(|step| number(step).to_vec()));
    }
    for expected in expected {
        assert_eq!(next(&receiver), expected);
    }
}

pub(crate) fn threads_write_into_slots_of_one_sender_at_the_same_time(world: &World) {
    let (sender, receiver) = ends(world);
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let sender = sender.clone();
            scope.spawn(move || {
                for round in 0..500_usize {
                    let len = 1 + (round * 37 + usize::from(thread) * 11) % 3_000;
                    let mut slot = sender.loan(len).unwrap();
                    slot.fill(thread);
                    match round % 5 {
                        0 => drop(slot),
                        _ => slot.commit().unwrap(),
                    }
                }
            });
        }
        let mut seen = [0; 4];
        for _ in 0..4 * 400 {
            let message = next(&receiver);
            assert!(message.iter().all(|byte| *byte == message[0]), "half of one and half of another");
            seen[usize::from(message[0])] += 1;
        }
        assert_eq!(seen, [400; 4]);
    });
}

pub(crate) fn a_loan_waits_for_the_window_as_a_send_does(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(2), ..Default::default() }).unwrap();
    let (sender, receiver) = ends(world);
    sender.send_confirmed(b"1".to_vec()).unwrap();
    sender.send_confirmed(b"2".to_vec()).unwrap();
    assert!(matches!(sender.try_loan(1), Err(TrySendError::Full(()))));
    assert!(matches!(sender.loan_timeout(1, MOMENT), Err(SendTimeoutError::Timeout(()))));
    thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            let mut slot = sender.loan(1).unwrap();
            slot.copy_from_slice(b"3");
            slot.commit()
        });
        assert_eq!(next(&receiver), b"1");
        blocked.join().unwrap().unwrap();
    });
    assert_eq!((next(&receiver), next(&receiver)), (b"2".to_vec(), b"3".to_vec()));
    let mut slot = sender.loan_timeout(1, PATIENCE).unwrap();
    slot.copy_from_slice(b"4");
    slot.commit().unwrap();
    assert_eq!(next(&receiver), b"4");
}

/// It is given back, and whoever waits for it is woken.
pub(crate) fn a_slot_that_is_dropped_gives_its_room_to_who_waits_for_it(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(1), ..Default::default() }).unwrap();
    let (sender, receiver) = ends(world);
    for _ in 0..50 {
        let slot = sender.loan(1).unwrap();
        thread::scope(|scope| {
            let clone = sender.clone();
            let blocked = scope.spawn(move || clone.send(b"x".to_vec()));
            drop(slot);
            blocked.join().unwrap().unwrap();
        });
        assert_eq!(next(&receiver), b"x");
        eventually("it is acknowledged", || sender.is_empty());
    }
}

pub(crate) fn a_loan_without_the_required_receiver_fails(world: &World) {
    let sender = world.bus().raw_sender(JOBS).require_receiver().open().unwrap();
    assert!(matches!(sender.loan(1), Err(SendError::Disconnected(()))));
    let receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    eventually("the receiver is known", || sender.peers().unwrap().receivers == 1);
    in_use(world, &sender, &receiver);
    let mut slot = sender.loan(1).unwrap();
    slot.copy_from_slice(b"1");
    drop(receiver);
    eventually("it is gone", || sender.peers().unwrap().receivers == 0);
    assert!(matches!(slot.commit(), Err(SendTimeoutError::Disconnected(value)) if value == b"1"));
}

pub(crate) fn deletion_gives_what_was_written_back(world: &World) {
    let (sender, receiver) = ends(world);
    let mut slot = sender.loan(4).unwrap();
    slot.copy_from_slice(b"late");
    world.bus().delete(JOBS).unwrap();
    eventually("it is known", || {
        sender.try_send(Vec::new()).is_err_and(|error| matches!(error, TrySendError::Disconnected(_)))
    });
    assert!(matches!(slot.commit(), Err(SendTimeoutError::Disconnected(value)) if value == b"late"));
    assert!(matches!(sender.loan(1), Err(SendError::Disconnected(()))));
    drop(receiver);
}

/// Between processes there is a limit.
pub(crate) fn a_loan_of_more_than_a_message_may_be_is_refused_with_the_limit(world: &World) {
    world.bus().create(JOBS, ChannelOptions { message_max_bytes: Some(1_000), ..Default::default() }).unwrap();
    let (sender, _receiver) = ends(world);
    let refused = sender.loan(1_001);
    assert!(matches!(refused, Err(SendError::TooLarge { bytes: 1_001, limit: 1_000, .. })));
    let headers = Headers::new().with("k", "v");
    let refused = sender.outgoing().headers(&headers).try_loan(1_000);
    assert!(matches!(refused, Err(TrySendError::TooLarge { limit: 1_000, .. })));
    let refused = sender.loan_timeout(usize::MAX, MOMENT);
    assert!(matches!(refused, Err(SendTimeoutError::TooLarge { .. })));
    sender.loan(1_000).unwrap().commit().unwrap();
}

/// Room is asked for where the channel counts every message: by the commit.
pub(crate) fn a_full_channel_gives_the_bytes_of_a_slot_back(world: &World) {
    crate::ends::create(world, 1, bus_core::WhenFull::Block);
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    let receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    let (mut first, mut second) = (sender.try_loan(1).unwrap(), sender.try_loan(1).unwrap());
    first.copy_from_slice(b"1");
    second.copy_from_slice(b"2");
    let mut third = sender.loan_timeout(1, MOMENT).unwrap();
    third.copy_from_slice(b"3");
    first.commit().unwrap();
    assert!(matches!(second.commit(), Err(SendTimeoutError::Full(value)) if value == b"2"));
    assert!(matches!(third.commit(), Err(SendTimeoutError::Timeout(value)) if value == b"3"));
    assert_eq!(next(&receiver), b"1");
}
