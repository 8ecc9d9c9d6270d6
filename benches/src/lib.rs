//! Measures the routes of the bus beside their floors, with every end in a process of its own.
//!
//! The [stream route](run): a floor is the least that any daemon on a local socket must do: `relay` copies frames from one
//! socket to another and knows nothing else. Floor and subject carry the same `payload`s made and
//! checked by the same `traffic`, and take turns within one run, so that what the machine does
//! meanwhile falls on both.
//!
//! The [lane](run_lane): the floor is the simplest ring in shared memory, and the subject the ring of the
//! library, without a daemon.
//!
//! [Gateways](run_pipes): the floor is `cat` at both sides of the same FIFO.
//!
//! A bench binary starts itself again for each end, with a `role`(role::Role) as its argument.
//! A figure that misses its target is shown as missed; it never fails the run.

mod bridged;
mod child;
mod clock;
mod ends;
mod idle;
mod lane;
mod measure;
mod memory;
mod options;
mod payload;
mod pipes;
mod process;
mod processors;
mod relay;
mod role;
mod scenario;
mod server;
mod table;
mod traffic;

use clap::Parser as _;

use crate::options::Options;

/// Runs the benchmarks of the stream route that the command line asks for, or plays one role of them.
///
/// # Errors
/// What kept a benchmark from being measured. A slow figure is not an error.
pub fn run() -> anyhow::Result<()> {
    play_or(measure_stream)
}

/// The same for the ring of a lane.
///
/// # Errors
/// As for [`run`].
pub fn run_lane() -> anyhow::Result<()> {
    play_or(|options| {
        table::print_head();
        lane::measure_all(options);
        Ok(())
    })
}

/// The same for gateways.
///
/// # Errors
/// As for [`run`].
pub fn run_pipes() -> anyhow::Result<()> {
    play_or(|options| {
        server::build_programs()?;
        table::print_head();
        pipes::measure_all(options);
        Ok(())
    })
}

fn play_or(measure: impl FnOnce(&Options) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let options = Options::parse();
    match &options.role {
        Some(role) => serde_json::from_str::<role::Role>(role)?.play(),
        None => measure(&options),
    }
}

fn measure_stream(options: &Options) -> anyhow::Result<()> {
    server::build_programs()?;
    process::allow_many_descriptors()?;
    table::print_head();
    scenario::measure_all(options);
    bridged::measure_all(options);
    memory::measure_all(options);
    Ok(())
}
