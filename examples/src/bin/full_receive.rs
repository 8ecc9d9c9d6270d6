//! A bounded channel that pushes back: the receiver, who takes his time.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin full_send
//!     shell 2: cargo run --bin full_receive

use std::error::Error;
use std::thread;
use std::time::Duration;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let plates = Bus::connect()?.receiver::<u32>("plates").until_disconnected().open()?;
    for plate in &plates {
        thread::sleep(Duration::from_millis(20));
        println!("washed plate {plate}");
    }
    Ok(())
}
