//! A daemon within an app: the whole way of a message, and the ends of both sides.

use std::time::{Duration, Instant};

use bus_core::{
    Address, Bus, ChannelOptions, OpenError, RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError,
};
use bus_daemon::{Config, Daemon};

fn daemon() -> (tempfile::TempDir, Daemon, Bus) {
    let folder = tempfile::tempdir().unwrap();
    let socket = Some(Address::new(folder.path().join("bus.sock")).unwrap());
    let daemon = Daemon::start(Config { socket, ..Config::default() }).unwrap();
    let bus = daemon.bus().unwrap();
    (folder, daemon, bus)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn a_message_goes_all_the_way() {
    let (_folder, daemon, bus) = daemon();
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
    daemon.shutdown().unwrap();
}

#[test]
fn a_batch_arrives_in_order_and_is_all_accepted() {
    let (_folder, _daemon, bus) = daemon();
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
}

#[test]
fn a_channel_of_two_pushes_back_at_the_third() {
    let (_folder, _daemon, bus) = daemon();
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
}

#[test]
fn what_a_receiver_had_not_settled_goes_to_the_next() {
    let (_folder, _daemon, bus) = daemon();
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
}

#[test]
fn another_type_is_refused_with_both_names() {
    let (_folder, _daemon, bus) = daemon();
    let _sender = bus.sender::<u32>("typed").open().unwrap();
    let error = bus.receiver::<String>("typed").open().unwrap_err();
    assert!(matches!(&error, OpenError::TypeMismatch { .. }), "{error}");
    assert!(error.to_string().contains("u32") && error.to_string().contains("String"), "{error}");
}

#[test]
fn large_messages_pass_whole() {
    let (_folder, _daemon, bus) = daemon();
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
}
