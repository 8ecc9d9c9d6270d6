//! Gateways with real programs at their other side, which know nothing of a bus.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus_core::framing::Framing;
use bus_core::{
    AdminError, Bus, ChannelName, ChannelOptions, LinkInfo, LinkSpec, LinkState, Pipe, Receiver, Restart, Unlink,
};
use bus_tests::{Daemon, eventually, watch};

/// A daemon, and what is done with it.
struct Place {
    daemon: Daemon,
    bus: Bus,
}

/// Runs a test with a daemon of its own, under the watchdog.
fn place(name: &str, test: fn(&Place)) {
    place_with(name, "", test);
}

fn place_with(name: &str, config: &str, test: fn(&Place)) {
    place_at(name, Daemon::start_with(config), test);
}

fn place_at(name: &str, daemon: Daemon, test: fn(&Place)) {
    let bus = Bus::connect_to(daemon.address()).unwrap();
    let place = Arc::new(Place { daemon, bus });
    let shared = Arc::clone(&place);
    let give_up = || {
        eprintln!("the daemon's log:\n{}", place.daemon.log());
        place.daemon.kill();
    };
    watch(name, move || test(&shared), give_up);
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.daemon.folder().join(name)
    }

    fn fifo(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn link(&self, channel: &str, pipe: Pipe) -> LinkInfo {
        self.bus.link(spec(channel, pipe)).unwrap()
    }

    fn refusal(&self, channel: &str, pipe: Pipe) -> String {
        self.bus.link(spec(channel, pipe)).unwrap_err().to_string()
    }

    fn unlink(&self, link: &LinkInfo) -> LinkInfo {
        self.bus.unlink(Unlink::Id(link.id)).unwrap().remove(0)
    }

    fn info(&self, link: &LinkInfo) -> LinkInfo {
        self.bus.links().unwrap().into_iter().find(|it| it.id == link.id).unwrap()
    }

    fn await_state(&self, link: &LinkInfo, state: LinkState) -> LinkInfo {
        eventually(state.name(), || self.info(link).state == state);
        self.info(link)
    }

    fn receiver(&self, channel: &str) -> Receiver<Vec<u8>> {
        self.bus.raw_receiver(channel).open().unwrap()
    }

    fn send(&self, channel: &str, messages: impl IntoIterator<Item = impl Into<Vec<u8>>>) {
        let sender = self.bus.raw_sender(channel).open().unwrap();
        messages.into_iter().for_each(|message| sender.feed(message.into()).unwrap());
        sender.flush().unwrap();
    }

    fn await_acknowledged(&self, channel: &str, messages: u64) {
        eventually("everything is acknowledged", || {
            self.bus.show(channel).is_ok_and(|info| info.ledger.acknowledged == messages)
        });
        let ledger = self.bus.show(channel).unwrap().ledger;
        assert!(ledger.balances() && ledger.queued + ledger.in_delivery == 0, "{ledger:?}");
    }

    /// What the daemon has open once it has had a gateway, by what it is: connections come and go by themselves.
    fn descriptors_at_rest(&self) -> Vec<String> {
        let first = self.link("first", Pipe::FromFifo(self.fifo("first")));
        self.unlink(&first);
        self.descriptors()
    }

    fn descriptors(&self) -> Vec<String> {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).unwrap();
        let kinds = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).filter_map(|target| {
            let target = target.to_str()?.to_owned();
            let kind = target.split(':').next()?.to_owned();
            (kind != "socket").then_some(kind)
        });
        let mut kinds: Vec<String> = kinds.collect();
        kinds.sort();
        kinds
    }

    /// The processes whose parent is the daemon, zombies included.
    fn children(&self) -> Vec<String> {
        let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon.pid())).unwrap();
        tasks
            .flat_map(|task| children(task.unwrap()).split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// A daemon without gateways has as much as before there were any.
    fn has_only(&self, descriptors: &[String]) {
        let until = Instant::now() + bus_tests::PATIENCE;
        while self.descriptors() != descriptors || !self.children().is_empty() {
            let (now, children) = (self.descriptors(), self.children());
            assert!(Instant::now() < until, "left behind: {now:?}, not {descriptors:?}; children {children:?}");
            std::thread::yield_now();
        }
    }
}

fn spec(channel: &str, pipe: Pipe) -> LinkSpec {
    LinkSpec::new(ChannelName::new(channel).unwrap(), pipe)
}

fn texts(receiver: &Receiver<Vec<u8>>, count: usize) -> Vec<String> {
    (0..count).map(|_| String::from_utf8(receiver.recv().unwrap()).unwrap()).collect()
}

