//! Workers: what is acknowledged when, and what comes again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use bus_core::Pipe;
use bus_tests::eventually;

use crate::place::{place, spec};

#[test]
fn a_killed_worker_loses_nothing_and_what_it_had_not_acknowledged_comes_again() {
    place("killed worker", |place| {
        let done = place.path("done");
        let mut worker = spec(
            "jobs",
            Pipe::ToCommand(format!("while read -r job; do echo \"$job\" >> {}; echo ok; done", done.display())),
        );
        (worker.ack_lines, worker.restart_limit) = (true, 1_000);
        let link = place.bus.link(worker).unwrap();
        place.send("jobs", (1..=2_000).map(|number: u32| number.to_string()));
        for step in 1..=5_u64 {
            let mut pid = None;
            eventually("some are done, and it runs", || {
                let info = place.info(&link);
                pid = info.pid.filter(|_| info.messages >= step * 200);
                pid.is_some()
            });
            Command::new("kill").args(["-9", &pid.unwrap().to_string()]).status().unwrap();
            eventually("it is run again", || u64::from(place.info(&link).restarts) >= step);
        }
        place.await_acknowledged("jobs", 2_000);
        let info = place.unlink(&link);
        assert!(info.restarts >= 5, "{info:?}");
        let mut jobs: Vec<u32> = fs::read_to_string(&done).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        assert!(jobs.is_sorted(), "out of order");
        assert!(jobs.len() <= 2_000 + info.restarts as usize, "more came again than were in work");
        jobs.dedup();
        assert!(jobs.into_iter().eq(1..=2_000));
    });
}

