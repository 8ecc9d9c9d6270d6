//! Commands as sources and sinks: runs, restarts and ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use bus_core::{AdminError, ChannelOptions, LinkInfo, LinkState, Pipe, Restart};
use bus_tests::eventually;

use crate::place::{is_alive, numbers, place, spec, texts};

#[test]
fn tail_of_a_growing_log_becomes_messages() {
    place("tail", |place| {
        let log = place.path("app.log");
        let mut file = File::create(&log).unwrap();
        let link = place.link("log", Pipe::FromCommand(format!("exec tail -n +1 -f {}", log.display())));
        let receiver = place.receiver("log");
        for part in 0..20 {
            let lines: Vec<String> = (0..500).map(|line| format!("part {part} line {line} \u{e4}\t!")).collect();
            file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
            assert_eq!(texts(&receiver, 500), lines);
        }
        let pid = place.info(&link).pid.unwrap();
        assert_eq!(place.unlink(&link).last_exit.unwrap(), "signal 15");
        assert!(!is_alive(pid));
    });
}

#[test]
fn sort_and_gzip_behind_a_channel_get_every_byte() {
    place("sort and gzip", |place| {
        let (sorted, packed) = (place.path("sorted"), place.path("packed.gz"));
        let links = [
            place.link("a", Pipe::ToCommand(format!("sort -n > {}", sorted.display()))),
            place.link("b", Pipe::ToCommand(format!("gzip > {}", packed.display()))),
        ];
        place.send("a", (1..=50_000).rev().map(|number: u32| number.to_string()));
        place.send("b", (1..=50_000).map(|number: u32| number.to_string()));
        for (channel, link) in ["a", "b"].iter().zip(&links) {
            place.await_acknowledged(channel, 50_000);
            // It gets the end of its input, and ends by itself.
            assert_eq!(place.unlink(link).last_exit.unwrap(), "exit status 0");
        }
        assert!(fs::read_to_string(sorted).unwrap() == numbers(50_000));
        let unpacked = Command::new("gzip").args(["-dc"]).arg(packed).output().unwrap();
        assert!(unpacked.stdout == numbers(50_000).as_bytes());
    });
}

#[test]
fn a_command_that_fails_is_run_again_up_to_its_limit_and_says_why_it_ended() {
    place("failing commands", |place| {
        let before = place.descriptors_at_rest();
        let mut missing = spec("a", Pipe::FromCommand("no-such-program-here; exit 7".to_owned()));
        missing.restart_limit = 2;
        let missing = place.bus.link(missing).unwrap();
        let info = place.await_state(&missing, LinkState::Ended);
        assert_eq!((info.restarts, info.last_exit.as_deref(), info.pid), (2, Some("exit status 7"), None));
        assert!(info.note.starts_with("the command ended with exit status 7, after 2 restarts in a row"), "{info:?}");
        assert!(place.daemon.log().contains("no-such-program-here"), "{}", place.daemon.log());

        let mut once = spec("b", Pipe::ToCommand("exit 0".to_owned()));
        once.restart = Restart::OnFailure;
        let once = place.bus.link(once).unwrap();
        let info = place.await_state(&once, LinkState::Ended);
        assert_eq!((info.restarts, info.last_exit.as_deref()), (0, Some("exit status 0")));
        assert_eq!(info.note, "the command ended with exit status 0");
        // Its end is gone: another may receive.
        drop(place.receiver("b"));

        let mut always = spec("c", Pipe::FromCommand("echo one".to_owned()));
        (always.restart, always.restart_limit) = (Restart::Always, 3);
        let always = place.bus.link(always).unwrap();
        place.await_state(&always, LinkState::Ended);
        assert_eq!(texts(&place.receiver("c"), 4), ["one"; 4]);
        for link in [missing, once, always] {
            place.unlink(&link);
        }
        place.has_only(&before);
    });
}