fn writer(path: &str) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn what_a_shell_loop_writes_to_a_fifo_comes_out_byte_for_byte() {
    place("shell loop", |place| {
        let fifo = place.fifo("in");
        let before = place.descriptors_at_rest();
        let link = place.link("lines", Pipe::FromFifo(fifo.clone()));
        let metadata = fs::metadata(&fifo).unwrap();
        assert!(metadata.file_type().is_fifo());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let receiver = place.receiver("lines");
        // First each echo opens and closes the FIFO; then two write at the same time, a line at once.
        let script = "for i in $(seq 1 200); do echo \"loop $i\" > $0; done; \
                      (for i in $(seq 1 5000); do echo \"a $i\"; done > $0) & \
                      (for i in $(seq 1 5000); do echo \"b $i\"; done > $0) & wait";
        let mut shell = Command::new("sh").args(["-c", script, &fifo]).spawn().unwrap();
        let lines = texts(&receiver, 10_200);
        assert!(shell.wait().unwrap().success());
        for (name, count) in [("loop", 200), ("a", 5_000), ("b", 5_000)] {
            let prefix = format!("{name} ");
            let of_one: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
            assert!(of_one.iter().copied().eq((1..=count).map(|i| i.to_string())), "{name}: {}", of_one.len());
        }
        assert_eq!(place.unlink(&link).messages, 10_200);
        assert!(!Path::new(&fifo).exists());
        // It may have read from a lane.
        drop(receiver);
        place.has_only(&before);
    });
}

