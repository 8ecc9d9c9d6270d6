//! Many producers, one consumer: a producer. Run as many as you like, at once.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin many_consume
//!     shell 2: cargo run --bin many_produce -- ann & cargo run --bin many_produce -- bob

use std::env;
use std::error::Error;

use bus_core::Bus;
use serde::Serialize;

#[derive(Serialize)]
struct Greeting {
    from: String,
    number: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).unwrap_or_else(|| "somebody".to_owned());
    let greetings = Bus::connect()?.sender("greetings").open()?;
    for number in 1..=1000 {
        // Ownership moves into the channel; when the window is full, this waits for the consumer.
        greetings.send(Greeting { from: name.clone(), number })?;
    }
    // Dropping the sender flushes it, and tells the consumer that this producer has left.
    Ok(())
}
