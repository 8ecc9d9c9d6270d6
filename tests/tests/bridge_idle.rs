//! Bridges that have nothing to do, which is what most do most of the time: they sleep.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bus_core::bridge::{self, Imported};
use bus_core::{Bus, limits};
use bus_tests::{Daemon, PATIENCE, Route, eventually, watch};
use crossbeam_channel::{Receiver, Sender, unbounded};

/// Longer than anything that looks again from time to time should sleep.
const IDLE: Duration = Duration::from_secs(2);

/// What the threads of the library may use in that time: to be woken a few times. It is nothing at all where nothing else runs.
const MOST: Used = Used { time: Duration::from_millis(2), wakes: 6 };

/// One test for all routes: it tells the threads of the library by their names.
#[test]
fn idle_bridges_use_no_processor_time_over_any_route() {
    for route in [Route::Local, Route::Stream, Route::Lane] {
        watch(&format!("idle bridges, {route:?}"), move || stay_idle(route), || ());
    }
}

fn stay_idle(route: Route) {
    let daemon = (route != Route::Local).then(Daemon::start);
    let bus = match &daemon {
        None => Bus::in_process(),
        Some(daemon) => {
            let builder = Bus::builder().address(daemon.address().clone());
            if route == Route::Lane { builder.lanes() } else { builder.no_lanes() }.connect().unwrap()
        }
    };
    let (work, source) = unbounded();
    let exported = bridge::export(source, bus.sender::<u64>("exported").open().unwrap());
    let (sink, values) = unbounded();
    let imported = bridge::import(bus.receiver::<u64>("exported").open().unwrap(), sink);
    let sender = bus.sender::<u64>("joined").open().unwrap();
    let joined: Imported<u64> = bus.receiver("joined").open().unwrap().into_crossbeam(16);

    let is_there = |channel: &str| match route {
        Route::Local => true,
        Route::Stream => bus.show(channel).unwrap().senders[0].route == "stream",
        Route::Lane => bus.show(channel).unwrap().senders[0].route == "lane",
    };
    let (to_bus, to_joined) = (&work, |value| sender.send(value).unwrap());
    eventually("both are on their route", || {
        pass(to_bus, &values);
        (0..100).for_each(to_joined);
        assert!((0..100).eq((0..100).map(|_| joined.recv_timeout(PATIENCE).unwrap())));
        is_there("exported") && is_there("joined")
    });
    let used = used_while_idle(route);
    let (time, wakes) = used.values().fold((Duration::ZERO, 0), |sum, one| (sum.0 + one.time, sum.1 + one.wakes));
    assert!(time <= MOST.time && wakes <= MOST.wakes, "{route:?}: {used:?} in {IDLE:?}");
    // It was idleness, and no death.
    assert!(is_there("exported") && is_there("joined"));
    pass(to_bus, &values);
    drop(work);
    exported.join().unwrap();
    imported.stop();
    imported.join().unwrap();
    joined.end().unwrap();
}

fn pass(work: &Sender<u64>, values: &Receiver<u64>) {
    (0..100).for_each(|value| work.send(value).unwrap());
    assert!((0..100).eq((0..100).map(|_| values.recv_timeout(PATIENCE).unwrap())));
}

/// What a thread has used of a processor, and how often it has gone to sleep.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    time: Duration,
    wakes: u64,
}

/// What the threads of the library use while nothing happens, once they have come to rest: what is put off they still do.
fn used_while_idle(route: Route) -> BTreeMap<String, Used> {
    thread::sleep(Duration::from_millis(200));
    let (before, begun) = (threads(), Instant::now());
    let imports = before.keys().filter(|thread| thread.starts_with("bus-import")).count();
    let exports = before.keys().filter(|thread| thread.starts_with("bus-export")).count();
    assert_eq!((imports, exports), (2, 1), "{route:?}: {before:?}");
    thread::sleep(IDLE);
    assert!(begun.elapsed() < Duration::from_millis(limits::LANE_IDLE_MS), "the lanes are taken back meanwhile");
    let mut used = threads();
    for (thread, used) in &mut used {
        let before = before.get(thread).copied().unwrap_or_default();
        *used = Used { time: used.time - before.time, wakes: used.wakes - before.wakes };
    }
    used
}

/// The threads of the library, by name and number.
fn threads() -> BTreeMap<String, Used> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_bus = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let read = |file: &str| fs::read_to_string(task.join(file)).ok();
        let name = read("comm")?.trim().to_owned();
        let (schedule, status) = (read("schedstat")?, read("status")?);
        let time = Duration::from_nanos(schedule.split(' ').next()?.parse().unwrap());
        let wakes =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().unwrap();
        name.starts_with("bus-")
            .then(|| (format!("{name} {}", task.file_name().unwrap().display()), Used { time, wakes }))
    });
    of_bus.collect()
}
