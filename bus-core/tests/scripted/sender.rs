//! Senders.

use std::thread;
use std::time::{Duration, Instant};

use bus_core::wire::{Kind, Receivers, Role, SenderWelcome, Settled, Want, WelcomeRole};
use bus_core::{SendError, SendTimeoutError, Sender, TrySendError};

use crate::script::{PATIENCE, Peer, Script, in_time, sender_welcome};

fn sender(script: &Script) -> (Sender<Vec<u8>>, Peer) {
    let bus = script.bus();
    script.meet(move || bus.raw_sender("jobs").open().unwrap(), sender_welcome())
}

/// Sends until the socket takes no more. Returns how many it took.
fn fill(sender: &Sender<Vec<u8>>) -> u64 {
    let mut sent = 0;
    loop {
        match sender.try_send(vec![0; 64]) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(_)) => return sent,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the socket refused once was said again only when the daemon spoke: it had no reason to.
#[test]
fn a_flush_is_asked_for_when_the_socket_takes_it() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let sent = fill(&sender);
    let flushing = thread::spawn(move || sender.flush());
    let sequences = peer.messages_until(Kind::Confirm);
    assert_eq!(sequences, (1..=sent).collect::<Vec<_>>());
    peer.say(Kind::Settled, &Settled { accepted: sent, acked: sent, dropped: 0 });
    in_time("the flush", move || flushing.join().unwrap().unwrap());
}

/// A connection was given up for a message of which the socket had taken nothing.
#[test]
fn a_send_that_times_out_keeps_the_connection_when_the_socket_has_nothing_of_it() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let sent = fill(&sender);
    for _ in 0..3 {
        let late = sender.send_timeout(vec![1; 64], Duration::from_millis(5));
        assert!(matches!(late, Err(SendTimeoutError::Timeout(_))), "{late:?}");
    }
    let confirming = thread::spawn(move || sender.send_confirmed(vec![2; 64]));
    // One more, under the number of those that were never sent.
    let sequences: Vec<u64> = (0..=sent).map(|_| peer.next().0.sequence).collect();
    assert_eq!(sequences, (1..=sent + 1).collect::<Vec<_>>());
    peer.say(Kind::Settled, &Settled { accepted: sent + 1, acked: sent + 1, dropped: 0 });
    in_time("the confirmation", move || confirming.join().unwrap().unwrap());
}

/// Each call with a short deadline gave up the connection over which everything was sent again, and
/// so nothing ever was.
#[test]
fn a_short_deadline_does_not_disturb_what_is_sent_again() {
    const FED: u64 = 20_000;
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let reading = thread::spawn(move || while peer.next().0.sequence <= FED {});
    for _ in 0..FED {
        sender.feed(vec![0; 64]).unwrap();
    }
    sender.send(vec![0; 64]).unwrap();
    // Read to its end, then gone: nothing was accepted.
    reading.join().unwrap();
    let mut peer = script.accept();
    let Role::Sender(hello) = &peer.role else { panic!("{:?}", peer.role) };
    assert_eq!(hello.resume.unwrap().next_sequence, 1);
    peer.welcome(sender_welcome());
    for _ in 0..20 {
        let late = sender.send_timeout(vec![1; 64], Duration::from_millis(2));
        assert!(matches!(late, Err(SendTimeoutError::Timeout(_))), "{late:?}");
    }
    let flushing = thread::spawn(move || sender.flush());
    let sequences = peer.messages_until(Kind::Confirm);
    assert_eq!(sequences, (1..=FED + 1).collect::<Vec<_>>(), "all of it over this connection");
    peer.say(Kind::Settled, &Settled { accepted: FED + 1, acked: FED + 1, dropped: 0 });
    in_time("the flush", move || flushing.join().unwrap().unwrap());
}

