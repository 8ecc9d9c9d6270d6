//! A full table of descriptors, and descriptors that nobody asked for.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bus_core::wire::{Kind, Reply, Request, put_control};
use bus_core::{Address, Bus};
use rustix::io::Errno;

use crate::busd::{Running, busd, place};
use crate::peer::{Peer, name};

/// Lanes took the last of them, and nobody came in any more: neither the receiver that would have made the senders
/// end, nor whoever asked what was wrong.
#[test]
fn lanes_that_use_up_all_descriptors_keep_out_neither_receivers_nor_orders() {
    let (place, socket) = place();
    let mut command = Command::new("/bin/sh");
    let shell = r#"ulimit -n 96; exec "$0" "$@""#;
    command.env_clear().args(["-c", shell, env!("CARGO_BIN_EXE_busd"), "--socket"]).arg(&socket);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let running = Running::start(place.path(), command);
    let bus = Bus::connect_to(&Address::new(&socket).unwrap()).unwrap();
    let mut senders = Vec::new();
    let refused = loop {
        match bus.raw_sender(format!("jobs.{}", senders.len())).lane().open() {
            Ok(sender) => senders.push(sender),
            Err(error) => break error.to_string(),
        }
    };
    assert!(refused.contains("descriptors") && refused.contains("ulimit -n"), "{refused}");
    assert!(running.descriptors() > 80, "{} of 96, and it refuses", running.descriptors());
    let _receiver = bus.raw_receiver("jobs.0").open().unwrap();
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let Reply::Channels(channels) = control.ask(&Request::List) else { panic!("no list") };
    assert_eq!(channels.len(), senders.len());

    drop(senders);
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = bus.raw_sender("jobs.later").open() {
        assert!(Instant::now() < until, "all have left, and yet: {error}");
    }
}

#[test]
fn descriptors_are_passed_to_no_connection_that_waits_for_none() {
    let (place, socket) = place();
    let running = Running::start(place.path(), busd(&socket));
    let mut control = Peer::control(&socket);
    control.hear_welcome();
    let before = running.descriptors();
    let mut question = Vec::new();
    put_control(Kind::Request, &Request::Show(name("jobs")), &mut question);
    for _ in 0..20 {
        match control.pass(&question) {
            Err(refused) => assert_eq!(refused, Errno::PERM),
            Ok(()) => {
                assert!(kernel() < (6, 16), "it was passed");
                control.hear_reply();
            }
        }
    }
    assert!(matches!(control.ask(&Request::Show(name("jobs"))), Reply::Refused(_)), "and nothing came of the rest");
    assert_eq!(running.descriptors(), before);
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
