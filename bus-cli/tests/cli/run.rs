//! `bus run`: filters between channels, byte for byte, and how they end.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::{PATIENCE, World, run, text};

/// Lines of different lengths, some of them odd.
fn log(lines: u32) -> String {
    (0..lines)
        .map(|line| {
            format!("{line} {}{}\n", ["INFO", "ERROR", "WARN"][line as usize % 3], "ä=x ".repeat((line % 41) as usize))
        })
        .collect()
}

/// What `filter` makes of `input` by itself.
fn filtered(filter: &[&str], input: &str) -> String {
    let outcome = run(Command::new(filter[0]).args(&filter[1..]), input.as_bytes());
    String::from_utf8(outcome.stdout).unwrap()
}

#[test]
fn filters_give_what_they_give_in_a_pipe() {
    let world = World::new();
    let input = log(20_000);
    let filters: [&[&str]; 5] =
        [&["grep", "ERROR"], &["awk", "{ print NR, $2, length($0) }"], &["sed", "s/x/yy/g"], &["sort", "-r"], &["cat"]];
    for filter in filters {
        world.run_with(&["publish", "from"], input.as_bytes()).is(0, "", "");
        let arguments = [&["run", "--in", "from", "--out", "to", "--until-empty", "--"], filter].concat();
        world.run(&arguments).is(0, "", "");
        assert!(world.drain("to") == filtered(filter, &input), "{filter:?}");
        assert_eq!(world.drain("from"), "");
    }
}

#[test]
fn jq_sees_objects_with_headers_and_gives_others() {
    if Command::new("jq").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let world = World::new();
    world.run(&["publish", "from", "a", "-H", "size=L"]).is(0, "", "");
    world.run(&["publish", "from", "b", "-H", "size=S"]).is(0, "", "");
    world.run(&["publish", "from", "c\nd", "-H", "size=L"]).is(0, "", "");
    let arguments = ["run", "--in", "from", "--out", "to", "--jsonl", "--until-empty", "--"];
    let filter = ["jq", "-c", "select(.headers.size == \"L\") | .headers.seen = \"yes\""];
    world.run(&[&arguments[..], &filter].concat()).is(0, "", "");
    let shown = world.output(&["consume", "to", "--until-empty", "--format", r"%p %h;"]);
    assert_eq!(shown, "a {\"size\":\"L\",\"seen\":\"yes\"};c\nd {\"size\":\"L\",\"seen\":\"yes\"};");
}

#[test]
fn binary_payloads_pass_by_lengths() {
    let world = World::new();
    let payload: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(1000);
    let mut input = Vec::new();
    for bytes in [0, 1, 300, payload.len()] {
        input.extend_from_slice(&u32::try_from(bytes).unwrap().to_le_bytes());
        input.extend_from_slice(&payload[..bytes]);
    }
    world.run_with(&["publish", "from", "--len32"], &input).is(0, "", "");
    world.run(&["run", "--in", "from", "--out", "to", "--len32", "--until-empty", "--", "cat"]).is(0, "", "");
    let outcome = world.run(&["consume", "to", "--len32", "--until-empty"]);
    assert_eq!((outcome.code, outcome.stdout == input), (0, true));
}

#[test]
fn what_is_not_joined_stays_as_it_is() {
    let world = World::new();
    world.publish("from", &["a", "b"]);
    world.run(&["run", "--in", "from", "-n", "1", "--", "cat"]).is(0, "a\n", "");
    world.run_with(&["run", "--out", "to", "--", "tr", "a-z", "A-Z"], b"x\ny").is(0, "", "");
    assert_eq!(world.drain("to"), "X\nY\n");
    assert_eq!(world.drain("from"), "b\n");
}

#[test]
fn headers_are_set_on_what_is_published() {
    let world = World::new();
    world.run(&["run", "--out", "to", "-H", "host=a", "--", "echo", "up"]).is(0, "", "");
    assert_eq!(world.output(&["consume", "to", "-n", "1", "--format", "%p %h"]), "up {\"host\":\"a\"}");
}

