//! Ends of lanes that wait use no processor time, whichever way of waiting they have that promises so: a receiver for a
//! message, and a sender for room.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bus_core::{Bus, ChannelOptions, Receiver, Sender, Waiting, limits};
use bus_tests::{Daemon, PATIENCE, eventually, watch};

/// How long they wait.
const REST: Duration = Duration::from_millis(1_200);

/// What all threads of this process, or of the daemon, may use in that time: a thousandth. It is nothing at all where
/// nothing is put off that is done then.
const MOST: Duration = Duration::from_micros(1_200);

/// How often they may be disturbed by that.
const RESTS: usize = 4;

/// One test for all: it weighs the process that it runs in.
#[test]
fn ends_of_lanes_that_wait_use_no_processor_time() {
    for waiting in [Waiting::Adaptive, Waiting::Sleep] {
        watch("waiting ends", move || wait_together(waiting), || ());
    }
}

fn wait_together(waiting: Waiting) {
    let daemon = Daemon::start();
    let bus = Bus::connect_to(daemon.address()).unwrap();
    bus.create("full", ChannelOptions { window: Some(64), ..ChannelOptions::default() }).unwrap();
    let (idle, receiver) = lane(&bus, "empty", waiting);
    let (sender, slow) = lane(&bus, "full", waiting);
    let receiving = thread::spawn(move || receiver.recv_timeout(3 * PATIENCE).unwrap());
    let sending = thread::spawn(move || {
        (0..65).for_each(|number| sender.send_timeout(number, 3 * PATIENCE).unwrap());
        sender
    });
    eventually("the sender waits", || bus.show("full").unwrap().senders[0].blocked_ms.is_some());
    let begun = Instant::now();
    let mut used = Vec::new();
    let rests = (0..RESTS).any(|_| {
        let before = [used_by("self"), used_by(&daemon.pid().to_string())];
        // The time itself is what is measured here: nothing is waited for.
        thread::sleep(REST);
        let after = [used_by("self"), used_by(&daemon.pid().to_string())];
        used.push([after[0] - before[0], after[1] - before[1]]);
        used.last().is_some_and(|used| used.iter().all(|time| *time <= MOST))
    });
    println!("{waiting:?}: ends and daemon used {used:?}, each time in {REST:?}");
    assert!(rests, "{waiting:?}: ends and daemon used {used:?}, each time in {REST:?}");
    assert!(begun.elapsed() < Duration::from_millis(limits::LANE_IDLE_MS), "the lanes are taken back meanwhile");
    // They waited, and had not gone.
    idle.send(7).unwrap();
    assert_eq!(receiving.join().unwrap(), 7);
    assert_eq!(slow.recv_timeout(PATIENCE).unwrap(), 0);
    sending.join().unwrap();
}

/// What the threads of a process have had of a processor.
fn used_by(process: &str) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let times = tasks.filter_map(|task| {
        // One that has just ended says nothing any more.
        let schedule = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        schedule.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    });
    times.sum()
}

/// Both ends, with nothing under way.
fn lane(bus: &Bus, channel: &str, waiting: Waiting) -> (Sender<u64>, Receiver<u64>) {
    let sender: Sender<u64> = bus.sender(channel).lane().waiting(waiting).open().unwrap();
    let receiver: Receiver<u64> = bus.receiver(channel).waiting(waiting).open().unwrap();
    eventually("the sender is in its lane", || {
        sender.send(0).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap();
        sender.is_in_lane()
    });
    eventually("everything is acknowledged", || sender.is_empty());
    (sender, receiver)
}
