//! What the shell orders and asks, where messages lie in lanes.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bus_core::{Bus, Ledger, Receiver, Sender, TrySendError};
use bus_tests::processes::{Dice, Stage};
use bus_tests::{PATIENCE, Route, watch};

#[test]
fn a_purge_without_a_receiver_empties_lanes_and_makes_room() {
    on_stage("purged", |bus| {
        let sender = in_lane(bus, "jobs");
        let sent = fill(&sender);
        assert_eq!(bus.purge("jobs").unwrap().messages, sent);
        assert_eq!(ledger(bus), Ledger { accepted: sent, purged: sent, ..Ledger::default() });
        until("the sender has room", || sender.is_empty());
        sender.send(b"next".to_vec()).unwrap();
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), b"next");
    });
}

#[test]
fn a_purge_leaves_what_the_receiver_holds_and_takes_the_rest() {
    on_stage("purged", |bus| {
        let sender = in_lane(bus, "jobs");
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        let before = ledger(bus);
        (0..1_000_u64).for_each(|number| sender.send(number.to_le_bytes().to_vec()).unwrap());
        let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        let purged = bus.purge("jobs").unwrap().recalled;
        assert!((900..1_000).contains(&purged), "{purged}");
        held.ack();
        let mut seen = 1;
        sender.send(b"next".to_vec()).unwrap();
        while receiver.recv_timeout(PATIENCE).unwrap() != b"next" {
            seen += 1;
        }
        assert_eq!(seen + purged, 1_000);
        until("all is counted", || {
            let ledger = ledger(bus);
            let acknowledged = before.acknowledged + seen + 1;
            ledger == Ledger { accepted: before.accepted + 1_001, acknowledged, purged, ..Ledger::default() }
        });
    });
}

#[test]
fn skip_removes_the_head_of_a_lane_with_and_without_a_receiver() {
    on_stage("skipped", |bus| {
        let sender = in_lane(bus, "jobs");
        bus.purge("jobs").unwrap();
        for text in ["bad", "also bad", "good", "held", "bad again", "last"] {
            sender.send(text.as_bytes().to_vec()).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(bus.skip("jobs").unwrap().messages, 1);
        }
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), b"good");
        let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!(*held, b"held");
        assert_eq!(bus.skip("jobs").unwrap().recalled, 1);
        held.ack();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), b"last");
        until("all is counted", || ledger(bus).queued + ledger(bus).in_delivery == 0 && ledger(bus).balances());
    });
}

#[test]
fn a_head_that_is_given_back_is_the_one_that_skip_removes() {
    on_stage("skipped", |bus| {
        let sender = in_lane(bus, "jobs");
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        for text in ["bad", "good", "last"] {
            sender.send(text.as_bytes().to_vec()).unwrap();
        }
        let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!(bus.skip("jobs").unwrap().recalled, 1);
        held.nack();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), b"good");
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), b"last");
        until("all is counted", || ledger(bus).queued + ledger(bus).in_delivery == 0);
    });
}

#[test]
fn peek_shows_lanes_and_stream_in_the_order_of_sending() {
    on_stage("peeked", |bus| {
        let in_a_lane = in_lane(bus, "jobs");
        bus.purge("jobs").unwrap();
        let streamed = bus.sender::<Vec<u8>>("jobs").no_lane().open().unwrap();
        for number in 0..20_u8 {
            let sender = if number % 3 == 0 { &streamed } else { &in_a_lane };
            sender.send_confirmed(vec![number]).unwrap();
        }
        let (mut shown, mut at) = (Vec::new(), Some(0));
        while let Some(after) = at {
            let peeked = bus.peek("jobs", after, 7).unwrap();
            shown.extend(peeked.messages.into_iter().map(|message| message.payload[0]));
            at = peeked.next;
        }
        // It is known by their order alone what they are: codec and all are as they were sent.
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let received: Vec<u8> = (0..20).map(|_| receiver.recv_timeout(PATIENCE).unwrap()[0]).collect();
        assert_eq!(received, (0..20).collect::<Vec<u8>>());
        assert_eq!(shown.len(), 20);
    });
}

#[test]
fn either_end_is_told_the_route_and_how_full_a_lane_is() {
    on_stage("shown", |bus| {
        let sender = in_lane(bus, "jobs");
        let sent = fill(&sender);
        let info = sender.stats().unwrap();
        let shown = &info.senders[0];
        assert_eq!((shown.route.as_str(), shown.outstanding), ("lane", sent));
        assert!(info.held_bytes >= 1_000 * (64 - 1) && info.oldest_ms.is_some(), "{info:?}");
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        until("the receiver reads a lane", || {
            let info = receiver.stats().unwrap();
            info.receiver.is_some_and(|receiver| receiver.route == "lane" && receiver.messages >= sent)
        });
    });
}

