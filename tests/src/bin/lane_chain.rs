//! A link of the chain in `tests/lane_chain.rs`, and the receiver of what the links send.
//!
//! `lane_chain link SOCKET INDEX LINKS lane|stream|moving` waits for a token on its own channel, sends the token's number
//! to the channel of all, and then passes the next number on to the next link. Says `ready` first. One that is moving
//! leaves its lane after every few numbers, for a sender that begins on the stream and gets the next lane.
//!
//! `lane_chain receive SOCKET JOURNAL RECEIVER` writes down what comes there.
//!
//! Both end with their standard input, which also comes to its end when the test has died.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::{env, process, thread};

use bus_core::{Address, Bus};
use bus_tests::processes::CHANNEL;
use bus_tests::processes::journal::{Journal, Received};

/// How many numbers a link that moves sends by one sender: about as many as go by the stream before it has its lane.
const BETWEEN_MOVES: u64 = 20;

/// What is sent before the chain begins, until there is a lane.
const IDLE: u64 = u64::MAX;

fn main() {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
    let bus = Bus::connect_to(&Address::new(&arguments[1]).expect("a short path")).expect("busd answers");
    match arguments[0].as_str() {
        "link" => link(&bus, number(2), number(3), &arguments[4]),
        _ => receive(&bus, Path::new(&arguments[2]), number(3)),
    }
}

fn link(bus: &Bus, index: u64, links: u64, by: &str) {
    let channel_of = |index: u64| format!("token.{}", index % links);
    let tokens = bus.receiver::<u64>(channel_of(index)).open().expect("a receiver opens");
    let next = bus.sender::<u64>(channel_of(index + 1)).lane().open().expect("a sender opens");
    let open = || {
        let numbers = bus.sender::<u64>(CHANNEL);
        if by == "stream" { numbers.no_lane() } else { numbers.lane() }.open().expect("a sender opens")
    };
    let mut numbers = open();
    while by == "lane" && !numbers.is_in_lane() {
        numbers.send(IDLE).expect("the channel is there");
        thread::yield_now();
    }
    println!("ready");
    io::stdout().flush().expect("the test listens");
    for (sent, number) in (1..).zip(tokens) {
        // On the stream `send` alone says that the message is on its way, and not that it is accepted.
        let done = if by == "lane" { numbers.send(number) } else { numbers.send_confirmed(number) };
        done.expect("the channel is there");
        next.send(number + 1).expect("the channel is there");
        if by == "moving" && sent % BETWEEN_MOVES == 0 {
            numbers = open();
        }
    }
}

fn receive(bus: &Bus, journal: &Path, receiver: u64) {
    let journal = Journal::open(journal);
    // The one before may just have been killed: its seat is free once the daemon has seen that.
    let mut numbers = bus.receiver::<u64>(CHANNEL).standby().open().expect("a receiver opens");
    loop {
        let delivery = numbers.next_delivery().expect("the channel is there");
        if *delivery != IDLE {
            let redelivered = delivery.info().redelivered;
            Received { receiver, producer: 0, number: *delivery, redelivered, whole: true }.write(&journal);
        }
        delivery.ack();
    }
}