#[test]
fn a_worker_that_dies_in_the_middle_of_a_large_message_gets_it_again_whole() {
    place("large message", |place| {
        let copy = place.path("copy");
        // The first run takes some bytes and kills itself; the next takes all.
        let flag = place.path("flag");
        let script = format!(
            "if mkdir {flag} 2>/dev/null; then head -c 1000 > /dev/null; kill -9 $$; fi; exec cat > {copy}",
            flag = flag.display(),
            copy = copy.display()
        );
        let link = place.link("large", Pipe::ToCommand(script));
        let message: Vec<u8> = (0..2_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
        place.send("large", [message.clone()]);
        place.await_acknowledged("large", 1);
        let info = place.unlink(&link);
        assert_eq!(info.restarts, 1);
        let copied = fs::read(copy).unwrap();
        assert!(copied[..message.len()] == message[..] && copied.len() == message.len() + 1);
    });
}

#[test]
fn a_message_that_a_worker_has_not_read_when_it_ends_comes_again() {
    place("unread input", |place| {
        let copy = place.path("copy");
        // Each run reads one line of what lies in its input, and fails.
        let mut worker =
            spec("jobs", Pipe::ToCommand(format!("read -r line; echo \"$line\" >> '{}'; exit 1", copy.display())));
        worker.restart_limit = 100;
        place.send("jobs", ["one", "two", "three"]);
        place.bus.link(worker).unwrap();
        place.await_acknowledged("jobs", 3);
        // It writes down what it has read a moment later.
        eventually("each is worked on once", || fs::read_to_string(&copy).is_ok_and(|it| it == "one\ntwo\nthree\n"));
    });
}

#[test]
fn a_line_that_a_worker_wrote_before_it_had_the_message_acknowledges_nothing() {
    place("early lines", |place| {
        let go = place.fifo("go");
        assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
        let said = place.fifo("said");
        let script = format!("echo ready; echo > {said}; while read -r job; do cat {go} > /dev/null; echo ok; done");
        let mut worker = spec("jobs", Pipe::ToCommand(script));
        worker.ack_lines = true;
        let link = place.bus.link(worker).unwrap();
        // The worker has said its banner, which lies in the pipe, when it has made this.
        eventually("the banner is written", || Path::new(&said).exists());
        place.send("jobs", ["one", "two"]);
        let acknowledged = || place.bus.show("jobs").unwrap().ledger.acknowledged;
        for done in 0..2 {
            // The worker is at work: nothing but its line after that acknowledges.
            let mut gate = OpenOptions::new().write(true).open(&go).unwrap();
            assert_eq!(acknowledged(), done);
            gate.write_all(b"go").unwrap();
            drop(gate);
            eventually("the worker has said so", || acknowledged() == done + 1);
        }
        place.await_acknowledged("jobs", 2);
        assert_eq!(place.info(&link).refused, 1);
    });
}

#[test]
fn a_worker_that_writes_while_it_reads_is_not_waited_for_for_ever() {
    place("echo", |place| {
        let mut worker = spec("jobs", Pipe::ToCommand("cat".to_owned()));
        worker.ack_lines = true;
        place.bus.link(worker).unwrap();
        place.send("jobs", [vec![b'x'; 1_000_000], vec![b'y'; 1_000_000]]);
        place.await_acknowledged("jobs", 2);
    });
}

#[test]
fn a_process_that_has_left_its_group_with_the_pipe_holds_up_nobody() {
    place("left the group", |place| {
        let (pid, go, copy) = (place.path("pid"), place.path("go"), place.path("copy"));
        // The first run leaves its input to somebody else, who never reads.
        let script = format!(
            "if [ -e {pid} ]; then exec cat > {copy}; fi; setsid sh -c 'echo $$ > {pid}; exec sleep 600' <&0 & \
             while [ ! -e {go} ]; do sleep .01; done; kill -9 $$",
            pid = pid.display(),
            go = go.display(),
            copy = copy.display()
        );
        let link = place.link("jobs", Pipe::ToCommand(script));
        place.send("jobs", [vec![b'x'; 1_000_000]]);
        eventually("it is stuck", || {
            let in_delivery = place.bus.show("jobs").unwrap().ledger.in_delivery == 1;
            in_delivery && fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
        });
        File::create(&go).unwrap();
        place.await_acknowledged("jobs", 1);
        assert_eq!(place.unlink(&link).restarts, 1);
        assert_eq!(fs::metadata(&copy).unwrap().len(), 1_000_001);
        let pid = fs::read_to_string(&pid).unwrap().trim().to_owned();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    });
}

#[test]
fn a_worker_that_has_closed_its_output_can_acknowledge_nothing_and_that_is_told() {
    place("closed output", |place| {
        let go = place.path("go");
        let script = format!(
            "if [ -e {go} ]; then while read -r job; do echo ok; done; exit 0; fi; \
             exec >&-; while [ ! -e {go} ]; do sleep .02; done; exit 1",
            go = go.display()
        );
        let mut worker = spec("jobs", Pipe::ToCommand(script));
        worker.ack_lines = true;
        let link = place.bus.link(worker).unwrap();
        place.send("jobs", ["one"]);
        eventually("it is told", || place.info(&link).note.contains("the output by which it acknowledges"));
        assert_eq!(place.bus.show("jobs").unwrap().ledger.acknowledged, 0);
        File::create(&go).unwrap();
        place.await_acknowledged("jobs", 1);
        assert_eq!(place.unlink(&link).restarts, 1);
    });
}

#[test]
fn a_line_too_many_of_a_worker_that_dies_while_its_pipe_is_held_spins_nothing() {
    place("line too many", |place| {
        let (pid, go, copy) = (place.path("pid"), place.path("go"), place.path("copy"));
        // The first run writes a line while it is written to, and leaves its input to somebody who never reads.
        let script = format!(
            "if [ -e {go} ]; then head -c 1000001 > {copy}; echo ok; exec cat > /dev/null; fi; \
             head -c 1 > /dev/null; echo too soon; setsid sh -c 'echo $$ > {pid}; exec sleep 600' <&0 & \
             while [ ! -e {go} ]; do sleep .02; done; kill -9 $$",
            pid = pid.display(),
            go = go.display(),
            copy = copy.display()
        );
        let mut worker = spec("jobs", Pipe::ToCommand(script));
        worker.ack_lines = true;
        let link = place.bus.link(worker).unwrap();
        place.send("jobs", [vec![b'x'; 1_000_000]]);
        eventually("it is stuck", || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')));
        File::create(&go).unwrap();
        place.await_acknowledged("jobs", 1);
        assert_eq!(place.unlink(&link).restarts, 1);
        assert_eq!(fs::metadata(&copy).unwrap().len(), 1_000_001);
        let pid = fs::read_to_string(&pid).unwrap().trim().to_owned();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    });
}
