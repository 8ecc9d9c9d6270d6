//! Peers that go, in whatever way, and what must be left of them: nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bus_core::wire::{Kind, Progress, Request, put_control};

use crate::busd::{Running, busd, place};
use crate::peer::{Peer, name};

/// The goodbye made the daemon deaf to the peer, the garbage made it stop reading: a hang-up that came
/// together with them was never seen.
#[test]
fn a_peer_that_says_goodbye_and_then_garbage_leaves_nothing_behind() {
    let (place, socket) = place();
    let mut command = busd(&socket);
    command.args(["--poll-us", "0"]);
    let running = Running::start(place.path(), command);
    let mut control = Peer::control(&socket);
    control.ask_until_connections_are(1);
    let descriptors = running.descriptors();
    for number in 0..200 {
        let mut peer = if number % 2 == 0 {
            let mut sender = Peer::sender(&socket, "jobs");
            sender.hear_welcome();
            sender.say(Kind::Goodbye, &());
            sender
        } else {
            let mut receiver = Peer::receiver(&socket, &format!("jobs.{number}"));
            receiver.hear_welcome();
            receiver.say(Kind::Goodbye, &Progress::default());
            receiver
        };
        peer.say_bytes(&[0xff; 64]);
    }
    control.ask_until_connections_are(1);
    assert_eq!(running.descriptors(), descriptors);
}

/// Who came was heard before those whose words had come earlier, and was told that the seat was taken: by itself.
#[test]
fn a_receiver_that_leaves_and_comes_again_at_once_has_left_first() {
    let (place, socket) = place();
    let _running = Running::start(place.path(), busd(&socket));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            // The daemon has others to let in meanwhile.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Peer::control(&socket).hear_welcome();
                }
            });
        }
        let come_and_go = || {
            for _ in 0..2_000 {
                let mut receiver = Peer::receiver(&socket, "jobs");
                receiver.hear_welcome();
                receiver.say(Kind::Goodbye, &Progress::default());
            }
        };
        let outcome = scope.spawn(come_and_go).join();
        done.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[test]
fn a_peer_that_dies_with_its_answers_unread_leaves_nothing_behind() {
    let (place, socket) = place();
    let running = Running::start(place.path(), busd(&socket));
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    sender.send_all(1..=40, 37_000);
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    control.ask_until_connections_are(2);
    let descriptors = running.descriptors();
    for _ in 0..20 {
        let mut deaf = Peer::control(&socket);
        deaf.hear_welcome();
        let mut requests = Vec::new();
        let peek = Request::Peek { channel: name("jobs"), after: 0, messages: 100 };
        (0..200).for_each(|_| put_control(Kind::Request, &peek, &mut requests));
        deaf.say_bytes(&requests);
        // It is served after those who were there before: its first answers are on their way.
        control.connections();
    }
    control.ask_until_connections_are(2);
    assert_eq!(running.descriptors(), descriptors);
}

/// They were lost with the socket that held them, although the sender had been told that they were sent.
#[test]
fn what_a_sender_left_in_its_earlier_connection_arrives_when_it_dies_in_the_next() {
    let (place, socket) = place();
    let file = place.path().join("busd.toml");
    std::fs::write(&file, "capacity_messages = 1\n").unwrap();
    let mut command = busd(&socket);
    command.arg("--config").arg(&file);
    let running = Running::start(place.path(), command);
    let mut control = Peer::control(&socket);
    control.ask_until_connections_are(1);
    let descriptors = running.descriptors();
    let mut sender = Peer::sender(&socket, "jobs");
    let welcome = sender.hear_welcome();
    sender.send_all(1..=20, 3_000);
    let mut resumed = Peer::resumed(&socket, "jobs", &welcome);
    resumed.hear_welcome();
    assert!(sender.is_closed_by_daemon(), "the earlier connection");
    drop((sender, resumed));
    control.ask_until_connections_are(1);
    assert_eq!(running.descriptors(), descriptors);
    let mut receiver = Peer::receiver(&socket, "jobs");
    receiver.hear_welcome();
    for acked in 1..=20 {
        assert_eq!(receiver.hear().0, Kind::Deliver);
        receiver.say(Kind::Progress, &Progress { taken: acked, acked, head_given_back: 0 });
    }
}

/// Its socket was full, and so it was never cut.
#[test]
fn a_kicked_receiver_that_does_not_read_is_cut() {
    let (place, socket) = place();
    let _running = Running::start(place.path(), busd(&socket));
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    let mut stopped = Peer::receiver(&socket, "jobs");
    stopped.hear_welcome();
    sender.send_all(1..=40, 37_000);
    control.ask_until_connections_are(3);
    control.ask(&Request::Kick(name("jobs")));
    control.ask_until_connections_are(2);
    drop(stopped);
}
