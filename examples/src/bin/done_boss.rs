//! A worker that signals `done`: the boss, who hands out jobs and waits for the signal.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin done_worker
//!     shell 2: cargo run --bin done_boss

use std::error::Error;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::connect()?;
    let done = bus.receiver::<u32>("done").open()?;
    let jobs = bus.sender("jobs").open()?;
    for job in ["sweep", "mop", "dust"] {
        jobs.send(job.to_owned())?;
    }
    // No more jobs: with its last sender gone, the channel ends.
    drop(jobs);
    println!("the worker is done with {} jobs", done.recv()?);
    Ok(())
}
