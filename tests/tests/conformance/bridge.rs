//! Bridges to channels of crossbeam: what passes, how they end, and what becomes of what could not pass.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use bus_core::bridge::{ExportError, ExportFault, ImportError, export, import};
use bus_core::{ChannelOptions, Codec, SendError, TryRecvError, WhenFull};
use bus_tests::{MOMENT, PATIENCE, World, eventually};
use crossbeam_channel::{RecvTimeoutError, bounded, select, unbounded};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ends::{JOBS, create, next, receiver, sender, standby, until_disconnected};

pub(crate) fn what_is_exported_arrives_in_order_and_the_bridge_ends_with_its_source(world: &World) {
    declare(world);
    let (values, source) = bounded(16);
    let bridge = export(source, sender::<u32>(world));
    let receiver = until_disconnected::<u32>(world);
    thread::scope(|scope| {
        scope.spawn(move || (0..10_000).for_each(|number| values.send(number).unwrap()));
        assert!(receiver.iter().eq(0..10_000));
    });
    bridge.join().unwrap();
    world.expect_ledger(JOBS, |ledger| ledger.acknowledged == 10_000);
}

pub(crate) fn what_is_imported_arrives_in_order_and_the_sink_ends_with_the_channel(world: &World) {
    declare(world);
    let (sink, values) = bounded(16);
    let bridge = import(until_disconnected::<u32>(world), sink);
    let sender = sender::<u32>(world);
    thread::scope(|scope| {
        scope.spawn(move || (0..10_000).for_each(|number| sender.send(number).unwrap()));
        assert!(values.iter().eq(0..10_000));
    });
    bridge.join().unwrap();
    world.expect_ledger(JOBS, |ledger| ledger.acknowledged == 10_000);
}

pub(crate) fn a_value_that_comes_alone_passes_at_once(world: &World) {
    let (values, source) = unbounded();
    let _exported = export(source, sender::<u32>(world));
    let imported = receiver::<u32>(world).into_crossbeam(1);
    for number in 0..100 {
        values.send(number).unwrap();
        assert_eq!(imported.recv_timeout(PATIENCE), Ok(number));
    }
}

pub(crate) fn threads_select_between_channels_of_the_bus(world: &World) {
    let first = receiver::<u32>(world).into_crossbeam(0);
    let second = world.bus().receiver::<u32>("others").open().unwrap().into_crossbeam(0);
    sender::<u32>(world).send(1).unwrap();
    world.bus().sender::<u32>("others").open().unwrap().send(2).unwrap();
    let mut sum = 0;
    for _ in 0..2 {
        select! {
            recv(first) -> value => sum += value.unwrap(),
            recv(second) -> value => sum += 10 * value.unwrap(),
            default(PATIENCE) => panic!("nothing came"),
        }
    }
    assert_eq!(sum, 21);
}

/// A full channel of the bus is felt by those who send into the source.
pub(crate) fn a_full_channel_holds_back_who_sends_into_the_source(world: &World) {
    create(world, 2, WhenFull::Block);
    let (values, source) = bounded(1);
    let bridge = export(source, sender::<u32>(world));
    // Two in the channel, one in hand, one in the source.
    (0..4).for_each(|number| values.send_timeout(number, PATIENCE).unwrap());
    assert!(values.send_timeout(4, MOMENT).is_err());
    drop(values);
    assert!(until_disconnected::<u32>(world).iter().eq(0..4));
    bridge.join().unwrap();
}

pub(crate) fn only_what_the_sink_has_taken_is_acknowledged(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    (0..4).for_each(|number| sender.send_confirmed(number).unwrap());
    let (sink, values) = bounded(2);
    let bridge = import(receiver, sink);
    // Two lie in the sink; the third is in hand.
    eventually("the sink is full", || values.is_full());
    eventually("two are acknowledged", || sender.len() == 2);
    // With the sink goes what was acknowledged; nothing else does.
    drop(values);
    bridge.join().unwrap();
    let mut next = standby::<u32>(world);
    let third = next.next_delivery().unwrap();
    assert_eq!((*third, third.info().attempt), (2, 2));
    third.ack();
    assert_eq!(next.recv().unwrap(), 3);
}

pub(crate) fn an_import_whose_sink_is_gone_gives_the_next_message_back(world: &World) {
    let (sink, values) = bounded(2);
    let bridge = import(receiver::<u32>(world), sink);
    drop(values);
    sender::<u32>(world).send(7).unwrap();
    bridge.join().unwrap();
    let mut next = standby::<u32>(world);
    let delivery = next.next_delivery().unwrap();
    assert_eq!((*delivery, delivery.info().attempt), (7, 2));
    delivery.ack();
}

