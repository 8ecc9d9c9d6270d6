//! Ends that come and go: the seat and the line, the last sender, a receiver that is required,
//! deletion, and who is told.

use std::thread;
use std::time::Instant;

use bus_core::{
    AdminError, ConfirmError, OpenError, Peers, PeersError, Receiver, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, Sender, TryRecvError, TrySendError, WhenFull,
};
use bus_tests::{MOMENT, PATIENCE, World, eventually};

use crate::ends::{JOBS, assert_silent, create, in_time, next, receiver, sender, standby, until_disconnected};

pub(crate) fn a_second_receiver_is_refused_and_told_who_holds_the_channel(world: &World) {
    let first = receiver::<u32>(world);
    let refused = world.bus().receiver::<u32>(JOBS).open().unwrap_err();
    let OpenError::ReceiverTaken { channel, text } = refused else { panic!("{refused}") };
    assert_eq!(channel.as_str(), JOBS);
    assert!(text.contains(&format!("pid {}", std::process::id())) && text.contains(JOBS), "{text}");
    sender::<u32>(world).send(1).unwrap();
    assert_eq!(next(&first), 1);
}

pub(crate) fn a_receiver_in_line_takes_over_when_the_seat_is_given_up(world: &World) {
    let (sender, first) = (sender::<u32>(world), receiver::<u32>(world));
    let (second, third) = (standby::<u32>(world), standby::<u32>(world));
    sender.send(1).unwrap();
    assert_eq!(next(&first), 1);
    assert!(first.is_seated() && !second.is_seated() && !third.is_seated());
    assert!(matches!(second.try_recv(), Err(TryRecvError::Empty)));
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let value = second.recv().unwrap();
            (second, value)
        });
        drop(first);
        sender.send(2).unwrap();
        let (second, value) = waits.join().unwrap();
        assert_eq!(value, 2);
        assert!(second.is_seated() && !third.is_seated());
        drop(second);
    });
    eventually("the third has the seat", || third.is_seated());
}

pub(crate) fn a_receiver_that_leaves_the_line_is_passed_over(world: &World) {
    let (sender, first) = (sender::<u32>(world), receiver::<u32>(world));
    let (second, third) = (standby::<u32>(world), standby::<u32>(world));
    drop(second);
    drop(first);
    sender.send(1).unwrap();
    assert_eq!(next(&third), 1);
}

pub(crate) fn by_default_a_receiver_waits_for_the_next_sender(world: &World) {
    let receiver = receiver::<u32>(world);
    for number in 0..3 {
        let sender = sender::<u32>(world);
        sender.send(number).unwrap();
        drop(sender);
        assert_eq!(next(&receiver), number);
        assert_silent(&receiver);
    }
}

pub(crate) fn messages_wait_for_the_next_receiver(world: &World) {
    let sender = sender::<u32>(world);
    sender.send(1).unwrap();
    drop(sender);
    assert_eq!(next(&receiver::<u32>(world)), 1);
}

pub(crate) fn a_receiver_that_only_tries_learns_of_the_end(world: &World) {
    for round in 0..40 {
        let name = format!("round-{round}");
        let receiver: Receiver<u32> = world.bus().receiver(&name).until_disconnected().open().unwrap();
        let sender: Sender<u32> = world.bus().sender(&name).open().unwrap();
        for number in 0..200 {
            sender.send(number).unwrap();
            assert_eq!(next(&receiver), number);
        }
        drop(sender);
        let deadline = in_time();
        let ended = loop {
            match receiver.try_recv() {
                Err(TryRecvError::Empty) if Instant::now() < deadline => thread::yield_now(),
                ended => break ended,
            }
        };
        assert!(matches!(ended, Err(TryRecvError::Disconnected)), "round {round}: {ended:?}");
    }
}

pub(crate) fn until_disconnected_ends_when_the_last_sender_has_left_and_all_is_received(world: &World) {
    let mut receiver = until_disconnected::<u32>(world);
    assert_silent(&receiver);
    let (first, second) = (sender::<u32>(world), sender::<u32>(world));
    let clone = second.clone();
    first.send_confirmed(1).unwrap();
    drop(first);
    assert_eq!(next(&receiver), 1);
    assert_silent(&receiver);
    drop(second);
    clone.send(2).unwrap();
    drop(clone);
    // Not drained: it is on loan, and comes again.
    receiver.next_delivery().unwrap().nack();
    assert_eq!(receiver.recv().unwrap(), 2);
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)));
    assert!(matches!(receiver.recv_deadline(in_time()), Err(RecvTimeoutError::Disconnected)));
    assert_eq!(receiver.iter().next(), None);
}

pub(crate) fn until_disconnected_counts_senders_that_left_before_it_came(world: &World) {
    let sender = sender::<u32>(world);
    sender.send(1).unwrap();
    drop(sender);
    let receiver = until_disconnected::<u32>(world);
    assert!(receiver.iter().eq([1]));
}

