//! A daemon within an app: the whole way of a message, and the ends of both sides.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::{Duration, Instant};

use bus_core::{
    Address, Bus, ChannelOptions, OpenError, RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError,
};
use bus_daemon::{Config, Daemon};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Runs a story by memory, as the app's own threads do, and by the socket, as others do.
fn over_both(story: impl Fn(&Bus)) {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon_at(&folder.path().join("bus.sock"));
    story(&daemon.bus().unwrap());
    daemon.shutdown().unwrap();
    let daemon = daemon_at(&folder.path().join("bus.sock"));
    story(&Bus::connect_to(daemon.address()).unwrap());
    daemon.shutdown().unwrap();
}

fn daemon_at(path: &std::path::Path) -> Daemon {
    let socket = Some(Address::new(path).unwrap());
    Daemon::start(Config { socket, ..Config::default() }).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn a_message_goes_all_the_way() {
    over_both(|bus| {
        let sender = bus.sender::<String>("greetings").open().unwrap();
        sender.send("before".to_owned()).unwrap();
        let receiver = bus.receiver::<String>("greetings").open().unwrap();
        sender.send("after".to_owned()).unwrap();
        assert_eq!(receiver.recv_deadline(soon()).unwrap(), "before");
        assert_eq!(receiver.recv_deadline(soon()).unwrap(), "after");
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
        sender.flush().unwrap();
        let info = bus.show("greetings").unwrap();
        assert_eq!((info.ledger.accepted, info.ledger.acknowledged), (2, 2));
    });
}

#[test]
fn a_batch_arrives_in_order_and_is_all_accepted() {
    over_both(|bus| {
        bus.create("numbers", ChannelOptions::default()).unwrap();
        let sender = bus.sender::<u64>("numbers").open().unwrap();
        let receiver = bus.receiver::<u64>("numbers").until_disconnected().open().unwrap();
        let feeder = std::thread::spawn(move || {
            for number in 0..200_000 {
                sender.feed(number).unwrap();
            }
            sender.flush().unwrap();
        });
        for (expected, number) in (0..200_000).zip(&receiver) {
            assert_eq!(number, expected);
        }
        feeder.join().unwrap();
        assert!(receiver.recv().is_err());
        let ledger = bus.show("numbers").unwrap().ledger;
        assert_eq!((ledger.accepted, ledger.acknowledged, ledger.balances()), (200_000, 200_000, true));
    });
}

#[test]
fn a_channel_of_two_pushes_back_at_the_third() {
    over_both(|bus| {
        bus.create("two", ChannelOptions { capacity: Some(2), ..Default::default() }).unwrap();
        let sender = bus.sender::<u8>("two").open().unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        let soon_over = Instant::now() + Duration::from_millis(20);
        assert!(matches!(sender.send_deadline(3, soon_over), Err(SendTimeoutError::Timeout(3))));
        let receiver = bus.receiver::<u8>("two").open().unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
        sender.send_deadline(4, soon()).unwrap();
        assert_eq!((receiver.recv().unwrap(), receiver.recv().unwrap()), (2, 4));
    });
}

#[test]
fn what_a_receiver_had_not_settled_goes_to_the_next() {
    over_both(|bus| {
        let sender = bus.sender::<u8>("jobs").open().unwrap();
        for job in 1..=3 {
            sender.send(job).unwrap();
        }
        let mut first = bus.receiver::<u8>("jobs").open().unwrap();
        assert!(matches!(bus.receiver::<u8>("jobs").open(), Err(OpenError::ReceiverTaken { .. })));
        let second = bus.receiver::<u8>("jobs").standby().open().unwrap();
        assert!(!second.is_seated());
        assert_eq!(first.next_delivery().unwrap().ack(), 1);
        let lent = first.next_delivery().unwrap();
        assert_eq!(*lent, 2);
        drop(lent);
        drop(first);
        let mut second = second;
        let again = second.next_delivery_deadline(soon()).unwrap();
        assert_eq!((*again, again.info().attempt, again.info().redelivered), (2, 2, true));
        again.ack();
        let fresh = second.next_delivery_deadline(soon()).unwrap();
        assert_eq!((*fresh, fresh.info().attempt, fresh.info().redelivered), (3, 1, false));
        fresh.ack();
    });
}

#[test]
fn another_type_is_refused_with_both_names() {
    over_both(|bus| {
        let _sender = bus.sender::<u32>("typed").open().unwrap();
        let error = bus.receiver::<String>("typed").open().unwrap_err();
        assert!(matches!(&error, OpenError::TypeMismatch { .. }), "{error}");
        assert!(error.to_string().contains("u32") && error.to_string().contains("String"), "{error}");
    });
}

#[test]
fn large_messages_pass_whole() {
    over_both(|bus| {
        let sender = bus.raw_sender("large").open().unwrap();
        let mut receiver = bus.raw_receiver("large").open().unwrap();
        let sizes = [0, 1, 16_000, 16_384, 20_000, 300_000, 1 << 20, 16 << 20, 5, 70_000, 3];
        let thread = std::thread::spawn(move || {
            for (index, size) in sizes.into_iter().enumerate() {
                sender.outgoing().send_bytes(&vec![index as u8; size], None).unwrap();
            }
            assert!(sender.outgoing().send_bytes(&vec![0; (16 << 20) + 1], None).is_err());
            sender.flush().unwrap();
        });
        for (index, size) in sizes.into_iter().enumerate() {
            let message = receiver.next_bytes(Some(soon())).unwrap();
            assert_eq!(message.len(), size);
            assert!(message.iter().all(|byte| *byte == index as u8));
            message.ack();
        }
        thread.join().unwrap();
        assert!(matches!(receiver.next_bytes(Some(Instant::now())), Err(RecvTimeoutError::Timeout)));
    });
}

#[test]
fn two_threads_meet_through_memory_while_another_process_could_through_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon_at(&folder.path().join("bus.sock"));
    let (inside, outside) = (daemon.bus().unwrap(), Bus::connect_to(daemon.address()).unwrap());
    let sender = inside.sender::<u32>("numbers").open().unwrap();
    let receiver = outside.receiver::<u32>("numbers").open().unwrap();
    sender.send(1).unwrap();
    assert_eq!(receiver.recv_deadline(soon()).unwrap(), 1);
    daemon.shutdown().unwrap();
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Away)));
    assert!(matches!(sender.try_send(2), Err(TrySendError::Away(2))));
    assert!(inside.list().is_err());
}

/// Memory has no descriptor of its own: a receiver there is polled and bridged all the same.
#[test]
fn an_event_loop_polls_a_receiver_of_the_app_itself() {
    over_both(|bus| {
        let sender = bus.sender::<u32>("numbers").open().unwrap();
        let receiver = bus.receiver::<u32>("numbers").open().unwrap();
        let is_readable = |within_ms: i64| {
            let timeout = Timespec { tv_sec: within_ms / 1000, tv_nsec: within_ms % 1000 * 1_000_000 };
            poll(&mut [PollFd::new(&receiver, PollFlags::IN)], Some(&timeout)).unwrap() == 1
        };
        for number in 0..100 {
            while is_readable(0) {
                assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
            }
            sender.send(number).unwrap();
            let taken = loop {
                assert!(is_readable(10_000), "nothing came");
                if let Ok(value) = receiver.try_recv() {
                    break value;
                }
            };
            assert_eq!(taken, number);
        }
        let bridged = receiver.into_crossbeam(0);
        sender.send(7).unwrap();
        assert_eq!(bridged.recv_deadline(soon()).unwrap(), 7);
        bridged.end().unwrap();
    });
}