#[test]
fn a_line_passes_as_soon_as_the_filter_gives_it() {
    let world = World::new();
    let mut filter = world.start(&["run", "--in", "from", "--out", "to", "--", "sed", "-u", "s/^/>/"]);
    let mut consumer = world.start(&["consume", "to"]);
    for word in ["a", "b", "c"] {
        world.publish("from", &[word]);
        assert_eq!(consumer.line(), format!(">{word}"));
    }
    filter.close_input();
    filter.signal(Signal::TERM);
    filter.end().is(143, "", "");
}

#[test]
fn the_exit_code_is_the_commands() {
    let world = World::new();
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)] {
        world.run(&["run", "--out", "to", "--", "sh", "-c", script]).is(code, "", "");
        // Also while it is waited for messages.
        world.run(&["run", "--in", "from", "--", "sh", "-c", script]).is(code, "", "");
    }
}

#[test]
fn a_command_that_cannot_be_run_takes_nothing() {
    let world = World::new();
    world.publish("from", &["a"]);
    let folder = world.path("folder");
    std::fs::create_dir(&folder).unwrap();
    world.run(&["run", "--in", "from", "--", "/no/such/command"]).is(
        127,
        "",
        "bus: cannot run /no/such/command: No such file or directory (os error 2)\n",
    );
    let said = format!("bus: cannot run {}: Permission denied (os error 13)\n", text(&folder));
    world.run(&["run", "--in", "from", "--", text(&folder)]).is(126, "", &said);
    assert_eq!(world.drain("from"), "a\n");
}

#[test]
fn wrong_usage_is_told_before_anything_is_run() {
    let world = World::new();
    world.run(&["run", "--", "echo", "x"]).fails(2, &["--in <CHANNEL>"]);
    world.run(&["run", "--in", "from"]).fails(2, &["<CMD>"]);
    world.run(&["run", "--out", "to", "--until-empty", "--", "echo", "x"]).fails(2, &["need --in CHANNEL"]);
    let _holder = world.bus().raw_receiver("from").open().unwrap();
    world.run(&["run", "--in", "from", "--", "echo", "x"]).fails(9, &["from"]);
}

/// A shell reads a line byte by byte: what is behind it lies in the pipe.
#[test]
fn what_a_command_leaves_in_its_pipe_comes_again_however_it_ends() {
    let world = World::new();
    for (script, code) in [
        ("read -r line; echo $line", 0),
        ("read -r line; echo $line; exit 3", 3),
        ("read -r line; echo $line; kill -9 $$", 137),
        ("read -r line; echo $line; exec <&-; sleep .1", 0),
    ] {
        world.publish("from", &["a", "b", "c"]);
        world.run(&["run", "--in", "from", "--", "sh", "-c", script]).is(code, "a\n", "");
        assert_eq!(world.drain("from"), "b\nc\n", "{script}");
    }
    // A message that it has read in part comes again whole.
    world.publish("from", &["abc", "d"]);
    world.run(&["run", "--in", "from", "--", "dd", "bs=1", "count=2", "status=none"]).is(0, "ab", "");
    assert_eq!(world.drain("from"), "abc\nd\n");
}

#[test]
fn a_command_is_not_fed_with_what_it_writes() {
    let world = World::new();
    let outcome = world.run(&["run", "--in", "jobs", "--out", "jobs", "--", "cat"]);
    outcome.fails(2, &["--in and --out are both jobs", "name another channel"]);
}

#[test]
fn a_command_has_no_descriptor_of_ours() {
    let world = World::new();
    let plain = run(Command::new("sh").args(["-c", "ls /proc/self/fd"]), b"");
    world.publish("from", &["a"]);
    let arguments = ["run", "--in", "from", "--out", "to", "--", "sh", "-c", "ls /proc/self/fd"];
    world.run(&arguments).is(0, "", "");
    assert_eq!(world.drain("to"), String::from_utf8(plain.stdout).unwrap());
}

