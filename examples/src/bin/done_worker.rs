//! A worker that signals `done`: the worker. It takes jobs until there are no more, then says so.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin done_worker
//!     shell 2: cargo run --bin done_boss

use std::error::Error;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    let mut jobs = bus.receiver::<String>("jobs").until_disconnected().open()?;
    let done = bus.sender::<u32>("done").open()?;
    let mut count = 0;
    // A delivery is only lent. If the worker dies before `ack`, the job comes again to the next one.
    while let Ok(job) = jobs.next_delivery() {
        println!("working on {}", *job);
        count += 1;
        job.ack();
    }
    done.send_confirmed(count)?;
    Ok(())
}