#[test]
fn the_last_fragment_of_a_writer_is_a_message_and_the_next_writer_is_heard() {
    place("fragments", |place| {
        let fifo = place.fifo("in");
        place.link("lines", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("lines");
        for round in 0..50 {
            write!(writer(&fifo), "whole {round}\nfragment {round}").unwrap();
            assert_eq!(texts(&receiver, 2), [format!("whole {round}"), format!("fragment {round}")]);
        }
        // A writer that stays is not at its end: what it has begun is no message yet.
        let mut slow = writer(&fifo);
        slow.write_all(b"beg").unwrap();
        slow.write_all(b"un\n").unwrap();
        assert_eq!(texts(&receiver, 1), ["begun"]);
    });
}

#[test]
fn whole_writes_null_and_lengths_frame_messages_as_in_the_shell() {
    place("framings", |place| {
        for (name, framing, bytes) in [
            ("whole", Framing::Whole, &b"a\nb"[..]),
            ("null", Framing::null(), b"a\nb\0"),
            ("len32", Framing::Length32, b"\x03\0\0\0a\nb"),
            ("text", Framing::Delimited(b"--".to_vec()), b"a\nb--"),
        ] {
            let (from, to) = (place.fifo("from"), place.fifo("to"));
            let mut source = spec(name, Pipe::FromFifo(from.clone()));
            let mut sink = spec(name, Pipe::ToFifo(to.clone()));
            (source.framing, sink.framing) = (framing.clone(), framing);
            let links = [place.bus.link(source).unwrap(), place.bus.link(sink).unwrap()];
            writer(&from).write_all(bytes).unwrap();
            let mut read = vec![0; bytes.len()];
            File::open(&to).unwrap().read_exact(&mut read).unwrap();
            assert_eq!(read, bytes, "{name}");
            links.iter().for_each(|link| drop(place.unlink(link)));
        }
    });
}

#[test]
fn a_full_channel_makes_the_writer_of_a_fifo_wait_and_loses_nothing() {
    place("back-pressure", |place| {
        let options = ChannelOptions { capacity: Some(10), ..ChannelOptions::default() };
        place.bus.create("narrow", options).unwrap();
        let fifo = place.fifo("in");
        place.link("narrow", Pipe::FromFifo(fifo.clone()));
        let (done, is_done) = std::sync::mpsc::channel();
        let writing = std::thread::spawn(move || {
            // More than the channel, the gateway and the pipe hold.
            writer(&fifo).write_all(numbers(200_000).as_bytes()).unwrap();
            done.send(()).unwrap();
        });
        eventually("the sender waits", || {
            place.bus.show("narrow").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        assert_eq!(place.bus.show("narrow").unwrap().ledger.queued, 10);
        assert!(is_done.try_recv().is_err(), "the writer has not been made to wait");
        let receiver = place.receiver("narrow");
        for number in 1..=200_000_u32 {
            assert_eq!(receiver.recv().unwrap(), number.to_string().as_bytes());
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_gateway_ends_at_once_while_it_waits_for_room_a_writer_a_reader_or_a_message() {
    place("prompt ends", |place| {
        let before = place.descriptors_at_rest();
        place.bus.create("narrow", ChannelOptions { capacity: Some(1), ..ChannelOptions::default() }).unwrap();
        let full = place.fifo("full");
        let links = [
            place.link("narrow", Pipe::FromFifo(full.clone())),
            place.link("silent", Pipe::FromFifo(place.fifo("silent"))),
            place.link("unread", Pipe::ToFifo(place.fifo("unread"))),
            place.link("empty", Pipe::ToFifo(place.fifo("empty"))),
            place.link("stuck", Pipe::ToFifo(place.fifo("stuck"))),
            place.link("idle", Pipe::ToCommand("cat".to_owned())),
        ];
        let mut blocked = writer(&full);
        blocked.write_all(b"1\n2\n3\n").unwrap();
        let _reader = OpenOptions::new().read(true).open(place.fifo("empty")).unwrap();
        let _stuck = OpenOptions::new().read(true).open(place.fifo("stuck")).unwrap();
        place.send("stuck", [vec![b'x'; 1_000_000]]);
        eventually("all wait", || {
            let blocked = place.bus.show("narrow").unwrap().senders.iter().any(|it| it.blocked_ms.is_some());
            let stuck = place.bus.show("stuck").unwrap().ledger.in_delivery == 1;
            blocked && stuck && place.info(&links[3]).state == LinkState::Running
        });
        let begun = Instant::now();
        links.iter().for_each(|link| drop(place.unlink(link)));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        // What was stuck half way is in the channel again.
        assert_eq!(place.receiver("stuck").recv().unwrap().len(), 1_000_000);
        for fifo in ["full", "silent", "unread", "empty", "stuck"] {
            assert!(!place.path(fifo).exists(), "{fifo}");
        }
        place.has_only(&before);
    });
}

#[test]
fn messages_wait_in_the_channel_while_nobody_reads_the_fifo() {
    place("no reader", |place| {
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        place.send("jobs", ["one", "two"]);
        place.await_state(&link, LinkState::WaitingForReader);
        assert_eq!(place.bus.show("jobs").unwrap().ledger.queued, 2);
        let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines();
        assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["one", "two"]);
        place.await_acknowledged("jobs", 2);
        drop(lines);
        // The reader has gone while the gateway waits for a message: the message waits for the next.
        place.send("jobs", ["three"]);
        place.await_state(&link, LinkState::WaitingForReader);
        let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "three");
    });
}

#[test]
fn a_message_whose_reader_was_killed_in_the_middle_comes_whole_to_the_next() {
    place("killed reader", |place| {
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        let mut message = vec![b'm'; 3_000_000];
        message[0] = b'A';
        place.send("jobs", [message.clone()]);
        let script = "exec 3< $0; head -c 100000 <&3; sleep 600";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, &fifo]).stdout(Stdio::piped()).process_group(0);
        let mut reader = shell.spawn().unwrap();
        let mut some = vec![0; 100_000];
        reader.stdout.take().unwrap().read_exact(&mut some).unwrap();
        assert_eq!(some, message[..100_000]);
        kill_group(&mut reader);
        place.await_state(&link, LinkState::WaitingForReader);
        let mut whole = vec![0; message.len() + 1];
        File::open(&fifo).unwrap().read_exact(&mut whole).unwrap();
        message.push(b'\n');
        assert!(whole == message, "the message is not whole");
        place.await_acknowledged("jobs", 1);
    });
}

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
fn paths_that_are_no_safe_place_for_a_fifo_are_refused_with_the_reason() {
    place("bad paths", |place| {
        let before = place.descriptors_at_rest();
        let path = |name: &str| place.fifo(name);
        fs::write(path("file"), "precious").unwrap();
        symlink(path("file"), path("link")).unwrap();
        for name in ["open", "sticky", "real"] {
            fs::create_dir(path(name)).unwrap();
        }
        symlink(path("real"), path("turned")).unwrap();
        fs::set_permissions(path("open"), PermissionsExt::from_mode(0o777)).unwrap();
        fs::set_permissions(path("sticky"), PermissionsExt::from_mode(0o1777)).unwrap();
        fs::set_permissions(path("real"), PermissionsExt::from_mode(0o700)).unwrap();
        let foreign = path("real/loose");
        assert!(Command::new("mkfifo").args(["-m", "622", &foreign]).status().unwrap().success());
        for (fifo, reason) in [
            ("file", "is a regular file and no FIFO, and stays as it is"),
            ("link", "is a symbolic link, which is not followed"),
            ("real", "is a folder and no FIFO"),
            ("open/in", "has mode 0777, so others could put a FIFO of their own there"),
            ("sticky/in", "has mode 1777, so others could put a FIFO of their own there"),
            ("turned/in", "is a symbolic link, which could be turned elsewhere"),
            ("missing/in", "No such file or directory"),
            ("real/loose", "has mode 0622, so others can open it: run chmod 600 on it"),
        ] {
            for pipe in [Pipe::FromFifo(path(fifo)), Pipe::ToFifo(path(fifo))] {
                let refusal = place.refusal("jobs", pipe);
                assert!(refusal.contains(reason), "{fifo}: {refusal}");
            }
        }
        assert!(place.refusal("jobs", Pipe::FromFifo("in".to_owned())).contains("is relative: write it from /"));
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "precious");
        assert!(fs::metadata(&foreign).unwrap().file_type().is_fifo());
        assert!(place.bus.links().unwrap().is_empty());
        place.has_only(&before);
    });
}

#[test]
fn a_fifo_that_was_there_is_used_and_stays_and_one_that_was_replaced_is_left_alone() {
    place("own FIFOs", |place| {
        let (there, made) = (place.fifo("there"), place.fifo("made"));
        assert!(Command::new("mkfifo").args(["-m", "600", &there]).status().unwrap().success());
        let link = place.link("jobs", Pipe::FromFifo(there.clone()));
        let refusal = place.refusal("other", Pipe::ToFifo(there.clone()));
        assert!(refusal.contains(&format!("gateway {} has {there} for channel jobs", link.id)), "{refusal}");
        place.unlink(&link);
        assert!(fs::metadata(&there).unwrap().file_type().is_fifo());
        let link = place.link("jobs", Pipe::FromFifo(made.clone()));
        fs::remove_file(&made).unwrap();
        fs::write(&made, "another").unwrap();
        place.unlink(&link);
        assert_eq!(fs::read_to_string(&made).unwrap(), "another");
    });
}

#[test]
fn a_line_over_the_limit_is_refused_with_figures_and_the_next_lines_come() {
    place("long lines", |place| {
        let options = ChannelOptions { message_max_bytes: Some(1_000), ..ChannelOptions::default() };
        place.bus.create("short", options).unwrap();
        let fifo = place.fifo("in");
        let link = place.link("short", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("short");
        let long = "y".repeat(1_000_000);
        writer(&fifo).write_all(format!("before\n{long}\nafter\n").as_bytes()).unwrap();
        assert_eq!(texts(&receiver, 2), ["before", "after"]);
        let info = place.info(&link);
        assert_eq!((info.messages, info.refused), (2, 1));
        assert_eq!(info.note, "message 2 is over the limit of 1000 bytes: split it, or raise max-message");
    });
}

#[test]
fn a_gateway_that_takes_messages_is_the_channels_only_receiver_and_shows_its_name() {
    place("exclusive", |place| {
        let receiver = place.receiver("jobs");
        let fifo = place.fifo("out");
        match place.bus.link(spec("jobs", Pipe::ToFifo(fifo.clone()))) {
            Err(AdminError::ReceiverTaken { text }) => assert!(text.contains("channel jobs has a receiver"), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(!Path::new(&fifo).exists());
        drop(receiver);
        place.link("jobs", Pipe::ToFifo(fifo.clone()));
        let holder = place.bus.show("jobs").unwrap().receiver.unwrap();
        assert!(holder.name.contains(": to-fifo /"), "{holder:?}");
        assert_eq!(holder.pid, place.daemon.pid());
    });
}

#[test]
fn a_gateway_takes_what_senders_in_lanes_send() {
    place("lanes", |place| {
        let copy = place.path("copy");
        let link = place.link("busy", Pipe::ToCommand(format!("cat > {}", copy.display())));
        let bus = Bus::builder().address(place.daemon.address().clone()).lanes().connect().unwrap();
        let sender = bus.raw_sender("busy").open().unwrap();
        for number in 1..=20_000_u32 {
            sender.send(number.to_string().into_bytes()).unwrap();
        }
        sender.flush().unwrap();
        eventually("all went through", || place.info(&link).messages == 20_000);
        place.unlink(&link);
        assert!(fs::read_to_string(copy).unwrap() == numbers(20_000));
    });
}

#[test]
fn the_end_of_the_daemon_leaves_no_process_and_no_fifo_behind() {
    place("daemon end", |place| {
        let copy = place.path("copy");
        let fifo = place.fifo("in");
        place.link("lines", Pipe::FromFifo(fifo.clone()));
        place.link("unread", Pipe::ToFifo(place.fifo("out")));
        let worker = place.link("lines", Pipe::ToCommand(format!("cat > {}", copy.display())));
        let command = place.link("nothing", Pipe::FromCommand("sleep 600".to_owned()));
        let pids = [worker, command].map(|link| place.info(&link).pid.unwrap());
        writer(&fifo).write_all(numbers(10_000).as_bytes()).unwrap();
        place.daemon.end();
        assert!(pids.into_iter().all(|pid| !is_alive(pid)));
        assert!(!Path::new(&fifo).exists() && !place.path("out").exists());
        // What was written before was handed on to the end.
        assert!(fs::read_to_string(copy).unwrap() == numbers(10_000));
    });
}

#[test]
fn there_are_no_more_gateways_than_the_limit() {
    place_with("limit", "links_max = 1\n", |place| {
        let link = place.link("a", Pipe::FromFifo(place.fifo("a")));
        let refusal = place.refusal("b", Pipe::FromFifo(place.fifo("b")));
        assert!(refusal.contains("there are 1 gateways, the limit links_max"), "{refusal}");
        place.unlink(&link);
        place.link("b", Pipe::FromFifo(place.fifo("b")));
    });
}

#[test]
fn deleting_the_channel_and_kick_end_idle_gateways_at_once_with_the_reason() {
    place("deleted channel", |place| {
        let before = place.descriptors_at_rest();
        // None of them has a reason to look at the channel.
        let links = [
            place.link("jobs", Pipe::FromFifo(place.fifo("in"))),
            place.link("jobs", Pipe::ToFifo(place.fifo("out"))),
            place.link("jobs", Pipe::FromCommand("sleep 600".to_owned())),
        ];
        place.await_state(&links[1], LinkState::WaitingForReader);
        place.bus.delete("jobs").unwrap();
        for link in &links {
            let info = place.await_state(link, LinkState::Ended);
            assert_eq!((info.note.as_str(), info.pid), ("the channel was deleted", None));
        }
        assert!(!place.path("in").exists() && !place.path("out").exists());
        let worker = place.link("other", Pipe::ToCommand("cat".to_owned()));
        let sink = place.link("more", Pipe::ToFifo(place.fifo("out")));
        place.await_state(&sink, LinkState::WaitingForReader);
        for (channel, link) in [("other", &worker), ("more", &sink)] {
            place.bus.kick(channel).unwrap();
            let note = place.await_state(link, LinkState::Ended).note;
            assert_eq!(note, "the receiver was removed from the channel by kick");
        }
        assert!(!place.path("out").exists());
        place.bus.links().unwrap().iter().for_each(|link| drop(place.unlink(link)));
        place.has_only(&before);
    });
}

#[test]
fn gateways_of_the_config_are_there_with_the_daemon_and_one_that_fails_stops_nobody() {
    let config = r#"
        [[link]]
        channel = "jobs"
        from_fifo = "{folder}/in"
        [[link]]
        channel = "jobs"
        to_command = "tr a-z A-Z > {folder}/copy"
        framing = "null"
        restart = "never"
        [[link]]
        channel = "other"
        from_fifo = "{folder}/busd.toml"
    "#;
    place_with("config", config, |place| {
        let state = |id: usize| place.bus.links().unwrap()[id].state;
        eventually("all are made", || {
            (state(0), state(1), state(2)) == (LinkState::Running, LinkState::Running, LinkState::Ended)
        });
        let links = place.bus.links().unwrap();
        assert!(links[2].note.contains("busd.toml is a regular file and no FIFO"), "{:?}", links[2]);
        assert_eq!((&links[1].spec.framing, links[1].spec.restart), (&Framing::null(), Restart::Never));
        writer(&place.fifo("in")).write_all(b"one\ntwo\n").unwrap();
        place.await_acknowledged("jobs", 2);
        place.daemon.end();
        assert_eq!(fs::read(place.path("copy")).unwrap(), b"ONE\0TWO\0");
        assert!(!place.path("in").exists());
    });
}

/// With all that it has started.
fn kill_group(leader: &mut std::process::Child) {
    let group = rustix::process::Pid::from_child(leader);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    leader.wait().unwrap();
}

/// The config with one gateway in it, written by hand, and what belongs to nobody.
const CONFIG: &str = "# set by hand\nlinks_max = 9   # few\n\n[[link]] # mine\nchannel = \"mine\"\nfrom_fifo = '{folder}/mine'\n\n[channels.jobs]\ncapacity = 7 # exactly";

fn kept(place: &Place, channel: &str, pipe: Pipe) -> LinkSpec {
    assert!(place.daemon.folder().exists());
    let mut spec = spec(channel, pipe);
    spec.keep = true;
    spec
}

#[test]
fn a_kept_gateway_is_in_the_config_and_comes_back_with_the_daemon() {
    place_with("kept", CONFIG, |place| {
        let config = place.path("busd.toml");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::read_to_string(&config).unwrap();
        let mut spec = kept(place, "jobs", Pipe::ToCommand(format!("cat > '{}'", place.path("copy").display())));
        (spec.framing, spec.restart) = (Framing::null(), Restart::Always);
        let link = place.bus.link(spec.clone()).unwrap();
        assert_eq!(place.info(&link).spec, spec);
        let now = fs::read_to_string(&config).unwrap();
        let table = now.strip_prefix(&before).unwrap();
        assert!(table.starts_with("\n\n[[link]]\nchannel = \"jobs\"\n"), "{table}");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o7777, 0o640);
        let own: Vec<LinkSpec> = place.bus.links().unwrap().into_iter().map(|link| link.spec).collect();
        place.daemon.end();
        place.daemon.start_again();
        eventually("both are back", || {
            let links = place.bus.links().unwrap_or_default();
            links.len() == 2 && links.iter().all(|link| link.state == LinkState::Running)
        });
        let links = place.bus.links().unwrap();
        assert_eq!(links.iter().map(|link| link.spec.clone()).collect::<Vec<_>>(), own);
        place.send("jobs", ["one", "two"]);
        place.await_acknowledged("jobs", 2);
        place.unlink(&links[1]);
        assert_eq!(fs::read(place.path("copy")).unwrap(), b"one\0two\0");
        // The last line has an end now.
        assert_eq!(fs::read_to_string(&config).unwrap(), format!("{before}\n"));
        // For now is not for ever.
        place.bus.unlink_for_now(Unlink::Id(links[0].id)).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), format!("{before}\n"));
        let again = place.bus.link(links[0].spec.clone()).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), format!("{before}\n"));
        place.unlink(&again);
        let rest = "# set by hand\nlinks_max = 9   # few\n\n[channels.jobs]\ncapacity = 7 # exactly\n";
        assert_eq!(fs::read_to_string(&config).unwrap(), rest);
    });
}