/// More than all pipes hold, to a command that takes no part of it.
#[test]
fn what_a_command_leaves_unwritten_goes_back() {
    let world = World::new();
    world.publish_numbers("from", 60_000);
    world.run(&["run", "--in", "from", "--", "head", "-n", "1"]).is(0, "1\n", "");
    let rest = world.drain("from");
    let first: u32 = rest.lines().next().unwrap().parse().unwrap();
    // What a pipe holds, and what the command has read ahead.
    assert!((2..40_000).contains(&first), "{first}");
    let expected: String = (first..=60_000).map(|number| format!("{number}\n")).collect();
    assert!(rest == expected, "it goes on at {first}");
}

#[test]
fn a_command_that_closes_its_input_frees_the_seat_and_goes_on() {
    let world = World::new();
    let fifo = world.path("go");
    run(Command::new("mkfifo").arg(&fifo), b"").is(0, "", "");
    let script = format!("exec <&-; echo closed; cat {}; echo done", text(&fifo));
    let running = world.start(&["run", "--in", "from", "--out", "to", "--", "sh", "-c", &script]);
    let mut consumer = world.start(&["consume", "to", "-n", "3"]);
    assert_eq!(consumer.line(), "closed");
    // The first message finds the pipe broken, and comes again.
    world.publish("from", &["a", "b"]);
    assert_eq!(world.output(&["consume", "from", "--standby", "-n", "2"]), "a\nb\n");
    std::fs::write(&fifo, "still here\n").unwrap();
    running.end().is(0, "", "");
    consumer.end().is(0, "still here\ndone\n", "");
}

#[test]
fn a_command_that_ends_while_its_child_holds_the_input_has_ended() {
    let world = World::new();
    // More than a pipe holds.
    world.run_with(&["publish", "from", "--whole"], &vec![b'x'; 1 << 20]).is(0, "", "");
    let pid_file = world.path("pid");
    let script = format!("exec 3<&0; sleep 1000 >/dev/null 2>&1 & echo $! > {}; exit 5", text(&pid_file));
    let outcome = world.run(&["run", "--in", "from", "--", "sh", "-c", &script]);
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    outcome.is(5, "", "");
    assert_eq!(world.drain("from").len(), (1 << 20) + 1);
}

/// Both pipes are full at once, and the channel behind them: it flows on as soon as somebody takes.
#[test]
fn a_command_that_writes_more_than_it_reads_blocks_nobody_for_good() {
    let world = World::new();
    world.output(&["-q", "create", "to", "--capacity", "10"]);
    let input = log(5_000);
    world.run_with(&["publish", "from"], input.as_bytes()).is(0, "", "");
    let filter = ["awk", "{ for (i = 0; i < 10; i++) print }"];
    let arguments = [&["run", "--in", "from", "--out", "to", "--until-empty", "--"], &filter[..]].concat();
    let running = world.start(&arguments);
    let shown = world.run(&["consume", "to", "-n", "50000"]);
    assert!(shown.stdout == filtered(&filter, &input).into_bytes());
    running.end().is(0, "", "");
}

#[test]
fn the_timeout_ends_the_input_and_is_told() {
    let world = World::new();
    world.publish("from", &["a"]);
    let outcome = world.run(&["run", "--in", "from", "--timeout", "2s", "--", "cat"]);
    outcome.is(4, "a\n", "bus: from: the time passed\n");
}