/// It waited for its socket alone, and never read that there was nobody left to send to.
#[test]
fn a_sender_that_waits_for_its_socket_learns_that_the_required_receiver_is_gone() {
    let script = Script::new();
    let bus = script.bus();
    let WelcomeRole::Sender(mut welcome) = sender_welcome() else { unreachable!() };
    welcome.receivers = 1;
    let open = move || bus.raw_sender("jobs").require_receiver().open().unwrap();
    let (sender, mut peer) = script.meet(open, WelcomeRole::Sender(welcome));
    fill(&sender);
    let sending = thread::spawn(move || sender.send(vec![0; 64]));
    peer.say(Kind::Receivers, &Receivers { count: 0 });
    let sent = in_time("the send", move || sending.join().unwrap());
    assert!(matches!(sent, Err(SendError::Disconnected(_))), "{sent:?}");
}

/// A daemon reads nobody who does not read what it says: both waited for each other.
#[test]
fn a_sender_that_waits_for_its_socket_reads_what_the_daemon_says() {
    const MORE_THAN_A_SOCKET_HOLDS: u64 = 20_000;
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    fill(&sender);
    let _sending = thread::spawn(move || sender.send(vec![0; 64]));
    in_time("the sender reads", move || {
        for _ in 0..MORE_THAN_A_SOCKET_HOLDS {
            peer.say(Kind::Settled, &Settled::default());
        }
    });
}

#[test]
fn a_flush_does_not_wait_for_a_message_that_was_taken_back() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let sent = fill(&sender);
    let other = sender.clone();
    let late = thread::spawn(move || other.send_timeout(vec![1; 64], Duration::from_secs(1)));
    while sender.len() as u64 == sent {
        thread::yield_now();
    }
    let flushing = thread::spawn(move || sender.flush());
    assert!(matches!(late.join().unwrap(), Err(SendTimeoutError::Timeout(_))));
    let sequences = peer.messages_until(Kind::Confirm);
    assert_eq!(sequences, (1..=sent).collect::<Vec<_>>());
    peer.say(Kind::Settled, &Settled { accepted: sent, acked: sent, dropped: 0 });
    in_time("the flush", move || flushing.join().unwrap().unwrap());
}

/// The connection was given up for each of them, because half of it was in the socket.
#[test]
fn a_large_message_that_may_be_late_is_not_begun_before_there_is_room() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let trying = thread::spawn(move || {
        let refused = sender.try_send(vec![1; 4 << 20]);
        (refused, sender)
    });
    let want: Want = peer.hear(Kind::Want);
    assert!(!want.wait, "a try is answered at once");
    peer.say(Kind::Full, &want);
    let (refused, sender) = in_time("the try", move || trying.join().unwrap());
    assert!(matches!(refused, Err(TrySendError::Full(_))));

    let late = sender.send_timeout(vec![2; 4 << 20], Duration::from_millis(5));
    assert!(matches!(late, Err(SendTimeoutError::Timeout(_))));
    let want: Want = peer.hear(Kind::Want);
    assert!(want.wait);
    assert_eq!(peer.hear::<Want>(Kind::Unwant).number, want.number);

    let sending = thread::spawn(move || sender.send_timeout(vec![3; 4 << 20], PATIENCE).map(|()| sender));
    let want: Want = peer.hear(Kind::Want);
    peer.say(Kind::Granted, &want);
    let (header, payload) = peer.next();
    assert_eq!((header.sequence, payload[0]), (1, 3), "those before it were never sent");
    peer.say(Kind::Settled, &Settled { accepted: 1, acked: 1, dropped: 0 });
    in_time("the message", move || sending.join().unwrap().unwrap());
}

/// What a clone sends meanwhile would use up the room, and its asker would wait for ever.
#[test]
fn while_room_is_asked_for_a_clone_waits() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let clone = sender.clone();
    let asking = thread::spawn(move || sender.send_timeout(vec![1; 1 << 20], PATIENCE).map(|()| sender));
    let want: Want = peer.hear(Kind::Want);
    let refused = clone.try_send(vec![2; 64]);
    assert!(matches!(refused, Err(TrySendError::Full(_))), "{refused:?}");
    let sending = thread::spawn(move || clone.send(vec![3; 64]));
    peer.say(Kind::Granted, &want);
    assert_eq!(peer.next().1[0], 1);
    assert_eq!(peer.next().1[0], 3);
    peer.say(Kind::Settled, &Settled { accepted: 2, acked: 2, dropped: 0 });
    in_time("both", move || {
        asking.join().unwrap().unwrap();
        sending.join().unwrap().unwrap();
    });
}