#[test]
fn a_command_that_ignores_term_never_reads_or_floods_is_ended_with_its_whole_group() {
    place("stubborn commands", |place| {
        let before = place.descriptors_at_rest();
        let pids = place.path("pids");
        let stubborn = |then: &str| {
            format!(
                "trap '' TERM; echo $$ >> {pids}; (echo $(exec sh -c 'echo $PPID') >> {pids}; sleep 600) & {then}",
                pids = pids.display()
            )
        };
        let links = [
            place.link("flood", Pipe::FromCommand(stubborn("yes"))),
            place.link("deaf", Pipe::ToCommand(stubborn("sleep 600"))),
            place.link("noise", Pipe::ToCommand(stubborn("yes >&2"))),
        ];
        eventually("all run", || fs::read_to_string(&pids).is_ok_and(|text| text.lines().count() == 6));
        place.send("deaf", [vec![b'x'; 1_000_000]]);
        // The flood is held back by the channel.
        eventually("the flood waits", || {
            place.bus.show("flood").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        for link in &links {
            assert_eq!(place.unlink(link).last_exit.unwrap(), "signal 9");
        }
        for pid in fs::read_to_string(&pids).unwrap().lines() {
            let pid = pid.trim().parse().unwrap();
            eventually("it is dead", || !is_alive(pid));
        }
        assert_eq!(place.receiver("deaf").recv().unwrap().len(), 1_000_000);
        // What the flood has brought may lie in a lane.
        place.bus.delete("flood").unwrap();
        place.has_only(&before);
    });
}

#[test]
fn every_process_of_a_command_has_time_to_end_after_term() {
    place("grace", |place| {
        let (ready, done) = (place.path("ready"), place.path("done"));
        let script = format!(
            "(trap 'sleep .2; echo done > {done}; exit' TERM; echo > {ready}; while :; do sleep .02; done) & wait; :",
            done = done.display(),
            ready = ready.display()
        );
        let link = place.link("jobs", Pipe::FromCommand(script));
        eventually("it is ready", || ready.exists());
        place.unlink(&link);
        assert_eq!(fs::read_to_string(&done).unwrap(), "done\n");
    });
}

#[test]
fn a_command_that_the_shell_cannot_run_is_refused_with_what_the_shell_said() {
    place("no such command", |place| {
        let before = place.descriptors_at_rest();
        place.send("jobs", ["one"]);
        // The answer waits for a moment only: a shell that gets no processor in that time has not failed yet.
        let refused_in_time = |link: &dyn Fn() -> Result<LinkInfo, AdminError>| {
            let mut refusal = String::new();
            eventually("it is refused in time", || match link() {
                Ok(link) => {
                    place.unlink(&link);
                    false
                }
                Err(error) => {
                    refusal = error.to_string();
                    true
                }
            });
            refusal
        };
        for pipe in [
            Pipe::ToCommand("no-such-program-here".to_owned()),
            Pipe::FromCommand("no-such-program-here".to_owned()),
            Pipe::ToCommand(place.daemon.folder().to_str().unwrap().to_owned()),
        ] {
            let refusal = refused_in_time(&|| place.bus.link(spec("jobs", pipe.clone())));
            let code = if pipe.target().starts_with('/') { "126" } else { "127" };
            assert!(refusal.contains(&format!("exit status {code}")) && refusal.contains(pipe.target()), "{refusal}");
        }
        assert!(place.bus.links().unwrap().is_empty());
        // Nothing was taken for it.
        assert_eq!(place.receiver("jobs").recv().unwrap(), b"one");
        // One that fails for its own reasons is run again as ordered, and the answer says so.
        eventually("it fails in time", || {
            let failing = place.link("jobs", Pipe::FromCommand("exit 3".to_owned()));
            place.unlink(&failing);
            failing.note == "the command ended with exit status 3 at once"
        });
        place.has_only(&before);
    });
}

#[test]
fn a_command_whose_process_has_ended_is_at_its_end_though_a_child_holds_its_pipe() {
    place("held pipe", |place| {
        let before = place.descriptors_at_rest();
        let pids = place.path("pids");
        // One child has stayed in the group, one has left it.
        let script = format!(
            "sleep 600 & setsid sh -c 'echo $$ >> {pids}; exec sleep 600' & \
             while [ ! -s {pids} ]; do sleep .02; done; printf 'one\nhalf'; exit 3",
            pids = pids.display()
        );
        fs::write(&pids, "").unwrap();
        let mut source = spec("jobs", Pipe::FromCommand(script));
        source.restart = Restart::Never;
        let link = place.bus.link(source).unwrap();
        let info = place.await_state(&link, LinkState::Ended);
        assert_eq!((info.note.as_str(), info.pid), ("the command ended with exit status 3", None));
        // What was written is handed on to the last byte.
        assert_eq!(texts(&place.receiver("jobs"), 2), ["one", "half"]);
        let left = fs::read_to_string(&pids).unwrap();
        assert!(Command::new("kill").arg(left.trim()).status().unwrap().success(), "it had left the group");
        place.unlink(&link);
        place.has_only(&before);
    });
}

#[test]
fn a_command_that_ends_while_the_channel_is_full_is_seen_at_once_and_loses_nothing() {
    place("full channel", |place| {
        let options = ChannelOptions { capacity: Some(1), ..ChannelOptions::default() };
        place.bus.create("narrow", options).unwrap();
        let mut source = spec("narrow", Pipe::FromCommand("sleep 600 & echo 1; echo 2; echo 3; exit 4".to_owned()));
        source.restart = Restart::Never;
        let link = place.bus.link(source).unwrap();
        eventually("its end is seen", || place.info(&link).last_exit.as_deref() == Some("exit status 4"));
        let info = place.info(&link);
        assert_eq!((info.state, info.pid), (LinkState::Running, None));
        eventually("one waits", || place.bus.show("narrow").unwrap().ledger.queued == 1);
        assert_eq!(texts(&place.receiver("narrow"), 3), ["1", "2", "3"]);
        let info = place.await_state(&link, LinkState::Ended);
        assert_eq!((info.note.as_str(), info.messages), ("the command ended with exit status 4", 3));
    });
}

#[test]
fn a_command_has_none_of_the_daemons_descriptors() {
    place("descriptors", |place| {
        let script = "ls /proc/self/fd";
        let plain = Command::new("sh").args(["-c", script]).output().unwrap();
        let plain = String::from_utf8(plain.stdout).unwrap();
        place.link("fds", Pipe::FromCommand(script.to_owned()));
        let wanted: Vec<&str> = plain.lines().collect();
        assert_eq!(texts(&place.receiver("fds"), wanted.len()), wanted);
    });
}

#[test]
fn what_a_command_says_on_its_error_output_is_logged_within_bounds_and_steers_no_terminal() {
    place("loud command", |place| {
        let script = "printf 'red \\033[31m\\007\\n' >&2; seq 1 100000 >&2; printf 'the last\\n' >&2; exit 9";
        let mut source = spec("jobs", Pipe::FromCommand(script.to_owned()));
        source.restart = Restart::Never;
        let link = place.bus.link(source).unwrap();
        place.await_state(&link, LinkState::Ended);
        let log = place.daemon.log();
        assert!(log.contains("red \\u{1b}[31m\\u{7}") && !log.contains("\u{1b}[31m"), "{log}");
        assert!(log.lines().count() < 10_000, "{} lines", log.lines().count());
        // With the first and the last line.
        assert!(log.contains("lines more are left out: 500 lines or 131072 bytes are logged in 10 s"), "{log}");
    });
}