/// The time was looked at between messages only: a command that did not read them kept it for ever.
#[test]
fn the_timeout_counts_while_the_command_does_not_read() {
    let world = World::new();
    // The second does not fit into the pipe.
    world.run_with(&["publish", "from", "--null"], &[&b"a\0"[..], &vec![b'x'; 200_000]].concat()).is(0, "", "");
    let script = "echo ready; exec sleep 1000";
    for more in [&["-n", "2"][..], &[]] {
        let begun = Instant::now();
        let arguments = [&["run", "--in", "from", "--timeout", "1s"], more, &["--", "sh", "-c", script]].concat();
        let outcome = world.run(&arguments);
        assert_eq!((outcome.code, &outcome.stdout[..]), (4, &b"ready\n"[..]), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("from: the time passed"), "{}", outcome.stderr);
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    // Nothing of it was read.
    assert_eq!(world.drain("from").len(), 2 + 200_001);
}

#[test]
fn the_timeout_counts_while_what_the_command_writes_has_no_room() {
    let world = World::new();
    world.output(&["-q", "create", "to", "--capacity", "2"]);
    world.publish("from", &["a", "b", "c", "d"]);
    let outcome = world.run(&["run", "--in", "from", "--out", "to", "-n", "4", "--timeout", "2s", "--", "cat"]);
    outcome.fails(4, &["message 3 for to: ", "the 2 messages before it were accepted"]);
    assert_eq!(world.drain("to"), "a\nb\n");
}

#[test]
fn the_timeout_ends_a_command_that_has_all_its_messages_and_does_not_end() {
    let world = World::new();
    world.publish("from", &["a"]);
    // Neither the end of its input nor SIGTERM ends it, and a child of it holds the output.
    let script = "trap '' TERM; read line; echo $line; sleep 1000 2>/dev/null & echo $! >&2; while :; do sleep 1; done";
    for ends in [&["-n", "1"][..], &["--until-empty"]] {
        world.publish("from", &["a"]);
        let joined = ["run", "--in", "from", "--out", "to", "--timeout", "1s"];
        let outcome = world.run(&[&joined[..], ends, &["--", "sh", "-c", script]].concat());
        let pid: i32 = outcome.stderr.lines().next().unwrap().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        assert_eq!(outcome.code, 4, "{}", outcome.stderr);
        assert!(
            outcome.stderr.ends_with("bus: the time passed before the output of sh had ended\n"),
            "{}",
            outcome.stderr
        );
        assert_eq!(world.output(&["consume", "to", "-n", "1"]), "a\n");
    }
}

/// What it gives at the end of its input is published, though the time has passed.
#[test]
fn a_command_may_come_to_its_end_after_the_timeout() {
    let world = World::new();
    world.publish("from", &["b", "a"]);
    let outcome = world.run(&["run", "--in", "from", "--out", "to", "--timeout", "2s", "--", "sort"]);
    outcome.is(4, "", "bus: from: the time passed\n");
    assert_eq!(world.drain("to"), "a\nb\n");
}

#[test]
fn the_timeout_counts_from_the_start() {
    let world = World::new();
    world.signal_daemon(Signal::STOP);
    let begun = Instant::now();
    world.run(&["run", "--in", "from", "--timeout", "2s", "--", "cat"]).fails(4, &[]);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    world.signal_daemon(Signal::CONT);
}

/// Waits until a process has taken charge of a signal.
fn await_caught(pid: u32, signal: Signal) {
    let deadline = Instant::now() + PATIENCE;
    let catches = |status: String| {
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&caught, 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    };
    while !catches(std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()) {
        assert!(Instant::now() < deadline, "the signal is never caught");
        std::thread::yield_now();
    }
}

/// It was caught for the command's sake before there was one, and forgotten.
#[test]
fn ctrl_c_before_there_is_a_command_ends_it() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let world = World::new();
        world.signal_daemon(Signal::STOP);
        let running = world.start(&["run", "--in", "from", "--", "echo", "run all the same"]);
        await_caught(running.pid(), signal);
        running.signal(signal);
        running.end().is(code, "", "");
        world.signal_daemon(Signal::CONT);
    }
}

