//! Receivers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bus_core::wire::{Closing, ClosingCode, Kind, KnownSender, Progress, Role, read_control};
use bus_core::{BytesDelivery, Peers, Receiver, RecvError, RecvTimeoutError, TryRecvError};
use serde::{Deserialize, Deserializer};

use crate::script::{PATIENCE, Peer, Script, in_time, receiver_welcome};

/// More than a socket holds of the claims and acknowledgements for them.
const MANY: u32 = 2_000;

fn receiver(script: &Script) -> (Receiver<u8>, Peer) {
    let bus = script.bus();
    script.meet(move || bus.receiver::<u8>("jobs").open().unwrap(), receiver_welcome())
}

fn peers(senders: u32) -> Peers {
    let mut peers = Peers::default();
    (peers.senders, peers.receivers) = (senders, 1);
    peers
}

/// Its socket filled up with what it had to say, and every call waited for it without an end.
#[test]
fn a_daemon_that_does_not_read_holds_up_neither_tries_nor_deadlines_nor_a_drop() {
    let script = Script::new();
    let (mut receiver, mut peer) = receiver(&script);
    peer.deliver(1, &[1]);
    in_time("a receiver beside a stopped daemon", move || {
        // Each time it is claimed and given back, which is told at once, until the socket is full.
        loop {
            let tried = receiver.try_next_delivery().map(|delivery| {
                assert!(delivery.info().attempt < MANY, "the socket takes all of it");
                delivery.nack();
            });
            match tried {
                Ok(()) => {}
                // It is here, and not handed out: nobody could be told.
                Err(TryRecvError::Empty) if receiver.len() == 1 => break,
                Err(TryRecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let asked = Instant::now();
        let waited = receiver.recv_timeout(Duration::from_millis(30));
        assert!(matches!(waited, Err(RecvTimeoutError::Timeout)), "{waited:?}");
        assert!(asked.elapsed() < PATIENCE / 2, "the deadline is kept");
        drop(receiver);
    });
    drop(peer);
}

#[test]
fn what_could_not_be_said_is_said_when_the_daemon_reads_again() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.deliver_all(1..=MANY.into(), &[1]);
    let receiving = thread::spawn(move || (0..MANY).map(|_| u64::from(receiver.recv().unwrap())).sum::<u64>());
    let told = loop {
        let (header, body) = peer.next();
        assert!(matches!(header.kind, Kind::Progress | Kind::Goodbye), "{header:?}");
        let progress: Progress = read_control(header.kind, &body).unwrap();
        if progress.acked == u64::from(MANY) {
            break progress;
        }
    };
    assert_eq!((told.taken, receiving.join().unwrap()), (MANY.into(), MANY.into()));
}

static EXPLODES: AtomicBool = AtomicBool::new(true);

/// A value whose decoding panics, once.
#[derive(Debug)]
struct Explosive(u8);

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u8::deserialize(deserializer)?;
        assert!(!EXPLODES.swap(false, Ordering::SeqCst), "a value that explodes");
        Ok(Self(value))
    }
}

/// The message stayed lent to the call that was gone, and the receiver waited for it.
#[test]
fn a_value_that_panics_while_it_is_decoded_comes_again_and_was_claimed() {
    let script = Script::new();
    let bus = script.bus();
    let (receiver, mut peer) =
        script.meet(move || bus.receiver::<Explosive>("jobs").open().unwrap(), receiver_welcome());
    peer.deliver(1, &[42]);
    let receiver = in_time("a panic", move || {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| receiver.recv()));
        assert!(panicked.is_err());
        receiver
    });
    let claim: Progress = peer.hear(Kind::Progress);
    assert_eq!((claim.taken, claim.acked), (1, 0), "claimed before it was decoded");
    let value = in_time("the value comes again", move || {
        let mut receiver = receiver;
        let delivery = receiver.next_delivery().unwrap();
        assert_eq!((delivery.info().attempt, delivery.info().redelivered), (2, true));
        delivery.ack().0
    });
    assert_eq!(value, 42);
}

