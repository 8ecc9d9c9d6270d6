//! A pool of threads fed from a channel: the program that has the work.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin pool_work
//!     shell 2: cargo run --bin pool_feed

use std::error::Error;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = Bus::connect()?.sender("to-factor").open()?;
    for number in 1_000_000..1_000_100_u64 {
        // Into the sender's buffer: many small messages travel together.
        numbers.feed(number)?;
    }
    numbers.flush()?;
    println!("100 numbers are accepted");
    Ok(())
}
