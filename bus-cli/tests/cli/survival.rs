//! `kill -9` and a daemon that restarts: nothing that was accepted is lost.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{PATIENCE, World};

#[test]
fn what_a_killed_consumer_did_not_write_comes_again() {
    const LAST: u32 = 50_000;
    let world = World::new();
    world.publish_numbers("jobs", LAST);
    let (mut written, mut kills) = (0, 0);
    while written < LAST {
        let mut consumer = world.start(&["consume", "jobs", "--until-empty"]);
        let mut expected = None;
        if kills < 5 {
            // Killed somewhere within its work, after it has shown what it begins with.
            let first: u32 = consumer.line().parse().unwrap();
            assert!(first <= written + 1, "lost between {written} and {first}");
            expected = Some(first + 1);
            consumer.signal(Signal::KILL);
            kills += 1;
        }
        let outcome = consumer.end();
        let whole = outcome.stdout.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in std::str::from_utf8(&outcome.stdout[..whole]).unwrap().lines() {
            let number: u32 = line.parse().unwrap();
            match expected {
                None => assert!(number <= written + 1, "lost between {written} and {number}"),
                Some(expected) => assert_eq!(number, expected),
            }
            expected = Some(number + 1);
        }
        written = written.max(expected.map_or(0, |next| next - 1));
    }
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn a_publisher_that_waits_for_input_brings_its_messages_to_the_next_daemon() {
    let mut world = World::new();
    let mut publisher = world.start(&["publish", "jobs"]);
    publisher.write(b"a\n");
    // The daemon is killed the moment after: it may have told of a sender that it has not welcomed.
    world.await_accepted("jobs", 1);
    world.restart();
    publisher.write(b"b\n");
    publisher.close_input();
    publisher.end().is(0, "", "");
    assert_eq!(world.drain("jobs"), "a\nb\n");
}

#[test]
fn a_consumer_goes_on_with_the_next_daemon() {
    let mut world = World::new();
    let mut consumer = world.start(&["consume", "jobs"]);
    world.publish("jobs", &["a"]);
    assert_eq!(consumer.line(), "a");
    world.restart();
    world.publish("jobs", &["b"]);
    assert_eq!(consumer.line(), "b");
}

/// It ended with 0, and the sender brought the rest to the new daemon a moment later.
#[test]
fn a_channel_is_not_empty_while_a_sender_of_the_daemon_before_has_not_brought_what_it_holds() {
    const LINES: usize = 40;
    let mut world = World::new();
    // Far more than is sent ahead to a consumer, and too few messages for a lane: the rest is with the daemon, and
    // with the sender.
    let line = |number: usize| format!("{number:02}{}\n", "x".repeat(64 << 10));
    let all: String = (0..LINES).map(line).collect();
    let mut publisher = world.start(&["publish", "jobs"]);
    publisher.write(all.as_bytes());
    world.await_accepted("jobs", LINES as u64);
    let mut consumer = world.start(&["consume", "jobs", "--until-empty"]);
    assert_eq!(consumer.line() + "\n", line(0));
    publisher.signal(Signal::STOP);
    world.restart();
    let consumer = std::thread::spawn(move || consumer.end());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = world.run(&["show", "jobs", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        if !shown["receiver"].is_null() {
            assert_eq!(shown["awaited"], 1, "{shown}");
            break;
        }
        assert!(Instant::now() < deadline, "the consumer does not come back");
    }
    publisher.signal(Signal::CONT);
    let outcome = consumer.join().unwrap();
    publisher.close_input();
    publisher.end().is(0, "", "");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(line(0) + std::str::from_utf8(&outcome.stdout).unwrap() == all, "{} bytes", outcome.stdout.len());
}

/// It was 1, as if the message were at fault: whoever tries again after 3 did not.
#[test]
fn who_comes_while_the_daemon_ends_is_told_so_as_when_there_is_none() {
    let world = World::new();
    let consumer = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    consumer.signal(Signal::STOP);
    world.publish("jobs", &["left"]);
    world.signal_daemon(Signal::TERM);
    // It may not have heard of it yet.
    let refused = std::iter::repeat_with(|| world.run(&["publish", "jobs", "late"])).find(|outcome| outcome.code != 0);
    refused.unwrap().fails(3, &["the daemon is ending", "jobs"]);
    consumer.signal(Signal::KILL);
}
