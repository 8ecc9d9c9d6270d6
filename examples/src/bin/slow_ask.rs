//! A value too slow to wait for: the program that has other things to do.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin slow_ask
//!     shell 2: cargo run --bin slow_answer

use std::error::Error;
use std::time::Duration;

use bus_core::{Bus, RecvTimeoutError};

fn main() -> Result<(), Box<dyn Error>> {
    let answers = Bus::connect()?.receiver::<u32>("answers").open()?;
    loop {
        // Not `recv`, which waits for ever, but a bound, after which something else can be done.
        match answers.recv_timeout(Duration::from_millis(100)) {
            Ok(answer) => break println!("the answer is {answer}"),
            Err(RecvTimeoutError::Timeout) => println!("no answer yet"),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}
