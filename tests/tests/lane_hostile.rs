//! Ends of lanes that write what no end writes, beside real ones: whatever it is, nobody but the lane suffers.
//!
//! The liar is this process itself: it writes to the shared pages by `/proc/self/mem`, behind the back of the end
//! that owns them.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use bus_core::lane::layout::{Fixed, PAGE_BYTES, WORD_BYTES, cursor, data};
use bus_core::{Bus, Receiver, RecvTimeoutError, Sender};
use bus_tests::processes::{Dice, Stage};
use bus_tests::{PATIENCE, Route, watch};

/// A jump with nothing behind it: the receiver followed it again and again, and never looked up.
#[test]
fn a_jump_to_nothing_does_not_hold_the_receiver() {
    on_stage("jump", |_, bus| {
        let (_sender, receiver, data, _) = lane(bus, "jobs");
        let tail = data.load(data::TAIL);
        data.store_at_place(tail, &Fixed::Jump(0).encode());
        data.store(data::TAIL, tail + 32);
        expect_to_return(move || receiver.recv_timeout(Duration::from_millis(50)).is_err());
    });
}

/// Counts that two senders forged, added up, and with them what an honest one has sent by the stream.
#[test]
fn forged_counts_are_added_by_the_receiver_without_harm() {
    on_stage("counts", |_, bus| {
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let lanes: Vec<_> = (0..2).map(|_| lane_to(bus, "jobs", &receiver)).collect();
        let honest: Sender<Vec<u8>> = bus.sender("jobs").no_lane().open().unwrap();
        honest.send(bytes(7)).unwrap();
        honest.flush().unwrap();
        lanes.iter().for_each(|(_, data, _)| data.store(data::MESSAGES, u64::MAX));
        // It is accepted, and with the receiver in a moment.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            assert_eq!(receiver.len(), usize::MAX);
        }
    });
}

/// And by the daemon, which looks at both ends of every lane.
#[test]
fn forged_counts_are_added_by_the_daemon_without_harm() {
    on_stage("books", |_, bus| {
        let receiver: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        let lanes: Vec<_> = (0..3).map(|_| lane_to(bus, "jobs", &receiver)).collect();
        let forgeries = [(u64::MAX, u64::MAX - 7, 0), (u64::MAX, u64::MAX - 7, 8), (0, 0, u64::MAX), (7, 1 << 63, 9)];
        for (count, tail, head) in forgeries {
            for (_, data, cursor) in &lanes {
                data.store(data::MESSAGES, count);
                data.store(data::TAIL, tail);
                data.store(data::WAITING, count);
                cursor.store(cursor::TAKEN, count);
                (1..5).for_each(|slot| cursor.store(slot, count));
                cursor.store(cursor::HEAD, head);
            }
            bus.show("jobs").unwrap();
            bus.list().unwrap();
            bus.peek("jobs", 0, 10).ok();
            bus.purge("jobs").ok();
        }
        drop((lanes, receiver));
        let next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        // Of what is left of such lanes nothing is promised.
        while next.recv_timeout(Duration::from_millis(50)).is_ok() {}
        bus.list().unwrap();
    });
}

/// Where a receiver is said to stand, when its sender takes back what is not acknowledged: that was no place of a record.
#[test]
fn a_forged_cursor_does_not_stop_its_sender_from_coming_back() {
    on_stage("slots", |stage, bus| {
        let (sender, receiver, _, cursor) = lane(bus, "jobs");
        (100..200).for_each(|number| sender.send(bytes(number)).unwrap());
        for slot in [0, 2] {
            cursor.store(cursor::SLOTS + slot, 8);
        }
        stage.kill_daemon();
        drop(receiver);
        // Where the capacity is exact there are no lanes.
        stage.start_daemon_with("[channels.jobs]\ncapacity = 5000\n");
        // What it sends again is its affair, and that it is there.
        sender.flush_deadline(Instant::now() + PATIENCE).unwrap();
        sender.send(bytes(200)).unwrap();
        let next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        while next.recv_timeout(PATIENCE).unwrap() != bytes(200) {}
    });
}

