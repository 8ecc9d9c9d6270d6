//! Receivers that come back from an earlier daemon, and senders that do not.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bus_core::wire::Kind;
use rustix::process::Signal;

use crate::busd::{Running, busd, place};
use crate::peer::Peer;

/// It waited for ten seconds for the sender, whose process had died with the daemon.
#[test]
fn a_receiver_waits_for_its_sender_while_the_process_lives() {
    let (place, socket) = place();
    let _running = Running::start(place.path(), busd(&socket));
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let mut living = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();

    let mut waits = Peer::returned(&socket, "living", living.id());
    waits.hear_welcome();
    let mut waits_not = Peer::returned(&socket, "dead", dead.id());
    waits_not.hear_welcome();
    assert_eq!(waits_not.hear().0, Kind::Ended);
    Peer::control(&socket).ask_until_connections_are(3);
    assert!(!waits.has_news(), "the process was looked at together with the other, and lives");

    drop(living.stdin.take());
    assert_eq!(waits.hear().0, Kind::Ended, "also while its parent has not waited for it");
    living.wait().unwrap();
    // Half of what a sender is waited for whose process lives: a busy machine takes a while for all this.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

/// The next daemon gave the channel of a receiver that was about to come back to whoever was there first, as if it had
/// not followed one that had ended a moment before. What it keeps new receivers waiting by is the note in the lock file.
#[test]
fn a_daemon_that_is_told_to_end_beside_a_receiver_leaves_word_for_the_next() {
    let (place, socket) = place();
    let note = || std::fs::read_to_string(place.path().join("bus.sock.lock")).unwrap();
    let first = Running::start(place.path(), busd(&socket));
    let pid = first.child.id();
    let mut receiver = Peer::receiver(&socket, "jobs");
    receiver.hear_welcome();
    first.end(Signal::TERM);
    assert_eq!(note(), format!("{pid}\n"), "somebody comes back");
    drop(receiver);

    let second = Running::start(place.path(), busd(&socket));
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    second.end(Signal::TERM);
    assert_eq!(note(), "", "nobody does who could hold a message");
}
