//! What the daemon tells the ends of a lane they hear in time: at once one that sleeps, and within a millisecond a busy
//! one, which looks at its socket once in that time.
//!
//! Each is tried many times: a busy machine holds some of them up, and what is not heard holds up all. An end that sleeps is
//! measured against one that sleeps on the stream, which hears the same kind of order as soon as it is woken. A busy one
//! shares its processor with whatever else runs here: for it the time is what it has worked since the order was answered,
//! as told by its messages.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, hint};

use bus_core::{Bus, ChannelOptions, Receiver, Sender, Waiting};
use bus_tests::{Daemon, PATIENCE, eventually, watch};

/// How often each thing is tried.
const TRIES: usize = 31;

/// A millisecond, and as much again because the answer may come before the order.
const BUSY: Duration = Duration::from_millis(2);

/// In how many tries at least. There is the daemon alone between a busy end and its order, which may lose its processor.
const BUSY_TRIES: usize = TRIES - 3;

/// How much later than an end without lanes one may hear: a thread more has to be woken for it, perhaps. It is a quarter of
/// the time after which an end looks by itself.
const LATER: Duration = Duration::from_millis(5);

/// Both ends fetch a new lane from the daemon, which is a handful of wake-ups and the mapping of memory. Less than the 20 ms
/// after which an end looks by itself.
const NEW: Duration = Duration::from_millis(15);

/// The same where those who fetch wait for a processor, which a busy end has. Less than the work before that.
const NEW_BESIDE_WORK: Duration = Duration::from_millis(25);

/// What a busy end does beside each message.
const WORK: Duration = Duration::from_micros(2);

/// How much a busy end does before the order: it is not at the beginning of anything.
const BEFORE: u64 = 500;

/// How much lies before a busy receiver: the work of 40 ms.
const MUCH: u64 = 20_000;

/// To how many pieces of [`WORK`] one comes that takes its time with each message.
const LONG: u64 = 50;

#[test]
fn a_busy_sender_learns_of_a_deletion_within_a_millisecond() {
    in_time("deletion, busy sender", |bus, channel| {
        // Its receiver has the lane, and does not come to take anything.
        let (sender, _receiver) = lane(bus, channel, Waiting::Adaptive);
        let sending = End::start(move |sent| {
            while sender.send(0).is_ok() {
                work(sent);
            }
        });
        sending.has_done(BEFORE);
        bus.delete(channel).unwrap();
        sending.works_on()
    });
}

#[test]
fn a_busy_receiver_learns_of_a_deletion_within_a_millisecond() {
    in_time("deletion, busy receiver", |bus, channel| {
        let (_sender, receiving) = busy_receiver(bus, channel);
        bus.delete(channel).unwrap();
        receiving.works_on()
    });
}

/// Nobody but the daemon is left to tell it, and it holds one message after the other.
#[test]
fn a_slow_receiver_of_what_a_sender_left_learns_of_a_deletion_within_a_millisecond() {
    in_time("deletion, receiver of a sender that has gone", |bus, channel| {
        let (sender, mut receiver) = lane(bus, channel, Waiting::Adaptive);
        (0..MUCH / LONG).for_each(|number| sender.send(number).unwrap());
        drop(sender);
        eventually("the sender has left", || bus.show(channel).unwrap().sender_count == 0);
        let receiving = End::start(move |received| {
            while let Ok(delivery) = receiver.next_delivery() {
                (0..LONG).for_each(|_| work(received));
                delivery.ack();
            }
        });
        receiving.has_done(BEFORE);
        bus.delete(channel).unwrap();
        receiving.works_on()
    });
}

#[test]
fn a_busy_receiver_learns_within_a_millisecond_that_it_is_removed() {
    in_time("kick, busy receiver", |bus, channel| {
        let (_sender, receiving) = busy_receiver(bus, channel);
        bus.kick(channel).unwrap();
        receiving.works_on()
    });
}

/// What it has not handed out by then it never does.
#[test]
fn a_busy_receiver_learns_of_a_purge_within_a_millisecond() {
    in_time("purge, busy receiver", |bus, channel| {
        let (sender, receiving) = busy_receiver(bus, channel);
        bus.purge(channel).unwrap();
        let answered = receiving.done();
        sender.send(LAST).unwrap();
        let received = receiving.join().1;
        let purged = || bus.show(channel).unwrap().ledger.purged;
        eventually("what was not received is counted as purged", || purged() == MUCH - received);
        worked(received - answered)
    });
}

