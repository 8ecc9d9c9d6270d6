//! The same program with threads: its two parts in one process, and no daemon.
//!
//!     cargo run --bin same_threads
//!
//! `same_processes` differs in one line: where the bus comes from.

use std::error::Error;
use std::thread;

use bus_core::Bus;
use bus_examples::{add_up, count};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let bus = Bus::in_process();
    let sum = thread::scope(|scope| {
        let sum = scope.spawn(|| add_up(&bus));
        count(&bus)?;
        sum.join().expect("adding up does not panic")
    })?;
    println!("the sum is {sum}");
    Ok(())
}
