//! What a lane costs beside the time of its messages: memory, system calls, and processor time when nothing is sent.
//! Each end is a process of its own.
//!
//! `cargo test --release -p bus-tests --test lane_costs -- --ignored --nocapture` sends 10 GiB.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus_tests::{Daemon, PATIENCE, watch};

/// How many messages may be in the lane.
const DEPTH: u64 = 100;

/// As large as messages are here, in bytes: so many of them are longer than a ring is at first, or a good deal shorter.
const LARGE_BYTES: u64 = 16 * 1024;
const SMALL_BYTES: u64 = 1024;

/// How long a ring is at first, in KiB.
const FIRST_KIB: u64 = 256;

const MIB: u64 = 1 << 20;

#[test]
fn memory_follows_the_depth_of_a_lane_and_not_what_went_through_it() {
    watch("memory", || send_and_weigh(LARGE_BYTES, LONG_KIB, &[0, 64 * MIB, 256 * MIB]), || ());
}

/// A lane that is never empty and never deep goes round in the memory that it had at first.
#[test]
fn a_lane_that_is_never_deep_takes_no_more_than_its_first_memory() {
    watch("first memory", || send_and_weigh(SMALL_BYTES, FIRST_KIB, &[0, 8 * MIB, 64 * MIB]), || ());
}

#[test]
#[ignore = "it takes longer than a test of every day may"]
fn memory_is_the_same_after_ten_gibibytes() {
    send_and_weigh(LARGE_BYTES, LONG_KIB, &[0, 1024 * MIB, 10 * 1024 * MIB]);
}

/// How long a ring may become for so many large messages, in KiB.
///
/// It is used up to its soft end, which is doubled when a message finds no room. The writer goes round when it stands at
/// that end and half of it is free, so it grows only while less than half is: once the end is twice what may be
/// unacknowledged it stays, and it is less than twice that.
const LONG_KIB: u64 = (4 * DEPTH * (LARGE_BYTES + RECORD_BYTES)).div_ceil(1024);

/// Sends up to each of these marks, in bytes, and weighs all three processes there: of the ring no more than `ring_kib`
/// is used. What is not in the lane does not depend on what was sent at all.
fn send_and_weigh(payload_bytes: u64, ring_kib: u64, marks: &[u64]) {
    let config = format!("[channels.traffic]\nwindow = {DEPTH}\n");
    let mut pair = Pair::start_with(&config, Some("keep"), &[]);
    let mut weights = Vec::new();
    let mut sent = 0;
    for mark in marks {
        let messages = (mark - sent) / payload_bytes;
        pair.order(&format!("count {payload_bytes} {messages}"));
        sent = *mark;
        let weight = pair.pids().map(Weight::of);
        for (name, Weight { resident_kib, shared_kib }) in ["sender", "receiver", "daemon"].iter().zip(&weight) {
            println!("{:>6} MiB  {name:<8} VmRSS {resident_kib:>6} KiB, RssShmem {shared_kib:>5} KiB", mark / MIB);
        }
        weights.push(weight);
    }
    let [.., before, after] = weights.as_slice() else { unreachable!("three marks") };
    for (index, name) in ["sender", "receiver", "daemon"].iter().enumerate() {
        let (before, after) = (&before[index], &after[index]);
        let bound_kib = if *name == "daemon" { 0 } else { ring_kib } + PAGES_KIB;
        assert!(after.shared_kib <= bound_kib, "{name} maps {after:?}, and {bound_kib} KiB were to be enough");
        // The ring may have grown in between, within its bound.
        let grown_kib = after.own_kib().saturating_sub(before.own_kib());
        assert!(grown_kib <= NOISE_KIB, "{name} has grown by {grown_kib} KiB: {before:?}, then {after:?}");
    }
}

/// What a record takes beside its payload, in bytes, with a jump behind each.
const RECORD_BYTES: u64 = 64;

