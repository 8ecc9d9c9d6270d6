//! One end of a lane for `tests/lane_costs.rs` to measure.
//!
//! `lane_traffic send SOCKET` takes orders from its standard input and answers each with how many messages it
//! has sent by then: `lane` (until they go through one), `count BYTES MESSAGES`, `while BYTES MILLISECONDS`.
//!
//! `lane_traffic receive SOCKET [keep]` says `seated`, and takes messages; with `keep` each only when the next is
//! there, so that the lane is never empty.
//!
//! Both end with their standard input, which also comes to its end when the test has died.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};
use std::{process, thread};

use bus_core::{Address, Bus, Sender};

/// The channel of both.
const CHANNEL: &str = "traffic";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [role, socket, how @ ..] = arguments.as_slice() else { panic!("started by the test alone") };
    let bus = Bus::connect_to(&Address::new(socket).expect("a short path")).expect("busd answers");
    match role.as_str() {
        "send" => send(&bus),
        _ => receive(&bus, !how.is_empty()),
    }
}

fn send(bus: &Bus) {
    let sender = bus.raw_sender(CHANNEL).lane().open().expect("a sender opens");
    let mut sent = 0_u64;
    for order in io::stdin().lines() {
        let order = order.expect("a line");
        let words: Vec<&str> = order.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().expect("a number");
        match words[0] {
            "lane" => {
                while !sender.is_in_lane() {
                    put(&sender, &[0; 8], &mut sent);
                    thread::yield_now();
                }
            }
            "count" => {
                let payload = vec![7; number(1) as usize];
                (0..number(2)).for_each(|_| put(&sender, &payload, &mut sent));
            }
            _ => {
                let (payload, lasting) = (vec![7; number(1) as usize], Duration::from_millis(number(2)));
                let begin = Instant::now();
                while begin.elapsed() < lasting {
                    (0..100).for_each(|_| put(&sender, &payload, &mut sent));
                }
            }
        }
        say(&sent.to_string());
    }
    sender.flush().expect("everything that was sent is accepted");
}

fn put(sender: &Sender<Vec<u8>>, payload: &[u8], sent: &mut u64) {
    sender.outgoing().send_bytes(payload, None).expect("the channel is there");
    *sent += 1;
}

fn receive(bus: &Bus, keep: bool) {
    let mut receiver = bus.raw_receiver(CHANNEL).open().expect("a receiver opens");
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });
    say("seated");
    loop {
        // The one behind it stays.
        while keep && receiver.len() < 2 {
            thread::yield_now();
        }
        receiver.next_bytes(None).expect("the channel is there").ack();
    }
}

fn say(line: &str) {
    println!("{line}");
    io::stdout().flush().expect("the test listens");
}
