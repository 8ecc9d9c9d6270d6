//! A value too slow to wait for: the program that needs its time.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin slow_ask
//!     shell 2: cargo run --bin slow_answer

use std::error::Error;
use std::thread;
use std::time::Duration;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let answers = Bus::connect()?.sender("answers").open()?;
    thread::sleep(Duration::from_millis(300));
    answers.send(42_u32)?;
    Ok(())
}
