//! What exists only where values become bytes: between processes.

use bus_core::{
    ChannelOptions, Codec, Headers, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TrySendError, WhenFull,
};
use bus_tests::World;
use serde::{Deserialize, Serialize, Serializer};

use crate::ends::{JOBS, in_time, next, receiver, sender, standby};

pub(crate) fn types_of_one_name_meet_whatever_module_they_are_in(world: &World) {
    mod producer {
        #[derive(serde::Serialize)]
        pub(crate) struct Job(pub(crate) u32);
    }
    mod consumer {
        #[derive(serde::Deserialize)]
        pub(crate) struct Job(pub(crate) u32);
    }
    let sender = sender::<producer::Job>(world);
    let receiver = receiver::<consumer::Job>(world);
    sender.send(producer::Job(7)).unwrap();
    assert_eq!(next(&receiver).0, 7);
}

pub(crate) fn a_raw_receiver_sees_what_a_typed_sender_encoded(world: &World) {
    let sender = world.bus().sender::<Vec<u32>>(JOBS).codec(Codec::Json).open().unwrap();
    let mut receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    sender.send(vec![1, 2]).unwrap();
    let message = receiver.next_bytes(None).unwrap();
    assert_eq!((&message[..], message.info().codec), (&b"[1,2]"[..], Codec::Json));
    message.ack();
}

pub(crate) fn a_raw_sender_reaches_a_typed_receiver(world: &World) {
    let receiver = world.bus().receiver::<Vec<u32>>(JOBS).codec(Codec::Json).open().unwrap();
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    sender.outgoing().codec(Codec::Json).send(b"[3]".to_vec()).unwrap();
    assert_eq!(next(&receiver), [3]);
}

pub(crate) fn a_message_that_does_not_decode_comes_as_an_error_that_carries_it(world: &World) {
    let mut receiver = world.bus().receiver::<u32>(JOBS).codec(Codec::Json).open().unwrap();
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    let headers = Headers::new().with("from", "elsewhere");
    for garbage in [&b"no number"[..], b"", b"1 2"] {
        sender.outgoing().codec(Codec::Json).headers(&headers).send(garbage.to_vec()).unwrap();
    }
    sender.outgoing().codec(Codec::Json).send(b"4".to_vec()).unwrap();

    let Err(RecvError::Undecodable(first)) = receiver.recv() else { panic!("the first is no number") };
    assert_eq!((&first.message.payload[..], &first.message.headers), (&b"no number"[..], &headers));
    assert_eq!((first.message.info.sender, first.message.info.sequence), (sender.id(), 1));
    let text = first.to_string();
    assert!(text.contains("json") && text.contains("u32"), "{text}");
    let Err(RecvError::Undecodable(second)) = receiver.next_delivery() else { panic!("the second is empty") };
    assert_eq!(second.message.payload, b"");
    let Err(RecvTimeoutError::Undecodable(third)) = receiver.recv_deadline(in_time()) else { panic!("a rest") };
    assert_eq!(third.message.payload, b"1 2");
    assert_eq!(next(&receiver), 4);
    world.expect_ledger(JOBS, |ledger| (ledger.accepted, ledger.acknowledged) == (4, 4));
}

pub(crate) fn an_oversize_message_comes_back_with_the_limit_and_the_channel_goes_on(world: &World) {
    world.bus().create(JOBS, ChannelOptions { message_max_bytes: Some(1_000), ..Default::default() }).unwrap();
    let (sender, receiver) =
        (world.bus().raw_sender(JOBS).open().unwrap(), world.bus().raw_receiver(JOBS).open().unwrap());
    let large = vec![7; 1_001];
    match sender.send(large.clone()) {
        Err(SendError::TooLarge { value, bytes: 1_001, limit: 1_000 }) => assert_eq!(value, large),
        other => panic!("{other:?}"),
    }
    let error = sender.try_send(large.clone()).unwrap_err();
    assert!(matches!(error, TrySendError::TooLarge { .. }) && error.to_string().contains("1000"), "{error}");
    let error = sender.send_deadline(large.clone(), in_time()).unwrap_err();
    assert!(matches!(error, SendTimeoutError::TooLarge { .. }), "{error}");
    // Headers count.
    let headers = Headers::new().with("k", "v");
    let with_headers = sender.outgoing().headers(&headers).send(vec![7; 1_000]);
    assert!(matches!(with_headers, Err(SendError::TooLarge { limit: 1_000, .. })));
    sender.send(vec![7; 1_000]).unwrap();
    assert_eq!(next(&receiver).len(), 1_000);
}

