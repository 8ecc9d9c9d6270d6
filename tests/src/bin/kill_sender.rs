//! A sender for `tests/kill.rs` to kill: `kill_sender SOCKET JOURNAL PRODUCER [lane]`.

use std::env;
use std::path::Path;

use bus_core::Address;
use bus_tests::processes::roles::send_parcels;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [socket, journal, producer, lane @ ..] = arguments.as_slice() else { panic!("started by the test alone") };
    let address = Address::new(socket).expect("a short path");
    send_parcels(&address, Path::new(journal), producer.parse().expect("a number"), !lane.is_empty());
}