/// It says that it stands within a message and goes. The next one was sent there, found no message, and the sender was said
/// to have written nonsense.
#[test]
fn who_comes_after_a_liar_is_given_what_that_did_not_acknowledge() {
    on_stage("liar", |_, bus| {
        let (sender, receiver, data, cursor) = lane(bus, "jobs");
        let (tail, messages) = (data.load(data::TAIL), data.load(data::MESSAGES));
        (100..200).for_each(|number| sender.send(bytes(number)).unwrap());
        let within = tail + 16;
        cursor.store(cursor::SLOTS + 2, within);
        cursor.store(cursor::SLOTS + 3, messages);
        cursor.store(cursor::HEAD, within | 1);
        drop(receiver);
        let next: Receiver<Vec<u8>> = bus.receiver("jobs").open().unwrap();
        for number in 100..200 {
            assert_eq!(next.recv_timeout(PATIENCE).unwrap(), bytes(number));
        }
        until("everything is acknowledged", || sender.is_empty());
        assert!(sender.is_in_lane(), "nobody blames it");
    });
}

const WORDS: [usize; 7] =
    [data::TAIL, data::MESSAGES, data::GENERATION, data::SETTLED, data::READER, data::WAITING, data::WOKEN];

/// Any word of a sender's pages, any value, while both ends work: the receiver goes on or says what is wrong, and
/// so does its next one.
#[test]
fn a_sender_that_scribbles_harms_its_lane_alone() {
    scribble("data", |data, _, dice| {
        let word = match dice.roll(3) {
            0 => WORDS[dice.roll(WORDS.len() as u64) as usize],
            _ => PAGE_BYTES / WORD_BYTES + dice.roll(4096) as usize,
        };
        data.store(word, value(data.load(word), dice));
    });
}

#[test]
fn a_receiver_that_scribbles_harms_its_lane_alone() {
    scribble("cursor", |_, cursor, dice| {
        let words = [cursor::HEAD, cursor::SLOTS, cursor::SLOTS + 1, cursor::TAKEN, cursor::GIVEN_BACK];
        let word = words[dice.roll(5) as usize] + 2 * usize::from(dice.roll(4) == 0);
        cursor.store(word, value(cursor.load(word), dice));
    });
}

/// Near what is right, near the limits, anything.
fn value(old: u64, dice: &mut Dice) -> u64 {
    let near = dice.roll(64);
    match dice.roll(7) {
        0 => old.wrapping_add(near),
        1 => old.wrapping_sub(near),
        2 => old.wrapping_add(near * 8),
        3 => old.wrapping_sub(near * 8),
        4 => u64::MAX - near,
        5 => Fixed::Jump(0).encode()[0],
        _ => dice.roll(u64::MAX),
    }
}

fn scribble(name: &'static str, lie: fn(&Page, &Page, &mut Dice)) {
    let rounds =
        env::var("BUS_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("BUS_KILL_ROUNDS is a number"));
    on_stage(name, move |stage, bus| {
        println!("{name}: seed {} (BUS_KILL_SEED)", stage.dice.seed());
        let honest = lane(bus, "honest");
        for round in 0..rounds {
            let channel = format!("jobs.{round}");
            let (sender, receiver, data, cursor) = lane(bus, &channel);
            let stop = Arc::new(AtomicBool::new(false));
            let (told, told_too) = (Arc::clone(&stop), Arc::clone(&stop));
            let sending = thread::spawn(move || {
                let mut number = 0;
                while !told.load(Ordering::Relaxed) {
                    number += 1;
                    // Whether it says Ok to a liar is its own affair.
                    if sender.send_timeout(bytes(number), Duration::from_millis(5)).is_err() {
                        thread::yield_now();
                    }
                }
                drop(sender);
            });
            let receiving = thread::spawn(move || {
                while !told_too.load(Ordering::Relaxed) {
                    match receiver.recv_timeout(Duration::from_millis(5)) {
                        Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Undecodable(_)) => {}
                        Err(_) => thread::yield_now(),
                    }
                    let _ = receiver.len();
                }
                drop(receiver);
            });
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(30) {
                lie(&data, &cursor, &mut stage.dice);
                // It is the liar's own rhythm, by which nothing is waited for.
                thread::sleep(Duration::from_micros(stage.dice.roll(3_000)));
            }
            stop.store(true, Ordering::Relaxed);
            until_finished(&sending);
            until_finished(&receiving);
            sending.join().expect("the sender does not panic");
            receiving.join().expect("the receiver does not panic");
            let (sender, receiver, ..) = &honest;
            sender.send(bytes(round)).unwrap();
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(round));
        }
        assert!(bus.about().is_ok());
    });
}

