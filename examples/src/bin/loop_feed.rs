//! Feeds two channels for whoever watches both: `loop_poll`, `loop_mio` or `loop_tokio`.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin loop_poll
//!     shell 2: cargo run --bin loop_feed

use std::error::Error;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    let (left, right) = (bus.sender::<u32>("left").open()?, bus.sender::<u32>("right").open()?);
    for number in 1..=5 {
        left.send(number)?;
        right.send(10 * number)?;
    }
    Ok(())
}