#[test]
fn a_sleeping_receiver_learns_of_a_deletion_at_once() {
    for waiting in [Waiting::Adaptive, Waiting::Sleep] {
        for lulled in LULLED {
            at_once("deletion, sleeping receiver", move |bus, channel| {
                let (sender, sleeper) = sleeper(bus, channel, waiting, lulled);
                let ordered = Instant::now();
                bus.delete(channel).unwrap();
                let noticed = sleeper.join().0;
                drop(sender);
                noticed - ordered
            });
        }
    }
}

#[test]
fn a_sleeping_receiver_learns_at_once_that_it_is_removed() {
    for waiting in [Waiting::Adaptive, Waiting::Sleep] {
        for lulled in LULLED {
            at_once("kick, sleeping receiver", move |bus, channel| {
                let (sender, sleeper) = sleeper(bus, channel, waiting, lulled);
                let ordered = Instant::now();
                bus.kick(channel).unwrap();
                let noticed = sleeper.join().0;
                drop(sender);
                noticed - ordered
            });
        }
    }
}

#[test]
fn a_sender_that_waits_for_room_learns_of_a_deletion_at_once() {
    for waiting in [Waiting::Adaptive, Waiting::Sleep] {
        at_once("deletion, waiting sender", move |bus, channel| {
            bus.create(channel, ChannelOptions { window: Some(64), ..ChannelOptions::default() }).unwrap();
            let (sender, _receiver) = lane(bus, channel, waiting);
            let sending = End::start(move |_| while sender.send(0).is_ok() {});
            // It looks once more by itself in the first millisecond.
            eventually("the sender waits", || bus.show(channel).unwrap().senders[0].blocked_ms >= Some(5));
            sending.is_asleep();
            let ordered = Instant::now();
            bus.delete(channel).unwrap();
            sending.join().0 - ordered
        });
    }
}

#[test]
fn a_receiver_that_sleeps_watches_a_new_lane_at_once() {
    for lulled in LULLED {
        every_third_time("new lane, sleeping receiver", move |bus, channel| {
            let (first, sleeper) = sleeper(bus, channel, Waiting::Adaptive, lulled);
            let is_watched = another_is_watched(bus, channel, NEW);
            drop((first, sleeper));
            is_watched
        });
    }
}

#[test]
fn a_busy_receiver_watches_a_new_lane_while_it_works() {
    every_third_time("new lane, busy receiver", |bus, channel| {
        let (_first, _receiving) = busy_receiver(bus, channel);
        another_is_watched(bus, channel, NEW_BESIDE_WORK)
    });
}

/// Has another sender ask for a lane, with its first message. Whether the next goes there a little later, as it does once
/// the receiver has confirmed that it watches. Nothing else wakes that meanwhile.
fn another_is_watched(bus: &Bus, channel: &str, time: Duration) -> bool {
    let another: Sender<u64> = bus.sender(channel).lane().open().unwrap();
    another.send_confirmed(0).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(!another.is_in_lane(), "nothing was sent");
        // It asks again and again; the pause leaves the processor to those who fetch.
        thread::sleep(Duration::from_micros(50));
    }
    another.send(0).unwrap();
    another.has_lane()
}

/// What ends the work of a receiver.
const LAST: u64 = u64::MAX;

/// A receiver at work, which has much to do.
fn busy_receiver(bus: &Bus, channel: &str) -> (Sender<u64>, End) {
    let (sender, receiver) = lane(bus, channel, Waiting::Adaptive);
    (0..MUCH).for_each(|number| sender.send(number).unwrap());
    let receiving = End::start(move |received| {
        while receiver.recv().is_ok_and(|number| number != LAST) {
            work(received);
        }
    });
    receiving.has_done(BEFORE);
    (sender, receiving)
}

/// How often lanes have woken a receiver that sleeps: it sleeps at its bell, or by now on the words of its lanes.
const LULLED: [u64; 2] = [1, 8];

/// A receiver that its lane has woken that often, and that sleeps.
fn sleeper(bus: &Bus, channel: &str, waiting: Waiting, lulled: u64) -> (Sender<u64>, End) {
    let (sender, receiver) = lane(bus, channel, waiting);
    let receiving = End::start(move |received| {
        while receiver.recv().is_ok() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    });
    for number in 1..=lulled {
        receiving.is_asleep();
        sender.send(number).unwrap();
        receiving.has_done(number);
    }
    receiving.is_asleep();
    (sender, receiving)
}

/// A thread that does one thing after the other at its end of a channel, until that is over.
struct End {
    done: Arc<AtomicU64>,
    thread: Arc<AtomicI32>,
    /// When it noticed.
    noticed: JoinHandle<Instant>,
}

impl End {
    fn start(goes_on: impl FnOnce(&AtomicU64) + Send + 'static) -> Self {
        let (done, thread) = (Arc::<AtomicU64>::default(), Arc::<AtomicI32>::default());
        let (counted, named) = (Arc::clone(&done), Arc::clone(&thread));
        let body = move || {
            named.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
            goes_on(&counted);
            Instant::now()
        };
        Self { done, thread, noticed: thread::spawn(body) }
    }

