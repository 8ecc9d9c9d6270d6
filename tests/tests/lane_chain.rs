//! If one send returned before another began, the receiver of both is handed the first one first, whoever sent it and
//! by whatever way. A token goes round in a ring of processes: who has it sends its number, then passes it on.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bus_core::Bus;
use bus_tests::processes::Dice;
use bus_tests::processes::journal::Received;
use bus_tests::{Daemon, PATIENCE, watch};

/// How each process of the ring sends: by lanes alone, or every other one by the stream, or from the stream to a lane
/// and back again and again.
const LANES: [&str; 4] = ["lane"; 4];
const MIXED: [&str; 4] = ["lane", "stream", "lane", "stream"];
const MOVING: [&str; 4] = ["moving", "stream", "moving", "lane"];

#[test]
fn numbers_from_four_lanes_come_in_the_order_of_the_token() {
    watch("lanes", || follow(LANES, 20_000, 0), || ());
}

#[test]
fn numbers_from_lanes_and_streams_come_in_the_order_of_the_token() {
    watch("mixed", || follow(MIXED, 20_000, 0), || ());
}

/// A sender had sent in its new lane before the receiver knew that, and was overtaken by all others.
#[test]
fn numbers_of_senders_that_move_come_in_the_order_of_the_token() {
    watch("moving", || follow(MOVING, 20_000, 0), || ());
}

#[test]
fn the_order_of_the_token_outlives_receivers_of_lanes() {
    watch("lanes, killed", || follow(LANES, 0, 60), || ());
}

#[test]
fn the_order_of_the_token_outlives_receivers_of_lanes_and_streams() {
    watch("mixed, killed", || follow(MIXED, 0, 60), || ());
}

/// Lets the token go round until so many numbers were received, and so many receivers killed.
fn follow(ring: [&str; 4], numbers: u64, kills: u64) {
    let mut dice = Dice::from_environment();
    let seed = dice.seed();
    let daemon = Daemon::start();
    let journal = daemon.folder().join("received");
    let mut receiver = start(&daemon, &["receive", &path(&journal), "1"]);
    let count = ring.len().to_string();
    let links: Vec<Process> = (0..)
        .zip(ring)
        .map(|(index, by): (u64, _)| start(&daemon, &["link", &index.to_string(), &count, by]))
        .collect();
    let links: Vec<Process> = links.into_iter().map(Process::ready).collect();
    let bus = Bus::connect_to(daemon.address()).expect("it has just answered");
    bus.sender::<u64>("token.0").open().expect("a sender opens").send_confirmed(0).expect("the channel is there");
    for killed in 0..kills {
        wait_for(&journal, received(&journal) + dice.roll(100));
        thread::sleep(Duration::from_micros(dice.roll(3_000)));
        drop(receiver);
        receiver = start(&daemon, &["receive", &path(&journal), &(killed + 2).to_string()]);
    }
    let total = received(&journal) + numbers.max(100);
    wait_for(&journal, total);
    drop(links);
    let [again, last] = check(&Received::read_all(&journal), seed);
    println!("{ring:?}: {last} numbers in order, {again} again, {kills} receivers killed, seed {seed}");
}

/// The first time each comes after the one before it, and to each receiver they come in order. What a receiver that
/// was killed had acknowledged last the daemon may have heard of lanes, and not of the stream: so what comes again need
/// not be without a gap. Returns how many came again, and how many there are.
fn check(received: &[Received], seed: u64) -> [u64; 2] {
    let (mut next, mut again) = (0, 0);
    let mut earlier: Option<&Received> = None;
    for number in received {
        if let Some(earlier) = earlier.filter(|earlier| earlier.receiver == number.receiver) {
            assert!(number.number > earlier.number, "{number:?} came after {earlier:?}, seed {seed}");
        }
        assert!(number.number <= next, "{number:?} came, and {next} had not, seed {seed}");
        assert!(number.number == next || number.redelivered, "{number:?} came again without a mark, seed {seed}");
        again += u64::from(number.number < next);
        next = next.max(number.number + 1);
        earlier = Some(number);
    }
    [again, next]
}

/// How many entries a journal has.
fn received(journal: &Path) -> u64 {
    fs::metadata(journal).map_or(0, |metadata| metadata.len() / 64)
}

fn wait_for(journal: &Path, entries: u64) {
    let (mut came_at, mut before) = (Instant::now(), received(journal));
    loop {
        let now = received(journal);
        if now >= entries {
            return;
        }
        if now > before {
            (came_at, before) = (Instant::now(), now);
        }
        assert!(came_at.elapsed() < PATIENCE, "nothing comes any more behind the {now}th");
        thread::sleep(Duration::from_millis(1));
    }
}

fn path(journal: &Path) -> String {
    journal.display().to_string()
}

fn start(daemon: &Daemon, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lane_chain"));
    command.arg(arguments[0]).arg(daemon.address().path()).args(&arguments[1..]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    Process(child)
}

/// Killed, as by `kill -9`, when it is dropped.
struct Process(Child);

impl Process {
    /// Waits until it says that it is.
    fn ready(mut self) -> Self {
        let said = self.0.stdout.as_mut().expect("it is piped");
        BufReader::new(said).read_line(&mut String::new()).expect("it says something");
        self
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
