//! What a peer can make the daemon hold, and what keeps others from being served.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use bus_core::wire::{Kind, Refused, Reply, Request, put_control, read_control};
use bus_core::{SendTimeoutError, TrySendError};
use rustix::process::{Pid, Signal, kill_process};

use crate::busd::{Running, busd, place};
use crate::peer::{Peer, name};

/// Each answer was kept until it was read: a thousand questions of 50 bytes made it hold 1 GB.
#[test]
fn answers_that_nobody_reads_take_no_more_memory_than_their_limit() {
    let (place, socket) = place();
    let running = Running::start(place.path(), busd(&socket));
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    sender.send_all(1..=40, 37_000);
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let peek = Request::Peek { channel: name("jobs"), after: 0, messages: 100 };
    let mut requests = Vec::new();
    for _ in 0..1_000 {
        put_control(Kind::Request, &peek, &mut requests);
    }
    // At once: a socket holds few small writes.
    control.say_bytes(&requests);
    for _ in 0..1_000 {
        assert!(matches!(control.hear_reply(), Reply::Peeked { .. }));
    }
    let peak_kib = running.peak_kib();
    assert!(peak_kib < 64 * 1024, "the daemon had {peak_kib} KiB at its peak");
}

/// Each was kept whole, and counted for nobody: 332 MB with a limit of 64.
#[test]
fn large_messages_that_wait_for_room_stay_with_their_senders() {
    let (place, socket) = place();
    let file = place.path().join("busd.toml");
    std::fs::write(&file, "capacity_messages = 1\n[per_user]\nqueued_bytes_max = \"64MiB\"\n").unwrap();
    let mut command = busd(&socket);
    command.arg("--config").arg(&file);
    let running = Running::start(place.path(), command);
    let senders: Vec<Peer> = (0..20)
        .map(|_| {
            let mut sender = Peer::sender(&socket, "jobs");
            sender.hear_welcome();
            sender.begin_to_send(1, 16 << 20);
            sender
        })
        .collect();
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    control.connections();
    let peak_kib = running.peak_kib();
    assert!(peak_kib < 96 * 1024, "the daemon had {peak_kib} KiB at its peak, and a user may hold 64 MiB");
    drop(senders);
    control.ask_until_connections_are(1);
}

/// Each attempt left the message behind in the daemon, over a connection of its own: 461 MB after 115.
#[test]
fn tries_with_a_large_message_on_a_full_channel_leave_nothing_behind() {
    let (place, socket) = place();
    let file = place.path().join("busd.toml");
    std::fs::write(&file, "capacity_messages = 1\n").unwrap();
    let mut command = busd(&socket);
    command.arg("--config").arg(&file);
    let running = Running::start(place.path(), command);
    let bus = bus_core::Bus::connect_to(&bus_core::Address::new(&socket).unwrap()).unwrap();
    let sender = bus.raw_sender("jobs").open().unwrap();
    sender.send(vec![7; 4 << 20]).unwrap();
    for _ in 0..50 {
        let refused = sender.try_send(vec![7; 4 << 20]);
        assert!(matches!(refused, Err(TrySendError::Full(_))), "{:?}", refused.map_err(|error| error.to_string()));
        let refused = sender.send_timeout(vec![7; 4 << 20], Duration::from_millis(5));
        assert!(
            matches!(refused, Err(SendTimeoutError::Timeout(_))),
            "{:?}",
            refused.map_err(|error| error.to_string())
        );
    }
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    assert_eq!(control.connections(), 2, "the sender's, and this one");
    assert!(running.peak_kib() < 64 * 1024, "{} KiB", running.peak_kib());
}

/// Each held a connection of its user until its last message had room, which never came: the receiver
/// that would have made it was refused.
#[test]
fn dead_senders_on_a_full_channel_leave_room_for_the_receiver_that_drains_it() {
    let (place, socket) = place();
    let file = place.path().join("busd.toml");
    std::fs::write(&file, "capacity_messages = 1\n[per_user]\nconnections_max = 20\n").unwrap();
    let mut command = busd(&socket);
    command.arg("--config").arg(&file);
    let running = Running::start(place.path(), command);
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    control.ask_until_connections_are(1);
    let descriptors = running.descriptors();
    for _ in 0..25 {
        let mut sender = Peer::sender(&socket, "jobs");
        sender.hear_welcome();
        sender.send_all(1..=3, 100);
        drop(sender);
        control.ask_until_connections_are(1);
    }
    assert_eq!(running.descriptors(), descriptors, "a dead sender costs no descriptor");
    let mut receiver = Peer::receiver(&socket, "jobs");
    receiver.hear_welcome();
    for acked in 1..=75 {
        assert_eq!(receiver.hear().0, Kind::Deliver);
        receiver.say(Kind::Progress, &bus_core::wire::Progress { taken: acked, acked, head_given_back: 0 });
    }
    let Reply::Channel(info) = control.ask(&Request::Show(name("jobs"))) else { panic!("no channel") };
    assert_eq!((info.ledger.accepted, info.ledger.queued, info.sender_count), (75, 0, 0));
}

