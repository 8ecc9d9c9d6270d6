//! Many producers, one consumer: the consumer. It ends when at least one producer was there and
//! all have left.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin many_consume
//!     shell 2: cargo run --bin many_produce -- ann & cargo run --bin many_produce -- bob

use std::collections::BTreeMap;
use std::error::Error;

use bus_core::Bus;
use serde::Deserialize;

// Not the producer's type, but one of the same name and shape: they share the channel, not code.
#[derive(Deserialize)]
struct Greeting {
    from: String,
    number: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let greetings = Bus::connect()?.receiver::<Greeting>("greetings").until_disconnected().open()?;
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for greeting in &greetings {
        // Producers take turns as they like, but each one's messages come in the order sent.
        let before = last.insert(greeting.from, greeting.number).unwrap_or(0);
        assert_eq!(greeting.number, before + 1);
    }
    for (name, count) in last {
        println!("{name} greeted {count} times");
    }
    Ok(())
}
