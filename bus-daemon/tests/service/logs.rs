//! What the daemon logs at each level.

use std::path::Path;

use bus_core::ChannelOptions;
use bus_core::wire::{Kind, Progress, Refused, RefusedCode, Reply, Request, Settled, put_control};
use rustix::process::Signal;

use crate::busd::{Running, busd, place};
use crate::peer::{Peer, name};

fn start(folder: &Path, socket: &Path, level: &str, further: &[&str]) -> Running {
    let mut command = busd(socket);
    command.args(["--log", level]).args(further);
    Running::start(folder, command)
}

fn ended(running: Running) -> String {
    let (code, log) = running.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    log
}

/// There is a line with all these words.
#[track_caller]
fn tells(log: &str, words: &[&str]) {
    assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "no line with {words:?}:\n{log}");
}

fn own_pid() -> String {
    format!("pid={}", std::process::id())
}

#[test]
fn a_peer_that_breaks_the_rules_is_warned_of_with_pid_reason_and_channel() {
    let (place, socket) = place();
    let running = start(place.path(), &socket, "warn", &[]);
    let mut garbage = Peer::connect(&socket);
    garbage.say_bytes(&[b'x'; 64]);
    assert!(garbage.is_closed_by_daemon());
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    sender.say(Kind::Progress, &Progress { taken: 1, acked: 1, head_given_back: 0 });
    assert!(sender.is_closed_by_daemon());

    let log = ended(running);
    tells(&log, &["WARN", "closed a peer", "role=\"connection\"", &own_pid(), "reason="]);
    tells(&log, &["WARN", "role=\"sender\" channel=\"jobs\"", &own_pid(), "a Progress frame does not belong here"]);
    assert_eq!(log.lines().count(), 2, "{log}");
}

#[test]
fn a_limit_that_is_met_is_warned_of_with_the_figure() {
    let (place, socket) = place();
    let config = place.path().join("busd.toml");
    std::fs::write(&config, "hello_timeout = \"10ms\"\n[per_user]\nchannels_max = 1\nqueued_bytes_max = 65536\n")
        .unwrap();
    let running = start(place.path(), &socket, "warn", &["--config", config.to_str().unwrap()]);
    let mut silent = Peer::connect(&socket);
    assert!(silent.is_closed_by_daemon());
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let mut create = |name| control.ask(&Request::Create(name, ChannelOptions::default()));
    assert_eq!(create(name("one")), Reply::Created(true));
    let refused = create(name("two"));
    assert!(matches!(refused, Reply::Refused(Refused { code: RefusedCode::Limit, .. })), "{refused:?}");
    let mut sender = Peer::sender(&socket, "one");
    sender.hear_welcome();
    sender.send_all(1..=2, 60_000);
    let mut waits = || match control.ask(&Request::Show(name("one"))) {
        Reply::Channel(info) => info.senders.iter().any(|sender| sender.blocked_ms.is_some()),
        other => panic!("asked to show a channel, the daemon replies {other:?}"),
    };
    while !waits() {}

    let log = ended(running);
    tells(&log, &["WARN", &own_pid(), "no hello came within 10 ms"]);
    tells(&log, &["WARN", "a limit is met", &own_pid(), "channel two", "the limit is 1"]);
    tells(&log, &["WARN", "a limit is met", "channel=\"one\"", "of 65536 bytes", "per_user.queued_bytes_max"]);
}

#[test]
fn a_peer_that_hangs_up_without_a_goodbye_is_told_with_what_it_leaves() {
    let (place, socket) = place();
    let running = start(place.path(), &socket, "info", &[]);
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    sender.send_all(1..=3, 100);
    sender.say(Kind::Confirm, &());
    let _: Settled = sender.hear_of(Kind::Settled);
    let mut receiver = Peer::receiver(&socket, "jobs");
    receiver.hear_welcome();
    while receiver.hear().0 != Kind::Deliver {}
    receiver.say(Kind::Progress, &Progress { taken: 2, acked: 1, head_given_back: 0 });
    drop(receiver);
    control.ask_until_connections_are(2);
    let mut frame = Vec::new();
    put_control(Kind::Confirm, &(), &mut frame);
    sender.say_bytes(&frame[..7]);
    drop(sender);
    let mut quiet = Peer::sender(&socket, "other");
    quiet.hear_welcome();
    drop(quiet);
    control.ask_until_connections_are(1);

    let log = ended(running);
    let told = ["INFO", "hung up without a goodbye", "channel=\"jobs\"", &own_pid(), "name=\"tester\""];
    tells(&log, &[&told[..], &["role=\"receiver\"", "claimed=1"]].concat());
    tells(&log, &[&told[..], &["role=\"sender\"", "unacknowledged=2", "unfinished_bytes=7"]].concat());
    assert!(!log.contains("other"), "who leaves nothing is no matter of this level: {log}");
}

#[test]
fn every_end_and_channel_that_comes_and_goes_is_told_at_debug() {
    let (place, socket) = place();
    let running = start(place.path(), &socket, "debug", &[]);
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    sender.say(Kind::Goodbye, &());
    drop(sender);
    control.ask_until_connections_are(1);
    assert_eq!(control.ask(&Request::Create(name("kept"), ChannelOptions::default())), Reply::Created(true));
    assert!(matches!(control.ask(&Request::Delete(name("kept"))), Reply::Removed(_)));

    let log = ended(running);
    let pid = own_pid();
    tells(&log, &["DEBUG", "a connection was accepted", &pid]);
    tells(&log, &["DEBUG", "let in", "role=\"sender\" channel=\"jobs\"", &pid, "name=\"tester\""]);
    tells(&log, &["DEBUG", "left", "role=\"sender\" channel=\"jobs\"", &pid]);
    tells(&log, &["DEBUG", "let in", "role=\"control\"", &pid]);
    tells(&log, &["DEBUG", "a channel was created", "channel=jobs"]);
    tells(&log, &["DEBUG", "a channel vanished", "channel=jobs"]);
    tells(&log, &["DEBUG", "a channel was deleted", "channel=kept"]);
    assert!(!log.contains("frame in") && !log.contains("frame out"), "{log}");
}

#[test]
fn every_frame_is_told_at_trace_in_both_directions_and_never_its_payload() {
    let (place, socket) = place();
    let running = start(place.path(), &socket, "trace", &["--log-format", "json"]);
    let mut receiver = Peer::receiver(&socket, "jobs");
    receiver.hear_welcome();
    let mut sender = Peer::sender(&socket, "jobs");
    sender.hear_welcome();
    // Small ones, which are taken in together, and a large one.
    sender.send_all(1..=3, 100);
    sender.send_all(4..=4, 100_000);
    let delivered = std::iter::from_fn(|| Some(receiver.hear())).filter(|(kind, _)| *kind == Kind::Deliver).take(4);
    assert_eq!(delivered.count(), 4);

    let log = ended(running);
    let lines = |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(lines(&["TRACE", "frame in", "Data", "\"bytes\":132", "sender", "jobs", "pid"]), 3, "{log}");
    assert_eq!(lines(&["TRACE", "frame in", "Data", "\"bytes\":100032"]), 1, "{log}");
    assert_eq!(lines(&["TRACE", "frame out", "Deliver", "receiver", "jobs"]), 4, "{log}");
    assert_eq!(lines(&["TRACE", "frame in", "Hello"]), 2, "{log}");
    assert_eq!(lines(&["TRACE", "frame out", "Welcome"]), 2, "{log}");
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}') && line.len() < 1_000), "{log}");
}
