//! A receiver for `tests/kill.rs` to kill: `kill_receiver SOCKET JOURNAL RECEIVER [standby]`.

use std::env;
use std::path::Path;

use bus_core::Address;
use bus_tests::processes::roles::receive_parcels;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [socket, journal, receiver, line @ ..] = arguments.as_slice() else { panic!("started by the test alone") };
    let address = Address::new(socket).expect("a short path");
    receive_parcels(&address, Path::new(journal), receiver.parse().expect("a number"), !line.is_empty());
}
