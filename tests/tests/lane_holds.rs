//! Who is killed while lanes are in use leaves nothing behind: no descriptor and no mapped memory, in the daemon or in those
//! who live on.
//!
//! `BUS_KILL_SEED=...` makes the same choices again.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bus_core::{Bus, Receiver};
use bus_tests::processes::{CHANNEL, Dice, Parcel, Stage};
use bus_tests::{PATIENCE, Route, watch};

/// How often both ends are killed.
const ROUNDS: usize = 36;

/// How often the daemon is.
const RESTARTS: usize = 24;

#[test]
fn a_daemon_whose_ends_are_killed_holds_no_more_than_before() {
    watch("ends", kill_ends, || ());
}

fn kill_ends() {
    let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
    let bus = stage.bus();
    let before = at_rest(|| vec![stage.daemon_holds()]);
    for _ in 0..ROUNDS {
        stage.add_sender();
        stage.add_receiver(true);
        until("the ends are in a lane", || are_in_a_lane(&bus));
        stage.pass_time(Duration::from_millis(10));
        if stage.dice.roll(2) == 0 {
            stage.kill_sender();
            stage.pass_time(Duration::from_millis(1));
            stage.kill_receiver();
        } else {
            stage.kill_receiver();
            stage.pass_time(Duration::from_millis(1));
            stage.kill_sender();
        }
    }
    // What the last left in their lanes is kept until it is received.
    let rest: Receiver<Parcel> = bus.receiver(CHANNEL).standby().open().unwrap();
    until("all is received", || {
        while rest.recv_timeout(Duration::from_millis(20)).is_ok() {}
        bus.show(CHANNEL).is_ok_and(|info| info.sender_count == 0 && info.ledger.queued + info.ledger.in_delivery == 0)
    });
    drop(rest);
    let (seed, begun) = (stage.dice.seed(), Instant::now());
    while stage.daemon_holds() != before[0] {
        assert!(begun.elapsed() < PATIENCE, "{before:?} before, now {:?}, seed {seed}", stage.daemon_holds());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Its ends bring their lanes to the next one, again and again.
#[test]
fn a_daemon_that_is_killed_leaves_its_ends_and_the_next_daemon_what_they_held() {
    watch("daemons", kill_daemons, || ());
}

fn kill_daemons() {
    let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
    stage.add_sender();
    stage.add_receiver(true);
    let held_now = |stage: &Stage| {
        until("the ends are in a lane", || are_in_a_lane(&stage.bus()));
        at_rest(|| vec![stage.daemon_holds(), held_by(stage.sender_pids()[0]), held_by(stage.receiver_pids()[0])])
    };
    let restart = |stage: &mut Stage| {
        stage.wait_for_progress();
        stage.pass_time(Duration::from_millis(5));
        stage.kill_daemon();
        stage.start_daemon();
        // They come back while they go on.
        until("the ends are back", || are_in_a_lane(&stage.bus()));
        stage.wait_for_progress();
    };
    // A lane that was brought is held otherwise than one that was given.
    restart(&mut stage);
    let first = held_now(&stage);
    for _ in 0..RESTARTS {
        restart(&mut stage);
    }
    let last = held_now(&stage);
    println!("daemon, sender and receiver hold {first:?} and then {last:?} (descriptors, maps)");
    assert_eq!(first, last, "daemon, sender and receiver, after {RESTARTS} restarts, seed {}", stage.dice.seed());
}

/// Whether a sender and a receiver are here, in a lane.
fn are_in_a_lane(bus: &Bus) -> bool {
    let Ok(info) = bus.show(CHANNEL) else { return false };
    info.senders.iter().any(|sender| sender.route == "lane") && info.receiver.is_some_and(|it| it.route == "lane")
}

/// Descriptors of a process, and its maps of memory files.
fn held_by(pid: u32) -> (usize, usize) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (descriptors, maps.lines().filter(|map| map.contains("memfd:")).count())
}

/// What is held once nobody comes or goes any more.
fn at_rest(held: impl Fn() -> Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let (begun, mut last, mut since) = (Instant::now(), held(), Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        assert!(begun.elapsed() < PATIENCE, "it never comes to rest: {last:?}");
        thread::sleep(Duration::from_millis(5));
        let now = held();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        // It is asked again and again; the pause leaves the processor to the others.
        thread::sleep(Duration::from_millis(1));
    }
}