/// What a receiver had not handed out when a connection broke was kept once more each time.
#[test]
fn messages_that_come_again_and_again_are_kept_once() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    for _ in 0..5 {
        (1..=3).for_each(|sequence| peer.deliver(sequence, &[1]));
        // Only a look at what is here: nothing is taken.
        let deadline = Instant::now() + PATIENCE;
        while receiver.len() < 3 {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        drop(peer);
        peer = script.accept();
        peer.welcome(receiver_welcome());
    }
    assert_eq!(receiver.len(), 3);
    (1..=4).for_each(|sequence| peer.deliver(sequence, &[sequence as u8]));
    let values: Vec<u8> = in_time("four messages", move || (0..4).map(|_| receiver.recv().unwrap()).collect());
    assert_eq!(values, [1, 1, 1, 4]);
}

/// Whoever waited for the peers to change held up whoever settled a message.
#[test]
fn a_message_is_settled_while_another_thread_waits_for_the_peers() {
    let script = Script::new();
    let (mut receiver, mut peer) = receiver(&script);
    peer.deliver(1, &[1]);
    let owned = receiver.next_delivery().unwrap().into_owned();
    let before = peers(1);
    let waiting = thread::spawn(move || receiver.peers_changed(before, Some(Instant::now() + PATIENCE)));
    peer.hear::<()>(Kind::Watch);
    in_time("settling", move || owned.ack());
    loop {
        let progress: Progress = peer.hear(Kind::Progress);
        if progress.acked == 1 {
            break;
        }
    }
    let after = peers(0);
    peer.say(Kind::Peers, &after);
    assert_eq!(waiting.join().unwrap().unwrap(), after);
}

/// A batch that is held long kept the process from taking any end into use again.
#[test]
fn a_batch_that_is_held_does_not_keep_others_from_coming_back() {
    let script = Script::new();
    let bus = script.bus();
    let other = bus.clone();
    let (mut holder, mut peer) = script.meet(move || bus.raw_receiver("held").open().unwrap(), receiver_welcome());
    let (waiter, waiting_peer) = script.meet(move || other.receiver::<u8>("waits").open().unwrap(), receiver_welcome());
    peer.deliver(1, b"held");
    let batch = holder.next_batch(10, None).unwrap();
    drop((peer, waiting_peer));
    let value = thread::spawn(move || waiter.recv().unwrap());
    loop {
        let mut peer = script.accept();
        peer.welcome(receiver_welcome());
        if matches!(&peer.role, bus_core::wire::Role::Receiver(hello) if hello.channel.as_str() == "waits") {
            peer.deliver(1, &[9]);
            assert_eq!(in_time("the other end", move || value.join().unwrap()), 9);
            break;
        }
    }
    batch.ack();
}

/// Each message cost its reader a claim before it was handed out.
#[test]
fn whoever_waits_has_claimed_the_next_message_already() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    let waiting = thread::spawn(move || receiver.recv().map(|value| (value, receiver)));
    let claim: Progress = peer.hear(Kind::Progress);
    assert_eq!((claim.taken, claim.acked), (1, 0));
    // An order takes the claim back: nothing has come.
    peer.say(Kind::Recall, &());
    let recalled: Progress = peer.hear(Kind::Recalled);
    assert_eq!((recalled.taken, recalled.acked), (0, 0));
    let claim: Progress = peer.hear(Kind::Progress);
    assert_eq!((claim.taken, claim.acked), (1, 0));
    peer.deliver(1, &[5]);
    let (value, receiver) = waiting.join().unwrap().unwrap();
    assert_eq!(value, 5);
    let told: Progress = peer.hear(Kind::Progress);
    assert_eq!((told.taken, told.acked), (1, 1), "acknowledged although its user does not call again");
    drop(receiver);
}

