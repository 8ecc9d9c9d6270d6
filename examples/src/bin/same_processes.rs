//! The same program with processes: its two parts meet through the daemon.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin same_processes -- add-up
//!     shell 2: cargo run --bin same_processes -- count
//!
//! `same_threads` differs in one line: where the bus comes from.

use std::env;
use std::error::Error;

use bus_core::Bus;
use bus_examples::{add_up, count};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let bus = Bus::connect()?;
    match env::args().nth(1).as_deref() {
        Some("count") => count(&bus)?,
        Some("add-up") => println!("the sum is {}", add_up(&bus)?),
        _ => return Err("say which part: count or add-up".into()),
    }
    Ok(())
}