/// Living ones too: senders are refused before receivers and control connections are.
#[test]
fn senders_over_the_limit_of_their_user_are_refused_and_a_receiver_still_comes_in() {
    let (place, socket) = place();
    let file = place.path().join("busd.toml");
    std::fs::write(&file, "[per_user]\nconnections_max = 5\n").unwrap();
    let mut command = busd(&socket);
    command.arg("--config").arg(&file);
    let _running = Running::start(place.path(), command);
    let mut senders: Vec<Peer> = (0..5).map(|_| Peer::sender(&socket, "jobs")).collect();
    for sender in &mut senders {
        sender.hear_welcome();
    }
    let mut refused = Peer::sender(&socket, "jobs");
    assert_eq!(refused.hear().0, Kind::Refused);
    assert!(refused.is_closed_by_daemon());
    Peer::receiver(&socket, "jobs").hear_welcome();
    Peer::control(&socket).hear_welcome();
}

/// A full table kept everybody out, also the receiver that would have made the senders end.
#[test]
fn senders_leave_descriptors_for_those_who_drain_their_channel() {
    let (place, socket) = place();
    let mut command = Command::new("/bin/sh");
    let shell = r#"ulimit -n 64; exec "$0" "$@""#;
    command.env_clear().args(["-c", shell, env!("CARGO_BIN_EXE_busd"), "--socket"]).arg(&socket);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let _running = Running::start(place.path(), command);
    let mut senders = Vec::new();
    let refused = loop {
        let mut sender = Peer::sender(&socket, "jobs");
        match sender.hear() {
            (Kind::Welcome, _) => senders.push(sender),
            (kind, body) => break (kind, body),
        }
    };
    assert_eq!(refused.0, Kind::Refused);
    let refused: Refused = read_control(refused.0, &refused.1).unwrap();
    assert!(refused.text.contains("connections_max"), "{}", refused.text);
    assert!(senders.len() >= 8, "{} senders came in", senders.len());
    Peer::receiver(&socket, "jobs").hear_welcome();
    // Those for whom there are no descriptors wait, and come in when others leave.
    let silent: Vec<Peer> = (0..60).map(|_| Peer::connect(&socket)).collect();
    drop(silent);
    Peer::control(&socket).hear_welcome();
}

/// Nothing was said of the limit, and nothing when it was reached.
#[test]
fn few_descriptors_are_told_at_the_start_and_once_when_they_are_in_use() {
    let (place, socket) = place();
    let mut command = Command::new("/bin/sh");
    let shell = r#"ulimit -n 48; exec "$0" "$@""#;
    command.env_clear().args(["-c", shell, env!("CARGO_BIN_EXE_busd"), "--socket"]).arg(&socket);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::start(place.path(), command);
    let mut log = BufReader::new(running.child.stderr.take().unwrap());
    let mut line_with = |what: &str| {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "no word of {what:?}");
        }
        line
    };
    let told = line_with("descriptor limit");
    assert!(told.contains("WARN") && told.contains("limit of 48 leaves room for 8 connections"), "{told}");
    assert!(told.contains("raise the limit (ulimit -n, LimitNOFILE of a unit)"), "{told}");
    let peers: Vec<Peer> = (0..9).map(|_| Peer::connect(&socket)).collect();
    let told = line_with("all 8 connections are in use");
    assert!(told.contains("WARN") && told.contains("raise connections_max and the descriptor limit"), "{told}");
    drop(peers);
    Peer::control(&socket).hear_welcome();
    kill_process(Pid::from_child(&running.child), Signal::TERM).unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("connections are accepted again") && !rest.contains("in use"), "{rest}");
}