pub(crate) fn the_largest_message_passes_an_empty_window(world: &World) {
    let (sender, receiver) =
        (world.bus().raw_sender(JOBS).open().unwrap(), world.bus().raw_receiver(JOBS).open().unwrap());
    let largest = vec![7; bus_core::limits::MESSAGE_MAX_BYTES as usize];
    for _ in 0..2 {
        sender.send_deadline(largest.clone(), in_time()).unwrap();
        assert_eq!(next(&receiver).len(), largest.len());
    }
    assert!(matches!(sender.send([largest, vec![7]].concat()), Err(SendError::TooLarge { .. })));
}

pub(crate) fn a_value_that_does_not_encode_comes_back(world: &World) {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Shy(bool);
    impl Serialize for Shy {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                true => Err(serde::ser::Error::custom("not now")),
                false => serializer.serialize_bool(false),
            }
        }
    }
    let (sender, receiver) = (sender::<Shy>(world), receiver::<Shy>(world));
    let Err(SendError::Encode { value, source }) = sender.send(Shy(true)) else { panic!("it does not encode") };
    assert_eq!(value, Shy(true));
    assert!(source.to_string().contains("not now") || std::error::Error::source(&source).is_some(), "{source}");
    sender.send(Shy(false)).unwrap();
    assert_eq!(next(&receiver), Shy(false));
}

pub(crate) fn capacity_in_bytes_holds_senders_back(world: &World) {
    world.bus().create(JOBS, ChannelOptions { capacity_bytes: Some(100), ..Default::default() }).unwrap();
    let (sender, receiver) =
        (world.bus().raw_sender(JOBS).open().unwrap(), world.bus().raw_receiver(JOBS).open().unwrap());
    sender.send(vec![1; 60]).unwrap();
    assert!(matches!(sender.try_send(vec![2; 60]), Err(TrySendError::Full(value)) if value == [2; 60]));
    sender.send(vec![3; 40]).unwrap();
    assert_eq!((next(&receiver)[0], next(&receiver)[0]), (1, 3));
    // An empty channel takes a message of any legal size.
    sender.send_deadline(vec![4; 1_000], in_time()).unwrap();
    assert_eq!(next(&receiver).len(), 1_000);
}

pub(crate) fn a_receiver_that_was_kicked_says_so_and_the_next_goes_on(world: &World) {
    let (sender, first) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    assert_eq!(next(&first), 1);
    let second = standby::<u32>(world);
    let kicked = world.bus().kick(JOBS).unwrap();
    assert_eq!(kicked.pid, std::process::id());
    assert!(matches!(first.recv(), Err(RecvError::Kicked)));
    sender.send(2).unwrap();
    assert_eq!(next(&second), 2);
}

pub(crate) fn the_ledger_names_where_every_message_is(world: &World) {
    world
        .bus()
        .create(JOBS, ChannelOptions { capacity: Some(4), when_full: WhenFull::DropNewest, ..Default::default() })
        .unwrap();
    let (sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 0..6 {
        sender.send(number).unwrap();
    }
    sender.flush().unwrap();
    assert_eq!(receiver.recv().unwrap(), 0);
    let delivery = receiver.next_delivery().unwrap();
    world.expect_ledger(JOBS, |ledger| {
        (ledger.accepted, ledger.acknowledged, ledger.in_delivery, ledger.queued, ledger.dropped) == (6, 1, 1, 2, 2)
    });
    delivery.ack();
    drop(receiver);
    world.expect_ledger(JOBS, |ledger| (ledger.acknowledged, ledger.queued) == (2, 2));
    assert_eq!(world.bus().purge(JOBS).unwrap().messages, 2);
    world.expect_ledger(JOBS, |ledger| (ledger.purged, ledger.queued) == (2, 0));
}
