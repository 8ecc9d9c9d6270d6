//! Calls that are under way when the daemon is killed: what waits goes on waiting, what tries says
//! that the daemon is away, and deadlines are kept.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use bus_core::bridge::{self, Bridge, ExportError, ExportFault};
use bus_core::limits::DROP_FLUSH_MS;
use bus_core::{
    Bus, FlushError, Receiver, RecvError, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError,
};
use bus_tests::processes::{CHANNEL, Dice, NARROW, Stage};
use bus_tests::{MOMENT, PATIENCE, Route, eventually, watch};
use crossbeam_channel::{bounded, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[test]
fn a_blocked_send_outlives_the_daemon() {
    on_stage("a_blocked_send_outlives_the_daemon", |stage, bus| {
        let sender = sender(bus, NARROW);
        sender.send(1).expect("there is room");
        sender.send(2).expect("there is room");
        let third = sender.clone();
        let blocked = thread::spawn(move || third.send(3));
        let waits = |bus: &Bus| bus.show(NARROW).is_ok_and(|info| info.senders.iter().any(|s| s.blocked_ms.is_some()));
        eventually("the third message waits for room", || waits(bus));
        stage.kill_daemon();
        stage.start_daemon();
        eventually("it waits at the next daemon", || waits(bus));

        let receiver = receiver(bus, NARROW);
        assert_eq!([next(&receiver), next(&receiver), next(&receiver)], [1, 2, 3]);
        blocked.join().expect("no panic").expect("it was sent in the end");
        sender.flush().expect("all is accepted");
    });
}

#[test]
fn a_blocked_recv_outlives_the_daemon() {
    on_stage("a_blocked_recv_outlives_the_daemon", |stage, bus| {
        let receiver = receiver(bus, CHANNEL);
        let blocked = thread::spawn(move || receiver.recv());
        stage.kill_daemon();
        stage.start_daemon();
        let bus = stage.bus();
        eventually("the receiver is at the next daemon", || {
            bus.show(CHANNEL).is_ok_and(|info| info.receiver.is_some())
        });
        sender(&bus, CHANNEL).send(7).expect("the channel is there");
        assert_eq!(blocked.join().expect("no panic").expect("a message comes"), 7);
    });
}

#[test]
fn who_polls_a_receiver_rests_while_the_daemon_is_away_and_is_woken_by_the_next() {
    on_stage("who_polls_a_receiver", |stage, bus| {
        let receiver = receiver(bus, CHANNEL);
        let is_readable = |within: Duration| {
            let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
            poll(&mut [PollFd::new(&receiver, PollFlags::IN)], Some(&timeout)).expect("a descriptor") == 1
        };
        while is_readable(MOMENT) {
            assert!(receiver.try_recv().is_err());
        }
        stage.kill_daemon();
        // The hang-up may show once.
        while is_readable(MOMENT) {
            assert!(matches!(receiver.try_recv(), Err(TryRecvError::Away)));
        }
        stage.start_daemon();
        sender(&stage.bus(), CHANNEL).send(7).expect("the channel is there");
        let taken = loop {
            assert!(is_readable(PATIENCE), "nothing came");
            if let Ok(value) = receiver.try_recv() {
                break value;
            }
        };
        assert_eq!(taken, 7);
    });
}

#[test]
fn bridges_outlive_the_daemon() {
    on_stage("bridges_outlive_the_daemon", |stage, bus| {
        let (values, source) = unbounded();
        let exported = bridge::export(source, sender(bus, CHANNEL));
        let imported = receiver(bus, CHANNEL).into_crossbeam(0);
        values.send(1).expect("the bridge is there");
        assert_eq!(imported.recv_timeout(PATIENCE), Ok(1));
        stage.kill_daemon();
        values.send(2).expect("the bridge is there");
        stage.start_daemon();
        assert_eq!(imported.recv_timeout(PATIENCE), Ok(2));
        drop(values);
        exported.join().expect("all is sent");
        imported.end().expect("it is told to");
    });
}

/// It waited for the next daemon for ever, whether or not anybody could still send into its source.
#[test]
fn an_export_whose_source_has_ended_waits_for_the_next_daemon_no_longer_than_a_sender_that_is_dropped() {
    // What is sent before the daemon dies, and after.
    let cases = [(0, 1), (1, 1), (256, 0), (256, 500), (300, 0), (300, 500)];
    let tests = cases.map(|(before, after)| thread::spawn(move || export_without_daemon(before, after)));
    tests.into_iter().for_each(|test| test.join().unwrap_or_else(|panic| resume_unwind(panic)));
}

fn export_without_daemon(before: u64, after: u64) {
    on_stage("export_without_daemon", move |stage, bus| {
        let (values, source) = unbounded();
        let exported = bridge::export(source, sender(bus, CHANNEL));
        (0..before).for_each(|value| values.send(value).expect("the bridge is there"));
        let window = before.min(256);
        eventually("all that there is room for is sent", || {
            bus.show(CHANNEL).is_ok_and(|info| info.ledger.accepted == window)
        });
        stage.kill_daemon();
        (before..before + after).for_each(|value| values.send(value).expect("the bridge is there"));
        drop(values);
        let (sent, sender) = given_up(exported, before + after);
        assert!(sent >= window, "{sent} were sent");
        stage.start_daemon();
        let receiver = receiver(&stage.bus(), CHANNEL);
        assert!((0..sent).all(|value| next(&receiver) == value));
        sender.flush().expect("all is accepted");
    });
}

/// Waits until an export without a daemon has ended. How many of the values it has sent, and its sender.
fn given_up(exported: Bridge<Box<ExportError<u64>>>, values: u64) -> (u64, Sender<u64>) {
    let begun = Instant::now();
    let ExportError { fault, taken, values: rest, sender } = *exported.join().expect_err("nobody took them");
    assert!(begun.elapsed() < Duration::from_millis(DROP_FLUSH_MS) + PATIENCE, "{:?}", begun.elapsed());
    assert!(matches!(fault, ExportFault::Flush(FlushError::Unknown(_))), "{fault}");
    // What it has not given back is on its way.
    let back: Vec<u64> = taken.into_iter().chain(rest.try_iter()).collect();
    let sent = values - back.len() as u64;
    assert!(back.into_iter().eq(sent..values), "{sent} were sent");
    (sent, sender)
}

/// A lane goes on without a daemon until it is full; then nobody could end the wait.
#[test]
fn an_export_in_a_full_lane_whose_source_has_ended_waits_no_longer_than_that() {
    on_stage("an_export_in_a_full_lane", |stage, bus| {
        let sender: Sender<u64> = bus.sender(CHANNEL).lane().open().expect("a sender opens");
        let first = receiver(bus, CHANNEL);
        eventually("it sends in its lane", || {
            sender.send(0).expect("the daemon is there");
            next(&first);
            sender.is_in_lane()
        });
        let (values, source) = bounded(800);
        stage.kill_daemon();
        drop(first);
        (0..800).for_each(|value| values.send(value).expect("there is room"));
        drop(values);
        let (sent, sender) = given_up(bridge::export(source, sender), 800);
        // Its window.
        assert_eq!(sent, 256);
        stage.start_daemon();
        let receiver = receiver(&stage.bus(), CHANNEL);
        assert!((0..sent).all(|value| next(&receiver) == value));
        sender.flush().expect("all is accepted");
    });
}

#[test]
fn an_export_whose_source_has_ended_sends_the_rest_to_the_next_daemon() {
    on_stage("an_export_whose_source_has_ended_sends_the_rest", |stage, bus| {
        let (values, source) = bounded(1_000);
        let exported = bridge::export(source, sender(bus, CHANNEL));
        stage.kill_daemon();
        (0..1_000).for_each(|value| values.send_timeout(value, PATIENCE).expect("there is room"));
        drop(values);
        stage.start_daemon();
        let receiver = receiver(&stage.bus(), CHANNEL);
        assert!((0..1_000).all(|value| next(&receiver) == value));
        exported.join().expect("all is sent");
    });
}

#[test]
fn tasks_outlive_the_daemon() {
    on_stage("tasks_outlive_the_daemon", |stage, bus| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let within = runtime.enter();
        let mut sends = sender(bus, CHANNEL).into_async().expect("a thread");
        let mut receives = receiver(bus, CHANNEL).into_async().expect("a descriptor");
        drop(within);
        runtime.block_on(sends.send(1)).expect("the daemon is there");
        assert_eq!(runtime.block_on(receives.recv()).expect("it is there"), 1);
        stage.kill_daemon();
        let sent = runtime.spawn(async move {
            sends.send(2).await.expect("it is sent in the end");
            sends.flush().await.expect("it is accepted");
        });
        let received = runtime.spawn(async move { receives.recv().await });
        // Both have seen that nobody is there.
        runtime.block_on(tokio::task::yield_now());
        stage.start_daemon();
        let both = async { (sent.await.expect("no panic"), received.await.expect("no panic")) };
        let in_time = async { tokio::time::timeout(PATIENCE, both).await.expect("both are woken") };
        let ((), received) = runtime.block_on(in_time);
        assert_eq!(received.expect("a value comes"), 2);
    });
}

