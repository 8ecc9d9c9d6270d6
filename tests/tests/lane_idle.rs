//! Lanes that are taken back while their senders live.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bus_core::{Bus, Receiver, Sender};
use bus_tests::{Daemon, PATIENCE, eventually, watch};

#[test]
fn an_idle_sender_goes_back_to_its_stream_and_gets_a_lane_when_it_is_busy_again() {
    with_daemon("to and fro", "lane_idle = \"300ms\"\n", |bus| {
        let mut sender = Counting { sender: bus.sender("jobs").open().unwrap(), sent: 0 };
        let reader = reader(bus);
        for _ in 0..3 {
            eventually("a busy sender has a lane", || {
                sender.send_some(100);
                route(bus) == "lane"
            });
            eventually("an idle one has none", || route(bus) == "stream");
            eventually("and nobody reads it", || bus.show("jobs").unwrap().receiver.unwrap().route == "stream");
            sender.send_some(1);
            sender.sender.flush().unwrap();
        }
        sender.finish(reader);
    });
}

/// Its lane is taken back at any moment: before a burst, in it, while its last message is not acknowledged.
#[test]
fn a_sender_that_moves_to_and_fro_all_the_time_loses_doubles_and_reorders_nothing() {
    with_daemon("all the time", "lane_idle = \"2ms\"\n", |bus| {
        let mut sender = Counting { sender: bus.sender("jobs").open().unwrap(), sent: 0 };
        let reader = reader(bus);
        let (mut had, mut moves, mut round) = (false, 0, 0_u64);
        while round < 400 || moves < 3 {
            round += 1;
            sender.send_some(70 + round % 64);
            for _ in 0..2 {
                let has = sender.sender.has_lane();
                moves += u64::from(has && !had);
                had = has;
                // Work between bursts: shorter and longer than a lane may rest.
                thread::sleep(Duration::from_micros(round * 397 % 3_000));
            }
            sender.send_some(round % 3);
        }
        sender.finish(reader);
    });
}

struct Counting {
    sender: Sender<u64>,
    sent: u64,
}

impl Counting {
    fn send_some(&mut self, messages: u64) {
        for _ in 0..messages {
            self.sender.send(self.sent).unwrap();
            self.sent += 1;
        }
    }

    fn finish(mut self, reader: JoinHandle<u64>) {
        self.sender.flush().unwrap();
        self.sender.send(LAST).unwrap();
        self.sent += 1;
        assert_eq!(reader.join().unwrap(), self.sent);
    }
}

const LAST: u64 = u64::MAX;

/// Receives numbers that count up, to the last, and looks at each. Returns how many there were.
fn reader(bus: &Bus) -> JoinHandle<u64> {
    let mut receiver: Receiver<u64> = bus.receiver("jobs").open().unwrap();
    thread::spawn(move || {
        let mut received = 0;
        loop {
            let delivery = receiver.next_delivery_deadline(Instant::now() + 6 * PATIENCE).unwrap();
            assert!(!delivery.info().redelivered, "nobody has died: message {received}");
            let number = *delivery;
            delivery.ack();
            received += 1;
            if number == LAST {
                return received;
            }
            assert_eq!(number, received - 1);
        }
    })
}

fn route(bus: &Bus) -> String {
    bus.show("jobs").unwrap().senders[0].route.clone()
}

fn with_daemon(name: &str, config: &'static str, test: fn(&Bus)) {
    let body = move || {
        let daemon = Daemon::start_with(config);
        test(&Bus::builder().address(daemon.address().clone()).connect().unwrap());
    };
    watch(name, body, || ());
}
