//! Windows, capacity, and what happens when a channel is full.

use std::thread;

use bus_core::{AdminError, ChannelOptions, SendError, SendTimeoutError, TrySendError, WhenFull};
use bus_tests::{MOMENT, World, eventually};

use crate::ends::{JOBS, create, in_time, next, receiver, sender, until_disconnected};

pub(crate) fn a_batch_is_absorbed_before_any_receiver_is_there(world: &World) {
    let sender = sender::<u32>(world);
    for number in 0..10_000 {
        sender.send_deadline(number, in_time()).unwrap();
    }
    assert_eq!(sender.len(), 10_000);
    let receiver = until_disconnected::<u32>(world);
    assert!(receiver.iter().take(10_000).eq(0..10_000));
    eventually("everything is acknowledged", || sender.is_empty());
}

pub(crate) fn a_window_holds_back_the_sender_that_used_it_up(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(2), ..Default::default() }).unwrap();
    let (eager, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let other = eager.try_new_endpoint().unwrap();
    eager.send_confirmed(1).unwrap();
    eager.send_confirmed(2).unwrap();
    assert!(matches!(eager.try_send(3), Err(TrySendError::Full(3))));
    assert!(matches!(eager.clone().send_timeout(3, MOMENT), Err(SendTimeoutError::Timeout(3))));
    other.send_confirmed(4).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| eager.send(5));
        assert_eq!(next(&receiver), 1);
        blocked.join().unwrap().unwrap();
    });
    assert_eq!((next(&receiver), next(&receiver), next(&receiver)), (2, 4, 5));
}

pub(crate) fn a_message_on_loan_takes_room_until_it_is_acknowledged(world: &World) {
    create(world, 1, WhenFull::Block);
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    let delivery = receiver.next_delivery().unwrap();
    assert!(matches!(sender.try_send(2), Err(TrySendError::Full(2))));
    delivery.nack();
    assert!(matches!(sender.try_send(2), Err(TrySendError::Full(2))));
    receiver.next_delivery().unwrap().ack();
    sender.send_deadline(2, in_time()).unwrap();
}

pub(crate) fn capacity_is_shared_by_all_senders(world: &World) {
    create(world, 2, WhenFull::Block);
    let (first, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let second = sender::<u32>(world);
    first.send(1).unwrap();
    second.send(2).unwrap();
    assert!(matches!(first.try_send(3), Err(TrySendError::Full(3))));
    assert!(matches!(second.try_send(3), Err(TrySendError::Full(3))));
    next(&receiver);
    second.send_deadline(3, in_time()).unwrap();
    assert_eq!((next(&receiver), next(&receiver)), (2, 3));
}

pub(crate) fn many_senders_share_a_small_channel_without_loss(world: &World) {
    create(world, 2, WhenFull::Block);
    let receiver = until_disconnected::<(u32, u32)>(world);
    let senders: Vec<_> = (0..4).map(|_| sender::<(u32, u32)>(world)).collect();
    thread::scope(|scope| {
        for (who, sender) in (0..).zip(senders) {
            scope.spawn(move || (0..100).for_each(|number| sender.send((who, number)).unwrap()));
        }
        let mut expected = [0; 4];
        for (who, number) in &receiver {
            assert_eq!(number, expected[who as usize], "of sender {who}");
            expected[who as usize] += 1;
        }
        assert_eq!(expected, [100; 4]);
    });
    world.expect_ledger(JOBS, |ledger| (ledger.accepted, ledger.acknowledged) == (400, 400));
}

pub(crate) fn reject_gives_every_form_of_send_its_value_back(world: &World) {
    create(world, 2, WhenFull::Reject);
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    assert!(matches!(sender.send(3), Err(SendError::Full(3))));
    assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
    assert!(matches!(sender.send_deadline(3, in_time()), Err(SendTimeoutError::Full(3))));
    assert!(matches!(sender.feed(3), Err(SendError::Full(3))));
    assert_eq!((next(&receiver), next(&receiver)), (1, 2));
    eventually("there is room again", || sender.try_send(4).is_ok());
    assert_eq!(next(&receiver), 4);
    assert_eq!(sender.dropped(), 0);
}

pub(crate) fn drop_newest_keeps_the_first_and_counts_the_rest(world: &World) {
    create(world, 2, WhenFull::DropNewest);
    let sender = sender::<u32>(world);
    for number in 1..=5 {
        sender.send(number).unwrap();
    }
    sender.flush().unwrap();
    eventually("the sender is told of the drops", || sender.dropped() == 3);
    let receiver = until_disconnected::<u32>(world);
    drop(sender);
    assert!(receiver.iter().eq([1, 2]));
    world.expect_ledger(JOBS, |ledger| (ledger.acknowledged, ledger.dropped) == (2, 3));
}

pub(crate) fn drop_oldest_keeps_the_last_and_counts_the_rest(world: &World) {
    create(world, 2, WhenFull::DropOldest);
    let (first, second) = (sender::<u32>(world), sender::<u32>(world));
    first.send_confirmed(1).unwrap();
    second.send_confirmed(2).unwrap();
    second.send_confirmed(3).unwrap();
    second.send_deadline(4, in_time()).unwrap();
    second.flush().unwrap();
    eventually("each sender is told of its own", || (first.dropped(), second.dropped()) == (1, 1));
    let receiver = until_disconnected::<u32>(world);
    drop((first, second));
    assert!(receiver.iter().eq([3, 4]));
    world.expect_ledger(JOBS, |ledger| (ledger.acknowledged, ledger.dropped) == (2, 2));
}

/// What was dropped is out of the way: of the window too.
pub(crate) fn a_channel_that_drops_never_holds_its_sender_back(world: &World) {
    for when_full in [WhenFull::DropNewest, WhenFull::DropOldest] {
        let channel = format!("jobs.{when_full}");
        let options = ChannelOptions { capacity: Some(2), window: Some(4), when_full, ..Default::default() };
        world.bus().create(&channel, options).unwrap();
        let sender = world.bus().sender::<u32>(&channel).open().unwrap();
        for number in 0..100 {
            let sent = sender.send_deadline(number, in_time());
            assert!(sent.is_ok(), "{when_full}: message {number}: {sent:?}");
        }
        eventually("only what is held is unacknowledged", || (sender.dropped(), sender.len()) == (98, 2));
    }
}

pub(crate) fn a_channel_is_declared_once_and_with_one_set_of_options(world: &World) {
    let options = ChannelOptions { capacity: Some(2), ..Default::default() };
    assert!(world.bus().create(JOBS, options.clone()).unwrap());
    assert!(!world.bus().create(JOBS, options).unwrap());
    let other = world.bus().create(JOBS, ChannelOptions::default()).unwrap_err();
    assert!(matches!(&other, AdminError::Refused { text } if text.contains(JOBS)), "{other}");
    let nothing = ChannelOptions { capacity: Some(0), ..Default::default() };
    let refused = world.bus().create("none", nothing).unwrap_err().to_string();
    assert!(refused.contains("capacity") && refused.contains("none"), "{refused}");
}

pub(crate) fn a_channel_in_use_keeps_its_options(world: &World) {
    let _sender = sender::<u32>(world);
    let options = ChannelOptions { capacity: Some(2), ..Default::default() };
    assert!(matches!(world.bus().create(JOBS, options), Err(AdminError::Refused { .. })));
    assert!(world.bus().create(JOBS, ChannelOptions::default()).unwrap());
}
