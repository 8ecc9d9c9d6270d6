//! A system that gives no memory for lanes, as one whose seccomp filter forbids it.

use std::process::{Command, Stdio};
use std::time::Duration;

use bus_core::{Address, Bus};
use rustix::process::Signal;

use crate::busd::{Running, place};

/// Here a limit on the size of files is what forbids it: the memory of a lane is a file of 64 MiB.
#[test]
fn where_there_is_no_memory_for_lanes_all_go_by_the_stream_and_the_log_says_so_once() {
    let (place, socket) = place();
    let mut command = Command::new("/bin/sh");
    let shell = r#"trap "" XFSZ; ulimit -f 2048; exec "$0" "$@""#;
    command.env_clear().args(["-c", shell, env!("CARGO_BIN_EXE_busd"), "--socket"]).arg(&socket);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let running = Running::start(place.path(), command);
    let bus = Bus::connect_to(&Address::new(&socket).unwrap()).unwrap();
    let senders: Vec<_> = (0..3).map(|_| bus.raw_sender("jobs").lane().open().unwrap()).collect();
    let receiver = bus.raw_receiver("jobs").open().unwrap();
    for (number, sender) in senders.iter().enumerate() {
        sender.send(vec![number as u8]).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(30)).unwrap(), [number as u8]);
    }
    let info = bus.show("jobs").unwrap();
    assert!(info.senders.iter().all(|sender| sender.route == "stream"), "{info:?}");
    drop((senders, receiver));
    let (code, log) = running.end(Signal::TERM);
    assert_eq!((code, log.matches("no memory for lanes").count()), (Some(0), 1), "{log}");
}