#[test]
fn a_try_says_at_once_that_the_daemon_is_away() {
    on_stage("a_try_says_at_once_that_the_daemon_is_away", |stage, bus| {
        let (sender, receiver) = (sender(bus, CHANNEL), receiver(bus, CHANNEL));
        stage.kill_daemon();
        for _ in 0..3 {
            at_once(|| assert!(matches!(sender.try_send(1), Err(TrySendError::Away(1)))));
            at_once(|| assert!(matches!(receiver.try_recv(), Err(TryRecvError::Away))));
        }
        stage.start_daemon();
        // What came back was never sent.
        sender.send(2).expect("the daemon comes back");
        assert_eq!(next(&receiver), 2);
    });
}

#[test]
fn deadlines_are_kept_while_the_daemon_is_away() {
    on_stage("deadlines_are_kept_while_the_daemon_is_away", |stage, bus| {
        let (sender, narrow, receiver) = (sender(bus, CHANNEL), sender(bus, NARROW), receiver(bus, CHANNEL));
        stage.kill_daemon();
        in_time(|d| assert!(matches!(sender.send_timeout(1, d), Err(SendTimeoutError::Timeout(1)))));
        in_time(|d| assert!(matches!(narrow.send_timeout(1, d), Err(SendTimeoutError::Timeout(1)))));
        in_time(|d| assert!(matches!(receiver.recv_timeout(d), Err(RecvTimeoutError::Timeout))));
        stage.start_daemon();
        sender.send(2).expect("the daemon comes back");
        assert_eq!(next(&receiver), 2);
    });
}

