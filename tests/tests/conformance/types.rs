//! Types and codecs: checked when an end is opened, on every route; and raw ends.

use bus_core::{Codec, OpenError};
use bus_tests::{PATIENCE, World, eventually};
use serde::{Deserialize, Serialize};

use crate::ends::{JOBS, next, receiver, sender};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    number: u64,
    name: String,
    parts: Vec<Part>,
    parent: Option<Box<Job>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Part {
    Nothing,
    Bytes(Vec<u8>),
    Pair { left: i32, right: f64 },
}

fn job() -> Job {
    let parts = vec![Part::Nothing, Part::Bytes(vec![0, 255]), Part::Pair { left: -1, right: 0.5 }];
    let child = Job { number: u64::MAX, name: "ünï".to_owned(), parts, parent: None };
    Job { number: 0, name: String::new(), parts: vec![], parent: Some(Box::new(child)) }
}

pub(crate) fn every_codec_carries_a_value_whole(world: &World) {
    for codec in [Codec::Bincode, Codec::Postcard, Codec::Json] {
        let channel = format!("jobs.{codec}");
        let sender = world.bus().sender::<Job>(&channel).codec(codec).open().unwrap();
        let mut receiver = world.bus().receiver::<Job>(&channel).codec(codec).open().unwrap();
        sender.send(job()).unwrap();
        let delivery = receiver.next_delivery().unwrap();
        assert_eq!(delivery.info().codec, codec);
        assert_eq!(delivery.ack(), job());
    }
}

pub(crate) fn a_value_without_bytes_is_a_message_all_the_same(world: &World) {
    let (sender, receiver) = (sender::<()>(world), receiver::<()>(world));
    for _ in 0..3 {
        sender.send(()).unwrap();
    }
    assert_eq!(receiver.iter().take(3).count(), 3);
    eventually("all are acknowledged", || sender.is_empty());
}

pub(crate) fn another_type_is_refused_at_open_naming_both(world: &World) {
    let _sender = sender::<Job>(world);
    let refused = world.bus().receiver::<String>(JOBS).open().unwrap_err();
    let OpenError::TypeMismatch { channel, text } = refused else { panic!("{refused}") };
    assert_eq!(channel.as_str(), JOBS);
    assert!(text.contains("Job") && text.contains("String"), "{text}");
    // And the one that was refused has changed nothing.
    let _receiver = receiver::<Job>(world);
}

pub(crate) fn another_codec_is_refused_at_open_naming_both(world: &World) {
    let _receiver = world.bus().receiver::<u32>(JOBS).codec(Codec::Json).open().unwrap();
    let refused = world.bus().sender::<u32>(JOBS).codec(Codec::Postcard).open().unwrap_err();
    assert!(matches!(refused, OpenError::TypeMismatch { .. }));
    let text = refused.to_string();
    assert!(text.contains("json") && text.contains("postcard"), "{text}");
}

pub(crate) fn a_type_name_that_was_set_counts(world: &World) {
    let _sender = world.bus().sender::<u32>(JOBS).type_name("Kilometres").open().unwrap();
    let refused = world.bus().receiver::<u32>(JOBS).type_name("Miles").open().unwrap_err().to_string();
    assert!(refused.contains("Kilometres") && refused.contains("Miles"), "{refused}");
    world.bus().receiver::<u32>(JOBS).type_name("Kilometres").open().unwrap();
}

pub(crate) fn an_idle_channel_forgets_its_type(world: &World) {
    world.bus().create(JOBS, Default::default()).unwrap();
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    sender.send(1).unwrap();
    assert_eq!(next(&receiver), 1);
    drop((sender, receiver));
    eventually("it may carry something else", || world.bus().sender::<String>(JOBS).open().is_ok());
}

pub(crate) fn a_malformed_name_is_refused_before_anything_is_asked(world: &World) {
    let refused = world.bus().sender::<u32>("no spaces").open().unwrap_err();
    assert!(matches!(refused, OpenError::Name(_)), "{refused}");
    let refused = world.bus().receiver::<u32>("").open().unwrap_err();
    assert!(matches!(refused, OpenError::Name(_)), "{refused}");
}

pub(crate) fn raw_ends_exchange_bytes_as_they_are(world: &World) {
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    let mut receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    for payload in [&b""[..], b"\0\xff", &[7; 100_000]] {
        sender.send(payload.to_vec()).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), payload);
        sender.outgoing().send_bytes(payload, None).unwrap();
        let message = receiver.next_bytes(None).unwrap();
        assert_eq!(&message[..], payload);
        assert_eq!(message.info().codec, Codec::Raw);
        message.ack();
    }
}

pub(crate) fn bytes_given_back_come_again_first(world: &World) {
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    let mut receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    let headers = bus_core::Headers::new().with("kind", "test");
    sender.outgoing().headers(&headers).codec(Codec::Json).feed_bytes(b"1", None).unwrap();
    sender.outgoing().try_send_bytes(b"2").unwrap();
    for attempt in 1..=3 {
        let message = receiver.next_bytes(None).unwrap();
        let info = message.info();
        assert_eq!((&message[..], info.attempt, info.codec), (&b"1"[..], attempt, Codec::Json));
        assert_eq!(message.headers().unwrap(), headers);
        match attempt {
            1 => message.nack(),
            2 => drop(message),
            _ => message.ack(),
        }
    }
    assert_eq!(&receiver.next_bytes(None).unwrap()[..], b"2");
}

pub(crate) fn many_are_fed_in_order_and_behind_what_was_fed_before(world: &World) {
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    let mut receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    let payloads: Vec<Vec<u8>> =
        (0..5_000_u32).map(|number| number.to_le_bytes().repeat(1 + number as usize % 50)).collect();
    sender.outgoing().feed_bytes(b"before", None).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sender.outgoing().feed_all_bytes(payloads.iter().map(Vec::as_slice)).unwrap();
            sender.outgoing().send_bytes(b"behind", None).unwrap();
        });
        let expected = [b"before".to_vec()].into_iter().chain(payloads.iter().cloned()).chain([b"behind".to_vec()]);
        for (expected, sequence) in expected.zip(1..) {
            let message = receiver.next_bytes(None).unwrap();
            assert_eq!((&message[..], message.info().sequence), (&expected[..], sequence));
            message.ack();
        }
    });
}

pub(crate) fn a_batch_is_acknowledged_as_far_as_it_was_done(world: &World) {
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    let mut receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    for number in 0..10_u8 {
        sender.outgoing().feed_bytes(&[number], None).unwrap();
    }
    sender.flush().unwrap();
    let mut done: Vec<u8> = Vec::new();
    while done.len() < 10 {
        let batch = receiver.next_batch(4, None).unwrap();
        assert!((1..=4).contains(&batch.len()));
        let all: Vec<u8> = batch.iter().map(|message| message[0]).collect();
        // All but the last of a larger batch: the rest comes again.
        let count = all.len().max(2) - 1;
        done.extend(&all[..count]);
        batch.ack_first(count);
    }
    assert!(done.into_iter().eq(0..10));
}
