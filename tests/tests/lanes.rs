//! Lanes beside what disturbs them: daemons that are killed, receivers that go, orders.
//!
//! Each test here was a fault once.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

use bus_core::{Bus, ChannelOptions, Delivery, Receiver, Sender, bridge};
use bus_tests::processes::{CHANNEL, Dice, Stage};
use bus_tests::{MOMENT, PATIENCE, Route, watch};
use rustix::process::{Pid, Signal, kill_process};

/// The receiver handed out what was in the lane before what the sender still had for the stream, and the sender
/// took that for acknowledged.
#[test]
fn a_lane_does_not_overtake_its_senders_stream_when_daemons_are_killed() {
    on_stage("overtaken", |stage, bus| {
        let (_sender, sent) = with_both_ways_in_use(stage, bus);
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let mut received = vec![number(&receiver.recv_timeout(PATIENCE).unwrap())];
        stage.kill_daemon();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            received.extend(receiver.try_recv().map(|bytes| number(&bytes)));
        }
        stage.start_daemon();
        while received.last() != Some(&(sent - 1)) {
            received.push(number(&receiver.recv_timeout(PATIENCE).unwrap()));
        }
        assert!(received.into_iter().eq(0..sent));
    });
}

/// What was purged was due for ever, and the lane was never looked at again.
#[test]
fn a_purge_of_the_stream_does_not_stop_the_lane() {
    on_stage("purged", |stage, bus| {
        let (sender, sent) = with_both_ways_in_use(stage, bus);
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 0);
        bus.purge("jobs").unwrap();
        sender.send(parcel(sent)).unwrap();
        while number(&receiver.recv_timeout(PATIENCE).unwrap()) != sent {}
    });
}

/// The sender rang for the receiver that was gone, and the next slept.
#[test]
fn a_message_sent_while_the_receiver_changes_wakes_the_next() {
    on_stage("changed", |_, bus| {
        for round in 0..100 {
            let channel = format!("jobs.{round}");
            let sender = lane_sender(bus, &channel);
            let first: Receiver<Vec<u8>> = bus.receiver(&channel).open().unwrap();
            let next: Receiver<Vec<u8>> = bus.receiver(&channel).standby().open().unwrap();
            into_lane(&sender, &first);
            let waiting = thread::spawn(move || next.recv_timeout(PATIENCE));
            drop(first);
            let pause = Duration::from_micros(round * 37 % 1_500);
            let begin = Instant::now();
            while begin.elapsed() < pause {
                std::hint::spin_loop();
            }
            sender.send(parcel(99)).unwrap();
            assert_eq!(number(&waiting.join().unwrap().unwrap()), 99, "after {pause:?}");
        }
    });
}

/// A sender that came back without its lane was counted as one that had left.
#[test]
fn a_restart_does_not_end_a_receiver_whose_sender_lives() {
    on_stage("restarted", |stage, bus| {
        for round in 0..8 {
            let channel = format!("jobs.{round}");
            let sender = lane_sender(bus, &channel);
            let receiver: Receiver<Vec<u8>> = bus.receiver(&channel).until_disconnected().open().unwrap();
            into_lane(&sender, &receiver);
            let waiting = thread::spawn(move || receiver.recv_timeout(PATIENCE));
            stage.kill_daemon();
            stage.start_daemon();
            sender.flush().unwrap();
            sender.send(parcel(77)).unwrap();
            assert_eq!(number(&waiting.join().unwrap().unwrap()), 77);
        }
    });
}

/// A receiver whose daemon was gone listened to a bell that nobody could ring any more, again and again, and
/// never let the keeper in.
#[test]
fn an_idle_receiver_comes_back_to_the_next_daemon() {
    on_stage("back", |stage, bus| {
        let sender = lane_sender(bus, "jobs");
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        into_lane(&sender, &receiver);
        let waiting = thread::spawn(move || receiver.recv_timeout(3 * PATIENCE));
        stage.kill_daemon();
        stage.start_daemon();
        let seated = || bus.show("jobs").is_ok_and(|info| info.receiver.is_some());
        let begin = Instant::now();
        while !seated() {
            assert!(begin.elapsed() < PATIENCE, "the receiver does not come back");
            thread::sleep(Duration::from_millis(1));
        }
        sender.send(parcel(1)).unwrap();
        assert_eq!(number(&waiting.join().unwrap().unwrap()), 1);
    });
}

