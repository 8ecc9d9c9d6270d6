//! Messages that are read where they lie: nothing of them is copied first.

#![expect(unsafe_code, reason = "payloads are read in place, from senders of this very process")]

use bus_core::{Codec, Headers, Receiver, RecvTimeoutError, Sender, TryRecvError};
use bus_tests::{MOMENT, World, eventually};
use serde::{Deserialize, Serialize};

use crate::ends::{JOBS, in_time, next};

const SIZES: [usize; 7] = [0, 1, 100, 16 * 1024 - 1, 16 * 1024, 100_001, 3_000_000];

fn ends(world: &World) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    crate::slots::in_use(world, &sender, &receiver);
    (sender, receiver)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

pub(crate) fn a_payload_is_read_where_it_lies(world: &World) {
    let (sender, mut receiver) = ends(world);
    let headers = Headers::new().with("shape", "long");
    for len in SIZES {
        sender.outgoing().headers(&headers).codec(Codec::Json).send(bytes(len)).unwrap();
        let message = receiver.next_in_place(Some(in_time())).unwrap();
        // SAFETY: the sender is in this test, sends by the library, and the channel keeps its receiver.
        let payload = unsafe { message.payload_in_place() };
        assert!(payload == bytes(len) && message.to_vec() == bytes(len), "{len} bytes");
        assert_eq!((message.len(), message.is_empty()), (len, len == 0));
        assert_eq!((message.headers().unwrap(), message.info().codec), (headers.clone(), Codec::Json));
        assert_eq!((message.info().sender, message.info().attempt), (sender.id(), 1));
        message.ack();
    }
    eventually("everything is acknowledged", || sender.is_empty());
}

pub(crate) fn what_is_read_in_place_comes_again_until_it_is_acknowledged(world: &World) {
    let (sender, mut receiver) = ends(world);
    for number in 0..3_u8 {
        sender.send(vec![number; 50_000]).unwrap();
    }
    receiver.next_in_place(Some(in_time())).unwrap().nack();
    drop(receiver.next_in_place(Some(in_time())).unwrap());
    let third = receiver.next_in_place(Some(in_time())).unwrap();
    assert_eq!((third.to_vec()[0], third.info().attempt, third.info().redelivered), (0, 3, true));
    third.ack();
    // And beside the other ways to receive.
    assert_eq!(next(&receiver), vec![1; 50_000]);
    assert_eq!(receiver.next_in_place(Some(in_time())).unwrap().to_vec()[0], 2);
    let batch = receiver.next_batch(10, Some(in_time())).unwrap();
    assert_eq!((batch.len(), batch.iter().next().unwrap()[0]), (1, 2));
    batch.ack();
    assert!(matches!(receiver.try_next_in_place(), Err(TryRecvError::Empty)));
    let nothing = receiver.next_in_place(Some(std::time::Instant::now() + MOMENT));
    assert!(matches!(nothing, Err(RecvTimeoutError::Timeout)));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Picture {
    name: String,
    pixels: Vec<u32>,
    parts: Vec<(String, Option<f64>)>,
}

/// Large values are decoded where they lie, and small ones as ever.
pub(crate) fn values_of_every_size_are_decoded_whole(world: &World) {
    let mut receiver = world.bus().receiver::<Picture>(JOBS).open().unwrap();
    let sender = world.bus().sender::<Picture>(JOBS).open().unwrap();
    for round in 0..3 {
        for len in SIZES {
            let pixels = (0..len as u32 / 4).map(|at| at.wrapping_mul(2_654_435_761)).collect();
            let parts = (0..len / 100).map(|at| ("part".repeat(at % 9), (at % 2 == 0).then_some(at as f64))).collect();
            let picture = Picture { name: "n".repeat(len / 3), pixels, parts };
            sender.send(picture.clone()).unwrap();
            let received = match round {
                0 => next(&receiver),
                1 => receiver.next_delivery().unwrap().ack(),
                _ => {
                    drop(receiver.next_delivery_deadline(in_time()).unwrap());
                    next(&receiver)
                }
            };
            assert!(received == picture, "{len} bytes, round {round}");
        }
    }
    eventually("everything is acknowledged", || sender.is_empty());
}

/// Between processes: the error has the bytes, also of one that was to be decoded in place.
pub(crate) fn a_large_message_that_does_not_decode_comes_as_an_error_that_carries_it(world: &World) {
    let mut receiver = world.bus().receiver::<Picture>(JOBS).open().unwrap();
    let sender = world.bus().raw_sender(JOBS).open().unwrap();
    for codec in [Codec::Bincode, Codec::Json, Codec::Postcard] {
        for _ in 0..3 {
            sender.outgoing().codec(codec).send(vec![255; 100_000]).unwrap();
        }
        for _ in 0..2 {
            let Err(RecvTimeoutError::Undecodable(error)) = receiver.recv_deadline(in_time()) else {
                panic!("it is no picture")
            };
            assert_eq!((error.message.info.codec, error.message.payload), (codec, vec![255; 100_000]));
        }
        let Err(RecvTimeoutError::Undecodable(error)) = receiver.next_delivery_deadline(in_time()) else {
            panic!("it is no picture")
        };
        assert_eq!(error.message.payload.len(), 100_000);
    }
    eventually("all of them are acknowledged", || sender.is_empty());
}
