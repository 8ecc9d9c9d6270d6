//! Machines on which a seccomp filter forbids the memory of lanes, as those of containers may.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use bus_core::Bus;
use bus_tests::{Daemon, PATIENCE, eventually, watch};
use rustix::io::Errno;

#[test]
fn where_a_filter_forbids_memory_files_all_go_by_the_stream_and_the_log_says_so_once() {
    for errno in [Errno::PERM, Errno::NOSYS] {
        watch("without memory files", move || all_go_by_the_stream(errno), || ());
    }
}

fn all_go_by_the_stream(errno: Errno) {
    let filter = env!("CARGO_BIN_EXE_without_memfd");
    let daemon = Daemon::start_through(filter, &[&errno.raw_os_error().to_string()]);
    let bus = Bus::connect_to(daemon.address()).unwrap();
    let receiver = bus.receiver::<u64>("jobs").open().unwrap();
    let senders: Vec<_> = (0..3).map(|_| bus.sender::<u64>("jobs").lane().open().unwrap()).collect();
    for number in 0..300 {
        senders[number as usize % senders.len()].send(number).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), number);
    }
    let info = bus.show("jobs").unwrap();
    assert!(info.senders.iter().all(|sender| sender.route == "stream"), "{info:?}");
    eventually("the log says so", || daemon.log().contains("no memory for lanes"));
    assert_eq!(daemon.log().matches("no memory for lanes").count(), 1, "{}", daemon.log());
}