/// The export waited for the daemon after the first value, though all it sent was in the lane.
#[test]
fn bridges_go_on_in_a_lane_without_a_daemon() {
    on_stage("bridged", |stage, bus| {
        let (sender, receiver) = connected_by_a_lane(bus);
        let (values, source) = crossbeam_channel::unbounded();
        let exported = bridge::export(source, sender);
        let imported = receiver.into_crossbeam(0);
        stage.kill_daemon();
        for sent in 0..100 {
            values.send(parcel(sent)).unwrap();
            assert_eq!(number(&imported.recv_timeout(PATIENCE).unwrap()), sent);
        }
        stage.start_daemon();
        until("the sender is back", || bus.show("jobs").is_ok_and(|info| !info.senders.is_empty()));
        drop(values);
        exported.join().unwrap();
        imported.end().unwrap();
    });
}

/// What a sender had left in its lane went with its receiver when the daemon had died between the two.
#[test]
fn what_a_dead_sender_left_in_a_lane_outlives_daemon_and_receiver() {
    on_stage("outlived", |stage, bus| {
        let (sender, receiver) = connected_by_a_lane(bus);
        (100..200).for_each(|number| sender.send(parcel(number)).unwrap());
        drop(sender);
        for round in 0..2 {
            stage.kill_daemon();
            assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 100 + round);
            stage.start_daemon();
            until("the receiver has brought the lane", || bus.show("jobs").is_ok_and(|info| info.ledger.queued > 0));
            // It takes it up again by itself.
            until("the receiver reads the lane", || !receiver.is_empty());
        }
        drop(receiver);
        let next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let rest: Vec<u64> = (102..200).map(|_| number(&next.recv_timeout(PATIENCE).unwrap())).collect();
        assert!(rest.into_iter().eq(102..200));
    });
}

/// Each restart sent everything that was in the lane by the stream.
#[test]
fn a_lane_goes_on_over_restarts_of_the_daemon() {
    on_stage("going on", |stage, bus| {
        let (sender, receiver) = connected_by_a_lane(bus);
        let mut sent = 100;
        let mut send_and_receive = |most: u64| {
            (0..most).for_each(|more| sender.send(parcel(sent + more)).unwrap());
            (0..most).for_each(|more| assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), sent + more));
            sent += most;
        };
        for _ in 0..5 {
            send_and_receive(10);
            stage.kill_daemon();
            send_and_receive(10);
            stage.start_daemon();
            send_and_receive(1_000);
            // Its ends go on as if nothing had happened, and may not have noticed yet.
            until("the lane is known to the next daemon", || {
                bus.show("jobs").is_ok_and(|info| info.senders.iter().any(|sender| sender.route == "lane"))
            });
        }
        assert_eq!(bus.show("jobs").unwrap().held_bytes, 0, "nothing went by the stream");
    });
}

/// It is sent through the lane without a daemon, and by the stream once the next daemon does not take the lane.
#[test]
fn what_lies_in_a_slot_is_sent_whatever_becomes_of_its_lane() {
    on_stage("slots", |stage, bus| {
        let sender = bus.raw_sender("jobs").lane().open().unwrap();
        let receiver = bus.raw_receiver("jobs").open().unwrap();
        into_lane(&sender, &receiver);
        until("everything is acknowledged", || sender.is_empty());
        let [mut first, mut second, third] = [(); 3].map(|()| sender.loan(parcel(0).len()).unwrap());
        stage.kill_daemon();
        first.copy_from_slice(&parcel(1_000));
        first.commit().unwrap();
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 1_000);
        // Where the capacity is exact there are no lanes.
        stage.start_daemon_with("[channels.jobs]\ncapacity = 5000\n");
        sender.flush().unwrap();
        assert!(!sender.has_lane());
        second.copy_from_slice(&parcel(1_001));
        second.commit().unwrap();
        drop(third);
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 1_001);
        until("everything is acknowledged", || sender.is_empty());
    });
}