#[test]
fn many_who_keep_gateways_at_once_lose_none() {
    place("kept at once", |place| {
        let names: Vec<String> = (0..12).map(|number| format!("fifo{number}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let spec = kept(place, name, Pipe::FromFifo(place.fifo(name)));
                scope.spawn(|| Bus::connect_to(place.daemon.address()).unwrap().link(spec).unwrap());
            }
        });
        let text = fs::read_to_string(place.path("busd.toml")).unwrap();
        assert_eq!(text.matches("[[link]]").count(), names.len(), "{text}");
        assert!(names.iter().all(|name| text.contains(&format!("channel = \"{name}\"\n"))), "{text}");
        std::thread::scope(|scope| {
            for link in place.bus.links().unwrap() {
                scope.spawn(move || place.unlink(&link));
            }
        });
        assert_eq!(fs::read_to_string(place.path("busd.toml")).unwrap(), "");
    });
}

#[test]
fn a_link_to_the_config_stays_a_link() {
    place("linked config", |place| {
        let (config, target) = (place.path("busd.toml"), place.path("real.toml"));
        fs::rename(&config, &target).unwrap();
        symlink("real.toml", &config).unwrap();
        place.bus.link(kept(place, "jobs", Pipe::FromFifo(place.fifo("in")))).unwrap();
        assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("from_fifo"));
    });
}

