//! `bus demo`.

use std::path::Path;

use rustix::process::Signal;

use crate::world::{Running, bus_command, run};

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
    let mut command = bus_command();
    command.args(["demo", "--messages", "100000000", "-q"]).env("TMPDIR", folder.path());
    let mut demo = Running::start(&mut command);
    let mut shown = String::new();
    while !shown.contains("producers  pids") {
        shown.push_str(&demo.line());
        shown.push('\n');
    }
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code, 130);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    for pid in pids(&shown) {
        assert!(!Path::new("/proc").join(&pid).exists(), "process {pid} is left");
    }
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