/// The senders of before were theirs as well. The second took the seat and waited for others, for ever.
pub(crate) fn those_in_line_end_after_the_one_that_ended(world: &World) {
    let first = until_disconnected::<u32>(world);
    let in_line = || world.bus().receiver::<u32>(JOBS).until_disconnected().standby().open().unwrap();
    let (second, third) = (in_line(), in_line());
    let sender = sender::<u32>(world);
    sender.send(1).unwrap();
    drop(sender);
    assert!(first.iter().eq([1]));
    for next in [second, third] {
        assert!(matches!(next.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected)));
    }
}

pub(crate) fn the_last_sender_to_leave_wakes_a_receiver_that_waits(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    thread::scope(|scope| {
        let waits = scope.spawn(move || receiver.recv());
        drop(sender);
        assert!(matches!(waits.join().unwrap(), Err(RecvError::Disconnected)));
    });
}

pub(crate) fn a_receiver_that_ended_gives_up_the_seat(world: &World) {
    let first = until_disconnected::<u32>(world);
    drop(sender::<u32>(world));
    assert!(matches!(first.recv(), Err(RecvError::Disconnected)));
    // It is over with the senders of before: the next one waits for others.
    let second = world.bus().receiver::<u32>(JOBS).until_disconnected().standby().open().unwrap();
    assert_silent(&second);
    sender::<u32>(world).send(1).unwrap();
    assert!(second.iter().eq([1]));
}

pub(crate) fn a_sender_that_requires_a_receiver_fails_while_there_is_none(world: &World) {
    let sender = world.bus().sender::<u32>(JOBS).require_receiver().open().unwrap();
    assert!(matches!(sender.send(1), Err(SendError::Disconnected(1))));
    assert!(matches!(sender.try_send(2), Err(TrySendError::Disconnected(2))));
    assert!(matches!(sender.send_deadline(3, in_time()), Err(SendTimeoutError::Disconnected(3))));
    let receiver = receiver::<u32>(world);
    eventually("the sender has heard of the receiver", || sender.send(4).is_ok());
    assert_eq!(next(&receiver), 4);
    drop(receiver);
    eventually("the sender has heard that it left", || matches!(sender.send(5), Err(SendError::Disconnected(5))));
}

pub(crate) fn the_required_receiver_leaving_wakes_a_blocked_sender(world: &World) {
    create(world, 1, WhenFull::Block);
    let receiver = receiver::<u32>(world);
    let sender = world.bus().sender::<u32>(JOBS).require_receiver().open().unwrap();
    sender.send(1).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| sender.send(2));
        world.wait_until_a_sender_waits(JOBS);
        drop(receiver);
        assert!(matches!(blocked.join().unwrap(), Err(SendError::Disconnected(2))));
    });
}

pub(crate) fn both_ends_know_who_is_there_and_are_told_when_that_changes(world: &World) {
    let first = sender::<u32>(world);
    assert_eq!(first.peers().unwrap(), Peers::new(1, 0));
    let _clone = first.clone();
    let unchanged = first.peers_changed(Peers::new(1, 0), Some(Instant::now() + MOMENT));
    assert!(matches!(unchanged, Err(PeersError::Timeout)));
    let receiver = receiver::<u32>(world);
    assert_eq!(first.peers_changed(Peers::new(1, 0), Some(in_time())).unwrap(), Peers::new(1, 1));
    assert_eq!(receiver.peers().unwrap(), Peers::new(1, 1));
    let in_line = standby::<u32>(world);
    assert_eq!(receiver.peers_changed(Peers::new(1, 1), Some(in_time())).unwrap(), Peers::new(1, 2));
    assert_eq!(first.peers_changed(Peers::new(1, 1), Some(in_time())).unwrap(), Peers::new(1, 2));
    thread::scope(|scope| {
        let told = scope.spawn(|| first.peers_changed(Peers::new(1, 2), None));
        drop(in_line);
        assert_eq!(told.join().unwrap().unwrap(), Peers::new(1, 1));
    });
    let second = first.try_new_endpoint().unwrap();
    eventually("the receiver hears of both senders", || receiver.peers().unwrap() == Peers::new(2, 1));
    eventually("and so does the sender", || first.peers().unwrap() == Peers::new(2, 1));
    drop(second);
    eventually("the receiver hears of one that left", || receiver.peers().unwrap() == Peers::new(1, 1));
    eventually("and so does the sender", || first.peers().unwrap() == Peers::new(1, 1));
}

/// Asking for the peers must not swallow what arrives meanwhile.
pub(crate) fn messages_are_kept_while_the_peers_are_asked_for(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 0..100 {
        sender.send(number).unwrap();
        assert_eq!(receiver.peers().unwrap(), Peers::new(1, 1));
        assert_eq!(sender.peers().unwrap(), Peers::new(1, 1));
    }
    assert!(receiver.iter().take(100).eq(0..100));
}