/// Half a batch was in the socket, and with it a part of the message that was late.
#[test]
fn a_message_that_may_be_late_is_not_written_with_those_before_it() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let mut sent = 0;
    while sender.try_send(vec![0; 10_000]).is_ok() {
        sent += 1;
    }
    // There is room for one piece: the batch, and half of what follows.
    (1..=2).for_each(|sequence| assert_eq!(peer.next().0.sequence, sequence));
    (0..100).for_each(|_| sender.feed(vec![0; 64]).unwrap());
    let through = match sender.send_timeout(vec![1; 30_000], Duration::from_millis(5)) {
        // It may have found room for a piece of its own.
        Ok(()) => sent + 101,
        Err(SendTimeoutError::Timeout(_)) => sent + 100,
        Err(error) => panic!("{error}"),
    };
    let confirming = thread::spawn(move || sender.send_confirmed(vec![2; 64]));
    (3..=through).for_each(|sequence| assert_eq!(peer.next().0.sequence, sequence));
    let (header, payload) = peer.next();
    assert_eq!((header.sequence, payload[0]), (through + 1, 2));
    peer.say(Kind::Settled, &Settled { accepted: through + 1, acked: through + 1, dropped: 0 });
    in_time("the confirmation", move || confirming.join().unwrap().unwrap());
}

/// It waited for the sender's next call.
#[test]
fn room_that_is_not_wanted_any_more_is_given_back_when_the_socket_takes_it() {
    let script = Script::new();
    let WelcomeRole::Sender(welcome) = sender_welcome() else { unreachable!() };
    let welcome = WelcomeRole::Sender(SenderWelcome { exact: true, ..welcome });
    let bus = script.bus();
    let (sender, mut peer): (Sender<Vec<u8>>, Peer) =
        script.meet(move || bus.raw_sender("jobs").open().unwrap(), welcome);
    // Questions of which each is answered, and the socket of the sender fills with them.
    let mut asked = 0;
    while sender.send_timeout(vec![1; 64], Duration::from_millis(1)).is_err() && asked < 600 {
        asked += 1;
    }
    assert_eq!(asked, 600);
    let last = loop {
        let want: Want = peer.hear(Kind::Want);
        if want.number == 600 {
            break want;
        }
    };
    assert_eq!(peer.hear::<Want>(Kind::Unwant).number, last.number);
    drop(sender);
}

#[test]
fn of_many_that_are_fed_it_is_told_how_many_were_taken() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    let large = vec![0; (16 << 20) + 1];
    let payloads = [&b"1"[..], b"2", b"3", &large, b"5"];
    let Err(SendTimeoutError::TooLarge { value, .. }) = sender.outgoing().feed_all_bytes(payloads) else {
        panic!("the fourth is over the limit");
    };
    assert_eq!(value, 3);
    sender.push_buffered();
    (1..=3).for_each(|sequence| assert_eq!(peer.next().0.sequence, sequence));
    peer.say(Kind::Settled, &Settled { accepted: 3, acked: 3, dropped: 0 });
}

/// It was waited for until the deadline, although it had come.
#[test]
fn the_last_words_of_a_daemon_may_be_the_answer() {
    let script = Script::new();
    let (sender, mut peer) = sender(&script);
    sender.send(vec![1]).unwrap();
    peer.next();
    peer.say(Kind::Settled, &Settled { accepted: 1, acked: 1, dropped: 0 });
    drop(peer);
    let asked = Instant::now();
    sender.flush_deadline(asked + PATIENCE).unwrap();
    assert!(asked.elapsed() < PATIENCE / 2, "it took {:?}", asked.elapsed());
}

/// It ran with the sender locked.
#[test]
fn messages_may_come_from_code_that_uses_their_sender() {
    let script = Script::new();
    let (sender, peer) = sender(&script);
    let waiting = in_time("feeding", move || {
        let payloads = (0..300).map(|_| {
            assert!(sender.len() <= 300);
            &b"x"[..]
        });
        sender.outgoing().feed_all_bytes(payloads).unwrap();
        drop(peer);
        sender.len()
    });
    assert_eq!(waiting, 300);
}