/// How many lanes are scribbled over in an ordinary run; `BUS_KILL_ROUNDS` says otherwise, and the watchdog has patience
/// for 40.
const ROUNDS: u64 = 4;

fn bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

/// A channel with a lane whose pages are known, and with nothing under way.
fn lane(bus: &Bus, channel: &str) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>, Page, Page) {
    let receiver: Receiver<Vec<u8>> = bus.receiver(channel).open().unwrap();
    let (sender, data, cursor) = lane_to(bus, channel, &receiver);
    (sender, receiver, data, cursor)
}

fn lane_to(bus: &Bus, channel: &str, receiver: &Receiver<Vec<u8>>) -> (Sender<Vec<u8>>, Page, Page) {
    let before = (Page::all("bus-lane"), Page::all("bus-cursor"));
    let sender: Sender<Vec<u8>> = bus.sender(channel).lane().open().unwrap();
    let mut sent = 0;
    until("the sender has its lane, and knows its receiver", || {
        sender.send(bytes(sent)).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), bytes(sent));
        sent += 1;
        sender.is_in_lane()
    });
    until("everything is acknowledged", || sender.is_empty());
    (sender, Page::new_since("bus-lane", &before.0), Page::new_since("bus-cursor", &before.1))
}

/// A file of shared memory where its owner has it.
struct Page {
    memory: File,
    address: u64,
}

impl Page {
    /// Memory files of a name to which this process may write, by their number, and where. A new one may lie where another
    /// was a moment before: a thread that works for an end lets its memory go after its user has.
    fn all(name: &str) -> BTreeSet<(u64, u64)> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let ours = maps.lines().filter(|map| map.contains("rw-s") && map.contains(&format!("memfd:{name}")));
        ours.map(|map| {
            let (address, rest) = map.split_once('-').unwrap();
            let inode = rest.split_whitespace().nth(4).unwrap();
            (inode.parse().unwrap(), u64::from_str_radix(address, 16).unwrap())
        })
        .collect()
    }

    fn new_since(name: &str, before: &BTreeSet<(u64, u64)>) -> Self {
        let all = Self::all(name);
        let new: Vec<&(u64, u64)> = all.difference(before).collect();
        let memory = File::options().read(true).write(true).open("/proc/self/mem").unwrap();
        assert_eq!(new.len(), 1, "one lane was made");
        Self { memory, address: new[0].1 }
    }

    fn load(&self, word: usize) -> u64 {
        let mut bytes = [0; 8];
        // An end that has found the other out may have let the map go.
        let _ = self.memory.read_exact_at(&mut bytes, self.address + 8 * word as u64);
        u64::from_ne_bytes(bytes)
    }

    fn store(&self, word: usize, value: u64) {
        let _ = self.memory.write_all_at(&value.to_ne_bytes(), self.address + 8 * word as u64);
    }

    fn store_at_place(&self, place: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            self.store((PAGE_BYTES + place as usize) / WORD_BYTES + index, *word);
        }
    }
}

fn expect_to_return(what: impl FnOnce() -> bool + Send + 'static) {
    let working = thread::spawn(what);
    until_finished(&working);
    assert!(working.join().unwrap());
}

fn until_finished<T>(working: &thread::JoinHandle<T>) {
    until("the call returns", || working.is_finished());
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        thread::yield_now();
    }
}

/// One after the other: maps are told apart by when they appear.
fn on_stage(name: &str, test: impl FnOnce(&mut Stage, &Bus) + Send + 'static) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let body = move || {
        let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
        let bus = stage.bus();
        test(&mut stage, &bus);
    };
    watch(name, body, || ());
}
