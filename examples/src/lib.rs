//! A program in two parts that meet on a bus. It does not know whether the bus joins threads or
//! processes: `same_threads` runs it in the one way, `same_processes` in the other.

// The README's program is compiled with the examples.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

use std::error::Error;

use bus_core::{Bus, RecvError};

/// Sends the numbers from 1 to 10.
///
/// # Errors
/// When the bus fails.
pub fn count(bus: &Bus) -> Result<(), Box<dyn Error + Send + Sync>> {
    let numbers = bus.sender::<u64>("numbers").open()?;
    for number in 1..=10 {
        numbers.send(number)?;
    }
    Ok(())
}

/// Adds up what comes, until no sender is left.
///
/// # Errors
/// When the bus fails.
pub fn add_up(bus: &Bus) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let numbers = bus.receiver::<u64>("numbers").until_disconnected().open()?;
    let mut sum = 0;
    loop {
        match numbers.recv() {
            Ok(number) => sum += number,
            Err(RecvError::Disconnected) => return Ok(sum),
            // Not the end of the numbers: the channel was deleted, say, or what came is no number.
            Err(other) => return Err(other.into()),
        }
    }
}
