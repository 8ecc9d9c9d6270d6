//! A receiver of a lane that is stopped, and beside it a sender that lives, is stopped as well, or is dead: the next
//! receiver goes on where it stood, and it ends when it wakes up.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

use bus_core::{Bus, Receiver};
use bus_tests::processes::{CHANNEL, Dice, Parcel, Stage};
use bus_tests::{PATIENCE, Route, watch};
use rustix::process::{Pid, Signal, kill_process};

/// How many parcels a sender of the stage has unacknowledged at most.
const WINDOW: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Living,
    Stopped,
    Dead,
}

/// Its lane was forgotten without a word, and it came back for more.
#[test]
fn a_stopped_receiver_is_replaced_beside_a_living_sender() {
    watch("living", || replace(Beside::Living), || ());
}

/// Nobody could turn to the next receiver, and that waited until the stopped one was gone.
#[test]
fn a_stopped_receiver_is_replaced_beside_a_dead_sender() {
    watch("dead", || replace(Beside::Dead), || ());
}

#[test]
fn a_stopped_receiver_is_replaced_beside_a_stopped_sender() {
    watch("stopped", || replace(Beside::Stopped), || ());
}

/// It came back, and stood in line; now and then still, where it found what its sender had written over before it found its
/// daemon gone.
#[test]
fn a_receiver_that_was_stopped_while_the_daemon_was_restarted_is_replaced() {
    let body = || {
        let (mut stage, bus) = stage();
        let (receiver, sender) = stop_the_receiver(&stage, &bus);
        stage.kill_daemon();
        stage.start_daemon();
        let mut next = stage.bus().receiver::<Parcel>(CHANNEL).open().unwrap();
        let mut numbers = Numbers::behind(&stage);
        numbers.take(&mut next, WINDOW);
        wake(receiver);
        let said = stage.receiver_fails();
        assert!(said.contains("Replaced"), "{said}");
        numbers.take(&mut next, 1_000);
        let _ = sender;
    };
    watch("restarted", body, || ());
}

/// Its sender had brought the lane to a daemon that died with it, before anybody read there. The receiver had let go of
/// what it could not read any more, and nobody else had it.
#[test]
fn what_a_dead_sender_had_brought_to_a_dead_daemon_its_receiver_brings_to_the_next() {
    let body = || {
        let (mut stage, bus) = stage();
        let (receiver, _) = stop_the_receiver(&stage, &bus);
        stage.kill_daemon();
        stage.start_daemon();
        until("the sender has brought its lane", || {
            bus.show(CHANNEL).is_ok_and(|info| info.senders.iter().any(|sender| sender.route == "lane"))
        });
        stage.kill_sender();
        stage.kill_daemon();
        stage.start_daemon();
        wake(receiver);
        stage.finish();
    };
    watch("brought by both", body, || ());
}

fn replace(beside: Beside) {
    let (mut stage, bus) = stage();
    let (receiver, sender) = stop_the_receiver(&stage, &bus);
    match beside {
        Beside::Living => {}
        Beside::Stopped => kill_process(sender, Signal::STOP).unwrap(),
        Beside::Dead => stage.kill_sender(),
    }
    bus.kick(CHANNEL).unwrap();
    let mut next = bus.receiver::<Parcel>(CHANNEL).standby().open().unwrap();
    let mut numbers = Numbers::behind(&stage);
    // Everything that was not acknowledged is there, and nothing is asked of anybody else.
    numbers.take(&mut next, WINDOW);
    // First the receiver, which acknowledges what it held, to a sender that may not know of the next one yet.
    wake(receiver);
    let said = stage.receiver_fails();
    assert!(said.contains("Replaced"), "{said}");
    if beside == Beside::Stopped {
        wake(sender);
    }
    if beside != Beside::Dead {
        numbers.take(&mut next, 1_000);
    }
}

/// What the next receiver is to get.
struct Numbers {
    /// The last that was written down by the one before, which may have acknowledged it.
    seen: u64,
    last: Option<u64>,
}

impl Numbers {
    fn behind(stage: &Stage) -> Self {
        Self { seen: stage.received().last().unwrap().number, last: None }
    }

    fn take(&mut self, receiver: &mut Receiver<Parcel>, count: u64) {
        for _ in 0..count {
            let parcel = receiver.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
            let (number, redelivered) = (parcel.number, parcel.info().redelivered);
            assert!(parcel.is_whole(), "{number} is not as it was sent");
            match self.last {
                Some(last) => assert_eq!(number, last + 1),
                None => assert!((self.seen..=self.seen + 1).contains(&number), "{number} behind {}", self.seen),
            }
            assert!(redelivered || number > self.seen, "{number} comes again without a mark");
            self.last = Some(number);
            parcel.ack();
        }
    }
}

/// A sender and a receiver, both processes of their own, in a lane.
fn stage() -> (Stage, Bus) {
    let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
    let bus = stage.bus();
    stage.add_sender();
    stage.add_receiver(false);
    until("both are in a lane", || {
        let Ok(info) = bus.show(CHANNEL) else { return false };
        let sends = info.senders.iter().any(|sender| sender.route == "lane");
        sends && info.receiver.is_some_and(|receiver| receiver.route == "lane")
    });
    // What is unacknowledged at this moment may have been sent by the stream, and is acknowledged there a little later
    // than it is written down.
    let before = stage.received().len();
    until("parcels go through it", || stage.received().len() > before + WINDOW as usize + 100);
    (stage, bus)
}

/// Stops the receiver, and waits until its sender has no room any more. Returns both.
fn stop_the_receiver(stage: &Stage, bus: &Bus) -> (Pid, Pid) {
    let pid = |pids: Vec<u32>| Pid::from_raw(pids[0].cast_signed()).unwrap();
    let (receiver, sender) = (pid(stage.receiver_pids()), pid(stage.sender_pids()));
    kill_process(receiver, Signal::STOP).unwrap();
    // A sender that takes back what it has begun to write comes anew: it is not there at every moment.
    let is_full = |bus: &Bus| bus.show(CHANNEL).unwrap().senders.first().is_some_and(|it| it.outstanding == WINDOW);
    until("the window is used up", || is_full(bus));
    (receiver, sender)
}

fn wake(process: Pid) {
    kill_process(process, Signal::CONT).unwrap();
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        // The pause leaves the processor to the others.
        thread::sleep(Duration::from_millis(1));
    }
}
