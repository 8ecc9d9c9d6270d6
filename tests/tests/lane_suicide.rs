//! Ends of lanes that are killed in the middle of a message, again and again, at random instructions: nothing that was
//! sent is lost, torn, doubled without a mark or out of order, and the daemon keeps nothing of the dead.
//!
//! `BUS_KILL_ROUNDS=5000` kills more often; `BUS_KILL_SEED=...` makes the same choices again.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use bus_core::{Bus, Receiver, RecvTimeoutError};
use bus_tests::processes::journal::{Received, Sent};
use bus_tests::processes::{CHANNEL, Dice};
use bus_tests::{Daemon, PATIENCE};

#[test]
fn senders_that_die_in_the_middle_of_a_message_leave_whole_ones() {
    let (daemon, mut dice) = (Daemon::start(), Dice::from_environment());
    let (seed, before) = (dice.seed(), at_rest(&daemon));
    let bus = Bus::connect_to(daemon.address()).expect("it has just answered");
    let mut receiver = bus.raw_receiver(CHANNEL).open().expect("a receiver opens");
    let (mut came, mut told_of_all) = (BTreeMap::new(), 0);
    for producer in 1..=rounds() {
        let journal = daemon.folder().join(format!("sent-{producer}"));
        // Sometimes while the lane is being made.
        let (since, spins) = if dice.roll(4) == 0 { ("now", 300_000) } else { ("in-lane", 20_000) };
        let mut child = start(&daemon, "send", &journal, producer, &[&dice.roll(spins).to_string(), since]);
        while matches!(child.try_wait(), Ok(None)) {
            take(&mut receiver, &mut came, seed);
        }
        let told = Sent::read_all(&journal).last().map_or(0, |sent| sent.number);
        let deadline = Instant::now() + PATIENCE;
        while came.get(&producer).copied().unwrap_or(0) < told {
            assert!(Instant::now() < deadline, "{told} were sent, {:?} came, seed {seed}", came.get(&producer));
            take(&mut receiver, &mut came, seed);
        }
        told_of_all += told;
    }
    while take(&mut receiver, &mut came, seed) {}
    let received: u64 = came.values().sum();
    drop(receiver);
    expect_again(&daemon, before, seed);
    println!("{} senders killed: {told_of_all} sent for certain, {received} received, seed {seed}", rounds());
}

/// Takes a message, if one comes soon, and holds it against those before it.
fn take(receiver: &mut Receiver<Vec<u8>>, came: &mut BTreeMap<u64, u64>, seed: u64) -> bool {
    let message = match receiver.next_bytes(Some(Instant::now() + Duration::from_millis(2))) {
        Ok(message) => message,
        Err(RecvTimeoutError::Timeout) => return false,
        Err(error) => panic!("{error}, seed {seed}"),
    };
    let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().expect("eight bytes"));
    let (producer, number) = (word(0), word(8));
    let last = came.entry(producer).or_insert(0);
    assert_eq!(number, *last + 1, "of producer {producer}, seed {seed}");
    assert!(!message.info().redelivered, "{number} of producer {producer} comes for the first time, seed {seed}");
    let filling = (number % 64) as usize;
    assert_eq!(message.len(), 16 + filling * filling * 2, "{number} of producer {producer} is torn, seed {seed}");
    assert!(message[16..].iter().all(|byte| usize::from(*byte) == filling), "{number} is torn, seed {seed}");
    *last = number;
    message.ack();
    true
}

#[test]
fn receivers_that_die_between_claim_and_acknowledgement_leave_the_rest_to_the_next() {
    let (daemon, mut dice) = (Daemon::start(), Dice::from_environment());
    let (seed, before) = (dice.seed(), at_rest(&daemon));
    let bus = Bus::connect_to(daemon.address()).expect("it has just answered");
    let sender = bus.sender::<u64>(CHANNEL).lane().open().expect("a sender opens");
    let first: Receiver<u64> = bus.receiver(CHANNEL).open().expect("a receiver opens");
    while !sender.is_in_lane() {
        sender.send(0).expect("the channel is there");
        first.recv_timeout(PATIENCE).expect("it comes");
    }
    drop(first);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (told, counts) = (Arc::clone(&stop), Arc::clone(&sent));
    let sending = thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let number = counts.load(Ordering::Relaxed) + 1;
            if sender.send_timeout(number, Duration::from_millis(20)).is_ok() {
                counts.store(number, Ordering::Relaxed);
            }
        }
    });
    let journal = daemon.folder().join("received");
    for number in 1..=rounds() {
        let mut child = start(&daemon, "receive", &journal, number, &[&dice.roll(50_000).to_string()]);
        let deadline = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("receiver {number} is given nothing, seed {seed}");
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut last: Receiver<u64> = bus.receiver(CHANNEL).standby().open().expect("a receiver opens");
    let mut received = Received::read_all(&journal);
    while received.last().map_or(0, |last| last.number) < sent.load(Ordering::Relaxed) || !sending.is_finished() {
        match last.next_delivery_deadline(Instant::now() + PATIENCE) {
            Ok(delivery) => {
                let (number, redelivered) = (*delivery, delivery.info().redelivered);
                received.push(Received { receiver: 0, producer: 1, number, redelivered, whole: true });
                delivery.ack();
            }
            Err(error) => panic!("{error} behind {:?} of {sent:?}, seed {seed}", received.last()),
        }
    }
    drop(last);
    let (mut came, mut again) = (0, 0);
    for pair in received.windows(2) {
        let [before, now] = pair else { unreachable!("two") };
        assert!(now.number <= before.number + 1 && before.number <= came + 1, "{before:?}, then {now:?}, seed {seed}");
        came = came.max(before.number);
        if now.number <= came {
            assert!(now.redelivered, "{now:?} came again without a mark, seed {seed}");
            // It had written down one more than it acknowledged, at most.
            assert!(now.receiver != before.receiver && now.number == before.number, "{before:?}, {now:?}, seed {seed}");
            again += 1;
        }
    }
    sending.join().expect("the sender does not panic");
    expect_again(&daemon, before, seed);
    println!("{} receivers killed: {sent:?} sent, {again} came again, seed {seed}", rounds());
}

fn rounds() -> u64 {
    env::var("BUS_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("BUS_KILL_ROUNDS is a number"))
}

/// How often each test kills in an ordinary run.
const ROUNDS: u64 = 50;

fn start(daemon: &Daemon, role: &str, journal: &Path, id: u64, how: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lane_suicide"));
    command.arg(role).arg(daemon.address().path()).arg(journal).arg(id.to_string()).args(how);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts")
}

/// Descriptors of the daemon, and its maps of memory files.
fn held_by(daemon: &Daemon) -> (usize, usize) {
    let pid = daemon.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (descriptors, maps.lines().filter(|map| map.contains("memfd:")).count())
}

/// What it holds once those are gone that have only looked whether it answers.
fn at_rest(daemon: &Daemon) -> (usize, usize) {
    let (mut last, mut since) = (held_by(daemon), Instant::now());
    while since.elapsed() < Duration::from_millis(100) {
        thread::sleep(Duration::from_millis(5));
        let now = held_by(daemon);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn expect_again(daemon: &Daemon, before: (usize, usize), seed: u64) {
    let deadline = Instant::now() + PATIENCE;
    while held_by(daemon) != before {
        assert!(Instant::now() < deadline, "{before:?} before, now {:?}, seed {seed}", held_by(daemon));
        thread::sleep(Duration::from_millis(5));
    }
}