/// First pages of data, cursor and board, in KiB, twice: a cursor may be made anew.
const PAGES_KIB: u64 = 6 * 4;

/// An allocator that takes another arena for a thread, in KiB: much less than what was sent.
const NOISE_KIB: u64 = 512;

#[derive(Debug)]
struct Weight {
    resident_kib: u64,
    shared_kib: u64,
}

impl Weight {
    /// What is not in the lane.
    fn own_kib(&self) -> u64 {
        self.resident_kib.saturating_sub(self.shared_kib)
    }

    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel says so");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
        };
        Self { resident_kib: field("VmRSS:"), shared_kib: field("RssShmem:") }
    }
}

/// Neither end works, and neither does the daemon, when nothing is sent. As the kernel counts it: how often a thread
/// of theirs was given a processor or took it from another, and for how long.
#[test]
fn ends_of_a_lane_through_which_nothing_goes_use_no_processor_time() {
    watch("idle", expect_rest, || ());
}

fn expect_rest() {
    let mut pair = Pair::start_with("", None, &[]);
    pair.order("count 64 10000");
    let pids = pair.pids();
    let work = || pids.map(Work::of);
    // What is still to be done is done at some time, and on a busy machine that may be late: but then there is nothing
    // more, not even once a second.
    let mut spans = Vec::new();
    let mut before = work();
    let rests = (0..SPANS_MAX).any(|_| {
        pass_time(Duration::from_secs(2));
        let after = work();
        let rested = before == after;
        spans.push(std::mem::replace(&mut before, after));
        rested
    });
    assert!(rests, "sender, receiver and daemon, every 2 s: {spans:?}");
}

/// In how many spans of 2 s those who rest may be disturbed.
const SPANS_MAX: usize = 8;

/// What the threads of a process have had.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    /// Times that it gave a processor away, or lost it.
    switches: u64,
    /// In user and system mode, in ticks of the kernel.
    ticks: u64,
}

impl Work {
    fn of(pid: u32) -> Self {
        let mut work = Self { switches: 0, ticks: 0 };
        for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
            let task = task.expect("a thread").path();
            // One that has just ended says nothing any more.
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
            work.switches +=
                switches.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            // Behind the name, which may have blanks in it.
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            work.ticks += fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>();
        }
        work
    }
}

/// Each end under `strace`, which writes down every call and when it was made: while both are busy, and while nothing
/// is sent. Where there is no `strace` the test says so; that nobody works when nothing is sent is shown above.
#[test]
fn a_lane_needs_no_system_call_per_message() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("not shown: there is no strace here");
        return;
    }
    watch("calls", count_calls, || ());
}

fn count_calls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let logs = ["sender", "receiver"].map(|name| folder.path().join(name));
    let mut pair = Pair::start_with("", None, &logs);
    pair.order("lane");
    let begin = pair.order("while 64 200");
    let busy_from = now_s();
    let messages = pair.order("while 64 1000") - begin;
    let busy_until = now_s();
    // Who has just been busy looks on for a moment before it sleeps, and on a busy machine that may be late.
    let idle_from = now_s();
    pass_time(Duration::from_millis(4_500));
    let idle_until = now_s();
    drop(pair);
    for (name, log) in ["sender", "receiver"].iter().zip(&logs) {
        let calls = Calls::read(log);
        let busy = calls.between(busy_from, busy_until);
        let idle = calls.between(idle_from, idle_until);
        let rest_s = calls.longest_rest_s(idle_from, idle_until);
        println!("{name}: {:?}", Calls::summary(&busy));
        println!(
            "{name}: {} calls for {messages} messages of 64 bytes in 1 s, none in {rest_s} s of nothing",
            busy.len(),
        );
        // A sender whose window is full hears the daemon once before it sleeps. Traced, that takes so long that
        // there is room again, for some hundred messages, and it never sleeps.
        assert!(messages > 20 * busy.len() as u64, "{name}: {} calls for {messages} messages", busy.len());
        assert!(rest_s >= 2.0, "{name} calls when nothing is sent: {idle:?}");
    }
}

