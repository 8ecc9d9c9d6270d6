//! Lanes beside a daemon that hands nothing over.

use std::thread;
use std::time::{Duration, Instant};

use bus_core::wire::{
    CursorGiven, Kind, LaneDone, LaneGiven, LaneId, LaneNamed, LaneOffered, LaneProof, LaneStart, Role, Settled,
};
use bus_core::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use crate::script::{PATIENCE, Peer, Script, in_time, receiver_welcome, sender_welcome};

const LANE: LaneId = LaneId(300);
const PROOF: LaneProof = LaneProof { uid: 0, token: [7; 16] };

fn receiver(script: &Script) -> (Receiver<u8>, Peer) {
    let bus = script.bus();
    script.meet(move || bus.receiver::<u8>("jobs").open().unwrap(), receiver_welcome())
}

fn given(in_use: bool) -> LaneGiven {
    LaneGiven {
        lane: LANE,
        ticket: [1; 16],
        generation: 1,
        sender: 9,
        pid: 1,
        ring_bytes: 1 << 20,
        not_before_ns: 0,
        start: LaneStart::default(),
        attempts: Vec::new(),
        sender_gone: false,
        brought: false,
        proof: PROOF,
        in_use,
    }
}

/// Lets every fetch fail until `peer` says that it does without.
fn refuse_fetches(script: Script, mut peer: Peer) -> (Peer, LaneDone) {
    let refusing = thread::spawn(move || {
        let mut refused = 0;
        while let Role::Lane(_) = script.accept().role {
            refused += 1;
        }
        refused
    });
    let done = peer.hear(Kind::LaneDone);
    drop(refusing);
    (peer, done)
}

/// Each call fetched the lane itself, and waited for the daemon while it did.
#[test]
fn a_lane_that_is_on_its_way_holds_up_neither_tries_nor_deadlines() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.say(Kind::LaneGiven, &given(true));
    peer.deliver(1, &[1]);
    let receiver = in_time("a receiver whose lane does not come", move || {
        let begin = Instant::now();
        let (mut tries, mut waits) = (0, 0);
        while begin.elapsed() < Duration::from_millis(300) {
            // What the lane holds may come before the message that is here.
            let tried = receiver.try_recv();
            assert!(matches!(tried, Err(TryRecvError::Empty)), "{tried:?}");
            let waited = receiver.recv_timeout(Duration::from_millis(1));
            assert!(matches!(waited, Err(RecvTimeoutError::Timeout)), "{waited:?}");
            (tries, waits) = (tries + 1, waits + 1);
        }
        assert!(tries > 0 && waits > 0);
        receiver
    });
    let (mut peer, done) = refuse_fetches(script, peer);
    assert_eq!(done.lane, LANE);
    assert!(done.fault.is_some_and(|fault| fault.contains("300")), "it says what it cannot have");
    // Its sender has gone back to the stream with what was in there.
    peer.say(Kind::SenderGone, &LaneNamed { lane: LANE });
    let received = in_time("the message of the stream", move || receiver.recv_timeout(PATIENCE));
    assert_eq!(received.unwrap(), 1);
}

#[test]
fn a_lane_in_which_nothing_was_sent_holds_nothing_back() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.say(Kind::LaneGiven, &given(false));
    peer.deliver(1, &[1]);
    let receiver = in_time("the first message", move || {
        assert_eq!(receiver.recv().unwrap(), 1);
        receiver
    });
    peer.deliver(2, &[2]);
    in_time("a message that comes later", move || assert_eq!(receiver.recv().unwrap(), 2));
}

#[test]
fn a_receiver_that_waits_for_a_lane_goes_on_when_that_is_done_without() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.say(Kind::LaneGiven, &given(true));
    peer.deliver(1, &[5]);
    let waiting = thread::spawn(move || receiver.recv().unwrap());
    let (mut peer, _) = refuse_fetches(script, peer);
    peer.say(Kind::SenderGone, &LaneNamed { lane: LANE });
    in_time("a receiver that waits", move || assert_eq!(waiting.join().unwrap(), 5));
}

#[test]
fn a_sender_whose_lane_cannot_be_fetched_stays_on_the_stream_and_says_so() {
    let script = Script::new();
    let bus = script.bus();
    let open = move || bus.raw_sender("jobs").lane().open().unwrap();
    let (sender, mut peer): (Sender<Vec<u8>>, Peer) = script.meet(open, sender_welcome());
    let ring_bytes = 1 << 20;
    let offered = LaneOffered { lane: LANE, ticket: [1; 16], ring_bytes, window_messages: 10, proof: PROOF };
    peer.say(Kind::LaneOffered, &offered);
    let sent = 20;
    for _ in 0..sent {
        // It hears the daemon, and what it hears holds nothing up.
        assert!(!sender.is_in_lane());
        sender.try_send(vec![1]).unwrap();
    }
    let (mut peer, done) = refuse_fetches(script, peer);
    assert_eq!((done.lane, done.messages), (LANE, 0));
    // A cursor of a lane that it has not is nothing to it.
    peer.say(Kind::CursorGiven, &CursorGiven { lane: LANE, generation: 1, ticket: None });
    let confirming = thread::spawn(move || sender.send_confirmed(vec![2]));
    assert_eq!(peer.next().0.sequence, sent + 1);
    peer.say(Kind::Settled, &Settled { accepted: sent + 1, acked: sent + 1, dropped: 0 });
    in_time("the confirmation", move || confirming.join().unwrap().unwrap());
}
