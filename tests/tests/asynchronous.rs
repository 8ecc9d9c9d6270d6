//! The async face over every route: what its futures promise when they are dropped, and that it ends as the
//! other face does.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::thread;

use bus_core::limits::ASYNC_UNAWAITED_MAX;
use bus_core::{AsyncReceiver, AsyncSender, ChannelOptions, RecvError, SendError, SinkError, WhenFull};
use bus_tests::{MOMENT, PATIENCE, World, eventually};
use futures_core::Stream;
use futures_sink::Sink;
use tokio::time::timeout;

const JOBS: &str = "jobs";

macro_rules! over_every_route {
    ($($test:ident)*) => {
        over_every_route! { local Local: $($test)* }
        over_every_route! { stream Stream: $($test)* }
        over_every_route! { lane Lane: $($test)* }
    };
    ($name:ident $route:ident: $($test:ident)*) => {
        mod $name {
            $(#[test]
            fn $test() {
                let name = concat!("asynchronous::", stringify!($name), "::", stringify!($test));
                bus_tests::World::run(bus_tests::Route::$route, name, |world| crate::within(crate::$test(world)));
            })*
        }
    };
}

over_every_route! {
    values_pass_in_order_from_sink_to_stream
    a_receive_that_is_dropped_has_taken_nothing
    a_send_that_is_dropped_loses_nothing
    values_of_dropped_sends_are_bounded_and_given_back
    a_sink_pushes_back_while_a_value_waits_for_room
    a_sink_that_nobody_asks_whether_it_is_ready_is_bounded
    a_send_waits_for_room_and_other_tasks_go_on
    a_delivery_is_held_while_others_are_awaited
    the_stream_ends_where_the_channel_does
    deletion_wakes_both_and_gives_the_value_back
    what_a_dropped_send_could_not_send_comes_back_from_flush
    a_sender_that_is_dropped_sends_what_was_handed_over
    a_value_that_panics_where_it_is_encoded_panics_where_it_is_awaited
}

/// One thread, as the smallest runtime has it: whatever blocks it shows.
fn within(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn sender<T: serde::Serialize + Send + 'static>(world: &World) -> AsyncSender<T> {
    world.bus().sender(JOBS).open().unwrap().into_async().unwrap()
}

fn receiver<T: serde::de::DeserializeOwned + Send + 'static>(world: &World) -> AsyncReceiver<T> {
    world.bus().receiver(JOBS).open().unwrap().into_async().unwrap()
}

fn until_disconnected(world: &World) -> AsyncReceiver<u32> {
    world.bus().receiver(JOBS).until_disconnected().open().unwrap().into_async().unwrap()
}

fn create(world: &World, capacity: u64) {
    let options = ChannelOptions { capacity: Some(capacity), when_full: WhenFull::Block, ..Default::default() };
    world.bus().create(JOBS, options).unwrap();
}

async fn in_time<R>(future: impl Future<Output = R>) -> R {
    timeout(PATIENCE, future).await.expect("nothing came")
}

/// Polls a future once, and drops it.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn next(stream: &mut AsyncReceiver<u32>) -> Option<Result<u32, RecvError>> {
    in_time(poll_fn(|context| Pin::new(&mut *stream).poll_next(context))).await
}

async fn values_pass_in_order_from_sink_to_stream(world: &World) {
    const LAST: u32 = 20_000;
    let (mut sink, mut stream) = (sender::<u32>(world), until_disconnected(world));
    let producer = tokio::spawn(async move {
        for number in 0..LAST {
            poll_fn(|context| Pin::new(&mut sink).poll_ready(context)).await.unwrap();
            Pin::new(&mut sink).start_send(number).unwrap();
        }
        poll_fn(|context| Pin::new(&mut sink).poll_close(context)).await.unwrap();
    });
    for number in 0..LAST {
        assert_eq!(next(&mut stream).await.unwrap().unwrap(), number);
    }
    in_time(producer).await.unwrap();
    assert!(next(&mut stream).await.is_none());
}