#[test]
fn a_ticket_is_good_at_the_next_daemon() {
    on_stage("a_ticket_is_good_at_the_next_daemon", |stage, bus| {
        let sender = sender(bus, CHANNEL);
        stage.kill_daemon();
        sender.feed(1).expect("it stays in the buffer");
        let mut ticket = sender.ticket();
        in_time(|d| match sender.flush_deadline(Instant::now() + d) {
            Err(FlushError::Unknown(unknown)) => ticket = unknown,
            other => panic!("nobody can have accepted it: {other:?}"),
        });
        stage.start_daemon();
        sender.wait(&ticket, Some(Instant::now() + PATIENCE)).expect("it is accepted at last");
        assert_eq!(next(&receiver(bus, CHANNEL)), 1);
    });
}

#[test]
fn a_sender_that_nobody_uses_sends_everything_again() {
    on_stage("a_sender_that_nobody_uses_sends_everything_again", |stage, bus| {
        // Far more than a socket holds, and nobody calls the sender any more.
        let (messages, filling) = (100, vec![7_u8; 50_000]);
        let sender = bus.raw_sender("large").open().expect("a sender opens");
        for _ in 0..messages {
            sender.send(filling.clone()).expect("the window has room");
        }
        stage.kill_daemon();
        stage.start_daemon();
        let receiver = stage.bus().raw_receiver("large").open().expect("the seat is free");
        for number in 0..messages {
            let message = receiver.recv_timeout(PATIENCE);
            assert!(message.is_ok_and(|bytes| bytes == filling), "message {number} of {messages} does not come");
        }
        drop(sender);
    });
}