/// Claimed in advance, they stood before every order until the last of them was handed out.
#[test]
fn an_order_is_obeyed_before_messages_that_are_only_claimed() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    let taking = thread::spawn(move || {
        (0..300).for_each(|_| assert_eq!(receiver.recv().unwrap(), 5));
        receiver
    });
    peer.deliver_all(1..=500, &[5]);
    let receiver = taking.join().unwrap();
    peer.say(Kind::Recall, &());
    // From now on its user takes its time over each.
    let taking = thread::spawn(move || {
        while receiver.recv().unwrap() != 6 {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let recalled: Progress = peer.hear(Kind::Recalled);
    assert!(recalled.taken == recalled.acked && recalled.acked < 330, "{recalled:?}");
    peer.deliver(recalled.acked + 1, &[6]);
    in_time("the message behind the order", move || taking.join().unwrap());
}

#[test]
fn a_busy_receiver_waits_untold_and_the_keeper_tells_the_rest() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    let (took, taken) = std::sync::mpsc::channel();
    let taking = thread::spawn(move || {
        for value in receiver.iter().take(1_001) {
            took.send(value).unwrap();
        }
    });
    for sequence in 1..=1_000 {
        peer.deliver(sequence, &[1]);
        taken.recv_timeout(PATIENCE).unwrap();
    }
    // It waits for the last one, and has been told nothing that would make it speak.
    let mut frames = 0;
    loop {
        let progress: Progress = peer.hear(Kind::Progress);
        frames += 1;
        // At rest it claims the next message, and no other.
        if progress.acked == 1_000 && progress.taken == 1_001 {
            break;
        }
    }
    assert!(frames < 700, "{frames} frames for 1,000 messages that were waited for one by one");
    peer.deliver(1_001, &[1]);
    in_time("the last message", move || taking.join().unwrap());
}

/// Whoever was killed then had messages marked that it never took.
#[test]
fn a_receiver_that_stops_taking_claims_nothing_any_more() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.deliver_all(1..=500, &[5]);
    (0..100).for_each(|_| assert_eq!(receiver.recv().unwrap(), 5));
    loop {
        let progress: Progress = peer.hear(Kind::Progress);
        if (progress.taken, progress.acked) == (100, 100) {
            break;
        }
    }
    drop(receiver);
}

/// The daemon's last word stood behind them, was taken for an order that takes messages back, and nobody had
/// them any more.
#[test]
fn messages_before_the_last_word_of_a_daemon_that_ends_are_handed_out() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    (1..=5).for_each(|sequence| peer.deliver(sequence, &[sequence as u8]));
    let end = Closing { code: ClosingCode::ShuttingDown, text: "the daemon ends".to_owned() };
    peer.say(Kind::Closing, &end);
    let values: Vec<u8> = in_time("five messages", move || (0..5).map(|_| receiver.recv().unwrap()).collect());
    assert_eq!(values, [1, 2, 3, 4, 5]);
}

/// A batch of which the head alone was lent again was forgotten: the others came again unmarked.
/// It waited for the next connection: what it had to say before it waits had found the socket closed.
#[test]
fn a_receiver_that_finds_the_daemon_gone_as_it_tells_looks_at_its_last_words() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.say(Kind::Closing, &Closing { code: ClosingCode::Deleted, text: String::new() });
    let ended = in_time("a receiver of a deleted channel", move || {
        // In the same breath: the keeper would notice a moment later.
        drop(peer);
        receiver.recv()
    });
    assert!(matches!(ended, Err(RecvError::Deleted)), "{ended:?}");
}

#[test]
fn a_batch_that_was_given_back_stays_marked_when_its_head_is_given_back_again() {
    let script = Script::new();
    let bus = script.bus();
    let (mut receiver, mut peer) = script.meet(move || bus.raw_receiver("jobs").open().unwrap(), receiver_welcome());
    peer.deliver_all(1..=3, b"x");
    while receiver.len() < 3 {
        thread::yield_now();
    }
    let attempts = |receiver: &mut Receiver<Vec<u8>>| {
        let batch = receiver.next_batch(3, None).unwrap();
        batch.iter().map(|message| message.info().attempt).collect::<Vec<_>>()
    };
    assert_eq!(attempts(&mut receiver), [1, 1, 1]);
    drop(receiver.next_bytes(None).unwrap());
    let told = loop {
        let progress: Progress = peer.hear(Kind::Progress);
        if progress.head_given_back == 1 {
            break progress;
        }
    };
    assert_eq!((told.taken, told.acked), (3, 0), "the others were seen as well");
    assert_eq!(attempts(&mut receiver), [3, 2, 2]);
}

