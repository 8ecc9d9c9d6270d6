//! Senders.

use std::thread;
use std::time::Duration;

use bus_core::wire::{Kind, Receivers, Role, Settled, WelcomeRole};
use bus_core::{SendError, SendTimeoutError, Sender, TrySendError};

use crate::script::{Peer, Script, in_time, sender_welcome};

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