#[test]
fn what_cannot_be_kept_is_not_made_and_what_cannot_be_forgotten_stays() {
    place("not kept", |place| {
        let config = place.path("busd.toml");
        let link = place.bus.link(kept(place, "stays", Pipe::FromFifo(place.fifo("stays")))).unwrap();
        let good = fs::read_to_string(&config).unwrap();
        let fifo = place.fifo("in");
        let is_refused = |text: &str, mode: u32, part: &str| {
            fs::write(&config, text).unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.clone()))).unwrap_err().to_string();
            assert!(refusal.contains(part) && refusal.contains(config.to_str().unwrap()), "{refusal}");
            assert!(!Path::new(&fifo).exists());
            let refusal = place.bus.unlink(Unlink::Id(link.id)).unwrap_err().to_string();
            assert!(refusal.starts_with("nothing is unlinked") && refusal.contains(part), "{refusal}");
            assert_eq!(place.info(&link).state, LinkState::Running);
            assert_eq!(fs::read_to_string(&config).unwrap(), text);
            fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        };
        is_refused("links_max = \n", 0o600, "busd.toml:1:13: ");
        is_refused("windows = 1\n", 0o600, "unknown field `windows`");
        is_refused(&good, 0o400, "Permission denied");
        is_refused(&good, 0o602, "anybody may write to it");
        fs::remove_file(&config).unwrap();
        let refusal = place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.clone()))).unwrap_err().to_string();
        assert!(refusal.contains("No such file"), "{refusal}");
        fs::write(&config, &good).unwrap();
        // One that does not come up is not kept.
        fs::write(&fifo, "a file").unwrap();
        place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.clone()))).unwrap_err();
        let receiver = place.receiver("taken");
        place.bus.link(kept(place, "taken", Pipe::ToCommand("cat".to_owned()))).unwrap_err();
        drop(receiver);
        assert_eq!(fs::read_to_string(&config).unwrap(), good);
        assert_eq!(place.bus.links().unwrap().len(), 1);
        place.unlink(&link);
        assert_eq!(fs::read_to_string(&config).unwrap(), "");
        let left: Vec<_> = fs::read_dir(place.daemon.folder()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().ends_with(".new")), "{left:?}");
    });
}