#[test]
fn show_tells_since_when_a_sender_in_a_lane_waits() {
    on_stage("blocked", |bus| {
        let sender = in_lane(bus, "jobs");
        while sender.try_send(vec![0; 64]).is_ok() {}
        let waiting = std::thread::spawn(move || sender.send(vec![1]).map(|()| sender));
        until("it waits", || bus.show("jobs").unwrap().senders[0].blocked_ms.is_some());
        until("it waits for long", || bus.show("jobs").unwrap().senders[0].blocked_ms.is_some_and(|ms| ms >= 50));
        bus.purge("jobs").unwrap();
        waiting.join().unwrap().unwrap();
    });
}

/// The purge took it when its receiver had gone.
#[test]
fn what_a_receiver_held_at_a_purge_comes_again() {
    on_stage("held", |bus| {
        let sender = in_lane(bus, "jobs");
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        let before = ledger(bus).accepted;
        (0..1_000_u64).for_each(|number| sender.send(number.to_le_bytes().to_vec()).unwrap());
        let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert!(bus.purge("jobs").unwrap().recalled >= 900);
        drop(held);
        drop(receiver);
        let next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let mut seen = 0;
        assert_eq!(next.recv_timeout(PATIENCE).unwrap(), 0_u64.to_le_bytes());
        sender.send(b"next".to_vec()).unwrap();
        while next.recv_timeout(PATIENCE).unwrap() != b"next" {
            seen += 1;
        }
        assert!(seen < 100, "{seen} messages that were purged came");
        until("all is counted", || {
            let ledger = ledger(bus);
            ledger.balances() && ledger.queued + ledger.in_delivery == 0 && ledger.purged == 1_000 - 1 - seen
        });
        assert_eq!(ledger(bus).accepted, before + 1_001);
    });
}

/// It went by what was acknowledged, and took another message of the lane whose first one was held.
#[test]
fn skip_removes_the_first_that_is_not_handed_out_of_lane_and_stream() {
    on_stage("skipped", |bus| {
        let sender = in_lane(bus, "jobs");
        let streamed = bus.sender::<Vec<u8>>("jobs").no_lane().open().unwrap();
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        sender.send_confirmed(b"held".to_vec()).unwrap();
        let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        // The receiver has claimed what comes next by the stream.
        streamed.send_confirmed(b"claimed".to_vec()).unwrap();
        streamed.send_confirmed(b"first".to_vec()).unwrap();
        sender.send_confirmed(b"second".to_vec()).unwrap();
        bus.skip("jobs").unwrap();
        held.ack();
        let next: Vec<Vec<u8>> = (0..2).map(|_| receiver.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(next.last().unwrap(), b"second");
        assert!(receiver.try_recv().is_err());
    });
}

/// What was given back for the order counted as read until the daemon had heard so, and lanes were handed out past it.
#[test]
fn skip_of_the_head_of_the_stream_leaves_stream_and_lanes_in_order() {
    on_stage("skipped", |bus| {
        for round in 0..10 {
            let channel = format!("jobs.{round}");
            let laned = in_lane(bus, &channel);
            let streamed = bus.sender::<Vec<u8>>(&channel).no_lane().open().unwrap();
            let receiver: Receiver<Vec<u8>> = bus.receiver(&channel).open().unwrap();
            drain(&laned, &receiver);
            for text in ["bad", "first", "second"] {
                streamed.send_confirmed(text.as_bytes().to_vec()).unwrap();
            }
            laned.send(b"third".to_vec()).unwrap();
            until("all is here", || receiver.len() == 4);
            assert_eq!(bus.skip(&channel).unwrap().recalled, 1);
            for text in ["first", "second", "third"] {
                assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), text.as_bytes(), "round {round}");
            }
        }
    });
}

