//! The forms of sending and receiving: block, try, with a deadline. What comes back is the value.

use std::thread;
use std::time::{Duration, Instant};

use bus_core::{ChannelOptions, RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError, Waiting, WhenFull};
use bus_tests::{MOMENT, PATIENCE, World, eventually};

use crate::ends::{JOBS, create, in_time, next, receiver, sender, until_disconnected};

pub(crate) fn a_try_on_a_full_channel_gives_the_value_back_at_once(world: &World) {
    create(world, 2, WhenFull::Block);
    let sender = sender::<u32>(world);
    // A try waits for 50 ms for a daemon that answers at once when it is well, and on a busy machine it is not.
    eventually("there is room for one", || sender.try_send(1).is_ok());
    eventually("there is room for another", || sender.try_send(2).is_ok());
    assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
    assert_eq!(sender.try_send(4).unwrap_err().into_inner(), 4);
}

pub(crate) fn ends_wait_as_they_are_told_to(world: &World) {
    const LAST: u32 = 20_000;
    for (name, waiting) in [("spin", Waiting::Spin), ("sleep", Waiting::Sleep), ("adaptive", Waiting::Adaptive)] {
        let options = ChannelOptions { window: Some(64), ..Default::default() };
        world.bus().create(name, options).unwrap();
        let receiver = world.bus().receiver::<u32>(name).until_disconnected().waiting(waiting).open().unwrap();
        let sender = world.bus().sender::<u32>(name).waiting(waiting).open().unwrap();
        let sending = thread::spawn(move || {
            (0..LAST).for_each(|number| sender.send(number).unwrap());
            sender
        });
        (0..LAST).for_each(|number| assert_eq!(next(&receiver), number, "{waiting:?}"));
        let sender = sending.join().unwrap();
        // Both give up in time, and see the end.
        let begin = Instant::now();
        assert!(matches!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout)));
        (0..64).for_each(|number| sender.send(number).unwrap());
        assert!(matches!(sender.send_timeout(64, MOMENT), Err(SendTimeoutError::Timeout(64))));
        assert!(begin.elapsed() < PATIENCE / 2, "{waiting:?}: {:?}", begin.elapsed());
        world.bus().delete(name).unwrap();
        let sent = sender.send_deadline(65, in_time());
        assert!(matches!(sent, Err(SendTimeoutError::Disconnected(65))), "{waiting:?}: {sent:?}");
    }
}

/// What was only buffered filled the window, and a try did not write it: it was full for ever.
pub(crate) fn a_try_finds_room_again_after_buffered_messages_filled_the_window(world: &World) {
    let options = ChannelOptions { window: Some(8), ..ChannelOptions::default() };
    world.bus().create(JOBS, options).unwrap();
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 0..8 {
        sender.feed(number).unwrap();
    }
    assert!(matches!(sender.try_send(8), Err(TrySendError::Full(8))));
    for number in 0..8 {
        assert_eq!(next(&receiver), number);
    }
    eventually("there is room", || sender.try_send(8).is_ok());
    assert_eq!(next(&receiver), 8);
}

pub(crate) fn a_send_that_timed_out_was_never_sent(world: &World) {
    create(world, 2, WhenFull::Block);
    let (sender, receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    assert!(matches!(sender.send_timeout(3, MOMENT), Err(SendTimeoutError::Timeout(3))));
    assert!(matches!(sender.send_deadline(4, Instant::now()), Err(SendTimeoutError::Timeout(4))));
    assert!(matches!(sender.feed_deadline(5, Instant::now() + MOMENT), Err(SendTimeoutError::Timeout(5))));
    assert_eq!(next(&receiver), 1);
    sender.send_deadline(6, in_time()).unwrap();
    drop(sender);
    assert!(receiver.iter().eq([2, 6]));
}

pub(crate) fn a_blocked_send_goes_on_when_a_message_is_received(world: &World) {
    create(world, 2, WhenFull::Block);
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| sender.send(3));
        world.wait_until_a_sender_waits(JOBS);
        assert_eq!(next(&receiver), 1);
        blocked.join().unwrap().unwrap();
    });
    assert_eq!((next(&receiver), next(&receiver)), (2, 3));
}