    /// How much it has done.
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until it has done as much.
    fn has_done(&self, count: u64) {
        eventually("the other end goes on", || self.done() >= count);
    }

    /// Waits until it sleeps.
    fn is_asleep(&self) {
        eventually("the other end sleeps", || {
            let stat = format!("/proc/self/task/{}/stat", self.thread.load(Ordering::Acquire));
            let stat = fs::read_to_string(stat).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|fields| fields.starts_with(" S"))
        });
    }

    /// How long it works from now on until it has noticed.
    fn works_on(self) -> Duration {
        let before = self.done();
        worked(self.join().1 - before)
    }

    /// When it noticed, and how much it had done.
    fn join(self) -> (Instant, u64) {
        let noticed = self.noticed.join().unwrap();
        (noticed, self.done.load(Ordering::Relaxed))
    }
}

fn work(done: &AtomicU64) {
    let begun = Instant::now();
    while begun.elapsed() < WORK {
        hint::spin_loop();
    }
    done.fetch_add(1, Ordering::Relaxed);
}

fn worked(messages: u64) -> Duration {
    WORK * u32::try_from(messages).unwrap()
}

/// Both ends, with nothing under way.
fn lane(bus: &Bus, channel: &str, waiting: Waiting) -> (Sender<u64>, Receiver<u64>) {
    let sender: Sender<u64> = bus.sender(channel).lane().waiting(waiting).open().unwrap();
    let receiver: Receiver<u64> = bus.receiver(channel).waiting(waiting).open().unwrap();
    eventually("the sender is in its lane", || {
        sender.send(0).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap();
        sender.is_in_lane()
    });
    eventually("everything is acknowledged", || sender.is_empty());
    (sender, receiver)
}

/// Tries something again and again, each time with another channel, which comes true every third time at least.
fn every_third_time(what: &'static str, mut once: impl FnMut(&Bus, &str) -> bool + Send + 'static) {
    tries(what, move |bus| {
        let came_true = (0..TRIES).filter(|round| once(bus, &format!("jobs.{round}"))).count();
        println!("{what}: {came_true} of {TRIES} in time");
        assert!(came_true >= TRIES / 3, "{what} came true in time in {came_true} of {TRIES} tries");
    });
}

/// Tries something again and again, each time with another channel. What it returns is how long a busy end took.
fn in_time(what: &'static str, mut once: impl FnMut(&Bus, &str) -> Duration + Send + 'static) {
    tries(what, move |bus| {
        let mut took: Vec<Duration> = (0..TRIES).map(|round| once(bus, &format!("jobs.{round}"))).collect();
        took.sort();
        let (median, most) = (took[TRIES / 2], took[BUSY_TRIES - 1]);
        println!("{what}: {median:?}, {BUSY_TRIES} tries within {most:?}, the last within {:?}", took[TRIES - 1]);
        assert!(most <= BUSY, "{what} is to be noticed within {BUSY:?}, and was after {took:?}");
    });
}

/// The same of an end that sleeps, and in turn with a receiver on the stream that is told of the end of its channel: it has
/// as many wake-ups between it and the order.
fn at_once(what: &'static str, mut once: impl FnMut(&Bus, &str) -> Duration + Send + 'static) {
    tries(what, move |bus| {
        let both = |round| (once(bus, &format!("jobs.{round}")), on_the_stream(bus, &format!("plain.{round}")));
        let (mut took, mut plain): (Vec<_>, Vec<_>) = (0..TRIES).map(both).unzip();
        took.sort();
        plain.sort();
        let (median, beside) = (took[TRIES / 2], plain[TRIES / 2]);
        println!("{what}: {median:?}, and {beside:?} on the stream; the last {:?}", took[TRIES - 1]);
        assert!(median <= 2 * beside + LATER, "{what} was noticed after {took:?}, and on the stream after {plain:?}");
    });
}

fn on_the_stream(bus: &Bus, channel: &str) -> Duration {
    let receiver: Receiver<u64> = bus.receiver(channel).open().unwrap();
    let sleeper = End::start(move |_| while receiver.recv().is_ok() {});
    sleeper.is_asleep();
    let ordered = Instant::now();
    bus.delete(channel).unwrap();
    sleeper.join().0 - ordered
}

fn tries(what: &'static str, test: impl FnOnce(&Bus) + Send + 'static) {
    let body = move || {
        let daemon = Daemon::start();
        test(&Bus::connect_to(daemon.address()).unwrap());
    };
    watch(what, body, || ());
}