/// As long as its user held the next one, nobody could tell it.
#[test]
fn an_acknowledgement_is_told_while_the_next_message_is_held() {
    let script = Script::new();
    let bus = script.bus();
    let (mut receiver, mut peer) = script.meet(move || bus.raw_receiver("jobs").open().unwrap(), receiver_welcome());
    peer.deliver_all(1..=3, b"x");
    while receiver.len() < 3 {
        thread::yield_now();
    }
    for _ in 0..2 {
        receiver.next_bytes(None).unwrap().ack();
    }
    let held = receiver.next_bytes(None).unwrap();
    let told = loop {
        let progress: Progress = peer.hear(Kind::Progress);
        if progress.acked == 2 {
            break progress;
        }
    };
    assert_eq!(told.taken, 3, "what is held stays claimed");
    held.ack();
}

/// Its user never saw the message, and the next receiver had it marked.
#[test]
fn the_claim_of_a_call_that_ran_out_is_taken_back() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    let claim: Progress = peer.hear(Kind::Progress);
    assert_eq!((claim.taken, claim.acked), (1, 0));
    let rest: Progress = peer.hear(Kind::Progress);
    assert_eq!((rest.taken, rest.acked), (0, 0));
    drop(receiver);
}

/// What was claimed in advance counted as seen for as long as its user worked on one message.
#[test]
fn of_what_is_claimed_in_advance_only_what_is_held_stays_claimed() {
    let script = Script::new();
    let bus = script.bus();
    let (mut receiver, mut peer) = script.meet(move || bus.raw_receiver("jobs").open().unwrap(), receiver_welcome());
    peer.deliver_all(1..=100, b"x");
    while receiver.len() < 100 {
        thread::yield_now();
    }
    // As fast as it goes, so that several are claimed at once.
    for _ in 0..20 {
        receiver.next_bytes(None).unwrap().ack();
    }
    let held = receiver.next_bytes(None).unwrap();
    loop {
        let progress: Progress = peer.hear(Kind::Progress);
        if (progress.acked, progress.taken) == (20, 21) {
            break;
        }
    }
    held.ack();
}

/// Of a batch that was given back, the last one lost its mark with the acknowledgement of those before it.
#[test]
fn the_rest_of_a_batch_that_was_given_back_is_told_with_its_attempt() {
    let script = Script::new();
    let bus = script.bus();
    let (mut receiver, mut peer) = script.meet(move || bus.raw_receiver("jobs").open().unwrap(), receiver_welcome());
    peer.deliver_all(1..=2, b"x");
    while receiver.len() < 2 {
        thread::yield_now();
    }
    drop(receiver.next_batch(2, None).unwrap());
    receiver.next_bytes(None).unwrap().ack();
    peer.say(Kind::Recall, &());
    assert_eq!(receiver.len(), 1, "what was said is read by this");
    let looking = thread::spawn(move || receiver.next_bytes(None).map(BytesDelivery::ack));
    let recalled = loop {
        let (header, body) = peer.next();
        if header.kind == Kind::Recalled {
            break read_control::<Progress>(header.kind, &body).unwrap();
        }
    };
    assert_eq!((recalled.taken, recalled.acked, recalled.head_given_back), (1, 1, 1));
    peer.deliver(2, b"x");
    looking.join().unwrap().unwrap();
}

/// It named those alone of whom it had acknowledged something: the next daemon did not wait for the others.
#[test]
fn a_receiver_that_comes_back_names_the_senders_of_what_it_holds() {
    let script = Script::new();
    let (receiver, mut peer) = receiver(&script);
    peer.deliver(5, &[9]);
    drop(peer);
    let mut peer = script.accept();
    let Role::Receiver(hello) = &peer.role else { panic!("{:?}", peer.role) };
    let named = &hello.returning.as_ref().unwrap().senders;
    assert_eq!(*named, [KnownSender { sender: 7, pid: 1, sequence: 0 }]);
    peer.welcome(receiver_welcome());
    assert_eq!(receiver.recv().unwrap(), 9);
}
