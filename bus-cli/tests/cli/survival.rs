//! `kill -9` and a daemon that restarts: nothing that was accepted is lost.

use rustix::process::Signal;

use crate::world::World;

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