/// A receiver that does something else for a while must not leave its acknowledgements lying.
pub(crate) fn what_was_received_makes_room_without_another_call(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(4), ..Default::default() }).unwrap();
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for round in 0..10 {
        for number in 0..4 {
            sender.send_deadline(number, in_time()).unwrap();
        }
        eventually("all four are here", || receiver.len() == 4);
        for number in 0..3 {
            assert_eq!(next(&receiver), number, "round {round}");
        }
        // The receiver is silent now.
        for number in 4..7 {
            let sent = sender.send_deadline(number, in_time());
            assert!(sent.is_ok(), "round {round}: three were received, and there is no room for {number}: {sent:?}");
        }
        for number in 3..7 {
            assert_eq!(next(&receiver), number, "round {round}");
        }
    }
}

/// It was rung for in a lane only once a quarter of that was acknowledged.
pub(crate) fn a_receiver_that_takes_some_of_much_makes_room_for_as_many(world: &World) {
    const WINDOW: u32 = 1_000;
    world.bus().create(JOBS, ChannelOptions { window: Some(WINDOW), ..Default::default() }).unwrap();
    let (sender, mut receiver) = (sender::<Vec<u8>>(world), receiver::<Vec<u8>>(world));
    (0..WINDOW).for_each(|_| sender.send_deadline(vec![0; 512], in_time()).unwrap());
    for round in 0..6 {
        let blocked = sender.clone();
        let sending = thread::spawn(move || (0..10).try_for_each(|_| blocked.send_deadline(vec![0; 512], in_time())));
        (0..10).for_each(|_| _ = next(&receiver));
        // The receiver does something else now, or holds the next one for as long as that takes.
        let held = (round % 2 == 0).then(|| receiver.next_delivery_deadline(in_time()).unwrap());
        assert!(sending.join().unwrap().is_ok(), "round {round}: ten were received, and there is no room for ten");
        if let Some(delivery) = held {
            delivery.nack();
        }
    }
}

/// A call of another thread, on a clone, kept the one that slept from being woken.
pub(crate) fn a_try_of_a_clone_does_not_keep_a_blocked_send_asleep(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(8), ..Default::default() }).unwrap();
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for round in 0..10 {
        (0..8).for_each(|number| sender.send_deadline(number, in_time()).unwrap());
        let blocked = sender.clone();
        let sending = thread::spawn(move || blocked.send_deadline(8, in_time()));
        // At any moment of that.
        for _ in 0..round {
            assert!(matches!(sender.send_timeout(9, MOMENT / 10), Err(SendTimeoutError::Timeout(9))));
            assert!(matches!(sender.try_send(9), Err(TrySendError::Full(9))));
        }
        (0..9).for_each(|number| assert_eq!(next(&receiver), number, "round {round}"));
        assert!(sending.join().unwrap().is_ok(), "round {round}");
    }
}

/// The same while a delivery is read, which may take long.
pub(crate) fn what_was_acknowledged_makes_room_while_the_next_is_read(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(3), ..Default::default() }).unwrap();
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for round in 0..10 {
        for number in 0..3 {
            sender.send_deadline(number, in_time()).unwrap();
        }
        eventually("all three are here", || receiver.len() == 3);
        for _ in 0..2 {
            receiver.next_delivery_deadline(in_time()).unwrap().ack();
        }
        let reading = receiver.next_delivery_deadline(in_time()).unwrap();
        for number in 3..5 {
            let sent = sender.send_deadline(number, in_time());
            assert!(sent.is_ok(), "round {round}: two were acknowledged, and there is no room for {number}: {sent:?}");
        }
        reading.ack();
        assert_eq!((next(&receiver), next(&receiver)), (3, 4));
    }
}

