//! Two channels in one task of tokio, by the feature `tokio` of bus-core.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin loop_tokio
//!     shell 2: cargo run --bin loop_feed

use std::error::Error;

use bus_core::{AsyncReceiver, Bus, RecvError};

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(add_up())
}

async fn add_up() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    let mut left: AsyncReceiver<u32> = bus.receiver("left").until_disconnected().open()?.into_async()?;
    let mut right: AsyncReceiver<u32> = bus.receiver("right").until_disconnected().open()?.into_async()?;
    let (mut sum, mut left_is_open, mut right_is_open) = (0, true, true);
    while left_is_open || right_is_open {
        // The future that is not ready is dropped, and has taken nothing.
        let (number, is_open) = tokio::select! {
            number = left.recv(), if left_is_open => (number, &mut left_is_open),
            number = right.recv(), if right_is_open => (number, &mut right_is_open),
        };
        match number {
            Ok(number) => sum += number,
            Err(RecvError::Disconnected) => *is_open = false,
            Err(error) => return Err(error.into()),
        }
    }
    println!("the sum is {sum}");
    Ok(())
}
