//! An end of a lane that kills itself, as by `kill -9`, in the middle of its work: a second thread does it after a
//! number of spins, wherever the first one is then.
//!
//! `lane_suicide send SOCKET JOURNAL PRODUCER SPINS now|in-lane` sends as fast as it can, and writes down how many
//! messages were sent for certain just before its end.
//!
//! `lane_suicide receive SOCKET JOURNAL RECEIVER SPINS` writes down each message before it acknowledges it. Its spins
//! begin with the first.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{env, hint, thread};

use bus_core::{Address, Bus};
use bus_tests::processes::CHANNEL;
use bus_tests::processes::journal::{Journal, Received, Sent, now_ns};
use rustix::process::{Signal, getpid, kill_process};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
    let (journal, id, spins) = (Journal::open(Path::new(&arguments[2])), number(3), number(4));
    let bus = Bus::connect_to(&Address::new(&arguments[1]).expect("a short path")).expect("busd answers");
    match arguments[0].as_str() {
        "send" => send(&bus, journal, id, spins, arguments[5] == "now"),
        _ => receive(&bus, &journal, id, spins),
    }
}

fn send(bus: &Bus, journal: Journal, producer: u64, spins: u64, now: bool) {
    let sender = bus.raw_sender(CHANNEL).lane().open().expect("a sender opens");
    let (in_lane, sent) = (Arc::new(AtomicBool::new(now)), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&sent);
    die_after(&in_lane, spins, move || {
        Sent { number: counted.load(Ordering::SeqCst), called_at_ns: now_ns(), in_lane: true }.write(&journal)
    });
    // Made before, so that most of the time goes into the lane.
    let mut messages: Vec<Vec<u8>> = (0..64).map(|at: usize| vec![at as u8; 16 + at * at * 2]).collect();
    for number in 1_u64.. {
        let message = &mut messages[number as usize % 64];
        message[..8].copy_from_slice(&producer.to_le_bytes());
        message[8..16].copy_from_slice(&number.to_le_bytes());
        sender.outgoing().send_bytes(message, None).expect("the channel is there");
        sent.store(number, Ordering::SeqCst);
        if !in_lane.load(Ordering::Relaxed) && sender.is_in_lane() {
            in_lane.store(true, Ordering::Relaxed);
        }
    }
}

fn receive(bus: &Bus, journal: &Journal, receiver: u64, spins: u64) {
    // The one before may just have died: its seat is free once the daemon has seen that.
    let mut numbers = bus.receiver::<u64>(CHANNEL).standby().open().expect("a receiver opens");
    let begun = Arc::new(AtomicBool::new(false));
    die_after(&begun, spins, || ());
    loop {
        let delivery = numbers.next_delivery().expect("the channel is there");
        let redelivered = delivery.info().redelivered;
        Received { receiver, producer: 1, number: *delivery, redelivered, whole: true }.write(journal);
        begun.store(true, Ordering::Relaxed);
        delivery.ack();
    }
}

fn die_after(begin: &Arc<AtomicBool>, spins: u64, last: impl FnOnce() + Send + 'static) {
    let begin = Arc::clone(begin);
    thread::spawn(move || {
        while !begin.load(Ordering::Relaxed) {
            hint::spin_loop();
        }
        (0..spins).for_each(|_| hint::spin_loop());
        last();
        kill_process(getpid(), Signal::KILL).expect("it is this process");
    });
}