pub(crate) fn a_blocked_receiver_gets_what_is_sent_later(world: &World) {
    let receiver = receiver::<u32>(world);
    let sender = sender::<u32>(world);
    thread::scope(|scope| {
        let waits = scope.spawn(move || (receiver.recv().unwrap(), receiver.recv_deadline(in_time()).unwrap()));
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(waits.join().unwrap(), (1, 2));
    });
}

pub(crate) fn an_empty_channel_is_told_from_one_that_took_too_long(world: &World) {
    let mut receiver = receiver::<u32>(world);
    let _sender = sender::<u32>(world);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(receiver.try_next_delivery(), Err(TryRecvError::Empty)));
    assert!(matches!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout)));
    assert!(matches!(receiver.recv_deadline(Instant::now()), Err(RecvTimeoutError::Timeout)));
    let lent = receiver.next_delivery_deadline(Instant::now() + MOMENT);
    assert!(matches!(lent, Err(RecvTimeoutError::Timeout)));
}

pub(crate) fn a_deadline_that_has_passed_still_takes_what_is_there(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let past = Instant::now();
    sender.send_deadline(1, past).unwrap();
    sender.send_confirmed(2).unwrap();
    assert_eq!(next(&receiver), 1);
    assert_eq!(receiver.recv_deadline(past).unwrap(), 2);
}

pub(crate) fn a_timeout_beyond_all_clocks_waits_for_ever(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    sender.send_timeout(1, Duration::MAX).unwrap();
    assert_eq!(receiver.recv_timeout(Duration::MAX).unwrap(), 1);
    sender.send(2).unwrap();
    receiver.next_delivery().unwrap().ack();
    drop(sender);
    assert!(matches!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected)));
}

pub(crate) fn what_is_fed_arrives_at_the_latest_after_a_flush(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.feed(1).unwrap();
    sender.feed_deadline(2, in_time()).unwrap();
    let ticket = sender.ticket();
    sender.flush().unwrap();
    sender.wait(&ticket, Some(Instant::now())).unwrap();
    sender.flush_deadline(in_time()).unwrap();
    sender.send_confirmed_deadline(3, in_time()).unwrap();
    assert_eq!((next(&receiver), next(&receiver), next(&receiver)), (1, 2, 3));
}

pub(crate) fn dropping_a_sender_sends_what_it_had_buffered(world: &World) {
    let receiver = until_disconnected::<u32>(world);
    let sender = sender::<u32>(world);
    for number in 0..1_000 {
        sender.feed(number).unwrap();
    }
    drop(sender);
    assert!(receiver.iter().eq(0..1_000));
}

pub(crate) fn iterators_end_where_the_channel_does(world: &World) {
    let sender = sender::<u32>(world);
    let receiver = until_disconnected::<u32>(world);
    for number in 1..=6 {
        sender.send(number).unwrap();
    }
    let mut by_reference = Vec::new();
    for number in &receiver {
        by_reference.push(number);
        if number == 2 {
            break;
        }
    }
    assert_eq!(by_reference, [1, 2]);
    assert_eq!(receiver.iter().next(), Some(3));
    let mut tried = Vec::new();
    eventually("the fourth is here", || {
        tried.extend(receiver.try_iter().take(1));
        tried == [4]
    });
    drop(sender);
    assert!(receiver.into_iter().eq([5, 6]));
}

pub(crate) fn a_sender_is_used_by_several_threads_at_once(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|number| sender.send(number).unwrap()));
        }
        assert_eq!(receiver.iter().take(2_000).sum::<u32>(), 4 * (0..500).sum::<u32>());
    });
}

pub(crate) fn both_ends_know_how_much_is_on_its_way(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    assert!(sender.is_empty() && receiver.is_empty());
    for number in 0..3 {
        sender.send(number).unwrap();
    }
    assert_eq!(sender.len(), 3);
    eventually("all three are here", || receiver.len() == 3);
    next(&receiver);
    assert_eq!(receiver.len(), 2);
    eventually("the sender hears of it", || sender.len() == 2);
}