/// The last of the lane counted as acknowledged when its sender had left: what came again by the stream was known then,
/// and settled unseen.
#[test]
fn what_a_sender_sent_before_its_lane_outlives_a_skip_and_the_sender() {
    on_stage("skipped", |bus| {
        for leaves in [false, true] {
            let channel = format!("jobs.{leaves}");
            let receiver: Receiver<Vec<u8>> = bus.receiver(&channel).open().unwrap();
            let sender = bus.sender(&channel).lane().open().unwrap();
            let mut sent = 0_u64;
            let mut send = || {
                sent += 1;
                sender.send_confirmed(sent.to_le_bytes().to_vec()).unwrap();
                sent
            };
            (0..5).for_each(|_| assert!(send() > 0));
            until("it goes on in its lane", || {
                // The receiver takes the lane up with what it is asked.
                let _ = receiver.len();
                send();
                sender.has_lane()
            });
            let last = send() + 1;
            send();
            until("all is here", || receiver.len() as u64 == last);
            assert_eq!(bus.skip(&channel).unwrap().recalled, 1);
            if leaves {
                drop(sender);
                until("it has left", || bus.show(&channel).unwrap().sender_count == 0);
            }
            let received: Vec<u64> = (1..last).map(|_| number(&receiver)).collect();
            assert_eq!(received, (2..=last).collect::<Vec<u64>>(), "the sender leaves: {leaves}");
        }
    });
}

/// Nothing of it comes again, and what is sent later, by lane and stream, comes in order.
#[test]
fn what_a_purge_takes_back_of_the_stream_is_waited_for_by_nobody() {
    on_stage("purged", |bus| {
        for round in 0..10 {
            let channel = format!("jobs.{round}");
            let laned = in_lane(bus, &channel);
            let streamed = bus.sender::<Vec<u8>>(&channel).no_lane().open().unwrap();
            let receiver: Receiver<Vec<u8>> = bus.receiver(&channel).open().unwrap();
            drain(&laned, &receiver);
            (0..3_u64).for_each(|_| streamed.send_confirmed(0_u64.to_le_bytes().to_vec()).unwrap());
            until("all is here", || receiver.len() == 3);
            assert!(bus.purge(&channel).unwrap().recalled >= 2);
            for sent in 1..=6_u64 {
                let sender = if sent % 2 == 1 { &laned } else { &streamed };
                sender.send_confirmed(sent.to_le_bytes().to_vec()).unwrap();
            }
            let mut received: Vec<u64> = (0..6).map(|_| number(&receiver)).collect();
            if received[0] == 0 {
                // It was claimed by who waited last: no order takes that.
                received.push(number(&receiver));
                received.remove(0);
            }
            assert_eq!(received, (1..=6).collect::<Vec<u64>>(), "round {round}");
            // What was purged is not missed later, either.
            laned.send(7_u64.to_le_bytes().to_vec()).unwrap();
            assert_eq!(receiver.try_recv().unwrap(), 7_u64.to_le_bytes());
        }
    });
}

/// A try waits for what is due, which nobody sends.
#[test]
fn a_try_after_a_purge_of_the_stream_finds_what_is_in_a_lane() {
    on_stage("purged", |bus| {
        let laned = in_lane(bus, "jobs");
        let streamed = bus.sender::<Vec<u8>>("jobs").no_lane().open().unwrap();
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&laned, &receiver);
        (0..2).for_each(|_| streamed.send_confirmed(b"bad".to_vec()).unwrap());
        until("all is here", || receiver.len() == 2);
        let claimed = 2 - bus.purge("jobs").unwrap().recalled;
        laned.send(b"good".to_vec()).unwrap();
        (0..claimed).for_each(|_| assert_eq!(receiver.try_recv().unwrap(), b"bad"));
        assert_eq!(receiver.try_recv().unwrap(), b"good");
    });
}

/// The next one, which nobody had seen, came with its attempts.
#[test]
fn attempts_go_with_a_message_that_is_skipped() {
    on_stage("skipped", |bus| {
        let sender = in_lane(bus, "jobs");
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        for text in ["bad", "good", "held", "bad", "last"] {
            sender.send(text.as_bytes().to_vec()).unwrap();
        }
        for attempt in 1..=2 {
            let bad = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
            assert_eq!((bad.as_slice(), bad.info().attempt), (b"bad".as_slice(), attempt));
            bad.nack();
        }
        assert_eq!(bus.skip("jobs").unwrap().recalled, 1);
        let good = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!((good.as_slice(), good.info().attempt, good.info().redelivered), (b"good".as_slice(), 1, false));
        good.ack();
        // One that lies behind others is passed over once they are acknowledged.
        let batch = receiver.next_batch(3, Some(Instant::now() + PATIENCE)).unwrap();
        assert_eq!(batch.len(), 3);
        batch.ack_first(0);
        let held = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!((held.as_slice(), held.info().attempt), (b"held".as_slice(), 2));
        assert_eq!(bus.skip("jobs").unwrap().recalled, 1);
        held.ack();
        let last = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!((last.as_slice(), last.info().attempt), (b"last".as_slice(), 2));
        last.ack();
        until("all is counted", || ledger(bus).queued + ledger(bus).in_delivery == 0);
        assert_eq!(ledger(bus).purged, 2);
    });
}