pub(crate) fn an_import_whose_end_is_dropped_gives_up_the_seat_while_nothing_comes(world: &World) {
    drop(receiver::<u32>(world).into_crossbeam(2));
    let next = standby::<u32>(world);
    eventually("the seat is free", || next.is_seated());
}

pub(crate) fn an_import_that_waits_for_room_is_stopped_and_gives_the_message_back(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    (0..2).for_each(|number| sender.send_confirmed(number).unwrap());
    let (sink, values) = bounded(1);
    let bridge = import(receiver, sink);
    eventually("the first is acknowledged", || sender.len() == 1);
    bridge.stop();
    bridge.join().unwrap();
    assert_eq!(values.iter().collect::<Vec<_>>(), [0]);
    assert_eq!(next(&standby::<u32>(world)), 1);
}

pub(crate) fn an_import_at_work_is_stopped_all_the_same(world: &World) {
    let (sender, receiver) = (sender::<u32>(world), receiver::<u32>(world));
    (0..10_000).for_each(|number| sender.send(number).unwrap());
    let (sink, values) = unbounded();
    let bridge = import(receiver, sink);
    assert_eq!(values.recv(), Ok(0));
    bridge.stop();
    bridge.join().unwrap();
    // What it has passed on and what it has left make up the whole.
    let passed = 1 + values.iter().count() as u32;
    let rest = standby::<u32>(world);
    assert!((passed..10_000).all(|number| next(&rest) == number));
}

