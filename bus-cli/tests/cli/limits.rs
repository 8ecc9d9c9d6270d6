//! What is over a limit: the thing, the figure and the remedy, and what became of what was before it.

use rustix::process::Signal;

use crate::world::{World, bus_command, run, text};

#[test]
fn headers_over_the_limit_are_named_and_nothing_is_sent() {
    let world = World::new();
    let header = format!("k={}", "x".repeat(70_000));
    world.run(&["publish", "jobs", "a", "-H", &header]).fails(
        1,
        &["message 1 for jobs: headers of 70", "bytes are over the limit of 65536: put content into the payload\n"],
    );
    let object = format!("{{\"payload\":\"a\"}}\n{{\"payload\":\"b\",\"headers\":{{\"k\":\"{}\"}}}}\n", &header[2..]);
    let outcome = world.run_with(&["publish", "jobs", "--jsonl"], object.as_bytes());
    let limit = "line 2 is no message: headers are over the limit of 65536 bytes: put content into the payload";
    outcome.fails(1, &[limit, "; the message before it was accepted\n"]);
    assert_eq!(world.drain("jobs"), "a\n");
}

#[test]
fn a_line_over_the_limit_is_named_with_its_file() {
    let world = World::new();
    let file = world.path("long");
    std::fs::write(&file, [b"a\nb\n".to_vec(), vec![b'x'; 17 << 20]].concat()).unwrap();
    let outcome = world.run(&["publish", "jobs", "--file", text(&file)]);
    let place = format!("bus: {}: message 3 ", text(&file));
    let limit =
        "is over the limit of 16777216 bytes: split it, or raise max-message; the 2 messages before it were accepted\n";
    outcome.fails(1, &[&place, limit]);
    assert_eq!(world.drain("jobs"), "a\nb\n");
}

/// It waited for five seconds whatever was asked for, and ended with 3.
#[test]
fn the_timeout_bounds_connecting_too() {
    let world = World::new();
    world.signal_daemon(Signal::STOP);
    let late = "answered: it may be stopped or overloaded\n";
    let late = format!("bus: the time passed before the daemon at {} {late}", world.socket().display());
    for arguments in [
        &["publish", "jobs", "a", "--timeout", "200ms"][..],
        &["consume", "jobs", "--timeout", "200ms"],
        &["run", "--in", "jobs", "--timeout", "200ms", "--", "true"],
    ] {
        world.run(arguments).is(4, "", &late);
    }
    world.signal_daemon(Signal::CONT);
}

/// It blamed the daemon.
#[test]
fn a_timeout_of_nothing_says_so() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    let place = world.socket();
    let told =
        format!("bus: --timeout 0 leaves no time for the daemon at {} to answer: give it longer\n", place.display());
    for verb in [&["publish", "jobs", "b"][..], &["consume", "jobs"]] {
        world.run(&[verb, &["--timeout", "0"]].concat()).is(4, "", &told);
    }
    assert_eq!(world.drain("jobs"), "a\n");
}

#[test]
fn where_nobody_is_the_timeout_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let expected = format!("bus: no daemon answers at {}: No such file or directory", text(&socket));
    for verb in [&["publish", "jobs", "a"][..], &["consume", "jobs"]] {
        let mut command = bus_command();
        command.arg("--socket").arg(&socket).args(verb).args(["--timeout", "1h"]);
        run(&mut command, b"").fails(3, &[&expected, "start one with `bus daemon --socket"]);
    }
}
