//! A bounded channel that pushes back: the sender, who is faster than the receiver.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin full_send
//!     shell 2: cargo run --bin full_receive

use std::error::Error;

use bus_core::{Bus, ChannelOptions, TrySendError};

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    // Two messages and no more: the third waits until one is taken.
    bus.create("plates", ChannelOptions { capacity: Some(2), ..Default::default() })?;
    let plates = bus.sender("plates").open()?;
    for plate in 1..=6_u32 {
        match plates.try_send(plate) {
            Ok(()) => println!("plate {plate} found room"),
            Err(TrySendError::Full(plate)) => {
                // The value came back, so it can be sent in another way.
                println!("plate {plate} has to wait");
                plates.send(plate)?;
            }
            Err(other) => return Err(other.into()),
        }
    }
    plates.flush()?;
    println!("all plates are on their way");
    Ok(())
}
