//! A standby takes over where a receiver of lanes was killed: it gets what was not acknowledged, in order, marked where it
//! was taken, and soon.
#![cfg(target_os = "linux")]
// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bus_core::{Bus, Receiver};
use bus_tests::processes::{CHANNEL, Dice, Parcel, Stage};
use bus_tests::{PATIENCE, Route, eventually, watch};

/// How often a receiver is killed.
const TAKEOVERS: usize = 9;

const SENDERS: usize = 3;

/// How many parcels a sender of the stage has unacknowledged at most.
const WINDOW: usize = 256;

/// How many parcels the standby takes each time: more than lay there.
const PARCELS: usize = 1_500;

#[test]
fn a_standby_gets_what_a_killed_receiver_left_in_lanes_within_a_second() {
    watch("takeover", take_over, || ());
}

fn take_over() {
    let mut stage = Stage::new(Dice::from_environment(), Route::Lane);
    let bus = stage.bus();
    (0..SENDERS).for_each(|_| stage.add_sender());
    let mut came = Came::default();
    let mut took: Vec<Duration> = (0..TAKEOVERS).map(|_| kill_and_follow(&mut stage, &bus, &mut came)).collect();
    took.sort();
    println!("the first after {took:?}, {} came again", came.again);
    // A busy machine may hold one of them up, and does not do that to all.
    assert!(took[TAKEOVERS / 2] < Duration::from_secs(1), "the takeovers took {took:?}");
}

/// Returns how long after the death the first parcel came.
fn kill_and_follow(stage: &mut Stage, bus: &Bus, came: &mut Came) -> Duration {
    stage.add_receiver(true);
    eventually("it is seated", || {
        bus.show(CHANNEL).is_ok_and(|info| info.receiver.is_some_and(|it| it.pid == stage.receiver_pids()[0]))
    });
    let mut next: Receiver<Parcel> = bus.receiver(CHANNEL).standby().open().unwrap();
    eventually("all senders are in lanes", || {
        let senders = bus.show(CHANNEL).unwrap().senders;
        senders.len() == SENDERS && senders.iter().all(|sender| sender.route == "lane")
    });
    // What a sender has unacknowledged at this moment may have gone by the stream, and is acknowledged there a little later
    // than it is written down.
    let before = stage.received().len();
    while stage.received().len() <= before + SENDERS * WINDOW + 100 {
        stage.wait_for_progress();
        stage.pass_time(Duration::from_millis(10));
    }
    stage.pass_time(Duration::from_millis(10));
    stage.kill_receiver();
    let killed = Instant::now();
    let first = next.next_delivery_deadline(killed + PATIENCE).unwrap();
    let after = killed.elapsed();
    // What the dead one had seen it had written down, before it acknowledged it.
    came.read(stage);
    came.take(&first, first.info().redelivered, stage);
    first.ack();
    for _ in 1..PARCELS {
        let parcel = next.next_delivery_deadline(Instant::now() + PATIENCE).unwrap();
        came.take(&parcel, parcel.info().redelivered, stage);
        parcel.ack();
    }
    after
}

/// How far the parcels of each producer have come, to whomever.
#[derive(Default)]
struct Came {
    last: BTreeMap<u64, u64>,
    /// How much of what the killed receivers wrote down is known.
    read: usize,
    again: u64,
}

impl Came {
    fn read(&mut self, stage: &Stage) {
        let received = stage.received();
        for parcel in &received[self.read..] {
            let last = self.last.entry(parcel.producer).or_default();
            assert_eq!(parcel.number, *last + 1, "{parcel:?}, seed {}", stage.dice.seed());
            *last = parcel.number;
        }
        self.read = received.len();
    }

    fn take(&mut self, parcel: &Parcel, redelivered: bool, stage: &Stage) {
        let (last, number) = (self.last.entry(parcel.producer).or_default(), parcel.number);
        let what = format!("{number} of producer {} behind {last}, seed {}", parcel.producer, stage.dice.seed());
        assert!(parcel.is_whole(), "{what}");
        // The last that was written down may not have been acknowledged, of one producer.
        assert!(number == *last + 1 || number == *last && redelivered, "{what}, marked: {redelivered}");
        self.again += u64::from(number == *last);
        *last = number;
    }
}
