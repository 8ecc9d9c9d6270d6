//! Order: of one sender, of its clones, and across senders.

use std::sync::Mutex;
use std::thread;

use bus_core::Codec;
use bus_tests::{World, eventually};

use crate::ends::{JOBS, in_time, receiver, sender, until_disconnected};

pub(crate) fn messages_of_one_sender_arrive_in_the_order_sent(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..20_000 {
                // Every form of sending, mixed.
                match number % 3 {
                    0 => sender.send(number).unwrap(),
                    1 => sender.feed(number).unwrap(),
                    _ => sender.outgoing().codec(Codec::Bincode).send(number).unwrap(),
                }
            }
        });
        assert!(receiver.iter().eq(0..20_000));
    });
}

pub(crate) fn clones_share_the_order_of_their_endpoint(world: &World) {
    let (first, mut receiver) = (sender::<u32>(world), until_disconnected::<u32>(world));
    let id = first.id();
    thread::scope(|scope| {
        for _ in 0..4 {
            let clone = first.clone();
            assert_eq!(clone.id(), id);
            scope.spawn(move || {
                for number in 0..1_000 {
                    clone.send(number).unwrap();
                }
            });
        }
        drop(first);
        for sequence in 1..=4_000 {
            let delivery = receiver.next_delivery().unwrap();
            assert_eq!((delivery.info().sender, delivery.info().sequence), (id, sequence));
            delivery.ack();
        }
    });
}

/// Three senders in a ring: each sends only after it has heard, over another channel, that the one
/// before it has.
pub(crate) fn what_was_confirmed_before_another_send_began_arrives_first(world: &World) {
    const ROUNDS: u32 = 200;
    let bus = world.bus();
    let receiver = until_disconnected::<u32>(world);
    thread::scope(|scope| {
        for place in 0..3_u32 {
            let work = sender::<u32>(world);
            let turns = bus.receiver::<u32>(format!("turn.{place}")).open().unwrap();
            let next = bus.sender::<u32>(format!("turn.{}", (place + 1) % 3)).open().unwrap();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let turn = turns.recv().unwrap();
                    work.send_confirmed(turn).unwrap();
                    next.send(turn + 1).unwrap();
                }
            });
        }
        bus.sender::<u32>("turn.0").open().unwrap().send(0).unwrap();
        assert!(receiver.iter().eq(0..3 * ROUNDS));
    });
    world.bus().delete("turn.0").unwrap();
}

pub(crate) fn a_new_endpoint_has_an_id_and_a_sequence_of_its_own(world: &World) {
    let (first, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let second = first.try_new_endpoint().unwrap();
    assert_ne!(first.id(), second.id());
    first.send_confirmed(1).unwrap();
    second.send_confirmed(2).unwrap();
    for (value, id) in [(1, first.id()), (2, second.id())] {
        let delivery = receiver.next_delivery().unwrap();
        assert_eq!((*delivery, delivery.info().sender, delivery.info().sequence), (value, id, 1));
        delivery.ack();
    }
}

/// Several at once, sent and received: whoever sends next has seen that those before were sent. What is not
/// acknowledged of a batch comes again first.
pub(crate) fn batches_of_many_senders_come_in_the_order_in_which_they_were_sent(world: &World) {
    const SENDERS: u64 = 4;
    const EACH: u64 = 300;
    let mut receiver = world.bus().raw_receiver(JOBS).open().unwrap();
    let senders: Vec<_> = (0..SENDERS)
        .map(|index| {
            let builder = world.bus().raw_sender(JOBS);
            let builder = if index == 0 { builder.no_lane() } else { builder };
            let sender = builder.open().unwrap();
            if index > 0 {
                crate::slots::in_use(world, &sender, &receiver);
            }
            sender
        })
        .collect();
    let sent = Mutex::new(0_u64);
    thread::scope(|scope| {
        for (index, sender) in (0..).zip(&senders) {
            let sent = &sent;
            scope.spawn(move || {
                for round in 0..EACH {
                    let numbers = 1 + (round * 7 + index) % 40;
                    let mut sent = sent.lock().unwrap();
                    let messages: Vec<_> = (*sent..*sent + numbers).map(|number| number.to_le_bytes()).collect();
                    *sent += numbers;
                    sender.outgoing().feed_all_bytes(messages.iter().map(|message| &message[..])).unwrap();
                    sender.flush().unwrap();
                }
            });
        }
        let total: u64 = (0..SENDERS).flat_map(|index| (0..EACH).map(move |round| 1 + (round * 7 + index) % 40)).sum();
        let (mut next, mut round) = (0, 0_usize);
        while next < total {
            let batch = receiver.next_batch(1 + round * 13 % 200, Some(in_time())).unwrap();
            let numbers: Vec<_> = batch.iter().map(|item| u64::from_le_bytes(item[..].try_into().unwrap())).collect();
            let count = if round.is_multiple_of(3) { batch.len().div_ceil(2) } else { batch.len() };
            assert!((next..next + batch.len() as u64).eq(numbers.iter().copied()), "{numbers:?} instead of {next}");
            batch.ack_first(count);
            next += count as u64;
            round += 1;
        }
    });
    eventually("everything is acknowledged", || senders.iter().all(bus_core::Sender::is_empty));
}