#[test]
fn a_daemon_without_a_config_file_keeps_nothing_and_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let address = bus_core::Address::new(folder.path().join("bus.sock")).unwrap();
    let config = bus_daemon::Config { socket: Some(address.clone()), ..bus_daemon::Config::default() };
    let daemon = bus_daemon::Daemon::start(config).unwrap();
    let bus = Bus::connect_to(&address).unwrap();
    let mut spec = spec("jobs", Pipe::FromFifo(folder.path().join("in").to_str().unwrap().to_owned()));
    spec.keep = true;
    let refusal = bus.link(spec).unwrap_err().to_string();
    assert!(refusal.contains("without a config file") && refusal.contains("busd --config PATH"), "{refusal}");
    assert!(!folder.path().join("in").exists() && bus.links().unwrap().is_empty());
    daemon.shutdown().unwrap();
}

/// Writes until there is no room.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    loop {
        match file.write(&[0; 4_096]) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_disk_without_room_for_a_fifo_or_the_config_is_told_and_nothing_is_left_behind() {
    let daemon = match Daemon::start_on_small_disk() {
        Ok(daemon) => daemon,
        Err(reason) => return eprintln!("skipped, as no small file system can be mounted here: {reason}"),
    };
    place_at("small disk", daemon, |place| {
        let small = place.daemon.small();
        let names = || {
            let files = fs::read_dir(&small).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = files.collect();
            names.sort();
            names
        };
        let inside = place.path("small").join("in").to_str().unwrap().to_owned();
        let keep = |fifo: &str| place.bus.link(kept(place, "jobs", Pipe::FromFifo(fifo.to_owned())));
        // All files that it can have.
        let fillers: Vec<PathBuf> = (0..8)
            .map(|number| small.join(format!("f{number}")))
            .take_while(|path| File::create(path).is_ok())
            .collect();
        let full = names();
        let refusal = place.refusal("jobs", Pipe::FromFifo(inside.clone()));
        assert!(refusal.contains(&format!("cannot make FIFO {inside}: No space left")), "{refusal}");
        assert!(refusal.contains("choose a folder where this user may make files and has room"), "{refusal}");
        let refusal = keep(&place.fifo("outside")).unwrap_err().to_string();
        let config = place.path("small").join("busd.toml").to_str().unwrap().to_owned();
        let said = |refusal: &str| refusal.contains(&format!("cannot write config file {config}: No space left"));
        assert!(said(&refusal), "{refusal}");
        assert_eq!(names(), full);
        // Files enough, and no room in them.
        fillers.iter().for_each(|path| fs::remove_file(path).unwrap());
        fill(&small.join("filler"));
        let refusal = keep(&inside).unwrap_err().to_string();
        assert!(said(&refusal), "{refusal}");
        assert_eq!(names(), ["busd.toml", "filler"]);
        assert!(!place.path("outside").exists() && place.bus.links().unwrap().is_empty());
        // It goes on, and with room it all works.
        fs::remove_file(small.join("filler")).unwrap();
        let link = keep(&inside).unwrap();
        let receiver = place.receiver("jobs");
        writer(small.join("in").to_str().unwrap()).write_all(b"one\n").unwrap();
        assert_eq!(texts(&receiver, 1), ["one"]);
        fill(&small.join("filler"));
        // To take it out needs a new file, too, and there is no room for one; an empty one needs none.
        place.unlink(&link);
        assert_eq!(
            (names(), fs::read_to_string(small.join("busd.toml")).unwrap()),
            (vec!["busd.toml".to_owned(), "filler".to_owned()], String::new())
        );
    });
}