pub(crate) fn deletion_ends_an_import_and_says_so(world: &World) {
    let values = receiver::<u32>(world).into_crossbeam(1);
    world.bus().delete(JOBS).unwrap();
    assert_eq!(values.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    let error = values.end().unwrap_err();
    assert_eq!(error.to_string(), "import from channel jobs: the channel was deleted");
    assert!(matches!(error, ImportError::Recv { source: TryRecvError::Deleted, .. }));
}

pub(crate) fn deletion_ends_an_export_that_has_nothing_to_do(world: &World) {
    let (values, source) = unbounded::<u32>();
    let bridge = export(source, sender::<u32>(world));
    values.send(1).unwrap();
    assert_eq!(next(&receiver::<u32>(world)), 1);
    world.bus().delete(JOBS).unwrap();
    let error = bridge.join().unwrap_err();
    assert!(matches!(error.fault, ExportFault::Deleted), "{error}");
    values.send(2).unwrap();
    assert_eq!(error.values.try_iter().collect::<Vec<_>>(), [2]);
}

pub(crate) fn deletion_gives_an_export_its_value_back_and_all_behind_it(world: &World) {
    create(world, 1, WhenFull::Block);
    let (values, source) = unbounded();
    (0..5).for_each(|number| values.send(number).unwrap());
    let bridge = export(source, sender::<u32>(world));
    eventually("one is in the channel, and one in hand", || values.len() == 3);
    world.wait_until_a_sender_waits(JOBS);
    world.bus().delete(JOBS).unwrap();
    let error = bridge.join().unwrap_err();
    let ExportFault::Send(SendError::Disconnected(in_hand)) = error.fault else { panic!("{error}") };
    assert_eq!(in_hand, 1);
    assert_eq!(error.values.try_iter().collect::<Vec<_>>(), [2, 3, 4]);
}

pub(crate) fn deletion_gives_an_export_what_it_had_taken_together_back(world: &World) {
    world.bus().create(JOBS, ChannelOptions { window: Some(2), ..ChannelOptions::default() }).unwrap();
    let (values, source) = unbounded();
    (0..300).for_each(|number| values.send(number).unwrap());
    let bridge = export(source, sender::<u32>(world));
    if world.ledger(JOBS).is_some() {
        world.wait_until_a_sender_waits(JOBS);
    } else {
        eventually("the window is full, and one is in hand", || values.len() == 297);
    }
    world.bus().delete(JOBS).unwrap();
    let error = *bridge.join().unwrap_err();
    let ExportError { fault, taken, values, sender } = error;
    let refused = sender.refused().len();
    let in_hand = match fault {
        ExportFault::Send(SendError::Disconnected(value)) => Some(value),
        ExportFault::Deleted => None,
        fault => panic!("{fault}"),
    };
    let back: Vec<u32> = in_hand.into_iter().chain(taken).chain(values.try_iter()).collect();
    assert!(back.iter().copied().eq(300 - back.len() as u32..300), "all behind what was accepted, in order: {back:?}");
    assert!(refused <= 2, "{refused} were in the window");
}

pub(crate) fn an_export_goes_on_with_the_ends_that_it_handed_back(world: &World) {
    create(world, 1, WhenFull::Reject);
    let (values, source) = unbounded();
    (0..3).for_each(|number| values.send(number).unwrap());
    drop(values);
    let error = export(source, sender::<u32>(world)).join().unwrap_err();
    let ExportError { fault: ExportFault::Send(SendError::Full(rejected)), taken, values, sender } = *error else {
        panic!("{error}")
    };
    assert_eq!((rejected, taken), (1, vec![]));
    let receiver = receiver::<u32>(world);
    assert_eq!(next(&receiver), 0);
    eventually("there is room", || sender.is_empty());
    export(values, sender).join().unwrap();
    assert_eq!(next(&receiver), 2);
}

pub(crate) fn an_import_ends_at_a_message_that_does_not_decode_and_hands_it_over(world: &World) {
    let raw = world.bus().raw_sender(JOBS).open().unwrap();
    let outgoing = raw.outgoing().codec(Codec::Bincode);
    // The second is no number.
    [&[7_u8][..], &[], &[8]].into_iter().for_each(|bytes| outgoing.send(bytes.to_vec()).unwrap());
    let values = receiver::<u32>(world).into_crossbeam(8);
    let seen: Vec<u32> = values.iter().collect();
    let Err(ImportError::Recv { source: TryRecvError::Undecodable(undecodable), .. }) = values.end() else {
        panic!("it ended well")
    };
    assert_eq!((seen, undecodable.message.payload), (vec![7], vec![]));
    let rest = world.bus().raw_receiver(JOBS).standby().open().unwrap();
    assert_eq!(next(&rest), [8]);
}

/// What had been fed before it lay in the sender's buffer until somebody joined the bridge.
pub(crate) fn an_export_that_ends_at_a_value_sends_what_came_before_it(world: &World) {
    let (values, source) = unbounded();
    [1, 2, Fragile::REFUSES, 4].into_iter().for_each(|number| values.send(Fragile(number)).unwrap());
    let bridge = export(source, sender::<Fragile>(world));
    let receiver = receiver::<Fragile>(world);
    assert_eq!([next(&receiver).0, next(&receiver).0], [1, 2]);
    let ExportError { fault, taken, values, .. } = *bridge.join().unwrap_err();
    let ExportFault::Send(SendError::Encode { value: Fragile(refused), .. }) = fault else { panic!("{fault}") };
    let behind: Vec<u32> = taken.into_iter().chain(values.try_iter()).map(|value| value.0).collect();
    assert_eq!((refused, behind), (Fragile::REFUSES, vec![4]));
}

/// What had been encoded together with it was never sent.
pub(crate) fn an_export_in_which_a_value_panics_sends_what_came_before_it(world: &World) {
    let (values, source) = unbounded();
    [1, 2, Fragile::PANICS].into_iter().for_each(|number| values.send(Fragile(number)).unwrap());
    let bridge = export(source, sender::<Fragile>(world));
    assert!(catch_unwind(AssertUnwindSafe(|| bridge.join())).is_err());
    let receiver = receiver::<Fragile>(world);
    assert_eq!([next(&receiver).0, next(&receiver).0], [1, 2]);
}

/// What the sink had taken together with the values before it came again.
pub(crate) fn an_import_in_which_a_value_panics_keeps_acknowledged_what_came_before_it(world: &World) {
    let raw = world.bus().raw_sender(JOBS).open().unwrap();
    let outgoing = raw.outgoing().codec(Codec::Bincode);
    [&[1_u8][..], &[2], &[Fragile::PANICS as u8], &[4]]
        .into_iter()
        .for_each(|one| outgoing.send(one.to_vec()).unwrap());
    let (sink, values) = unbounded();
    let bridge = import(receiver::<Fragile>(world), sink);
    assert!(catch_unwind(AssertUnwindSafe(|| bridge.join())).is_err());
    assert_eq!(values.iter().map(|value| value.0).collect::<Vec<_>>(), [1, 2]);
    let rest = world.bus().raw_receiver(JOBS).standby().open().unwrap();
    assert_eq!([next(&rest), next(&rest)], [[Fragile::PANICS as u8], [4]]);
}

/// A number; two of them are none for its own code.
#[derive(Debug)]
struct Fragile(u32);

impl Fragile {
    const REFUSES: u32 = 66;
    const PANICS: u32 = 99;
}

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, Self::PANICS, "it is a test that this panics");
        match self.0 {
            Self::REFUSES => Err(serde::ser::Error::custom("it is a test that this does not encode")),
            number => serializer.serialize_u32(number),
        }
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        assert_ne!(number, Self::PANICS, "it is a test that this panics");
        Ok(Self(number))
    }
}

/// The channel stays, with its ledger.
fn declare(world: &World) {
    world.bus().create(JOBS, ChannelOptions::default()).unwrap();
}