/// The receiver was gone with the daemon, and the sender alone has the lane.
#[test]
fn a_sender_brings_its_lane_for_the_next_receiver() {
    on_stage("brought", |stage, bus| {
        let (sender, receiver) = connected_by_a_lane(bus);
        (100..200).for_each(|number| sender.send(parcel(number)).unwrap());
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 100);
        stage.kill_daemon();
        drop(receiver);
        stage.start_daemon();
        sender.flush().unwrap();
        let mut next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        for expected in 101..200 {
            let delivery = next.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
            assert_eq!(number(&delivery), expected);
            assert!(delivery.info().redelivered, "nobody knows any more what was handed out");
            delivery.ack();
        }
        sender.send(parcel(200)).unwrap();
        let delivery = next.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!((number(&delivery), delivery.info().redelivered), (200, false));
    });
}

/// A lane in which nothing was left kept its channel until another receiver came.
#[test]
fn a_channel_whose_ends_have_left_vanishes_with_its_lanes() {
    on_stage("vanished", |_, bus| {
        for sender_first in [true, false] {
            let (sender, receiver) = connected_by_a_lane(bus);
            if sender_first {
                drop(sender);
                drop(receiver);
            } else {
                drop(receiver);
                drop(sender);
            }
            until("the channel is gone", || {
                bus.list().unwrap().iter().all(|channel| channel.channel.as_str() != "jobs")
            });
        }
    });
}

#[test]
fn a_busy_sender_moves_to_a_lane_and_loses_nothing_on_the_way() {
    on_stage("busy", |_, bus| {
        for round in 0..20 {
            let channel = format!("jobs.{round}");
            let sender = bus.sender::<Vec<u8>>(&channel).open().unwrap();
            let receiver: Receiver<Vec<u8>> = bus.receiver(&channel).open().unwrap();
            let sending = thread::spawn(move || {
                let mut sent = 0_u64;
                until("the sender is in a lane", || {
                    (0..100).for_each(|more| sender.send((sent + more).to_le_bytes().to_vec()).unwrap());
                    sent += 100;
                    sender.is_in_lane()
                });
                (0..1_000_u64).for_each(|more| sender.send((sent + more).to_le_bytes().to_vec()).unwrap());
                sent + 1_000
            });
            let mut received = 0;
            while !sending.is_finished() {
                let Ok(bytes) = receiver.recv_timeout(Duration::from_millis(20)) else { continue };
                assert_eq!(number(&bytes), received);
                received += 1;
            }
            for expected in received..sending.join().unwrap() {
                assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), expected);
            }
            assert!(receiver.recv_timeout(Duration::from_millis(1)).is_err(), "that was all");
        }
    });
}

#[test]
fn a_sender_that_is_not_busy_stays_on_the_stream() {
    on_stage("idle", |_, bus| {
        let sender = bus.sender::<Vec<u8>>("jobs").open().unwrap();
        for number in 0..100 {
            sender.send_confirmed(parcel(number)).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!sender.has_lane());
    });
}

/// Receivers in the daemon's process were refused where there was a lane.
#[test]
fn a_receiver_in_the_daemons_process_reads_lanes() {
    let body = || {
        let folder = tempfile::tempdir().unwrap();
        let socket = bus_core::Address::new(folder.path().join("bus.sock")).unwrap();
        let config = bus_daemon::Config { socket: Some(socket.clone()), ..bus_daemon::Config::default() };
        let daemon = bus_daemon::Daemon::start(config).unwrap();
        let outside = Bus::connect_to(&socket).unwrap();
        let sender = lane_sender(&outside, "jobs");
        let inside: Receiver<Vec<u8>> = daemon.bus().unwrap().receiver("jobs").open().unwrap();
        into_lane(&sender, &inside);
        let streamed = outside.sender::<Vec<u8>>("jobs").no_lane().open().unwrap();
        for number_sent in 0..200 {
            let sender = if number_sent % 2 == 0 { sender.clone() } else { streamed.clone() };
            let sending = thread::spawn(move || sender.send_confirmed(parcel(number_sent)));
            assert_eq!(number(&inside.recv_timeout(PATIENCE).unwrap()), number_sent);
            sending.join().unwrap().unwrap();
        }
    };
    watch("inside", body, || ());
}