/// Signals went on to the command, which was dead, and nothing but SIGKILL ended it.
#[test]
fn it_ends_soon_after_the_command_was_told_to_and_has_although_its_output_has_no_room() {
    for (signal, code) in [(None, 143), (Some(Signal::INT), 130), (Some(Signal::TERM), 143)] {
        let world = World::new();
        world.output(&["-q", "create", "to", "--capacity", "10"]);
        let running = world.start(&["run", "--out", "to", "--", "sh", "-c", "echo $$ >&2; exec yes"]);
        let begin = Instant::now();
        let is_full = || world.output(&["show", "to", "--json"]).replace(' ', "").contains("\"queued\":10,");
        while !is_full() {
            assert!(begin.elapsed() < PATIENCE, "{}", world.output(&["show", "to"]));
            std::thread::sleep(Duration::from_millis(10));
        }
        // The first ends the command.
        running.signal(Signal::TERM);
        while !children_have_ended(running.pid()) {
            assert!(begin.elapsed() < PATIENCE, "the command goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        // The second is not waited behind.
        signal.into_iter().for_each(|signal| running.signal(signal));
        let outcome = running.end();
        assert_eq!((outcome.code, outcome.stderr.contains("to: not all")), (code, true), "{}", outcome.stderr);
    }
}

/// Whether all children of a process are at their end, waited for or not.
fn children_have_ended(pid: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().all(|child| {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    })
}

#[test]
fn deletion_of_either_channel_ends_it_with_5() {
    let world = World::new();
    let running = world.start(&["run", "--in", "from", "--", "cat"]);
    world.await_peers("from", 0, 1);
    world.output(&["-q", "delete", "from"]);
    running.end().is(5, "", "bus: from: the channel was deleted\n");

    let running = world.start(&["run", "--in", "from", "--out", "to", "--", "cat"]);
    world.await_peers("to", 1, 0);
    world.await_peers("from", 0, 1);
    world.output(&["-q", "delete", "to"]);
    world.publish("from", &["a"]);
    let outcome = running.end();
    assert_eq!((outcome.code, outcome.stderr.contains("to: ")), (5, true), "{}", outcome.stderr);
}

#[test]
fn a_line_over_the_limit_is_told_and_the_command_ended() {
    let world = World::new();
    world.output(&["-q", "create", "to", "--max-message", "1KiB"]);
    let script = "echo fits; head -c 2000 /dev/zero | tr '\\0' x; echo; exec yes";
    let outcome = world.run(&["run", "--out", "to", "--", "sh", "-c", script]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("1024"), "{}", outcome.stderr);
    assert_eq!(world.drain("to"), "fits\n");
}

#[test]
fn ctrl_c_is_for_the_command_which_may_come_to_its_end() {
    let world = World::new();
    let script = "trap 'echo last words; exit 9' INT; echo ready; while :; do read line || exit 1; done";
    let mut command = world.command(&["run", "--in", "from", "--", "sh", "-c", script]);
    // As at a terminal: both in one group, and the signal for all of it.
    let mut running = crate::world::Running::start(command.process_group(0));
    assert_eq!(running.line(), "ready");
    let group = rustix::process::Pid::from_raw(running.pid().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    // The shell looks when its read comes back.
    world.publish("from", &["a"]);
    running.end().is(9, "last words\n", "");
}

#[test]
fn a_daemon_that_restarts_is_waited_for() {
    let mut world = World::new();
    let _running = world.start(&["run", "--in", "from", "--out", "to", "--", "sed", "-u", "s/^/>/"]);
    let mut consumer = world.start(&["consume", "to"]);
    // Both of its ends are welcomed then; a daemon that dies before that is one that nobody answers for.
    world.publish("from", &["a"]);
    assert_eq!(consumer.line(), ">a");
    world.restart();
    world.publish("from", &["b"]);
    assert_eq!(consumer.line(), ">b");
}