async fn a_receive_that_is_dropped_has_taken_nothing(world: &World) {
    const LAST: u32 = 500;
    let (sender, mut receiver) = (world.bus().sender::<u32>(JOBS).open().unwrap(), receiver::<u32>(world));
    let producer = thread::spawn(move || {
        for number in 0..LAST {
            sender.send(number).unwrap();
            thread::yield_now();
        }
        sender
    });
    let mut expected = 0;
    while expected < LAST {
        // Dropped at its first wait as often as it waits, in either form.
        if let Some(value) = poll_once(receiver.recv()).await {
            assert_eq!(value.unwrap(), expected);
            expected += 1;
        }
        if let Some(delivery) = poll_once(receiver.next_delivery()).await {
            assert_eq!(delivery.unwrap().ack(), expected);
            expected += 1;
        }
        tokio::task::yield_now().await;
    }
    drop(producer.join().unwrap());
}

async fn a_send_that_is_dropped_loses_nothing(world: &World) {
    const LAST: u32 = 200;
    create(world, 2);
    let (mut sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    let consumer = tokio::spawn(async move {
        for number in 0..LAST {
            assert_eq!(receiver.recv().await.unwrap(), number);
        }
    });
    let mut number = 0;
    while number < LAST {
        match poll_once(sender.send(number)).await {
            // Handed over, or sent.
            None | Some(Ok(())) => number += 1,
            Some(Err(SendError::Full(back))) => {
                assert_eq!(back, number);
                tokio::task::yield_now().await;
            }
            Some(Err(error)) => panic!("{error}"),
        }
    }
    in_time(sender.flush()).await.unwrap();
    in_time(consumer).await.unwrap();
}

async fn values_of_dropped_sends_are_bounded_and_given_back(world: &World) {
    create(world, 1);
    let mut sender = sender::<u32>(world);
    in_time(sender.send(0)).await.unwrap();
    let mut handed_over = 1;
    let back = loop {
        match poll_once(sender.send(handed_over)).await {
            None => handed_over += 1,
            Some(Err(SendError::Full(back))) => break back,
            Some(other) => panic!("{other:?}"),
        }
        assert!(handed_over < 100, "there is no bound");
    };
    assert_eq!(back, handed_over);
    let mut receiver = receiver::<u32>(world);
    for number in 0..handed_over {
        assert_eq!(in_time(receiver.recv()).await.unwrap(), number);
    }
    in_time(sender.flush()).await.unwrap();
}

async fn a_sink_pushes_back_while_a_value_waits_for_room(world: &World) {
    create(world, 1);
    let (mut sink, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 0..2 {
        in_time(poll_fn(|context| Pin::new(&mut sink).poll_ready(context))).await.unwrap();
        Pin::new(&mut sink).start_send(number).unwrap();
    }
    assert!(poll_once(poll_fn(|context| Pin::new(&mut sink).poll_ready(context))).await.is_none());
    let ready = tokio::spawn(async move {
        poll_fn(|context| Pin::new(&mut sink).poll_ready(context)).await.unwrap();
        sink
    });
    assert_eq!(in_time(receiver.recv()).await.unwrap(), 0);
    let mut sink = in_time(ready).await.unwrap();
    assert_eq!(in_time(receiver.recv()).await.unwrap(), 1);
    in_time(poll_fn(|context| Pin::new(&mut sink).poll_flush(context))).await.unwrap();
}

async fn a_sink_that_nobody_asks_whether_it_is_ready_is_bounded(world: &World) {
    create(world, 1);
    let mut sink = sender::<u32>(world);
    let (taken, refused) = (0..100)
        .find_map(|number| Pin::new(&mut sink).start_send(number).err().map(|refused| (number, refused)))
        .expect("there is no bound");
    let SinkError::Send(SendError::Full(back)) = refused else { panic!("{refused}") };
    // One is in the channel, and one may be in the hands of the thread.
    let most = ASYNC_UNAWAITED_MAX as u32 + 2;
    assert!(back == taken && (most - 1..=most).contains(&taken), "{taken} were taken");
    let mut receiver = receiver::<u32>(world);
    for number in 0..taken {
        assert_eq!(in_time(receiver.recv()).await.unwrap(), number);
    }
    in_time(sink.flush()).await.unwrap();
}

async fn a_send_waits_for_room_and_other_tasks_go_on(world: &World) {
    create(world, 1);
    let (mut sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    in_time(sender.send(0)).await.unwrap();
    let mut blocked = tokio::spawn(async move {
        sender.send(1).await.unwrap();
        sender
    });
    assert!(timeout(MOMENT, &mut blocked).await.is_err());
    assert_eq!(in_time(receiver.recv()).await.unwrap(), 0);
    let mut sender = in_time(blocked).await.unwrap();
    assert_eq!(in_time(receiver.recv()).await.unwrap(), 1);
    in_time(sender.flush()).await.unwrap();
}

async fn a_delivery_is_held_while_others_are_awaited(world: &World) {
    let (mut sender, mut receiver) = (sender::<u32>(world), receiver::<u32>(world));
    for number in 0..2 {
        in_time(sender.send(number)).await.unwrap();
    }
    let first = in_time(receiver.next_delivery()).await.unwrap();
    assert!(timeout(MOMENT, receiver.recv()).await.is_err(), "order waits for what is held");
    let waits = tokio::spawn(async move { (receiver.next_delivery().await.unwrap(), receiver) });
    tokio::task::yield_now().await;
    first.nack();
    let (again, mut receiver) = in_time(waits).await.unwrap();
    assert_eq!((*again, again.info().attempt), (0, 2));
    again.ack();
    assert_eq!(in_time(receiver.recv()).await.unwrap(), 1);
}

async fn the_stream_ends_where_the_channel_does(world: &World) {
    let (mut sender, mut stream) = (sender::<u32>(world), until_disconnected(world));
    in_time(sender.send(7)).await.unwrap();
    drop(sender);
    assert_eq!(next(&mut stream).await.unwrap().unwrap(), 7);
    for _ in 0..2 {
        assert!(next(&mut stream).await.is_none());
    }
}

async fn deletion_wakes_both_and_gives_the_value_back(world: &World) {
    create(world, 1);
    let mut sender = sender::<u32>(world);
    in_time(sender.send(0)).await.unwrap();
    let mut blocked = pin!(sender.send(1));
    assert!(timeout(MOMENT, blocked.as_mut()).await.is_err());
    world.bus().delete(JOBS).unwrap();
    assert!(matches!(in_time(blocked).await, Err(SendError::Disconnected(1))));

    let mut stream = until_disconnected(world);
    assert!(timeout(MOMENT, next(&mut stream)).await.is_err());
    world.bus().delete(JOBS).unwrap();
    assert!(matches!(next(&mut stream).await, Some(Err(RecvError::Deleted))));
    assert!(next(&mut stream).await.is_none());
}

async fn what_a_dropped_send_could_not_send_comes_back_from_flush(world: &World) {
    create(world, 1);
    let mut sender = sender::<u32>(world);
    in_time(sender.send(0)).await.unwrap();
    assert!(poll_once(sender.send(1)).await.is_none());
    world.bus().delete(JOBS).unwrap();
    let error = in_time(sender.flush()).await.unwrap_err();
    assert!(matches!(error, SinkError::Send(SendError::Disconnected(1))), "{error}");
}

async fn a_sender_that_is_dropped_sends_what_was_handed_over(world: &World) {
    create(world, 1);
    let mut sender = sender::<u32>(world);
    in_time(sender.send(0)).await.unwrap();
    assert!(poll_once(sender.send(1)).await.is_none());
    drop(sender);
    let mut stream = until_disconnected(world);
    assert_eq!(next(&mut stream).await.unwrap().unwrap(), 0);
    assert_eq!(next(&mut stream).await.unwrap().unwrap(), 1);
    assert!(next(&mut stream).await.is_none());
    eventually("nobody is left", || stream.get_ref().is_empty());
}

/// A number, and one that cannot be encoded.
#[derive(Debug, serde::Deserialize)]
struct Fragile(u32);

const FATAL: u32 = 666;

impl serde::Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, FATAL, "it is a test that this panics");
        serializer.serialize_newtype_struct("Fragile", &self.0)
    }
}

/// The thread that saw to it was gone, and nobody ever heard of it.
async fn a_value_that_panics_where_it_is_encoded_panics_where_it_is_awaited(world: &World) {
    create(world, 1);
    let (mut sender, mut receiver) = (sender::<Fragile>(world), receiver::<Fragile>(world));
    in_time(sender.send(Fragile(0))).await.unwrap();
    assert!(poll_once(sender.send(Fragile(1))).await.is_none(), "there is no room for it");
    let fatal = tokio::spawn(async move {
        let sent = sender.send(Fragile(FATAL)).await;
        (sender, sent)
    });
    for expected in 0..2 {
        assert_eq!(in_time(receiver.recv()).await.unwrap().0, expected);
    }
    match in_time(fatal).await {
        // Within a process nothing is encoded.
        Ok((_, sent)) => {
            sent.unwrap();
            assert_eq!(in_time(receiver.recv()).await.unwrap().0, FATAL);
        }
        Err(panicked) => assert!(panicked.is_panic()),
    }
}