#[test]
fn what_a_reader_of_a_fifo_left_unread_comes_again_whole_to_the_next() {
    place("unread rest", |place| {
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        place.send("jobs", ["abcdefghij", "klm", "nop"]);
        let mut first = File::open(&fifo).unwrap();
        let mut some = [0; 13];
        first.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"abcdefghij\nkl");
        drop(first);
        place.await_state(&link, LinkState::WaitingForReader);
        // What was read whole is acknowledged, and nothing else.
        eventually("the first is acknowledged", || place.bus.show("jobs").unwrap().ledger.acknowledged == 1);
        let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines();
        assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["klm", "nop"]);
        place.await_acknowledged("jobs", 3);
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
        for pipe in [
            Pipe::ToCommand("no-such-program-here".to_owned()),
            Pipe::FromCommand("no-such-program-here".to_owned()),
            Pipe::ToCommand(place.daemon.folder().to_str().unwrap().to_owned()),
        ] {
            let refusal = place.refusal("jobs", pipe.clone());
            let code = if pipe.target().starts_with('/') { "126" } else { "127" };
            assert!(refusal.contains(&format!("exit status {code}")) && refusal.contains(pipe.target()), "{refusal}");
        }
        assert!(place.bus.links().unwrap().is_empty());
        // Nothing was taken for it.
        assert_eq!(place.receiver("jobs").recv().unwrap(), b"one");
        // One that fails for its own reasons is run again as ordered, and the answer says so.
        let failing = place.link("jobs", Pipe::FromCommand("exit 3".to_owned()));
        assert_eq!(failing.note, "the command ended with exit status 3 at once");
        place.unlink(&failing);
        place.has_only(&before);
    });
}

