//! Nobody sleeps while there is something to do. A wake-up that is lost shows as a call that waits for ever, and only when
//! one end goes to sleep at the very moment at which the other acts: so they act after pauses of all lengths, around the
//! time for which an end looks on before it sleeps.
//!
//! `BUS_KILL_ROUNDS=1000000` goes on for longer; `BUS_KILL_SEED=...` makes the same pauses again.

use std::time::{Duration, Instant};
use std::{env, hint, thread};

use bus_core::{Bus, ChannelOptions, Receiver, Sender, Waiting};
use bus_tests::processes::Dice;
use bus_tests::{Daemon, PATIENCE, eventually};

/// Messages in each direction of an ordinary run.
const ROUNDS: u64 = 3_000;

/// How long an ordinary run takes at most, for each way of waiting.
const LASTING: Duration = Duration::from_secs(4);

/// Longer than an end looks on before it sleeps, in nanoseconds.
const PAUSE_NS: u64 = 120_000;

#[test]
fn a_receiver_that_goes_to_sleep_hears_of_a_message_that_comes_at_that_moment() {
    for waiting in [Waiting::Adaptive, Waiting::Sleep] {
        ping_pong(waiting);
    }
}

#[test]
fn a_sender_that_goes_to_sleep_hears_of_room_that_is_made_at_that_moment() {
    for waiting in [Waiting::Adaptive, Waiting::Sleep] {
        full_window(waiting);
    }
}

fn ping_pong(waiting: Waiting) {
    let (daemon, mut dice) = (Daemon::start(), Dice::from_environment());
    let seed = dice.seed();
    let bus = Bus::connect_to(daemon.address()).expect("it has just answered");
    let (ping, pinged) = lane(&bus, "ping", waiting);
    let (pong, ponged) = lane(&bus, "pong", waiting);
    let mut other_dice = Dice::new(seed + 1);
    let answering = thread::spawn(move || {
        for round in 0.. {
            match pinged.recv_timeout(PATIENCE) {
                Ok(END) => return,
                Ok(number) => assert_eq!(number, round, "seed {seed}"),
                Err(error) => panic!("ping {round} is slept through: {error}, seed {seed}"),
            }
            pause(&mut other_dice);
            pong.send(round).expect("the channel is there");
        }
    });
    let mut rounds = Rounds::new();
    while let Some(round) = rounds.next() {
        ping.send(round).expect("the channel is there");
        assert_eq!(ponged.recv_timeout(PATIENCE).ok(), Some(round), "a pong is slept through, seed {seed}");
        pause(&mut dice);
    }
    ping.send(END).expect("the channel is there");
    answering.join().expect("no panic");
}

fn full_window(waiting: Waiting) {
    let (daemon, mut dice) = (Daemon::start(), Dice::from_environment());
    let seed = dice.seed();
    let bus = Bus::connect_to(daemon.address()).expect("it has just answered");
    bus.create("narrow", ChannelOptions { window: Some(2), ..ChannelOptions::default() }).expect("it is new");
    let (sender, receiver) = lane(&bus, "narrow", waiting);
    let sending = thread::spawn(move || {
        let mut rounds = Rounds::new();
        while let Some(number) = rounds.next() {
            assert!(sender.send_timeout(number, PATIENCE).is_ok(), "room for {number} is slept through, seed {seed}");
        }
        sender.send(END).expect("the channel is there");
    });
    for expected in 0.. {
        match receiver.recv_timeout(PATIENCE) {
            Ok(END) => break,
            Ok(number) => assert_eq!(number, expected, "seed {seed}"),
            Err(error) => panic!("{expected} is slept through: {error}, seed {seed}"),
        }
        pause(&mut dice);
    }
    sending.join().expect("no panic");
}

/// What is sent last.
const END: u64 = u64::MAX;

/// As many as there are to be. In an ordinary run a busy machine does fewer.
struct Rounds {
    next: u64,
    most: u64,
    until: Option<Instant>,
}

impl Rounds {
    fn new() -> Self {
        match env::var("BUS_KILL_ROUNDS") {
            Ok(rounds) => Self { next: 0, most: rounds.parse().expect("BUS_KILL_ROUNDS is a number"), until: None },
            Err(_) => Self { next: 0, most: ROUNDS, until: Some(Instant::now() + LASTING) },
        }
    }

    fn next(&mut self) -> Option<u64> {
        let goes_on = self.next < self.most && self.until.is_none_or(|until| Instant::now() < until);
        let round = self.next;
        self.next += 1;
        goes_on.then_some(round)
    }
}

/// Both ends, with nothing under way.
fn lane(bus: &Bus, channel: &str, waiting: Waiting) -> (Sender<u64>, Receiver<u64>) {
    let sender = bus.sender(channel).lane().waiting(waiting).open().expect("a sender opens");
    let receiver = bus.receiver(channel).waiting(waiting).open().expect("a receiver opens");
    eventually("the sender is in its lane", || {
        sender.send(0).expect("the channel is there");
        receiver.recv_timeout(PATIENCE).expect("it comes");
        sender.is_in_lane()
    });
    eventually("everything is acknowledged", || sender.is_empty());
    (sender, receiver)
}

/// Lets a random time pass at work: who sleeps wakes later than it means to.
fn pause(dice: &mut Dice) {
    let (begin, pause) = (Instant::now(), Duration::from_nanos(dice.roll(PAUSE_NS)));
    while begin.elapsed() < pause {
        hint::spin_loop();
    }
}
