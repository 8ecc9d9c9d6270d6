//! A receiver that its lanes alone have woken for a while sleeps on their words, and no longer in a call that hears
//! the daemon. It wakes for all that it woke for before.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver as Answers};
use std::thread;
use std::time::{Duration, Instant};

use bus_core::lane::sleep::{Wakeup, Words};
use bus_core::{Bus, Receiver, Sender, Waiting};
use bus_tests::{Daemon, PATIENCE, eventually, watch};

/// A thread that receives, and says what it has received.
struct Sleeper {
    thread: &'static AtomicI32,
    received: Answers<Result<u64, String>>,
}

/// The number of `futex_waitv`, the same on all architectures.
const FUTEX_WAITV: &str = "449";

impl Sleeper {
    /// Receives from a channel until that ends.
    fn start(bus: &Bus) -> Self {
        let receiver: Receiver<u64> = bus.receiver("jobs").waiting(Waiting::Sleep).open().unwrap();
        let (tell, received) = mpsc::channel();
        let thread: &'static AtomicI32 = Box::leak(Box::default());
        thread::spawn(move || {
            thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
            loop {
                let next = receiver.recv().map_err(|error| error.to_string());
                let over = next.is_err();
                if tell.send(next).is_err() || over {
                    return;
                }
            }
        });
        Self { thread, received }
    }

    fn hears(&self) -> Result<u64, String> {
        self.received.recv_timeout(PATIENCE).unwrap()
    }

    /// In which call of the kernel it is, by its number.
    fn call(&self) -> String {
        let path = format!("/proc/self/task/{}/syscall", self.thread.load(Ordering::Acquire));
        let call = std::fs::read_to_string(path).unwrap_or_default();
        call.split(' ').next().unwrap_or_default().to_owned()
    }

    /// Sends until it is asleep on its lanes.
    fn lull(&self, sender: &Sender<u64>) {
        let begun = Instant::now();
        while self.call() != FUTEX_WAITV {
            assert!(begun.elapsed() < PATIENCE, "it never sleeps on its lanes, but is in call {}", self.call());
            sender.send(0).unwrap();
            assert_eq!(self.hears(), Ok(0));
            // It asks again and again; the pause only lets the other fall asleep.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Linux can since 5.16; before, such a receiver sleeps at its bell as ever.
fn the_kernel_sleeps_on_words() -> bool {
    let (wakeup, mut words) = (Wakeup::default(), Words::with_capacity(1));
    // Another value than stands there: it returns at once.
    words.add_own(&wakeup, wakeup.seen() + 1);
    words.sleep(None).is_ok()
}

fn with_a_sleeper(test: fn(&Daemon, &Bus, &Sleeper, &Sender<u64>)) {
    let body = move || {
        let daemon = Daemon::start();
        let bus = Bus::connect_to(daemon.address()).unwrap();
        let sleeper = Sleeper::start(&bus);
        let sender = bus.sender::<u64>("jobs").lane().open().unwrap();
        sleeper.lull(&sender);
        test(&daemon, &bus, &sleeper, &sender);
    };
    if the_kernel_sleeps_on_words() {
        watch("a sleeper", body, || ());
    }
}

#[test]
fn it_wakes_for_its_senders_in_lanes_again_and_again() {
    with_a_sleeper(|_, bus, sleeper, sender| {
        let other = bus.sender::<u64>("jobs").lane().open().unwrap();
        for number in 1..200 {
            sleeper.lull(if number % 3 == 0 { &other } else { sender });
            let by = if number % 2 == 0 { &other } else { sender };
            by.send(number).unwrap();
            assert_eq!(sleeper.hears(), Ok(number));
        }
    });
}

#[test]
fn it_wakes_for_a_sender_on_the_stream() {
    with_a_sleeper(|_, bus, sleeper, sender| {
        let other = bus.sender::<u64>("jobs").no_lane().open().unwrap();
        for number in 1..20 {
            sleeper.lull(sender);
            other.send(number).unwrap();
            assert_eq!(sleeper.hears(), Ok(number));
        }
    });
}

#[test]
fn it_wakes_for_the_end_of_its_channel() {
    with_a_sleeper(|_, bus, sleeper, _| {
        bus.delete("jobs").unwrap();
        assert!(sleeper.hears().unwrap_err().contains("deleted"));
    });
}

#[test]
fn it_goes_on_without_its_daemon_and_comes_back_to_the_next() {
    with_a_sleeper(|daemon, bus, sleeper, sender| {
        // Of what the sender sent before by its stream it has to know that it has come: else that is awaited first,
        // from the next daemon.
        eventually("all is acknowledged", || sender.is_empty());
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(2));
            sender.send(0).unwrap();
            assert_eq!(sleeper.hears(), Ok(0));
        }
        sleeper.lull(sender);
        daemon.kill();
        sender.send(1).unwrap();
        assert_eq!(sleeper.hears(), Ok(1));
        daemon.start_again();
        let other = bus.sender::<u64>("jobs").no_lane().open().unwrap();
        other.send(2).unwrap();
        assert_eq!(sleeper.hears(), Ok(2));
        sleeper.lull(sender);
    });
}