#[test]
fn an_oversize_message_with_a_length_is_skipped_and_the_next_ones_come() {
    place("long lengths", |place| {
        let options = ChannelOptions { message_max_bytes: Some(1_000), ..ChannelOptions::default() };
        place.bus.create("short", options).unwrap();
        let mut source = spec("short", Pipe::FromFifo(place.fifo("in")));
        source.framing = Framing::Length32;
        let link = place.bus.link(source).unwrap();
        let mut writer = writer(&place.fifo("in"));
        for message in [vec![b'a'; 10], vec![b'b'; 500_000], vec![b'c'; 10]] {
            writer.write_all(&u32::try_from(message.len()).unwrap().to_le_bytes()).unwrap();
            writer.write_all(&message).unwrap();
        }
        assert_eq!(texts(&place.receiver("short"), 2), ["aaaaaaaaaa", "cccccccccc"]);
        assert_eq!(place.info(&link).refused, 1);
    });
}

#[test]
fn one_fifo_under_two_spellings_has_one_gateway() {
    place("two spellings", |place| {
        let link = place.link("jobs", Pipe::FromFifo(place.fifo("in")));
        let refusal = place.refusal("other", Pipe::ToFifo(place.fifo("./in").replace("/./", "//")));
        assert!(refusal.contains(&format!("gateway {} has ", link.id)), "{refusal}");
        assert!(place.path("in").exists());
    });
}

#[test]
fn what_was_written_to_a_fifo_before_unlink_is_handed_on() {
    place("last words", |place| {
        for round in 0..50_u32 {
            let link = place.link("jobs", Pipe::FromFifo(place.fifo("in")));
            writer(&place.fifo("in")).write_all(format!("{round}\n").as_bytes()).unwrap();
            place.unlink(&link);
            assert_eq!(texts(&place.receiver("jobs"), 1), [round.to_string()]);
        }
    });
}

#[test]
fn unlink_in_the_middle_of_a_message_that_is_being_read_lets_it_out_whole() {
    place("unlink in the middle", |place| {
        place.bus.create("jobs", ChannelOptions::default()).unwrap();
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        let message: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
        place.send("jobs", [message.clone()]);
        let mut reader = File::open(&fifo).unwrap();
        let mut read = vec![0; 100_000];
        reader.read_exact(&mut read).unwrap();
        std::thread::scope(|scope| {
            let unlinking = scope.spawn(|| place.unlink(&link));
            eventually("it is being ended", || {
                place.bus.links().unwrap().first().is_none_or(|link| link.state == LinkState::Ending)
            });
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(unlinking.join().unwrap().messages, 1);
        });
        assert!(read.len() == message.len() + 1 && read[..message.len()] == message[..], "{} bytes", read.len());
        place.await_acknowledged("jobs", 1);
    });
}

#[test]
fn every_message_that_was_read_and_finds_no_room_at_the_end_is_counted() {
    place("counted", |place| {
        let options = ChannelOptions { capacity: Some(10), window: Some(3), ..ChannelOptions::default() };
        place.bus.create("narrow", options).unwrap();
        let link = place.link("narrow", Pipe::FromFifo(place.fifo("in")));
        writer(&place.fifo("in")).write_all(numbers(1_000).as_bytes()).unwrap();
        eventually("the sender waits", || {
            place.bus.show("narrow").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        let note = place.unlink(&link).note;
        let lost = 1_000 - place.bus.show("narrow").unwrap().ledger.accepted;
        assert_eq!(note, format!("{lost} messages were read and not accepted: the channel had no room for them"));
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
