//! Receivers that come back from an earlier daemon, and senders that do not.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bus_core::limits::RESUME_GRACE_MS;
use bus_core::wire::Kind;

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
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(RESUME_GRACE_MS / 2), "it took {took:?}");
}