/// It was told with the next call, and not at all where the lane had ended by then: it counted as acknowledged.
#[test]
fn what_is_passed_over_behind_a_message_in_hand_is_counted_as_purged() {
    on_stage("counted", |bus| {
        for leaves in [false, true] {
            bus.purge("jobs").ok();
            let sender = in_lane(bus, "jobs");
            let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
            drain(&sender, &receiver);
            let before = ledger(bus);
            sender.send(b"held".to_vec()).unwrap();
            receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap().nack();
            sender.send(b"purged".to_vec()).unwrap();
            assert_eq!(bus.purge("jobs").unwrap().recalled, 1);
            let batch = receiver.next_batch(2, Some(Instant::now() + PATIENCE)).unwrap();
            assert_eq!(batch.len(), 1, "the other one is passed over");
            if leaves {
                drop(sender);
                until("its sender has left", || bus.show("jobs").unwrap().sender_count == 0);
            }
            batch.ack();
            let (accepted, acknowledged) = (before.accepted + 2, before.acknowledged + 1);
            let expected = Ledger { accepted, acknowledged, purged: before.purged + 1, ..Ledger::default() };
            until("all is counted", || ledger(bus) == expected);
            assert!(receiver.try_recv().is_err());
            // Also once the lane is gone.
            assert_eq!(ledger(bus), expected, "the sender leaves: {leaves}");
        }
    });
}

/// It was counted twice: as claimed, and as given back.
#[test]
fn the_next_receiver_counts_an_attempt_of_a_batch_that_was_given_back_once() {
    on_stage("given back", |bus| {
        let sender = in_lane(bus, "jobs");
        let mut receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        drain(&sender, &receiver);
        (0..3_u64).for_each(|number| sender.send(number.to_le_bytes().to_vec()).unwrap());
        let batch = receiver.next_batch(3, Some(Instant::now() + PATIENCE)).unwrap();
        assert_eq!(batch.len(), 3);
        batch.ack_first(1);
        assert_eq!(number(&receiver), 1);
        drop(receiver);
        let mut next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let last = next.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        assert_eq!((last[0], last.info().attempt), (2, 2));
        last.ack();
    });
}

/// What was sent to a channel that was deleted was told to nobody.
#[test]
fn a_deleted_channel_gives_back_what_was_sent_too_late() {
    on_stage("deleted", |bus| {
        for round in 0..20 {
            let channel = format!("jobs.{round}");
            let sender = in_lane(bus, &channel);
            let before = sender.len() as u64;
            let sending = std::thread::spawn(move || {
                let mut sent = 0_u64;
                loop {
                    match sender.try_send(vec![1; 64]) {
                        Ok(()) => sent += 1,
                        Err(TrySendError::Full(_)) => std::thread::yield_now(),
                        Err(TrySendError::Disconnected(_)) => return (sender, sent),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            std::thread::sleep(Duration::from_micros(300 * round));
            let removed = bus.delete(&channel).unwrap().messages;
            let (sender, sent) = sending.join().unwrap();
            assert_eq!(before + sent, removed + sender.refused().len() as u64);
        }
    });
}

fn on_stage(name: &str, test: fn(&Bus)) {
    let body = move || {
        let stage = Stage::new(Dice::from_environment(), Route::Lane);
        test(&stage.bus());
    };
    watch(name, body, || ());
}

/// A sender in its lane, with some messages there and in the stream.
fn in_lane(bus: &Bus, channel: &str) -> Sender<Vec<u8>> {
    let sender = bus.sender(channel).lane().open().unwrap();
    until("the sender is in its lane", || {
        sender.send_confirmed(vec![0; 64]).unwrap();
        sender.has_lane()
    });
    sender
}

/// Sends a thousand more. Returns how many there are.
fn fill(sender: &Sender<Vec<u8>>) -> u64 {
    (0..1_000).for_each(|_| sender.send(vec![0; 64]).unwrap());
    sender.flush().unwrap();
    sender.len() as u64
}

/// The next number that is received.
fn number(receiver: &Receiver<Vec<u8>>) -> u64 {
    u64::from_le_bytes(receiver.recv_timeout(PATIENCE).unwrap().try_into().unwrap())
}

/// Receives everything that there is.
fn drain(sender: &Sender<Vec<u8>>, receiver: &Receiver<Vec<u8>>) {
    until("everything is received", || {
        while receiver.recv_timeout(Duration::from_millis(20)).is_ok() {}
        sender.is_empty()
    });
}

fn ledger(bus: &Bus) -> Ledger {
    bus.show("jobs").unwrap().ledger
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::yield_now();
    }
}
