//! The descriptor of a receiver: readable while a message waits, or the end of the channel.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use bus_core::{Receiver, TryRecvError};
use bus_tests::{MOMENT, PATIENCE, World, eventually};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ends::{JOBS, next, receiver, sender, standby, until_disconnected};

/// Whether it is readable within so long.
fn is_readable(receiver: &impl AsFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
    poll(&mut [PollFd::new(receiver, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

/// As an event loop does it: called for as long as the descriptor is readable, until it gives something.
fn take_when_readable<T: Send + 'static>(receiver: &Receiver<T>) -> Result<T, TryRecvError> {
    loop {
        assert!(is_readable(receiver, PATIENCE), "nothing came");
        match receiver.try_recv() {
            Err(TryRecvError::Empty | TryRecvError::Away) => {}
            outcome => return outcome,
        }
    }
}

/// Tries once, so that what only looked as if something was there is out of the way.
fn assert_at_rest<T: Send + 'static>(receiver: &Receiver<T>) {
    while is_readable(receiver, MOMENT) {
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    }
}

pub(crate) fn it_is_readable_while_a_message_waits(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    assert_at_rest(&receiver);
    for round in 0..3 {
        (0..3).for_each(|number| sender.send(3 * round + number).unwrap());
        for number in 0..3 {
            assert!(is_readable(&receiver, PATIENCE));
            // Level-triggered: looking takes nothing away.
            assert!(is_readable(&receiver, PATIENCE));
            assert_eq!(take_when_readable(&receiver).unwrap(), 3 * round + number);
        }
        assert_at_rest(&receiver);
    }
}

pub(crate) fn what_was_there_before_it_was_asked_for_shows(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    (0..3).for_each(|number| sender.send(number).unwrap());
    // What lies in the endpoint by now, and no longer in the kernel.
    assert_eq!(next(&receiver), 0);
    eventually("all are here", || receiver.len() == 2);
    assert_eq!(take_when_readable(&receiver).unwrap(), 1);
    assert_eq!(take_when_readable(&receiver).unwrap(), 2);
    assert_at_rest(&receiver);
}

pub(crate) fn who_sleeps_on_it_is_woken_by_each_message(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let back = world.bus().sender::<u32>("back").open().unwrap();
    let answers = world.bus().receiver::<u32>("back").open().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..500 {
                back.send(take_when_readable(&receiver).unwrap()).unwrap();
            }
        });
        for number in 0..500 {
            sender.send(number).unwrap();
            assert_eq!(next(&answers), number);
        }
    });
}

pub(crate) fn many_pass_an_event_loop_in_order(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    thread::scope(|scope| {
        scope.spawn(move || (0..20_000).for_each(|number| sender.send(number).unwrap()));
        for number in 0..20_000 {
            assert_eq!(take_when_readable(&receiver).unwrap(), number);
        }
        assert!(matches!(take_when_readable(&receiver), Err(TryRecvError::Disconnected)));
    });
}

pub(crate) fn it_rests_while_a_delivery_is_out(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    assert!(is_readable(&receiver, PATIENCE));
    let first = receiver.next_delivery().unwrap().into_owned();
    sender.send(2).unwrap();
    // Nothing can be taken before the first is settled: an event loop must not spin.
    assert_at_rest(&receiver);
    first.nack();
    assert_eq!(take_when_readable(&receiver).unwrap(), 1);
    let second = receiver.next_delivery().unwrap().into_owned();
    assert_at_rest(&receiver);
    sender.send(3).unwrap();
    assert_at_rest(&receiver);
    second.ack();
    assert_eq!(take_when_readable(&receiver).unwrap(), 3);
    assert_at_rest(&receiver);
}

pub(crate) fn the_end_of_the_channel_shows_and_stays(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    sender.send(1).unwrap();
    assert_eq!(take_when_readable(&receiver).unwrap(), 1);
    assert_at_rest(&receiver);
    drop(sender);
    for _ in 0..2 {
        assert!(matches!(take_when_readable(&receiver), Err(TryRecvError::Disconnected)));
    }
}

pub(crate) fn deletion_shows_and_stays(world: &World) {
    let receiver = receiver::<u32>(world);
    assert_at_rest(&receiver);
    world.bus().delete(JOBS).unwrap();
    for _ in 0..2 {
        assert!(matches!(take_when_readable(&receiver), Err(TryRecvError::Deleted)));
    }
}

pub(crate) fn a_receiver_in_line_is_woken_by_its_first_message(world: &World) {
    let (sender, first) = (sender::<u32>(world), receiver::<u32>(world));
    let second = standby::<u32>(world);
    assert_at_rest(&second);
    drop(first);
    sender.send(1).unwrap();
    assert_eq!(take_when_readable(&second).unwrap(), 1);
}

pub(crate) fn other_calls_leave_it_right(world: &World) {
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    assert_at_rest(&receiver);
    sender.send_confirmed(1).unwrap();
    // Each of these may read what has come.
    receiver.peers().unwrap();
    eventually("it is here", || receiver.len() == 1 && receiver.is_seated());
    assert_eq!(take_when_readable(&receiver).unwrap(), 1);
    sender.send(2).unwrap();
    drop(receiver.next_delivery().unwrap());
    assert_eq!(receiver.next_delivery().unwrap().ack(), 2);
    assert_at_rest(&receiver);
    sender.send(3).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), 3);
    assert_at_rest(&receiver);
    sender.send(4).unwrap();
    assert_eq!(take_when_readable(&receiver).unwrap(), 4);
}
