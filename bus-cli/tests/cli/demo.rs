//! `bus demo`.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::world::{Running, bus_command, is_readable, run};

#[test]
fn it_verifies_everything_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(bus_command().args(["demo", "--messages", "2000", "-q"]).env("TMPDIR", folder.path()), b"");
    let shown = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{shown}");
    for number in 1..=4 {
        for messages in ["2,000 of 2,000", "1,000 of 1,000"] {
            let line = format!("\n  producer {number}: {messages} messages, all in order\n");
            assert!(shown.contains(&line), "{line:?} is not in {shown}");
        }
    }
    assert!(shown.contains("\n8,000 messages in ") && shown.contains(" messages/s\n"), "{shown}");
    assert!(shown.contains("\nlatency one way: 50 % within ") && shown.contains("99.9 % within"), "{shown}");
    assert!(shown.ends_with("\nEvery message came, once and in the order of its producer. Nothing is left behind.\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    for pid in pids(&shown) {
        assert!(!Path::new("/proc").join(&pid).exists(), "process {pid} is left");
    }
}

#[test]
fn interrupted_it_leaves_nothing_behind_either() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, shown) = at_work(folder.path());
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code, 130);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    for pid in pids(&shown) {
        assert!(!Path::new("/proc").join(&pid).exists(), "process {pid} is left");
    }
}

#[test]
fn killed_it_leaves_nothing_behind_either() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, shown) = at_work(folder.path());
    let children: Vec<_> = pids(&shown).iter().filter_map(|pid| pidfd(pid)).collect();
    demo.signal(Signal::KILL);
    assert_eq!(demo.end().code, 1009);
    for child in children {
        assert!(is_readable(&child), "a child outlives the demonstration: {shown}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A demonstration that takes long, and what it has shown when all of its processes are there.
fn at_work(folder: &Path) -> (Running, String) {
    let mut demo = Running::start(bus_command().args(["demo", "--messages", "100000000", "-q"]).env("TMPDIR", folder));
    let mut shown = String::new();
    while !shown.contains("producers  pids") {
        shown.push_str(&demo.line());
        shown.push('\n');
    }
    (demo, shown)
}

/// It removes its folder in the end.
#[test]
fn its_daemon_serves_in_no_folder_but_one_that_was_made_for_it() {
    let place = tempfile::tempdir().unwrap();
    for (name, file, why) in [("mine", "", "is no folder of a demonstration"), ("bus-demo-x", "kept", "is not empty")] {
        let folder = place.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        if !file.is_empty() {
            std::fs::write(folder.join(file), "a").unwrap();
        }
        let outcome = run(bus_command().arg("demo-daemon").arg(&folder), b"");
        outcome.fails(2, &[why]);
        assert!(folder.join(file).exists(), "{name}");
    }
    let empty = place.path().join("bus-demo-y");
    std::fs::create_dir(&empty).unwrap();
    run(bus_command().arg("demo-daemon").arg(&empty), b"").is(0, "", "");
    assert!(!empty.exists());
}

/// `None` for a process that has ended.
fn pidfd(pid: &str) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.parse().unwrap()).unwrap(), PidfdFlags::empty()).ok()
}

/// Every number behind the word pid or pids.
fn pids(shown: &str) -> Vec<String> {
    let mut pids = Vec::new();
    for line in shown.lines().filter(|line| line.contains(" pid")) {
        let words =
            line.split([' ', ';']).filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()));
        pids.extend(words.map(str::to_owned));
    }
    assert!(pids.len() >= 6, "{shown}");
    pids
}