/// A ticket that nobody had used gave the ends of a receiver that was gone another life.
#[test]
fn descriptors_and_maps_of_lanes_are_given_back_whoever_leaves_first() {
    on_stage("given back", |stage, bus| {
        let before = at_rest(stage);
        for round in 0..30 {
            let sender = lane_sender(bus, "jobs");
            let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
            if round % 3 > 0 {
                into_lane(&sender, &receiver);
            }
            if round % 2 == 0 {
                drop(sender);
                drop(receiver);
            } else {
                drop(receiver);
                drop(sender);
            }
        }
        let begin = Instant::now();
        while at_rest(stage) != before {
            assert!(begin.elapsed() < PATIENCE, "{before:?} before, and now {:?}", stage.daemon_holds());
            // What the last left in their lanes is kept until it is received.
            let rest: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
            while rest.recv_timeout(Duration::from_millis(50)).is_ok() {}
        }
    });
}

/// What the daemon holds once nobody comes or goes any more.
fn at_rest(stage: &Stage) -> (usize, usize) {
    let (mut last, mut since) = (stage.daemon_holds(), Instant::now());
    while since.elapsed() < Duration::from_millis(100) {
        thread::sleep(Duration::from_millis(5));
        let now = stage.daemon_holds();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// It was tried in the lane again and again, for ever.
#[test]
fn a_message_that_is_larger_than_its_lane_goes_by_the_stream() {
    on_stage("larger", |stage, bus| {
        let (sender, receiver) = connected_by_a_lane(bus);
        stage.kill_daemon();
        // A lane is made for the largest message that there may be, and this one was made before that was raised.
        stage.start_daemon_by("message_max_bytes = \"128MiB\"\n");
        until("the lane is known to the next daemon", || sender.is_in_lane());
        sender.send(parcel(100)).unwrap();
        let large = vec![7; 65 * 1024 * 1024];
        let sending = thread::spawn(move || {
            sender.send(large).unwrap();
            sender.send(parcel(101)).unwrap();
            sender
        });
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 100);
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), 65 * 1024 * 1024);
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), 101);
        sending.join().unwrap();
    });
}

/// Beside a lane that the next daemon would not take, whose sender had stopped, nothing of the stream was handed
/// out.
#[test]
fn a_lane_without_a_daemon_does_not_hold_back_the_stream() {
    on_stage("held back", |stage, bus| {
        stage.add_sender();
        let receiver: Receiver<Vec<u8>> = bus.raw_receiver(CHANNEL).open().unwrap();
        until("its sender is in a lane", || {
            receiver.recv_timeout(PATIENCE).unwrap();
            let senders = bus.show(CHANNEL).unwrap().senders;
            senders.iter().any(|sender| sender.route == "lane")
        });
        let stopped = Pid::from_raw(stage.sender_pids()[0] as i32).unwrap();
        kill_process(stopped, Signal::STOP).unwrap();
        while receiver.recv_timeout(Duration::from_millis(200)).is_ok() {}
        stage.kill_daemon();
        // Where the capacity is exact there are no lanes.
        stage.start_daemon_by(&format!("[channels.{CHANNEL}]\ncapacity = 5000\n"));
        let sender: Sender<Vec<u8>> = stage.bus().raw_sender(CHANNEL).open().unwrap();
        sender.send(b"by the stream".to_vec()).unwrap();
        let received = receiver.recv_timeout(PATIENCE);
        kill_process(stopped, Signal::CONT).unwrap();
        assert_eq!(received.unwrap(), b"by the stream");
    });
}

/// What a daemon had removed from the lane was taken for acknowledged, and with it what was sent before by the stream;
/// and it was not the oldest.
#[test]
fn a_skip_after_a_restart_takes_the_oldest_and_nothing_else() {
    on_stage("skipped", |stage, bus| {
        let sender = lane_sender(bus, "jobs");
        let mut sent = 0;
        let mut send = || {
            sender.send(parcel(sent)).unwrap();
            sent += 1;
        };
        let is_in_lane = || bus.show("jobs").unwrap().senders.iter().any(|sender| sender.route == "lane");
        until("the sender is in its lane", || {
            (0..3).for_each(|_| send());
            is_in_lane()
        });
        (0..5).for_each(|_| send());
        let restart = |stage: &mut Stage| {
            stage.kill_daemon();
            stage.start_daemon();
            let are_here = |info: bus_core::ChannelInfo| info.ledger.queued == sent;
            until("all is at the next daemon", || bus.show("jobs").is_ok_and(are_here));
        };
        restart(stage);
        assert_eq!(bus.skip("jobs").unwrap().messages, 1);
        // The sender hears what the daemon did, if anything, before that dies; and then holds all as before.
        (0..20).for_each(|_| assert_eq!(sender.len() as u64, sent));
        restart(stage);
        assert_eq!(bus.skip("jobs").unwrap().messages, 1);
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        for expected in 1..sent {
            assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), expected);
        }
    });
}