#[test]
fn a_daemon_that_dies_is_not_the_last_sender_that_leaves() {
    on_stage("a_daemon_that_dies_is_not_the_last_sender_that_leaves", |stage, bus| {
        let sender = sender(bus, CHANNEL);
        let receiver = bus.receiver::<u64>(CHANNEL).until_disconnected().open().expect("the seat is free");
        sender.send(1).expect("the channel is there");
        assert_eq!(next(&receiver), 1);
        stage.kill_daemon();
        stage.start_daemon();
        sender.send(2).expect("the daemon comes back");
        drop(sender);
        assert_eq!(next(&receiver), 2);
        assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    });
}

/// The keeper found it in use each time that it looked, and the seat went to another.
#[test]
fn a_receiver_that_has_a_message_in_hand_most_of_the_time_comes_back() {
    on_stage("a_receiver_that_has_a_message_in_hand", |stage, bus| {
        let sender = sender(bus, CHANNEL);
        (0..200).for_each(|number| sender.send(number).expect("the channel is there"));
        let mut receiver = bus.raw_receiver(CHANNEL).open().expect("the seat is free");
        let (done, is_done) = crossbeam_channel::bounded::<()>(0);
        let (begun, has_begun) = unbounded();
        let works = thread::spawn(move || {
            for _ in 0..200 {
                let delivery = receiver.next_bytes(Some(Instant::now() + PATIENCE)).expect("a message comes");
                begun.send(()).expect("somebody listens");
                // Its work, until it is told that there is no hurry any more.
                let _ = is_done.recv_timeout(Duration::from_millis(40));
                delivery.ack();
            }
        });
        has_begun.recv().expect("it works");
        stage.kill_daemon();
        stage.start_daemon();
        let bus = stage.bus();
        let begin = Instant::now();
        eventually("the receiver is at the next daemon", || {
            bus.show(CHANNEL).is_ok_and(|info| info.receiver.is_some())
        });
        let took = begin.elapsed();
        drop(done);
        works.join().expect("all come");
        assert!(took < Duration::from_secs(2), "it took {took:?} of the 8 seconds that it worked");
    });
}

/// A test with a daemon that it may kill, under the watchdog.
fn on_stage(name: &str, test: impl FnOnce(&mut Stage, &Bus) + Send + 'static) {
    let body = move || {
        let mut stage = Stage::new(Dice::from_environment(), Route::Stream);
        let bus = stage.bus();
        test(&mut stage, &bus);
    };
    watch(name, body, || ());
}

fn sender(bus: &Bus, channel: &str) -> Sender<u64> {
    bus.sender(channel).open().expect("a sender opens")
}

fn receiver(bus: &Bus, channel: &str) -> Receiver<u64> {
    bus.receiver(channel).open().expect("the seat is free")
}

fn next(receiver: &Receiver<u64>) -> u64 {
    receiver.recv_timeout(PATIENCE).expect("a message comes")
}

/// What must not wait for anything may be held up by a busy machine, but not as long as a call that waits.
fn at_once(call: impl FnOnce()) {
    let begin = Instant::now();
    call();
    assert!(begin.elapsed() < PATIENCE / 2, "it took {:?}", begin.elapsed());
}

/// What has a deadline returns then: not before, and not for ever after.
fn in_time(call: impl FnOnce(Duration)) {
    let (begin, deadline) = (Instant::now(), Duration::from_millis(100));
    call(deadline);
    let took = begin.elapsed();
    assert!(took >= deadline && took < PATIENCE / 2, "it took {took:?}");
}