pub(crate) fn deletion_wakes_a_blocked_sender_with_its_value(world: &World) {
    create(world, 1, WhenFull::Block);
    let sender = sender::<u32>(world);
    sender.send(1).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| sender.send(2));
        world.wait_until_a_sender_waits(JOBS);
        assert_eq!(world.bus().delete(JOBS).unwrap().messages, 1);
        assert!(matches!(blocked.join().unwrap(), Err(SendError::Disconnected(2))));
    });
    assert!(matches!(sender.try_send(3), Err(TrySendError::Disconnected(3))));
    assert!(matches!(sender.send_deadline(4, in_time()), Err(SendTimeoutError::Disconnected(4))));
    assert!(matches!(sender.peers(), Err(PeersError::Disconnected)));
}

pub(crate) fn deletion_wakes_a_blocked_receiver_and_those_in_line(world: &World) {
    let (first, second) = (receiver::<u32>(world), standby::<u32>(world));
    thread::scope(|scope| {
        let seated = scope.spawn(move || (first.recv(), first.try_recv(), first.recv()));
        let in_line = scope.spawn(move || second.recv());
        world.bus().delete(JOBS).unwrap();
        let (woken, tried, again) = seated.join().unwrap();
        assert!(matches!(woken, Err(RecvError::Deleted)), "{woken:?}");
        assert!(matches!(tried, Err(TryRecvError::Deleted)), "{tried:?}");
        assert!(matches!(again, Err(RecvError::Deleted)), "{again:?}");
        let woken = in_line.join().unwrap();
        assert!(matches!(woken, Err(RecvError::Deleted)), "{woken:?}");
    });
}

/// What could not be sent any more is told by every way of asking.
pub(crate) fn after_deletion_a_confirmation_fails_too(world: &World) {
    let sender = sender::<u32>(world);
    sender.send_confirmed(1).unwrap();
    world.bus().delete(JOBS).unwrap();
    assert!(matches!(sender.send_confirmed(2), Err(SendError::Disconnected(2))));
    let confirmed = sender.send_confirmed_deadline(3, in_time());
    assert!(matches!(confirmed, Err(ConfirmError::Disconnected(3))), "{confirmed:?}");
    assert!(matches!(sender.feed(4), Err(SendError::Disconnected(4))));
}

pub(crate) fn a_deleted_channel_keeps_nothing_and_its_name_is_free(world: &World) {
    let (old_sender, mut old_receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 1..=3 {
        old_sender.send_confirmed(number).unwrap();
    }
    let on_loan = old_receiver.next_delivery().unwrap();
    assert_eq!(world.bus().delete(JOBS).unwrap().messages, 3);
    on_loan.ack();
    // What is already on its way to the receiver may still come, in order, and then nothing more.
    let mut on_its_way = vec![2, 3];
    let ended = loop {
        match old_receiver.recv_deadline(in_time()) {
            Ok(number) => assert_eq!(number, on_its_way.remove(0)),
            Err(ended) => break ended,
        }
    };
    assert!(matches!(ended, RecvTimeoutError::Deleted), "{ended:?}");
    let (new_sender, new_receiver) = (sender::<String>(world), receiver::<String>(world));
    new_sender.send("new".to_owned()).unwrap();
    assert_eq!(next(&new_receiver), "new");
    eventually("the old sender has heard", || matches!(old_sender.send(4), Err(SendError::Disconnected(4))));
}

pub(crate) fn a_channel_that_nobody_declared_vanishes_when_empty_and_unattached(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    assert_eq!(next(&receiver), 1);
    drop((sender, receiver));
    eventually("it has vanished", || {
        // Opened with another type, which the old channel would refuse.
        world.bus().receiver::<String>(JOBS).open().is_ok()
    });
    eventually("it has vanished again", || matches!(world.bus().delete(JOBS), Err(AdminError::NoSuchChannel { .. })));
}

pub(crate) fn a_channel_that_holds_a_message_stays(world: &World) {
    let sender = sender::<u32>(world);
    sender.send(1).unwrap();
    drop(sender);
    let other_type = world.bus().receiver::<String>(JOBS).open();
    assert!(matches!(other_type, Err(OpenError::TypeMismatch { .. })));
    assert_eq!(world.bus().delete(JOBS).unwrap().messages, 1);
}

pub(crate) fn a_channel_is_drained_once_all_is_acknowledged_and_not_before(world: &World) {
    let sender = sender::<u32>(world);
    let mut receiver = receiver::<u32>(world);
    let in_line = standby::<u32>(world);
    assert!(receiver.is_drained().unwrap());
    assert!(!in_line.is_drained().unwrap(), "it does not hold the channel");
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    sender.flush().unwrap();
    assert!(!receiver.is_drained().unwrap());
    assert_eq!(next(&receiver), 1);
    assert!(!receiver.is_drained().unwrap(), "one is queued");
    let held = receiver.next_delivery().unwrap().into_owned();
    assert!(!receiver.is_drained().unwrap(), "one is held");
    assert_eq!(held.ack(), 2);
    // The daemon hears of that by another connection than the question.
    eventually("all is acknowledged, and the channel drained", || receiver.is_drained().unwrap());
}