/// What was passed over in the lane counted as acknowledged, and with it all that its sender had sent before: once the
/// lane had ended, what was given back was settled unseen.
#[test]
fn what_is_given_back_outlives_a_purge_of_the_lane_behind_it() {
    on_stage("given back", |_, bus| {
        let (sender, mut receiver) = with_its_first_message_by_the_stream(bus);
        let first = hold_the_first_and_purge_the_rest(bus, &mut receiver);
        drop(sender);
        until("its sender has left", || bus.show("jobs").unwrap().sender_count == 0);
        first.nack();
        // The receiver finds its lane at its end at some time of these.
        let (begin, mut attempt) = (Instant::now(), 3);
        while begin.elapsed() < MOMENT {
            let first = next(&mut receiver);
            assert_eq!((number(&first), first.info().attempt), (0, attempt));
            first.nack();
            attempt += 1;
        }
        next(&mut receiver).ack();
        until("all is counted", || {
            let ledger = bus.show("jobs").map(|info| info.ledger);
            ledger.is_ok_and(|ledger| ledger.balances() && ledger.queued + ledger.in_delivery == 0)
        });
    });
}

/// The receiver told the next daemon that it had acknowledged more than it had been handed, and that did not take it
/// from its sender again.
#[test]
fn what_is_in_hand_outlives_a_purge_of_the_lane_behind_it_and_the_daemon() {
    on_stage("in hand", |stage, bus| {
        let (_sender, mut receiver) = with_its_first_message_by_the_stream(bus);
        let first = hold_the_first_and_purge_the_rest(bus, &mut receiver);
        stage.kill_daemon();
        first.nack();
        stage.start_daemon();
        let again = next(&mut receiver);
        assert_eq!((number(&again), again.info().redelivered), (0, true));
        again.ack();
    });
}

/// Its sender took all for acknowledged that it had sent before by the stream.
#[test]
fn what_is_in_hand_outlives_a_purge_of_the_lane_behind_it_the_receiver_and_the_daemon() {
    on_stage("in hand", |stage, bus| {
        let (_sender, mut receiver) = with_its_first_message_by_the_stream(bus);
        let first = hold_the_first_and_purge_the_rest(bus, &mut receiver);
        stage.kill_daemon();
        first.nack();
        drop(receiver);
        // Where the capacity is exact there are no lanes: what is in one goes by the stream.
        stage.start_daemon_with("[channels.jobs]\ncapacity = 5000\n");
        let has_sender = |info: bus_core::ChannelInfo| info.sender_count == 1;
        until("its sender is at the next daemon", || bus.show("jobs").is_ok_and(has_sender));
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let again = next(&mut receiver);
        assert_eq!(number(&again), 0);
        again.ack();
    });
}

/// What was passed over behind it counted as acknowledged while it was in its user's hands.
#[test]
fn what_is_in_hand_of_a_lane_outlives_a_purge_behind_it_and_the_daemon() {
    on_stage("in hand", |stage, bus| {
        let (sender, mut receiver) = connected_by_a_lane(bus);
        until("everything is acknowledged", || sender.is_empty());
        sender.send(parcel(0)).unwrap();
        next(&mut receiver).nack();
        sender.send(parcel(1)).unwrap();
        assert_eq!(bus.purge("jobs").unwrap().recalled, 1);
        let batch = receiver.next_batch(2, Some(Instant::now() + PATIENCE)).unwrap();
        assert_eq!(batch.len(), 1, "the other one is passed over");
        stage.kill_daemon();
        batch.ack_first(0);
        stage.start_daemon();
        let reads_a_lane = |info: bus_core::ChannelInfo| info.receiver.is_some_and(|receiver| receiver.route == "lane");
        until("it is given its lane again", || bus.show("jobs").is_ok_and(reads_a_lane));
        let again = next(&mut receiver);
        assert_eq!((number(&again), again.info().redelivered), (0, true));
        again.ack();
    });
}