/// A log of `strace -f -ttt`.
struct Calls(Vec<(f64, String)>);

impl Calls {
    fn read(log: &Path) -> Self {
        let text = fs::read_to_string(log).expect("strace wrote a log");
        let call = |line: &str| {
            let mut words = line.split_whitespace();
            let (_pid, at, call) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
            // The ends of calls that took longer, and of threads.
            (!call.starts_with(['<', '+', '-'])).then(|| (at, call.to_owned()))
        };
        Self(text.lines().filter_map(call).collect())
    }

    /// Which there are, and how many.
    fn summary<'a>(calls: &[&'a str]) -> BTreeMap<&'a str, usize> {
        let mut summary = BTreeMap::new();
        for call in calls {
            *summary.entry(call.split('(').next().unwrap_or(call)).or_default() += 1;
        }
        summary
    }

    fn between(&self, from: f64, until: f64) -> Vec<&str> {
        let within = self.0.iter().filter(|(at, _)| (from..until).contains(at));
        within.map(|(_, call)| call.as_str()).collect()
    }

    /// The longest time without a call, in seconds.
    fn longest_rest_s(&self, from: f64, until: f64) -> f64 {
        let mut times: Vec<f64> = self.0.iter().map(|(at, _)| *at).filter(|at| (from..until).contains(at)).collect();
        times.extend([from, until]);
        times.sort_by(f64::total_cmp);
        times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }
}

/// By the clock of `strace`.
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// The time itself is what is measured here: nothing is waited for.
fn pass_time(time: Duration) {
    thread::sleep(time);
}

/// A daemon, a sender and a receiver, each a process, with a lane between.
struct Pair {
    sender: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    receiver: Child,
    /// Under `strace` the children are its processes.
    traced: bool,
    daemon: Daemon,
}

impl Pair {
    /// With `logs` both ends are traced to them.
    fn start_with(config: &str, receiver_keeps: Option<&str>, logs: &[PathBuf]) -> Self {
        let daemon = Daemon::start_with(config);
        let command = |role: &str, log: Option<&PathBuf>| {
            let traffic = env!("CARGO_BIN_EXE_lane_traffic");
            let mut command = match log {
                Some(log) => {
                    let mut strace = Command::new("strace");
                    strace.args(["-f", "-ttt", "-o"]).arg(log).arg(traffic);
                    strace
                }
                None => Command::new(traffic),
            };
            command.arg(role).arg(daemon.address().path());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command
        };
        let mut receiving = command("receive", logs.get(1));
        let mut receiver = receiving.args(receiver_keeps).spawn().expect("a receiver starts");
        let mut seated = String::new();
        let said = receiver.stdout.as_mut().expect("it is piped");
        BufReader::new(said).read_line(&mut seated).expect("it says that it is seated");
        let mut sender = command("send", logs.first()).spawn().expect("a sender starts");
        let orders = sender.stdin.take();
        let answers = BufReader::new(sender.stdout.take().expect("it is piped"));
        let mut pair = Self { sender, orders, answers, receiver, traced: !logs.is_empty(), daemon };
        pair.order("lane");
        pair
    }

    /// Gives the sender an order, and waits until it is done. Returns how many messages it has sent.
    fn order(&mut self, order: &str) -> u64 {
        let orders = self.orders.as_mut().expect("it is piped");
        writeln!(orders, "{order}").expect("the sender runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the sender runs");
        answer.trim().parse().expect("a number")
    }

    fn pids(&self) -> [u32; 3] {
        assert!(!self.traced, "these would be strace's");
        [self.sender.id(), self.receiver.id(), self.daemon.pid()]
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The end of their standard input is the order to end: so does what runs under `strace`.
        drop(self.orders.take());
        for child in [&mut self.sender, &mut self.receiver] {
            drop(child.stdin.take());
            let deadline = Instant::now() + PATIENCE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::yield_now();
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