/// A sender in its lane, of whose messages the first is the first of the stream; all others are not to be handed out.
fn with_its_first_message_by_the_stream(bus: &Bus) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
    let sender = lane_sender(bus, "jobs");
    // So small that the daemon sends all ahead.
    let send = |number: u64| sender.send_confirmed(number.to_le_bytes().to_vec()).unwrap();
    send(0);
    let (mut sent, mut again_at) = (1, Instant::now());
    until("it goes on in its lane", || {
        // The receiver takes the lane up with what it is asked.
        let _ = receiver.len();
        // It may take long, and all is to be sent ahead.
        if Instant::now() >= again_at {
            again_at = Instant::now() + Duration::from_millis(2);
            send(sent);
            sent += 1;
        }
        sender.is_in_lane()
    });
    (0..10).for_each(|more| send(sent + more));
    until("all is here", || receiver.len() as u64 == sent + 10);
    (sender, receiver)
}

/// Takes the first, has all others purged, gives it back, and takes it again: the receiver has heard of the purge then.
fn hold_the_first_and_purge_the_rest<'a>(bus: &Bus, receiver: &'a mut Receiver<Vec<u8>>) -> Delivery<'a, Vec<u8>> {
    let first = next(receiver);
    assert_eq!(number(&first), 0);
    assert!(bus.purge("jobs").unwrap().recalled >= 10);
    first.nack();
    let again = next(receiver);
    assert_eq!((number(&again), again.info().attempt), (0, 2));
    again
}

fn next(receiver: &mut Receiver<Vec<u8>>) -> Delivery<'_, Vec<u8>> {
    receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap()
}

fn on_stage(name: &str, test: fn(&mut Stage, &Bus)) {
    let body = move || {
        let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
        let bus = stage.bus();
        test(&mut stage, &bus);
    };
    watch(name, body, || ());
}

fn lane_sender(bus: &Bus, channel: &str) -> Sender<Vec<u8>> {
    bus.sender(channel).lane().open().unwrap()
}

/// Large enough that a few are as much as the daemon sends ahead.
fn parcel(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 8 * 1024];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

/// A sender with 1,500 parcels in its stream, where they came from a lane that a daemon would not take, and some in
/// its next lane. Returns how many there are.
fn with_both_ways_in_use(stage: &mut Stage, bus: &Bus) -> (Sender<Vec<u8>>, u64) {
    let sender = lane_sender(bus, "jobs");
    let mut sent = 0;
    let mut send = |sender: &Sender<Vec<u8>>| {
        sender.send(parcel(sent)).unwrap();
        sent += 1;
    };
    (0..1_500).for_each(|_| send(&sender));
    stage.kill_daemon();
    // Where the capacity is exact there are no lanes.
    stage.start_daemon_with("[channels.jobs]\ncapacity = 5000\n");
    sender.flush().unwrap();
    assert!(!sender.has_lane());
    stage.kill_daemon();
    stage.start_daemon();
    sender.flush().unwrap();
    until("the sender has its next lane", || {
        send(&sender);
        sender.has_lane()
    });
    (sender, sent)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        thread::yield_now();
    }
}

/// Both ends of a channel, with nothing under way.
fn connected_by_a_lane(bus: &Bus) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    let sender = lane_sender(bus, "jobs");
    let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
    into_lane(&sender, &receiver);
    until("everything is acknowledged", || sender.is_empty());
    (sender, receiver)
}

/// Sends and receives until the sender has its lane, and knows its receiver.
fn into_lane(sender: &Sender<Vec<u8>>, receiver: &Receiver<Vec<u8>>) {
    let mut sent = 0;
    until("the sender has its lane, and knows its receiver", || {
        sender.send(parcel(sent)).unwrap();
        assert_eq!(number(&receiver.recv_timeout(PATIENCE).unwrap()), sent);
        sent += 1;
        sender.is_in_lane()
    });
}

/// The acknowledgement of what went by the stream was told to nobody who waited in the lane.
#[test]
fn a_sender_with_a_window_of_one_moves_to_its_lane() {
    on_stage("window of one", |_, bus| {
        for round in 0..50 {
            let channel = format!("jobs.{round}");
            bus.create(&channel, ChannelOptions { window: Some(1), ..ChannelOptions::default() }).unwrap();
            let receiver: Receiver<u64> = bus.receiver(&channel).open().unwrap();
            let sender: Sender<u64> = bus.sender(&channel).lane().open().unwrap();
            for number in 0..20 {
                sender.send_timeout(number, PATIENCE).unwrap();
                assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), number, "in round {round}");
            }
        }
    });
}
