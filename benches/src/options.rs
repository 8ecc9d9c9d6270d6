//! The command line of a benchmark.

use std::time::Duration;

use clap::Parser;

/// Measures the bus beside its floors. Misses are shown and never fail the run.
#[derive(Debug, Parser)]
#[command(name = "cargo bench -p bus-benches --")]
pub(crate) struct Options {
    /// How often floor and subject take turns in each scenario
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Measure only the scenarios whose name contains this text
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) only: Option<String>,

    /// A quarter of the time per measurement: a first look
    #[arg(long)]
    pub(crate) quick: bool,

    /// Cargo adds this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,

    /// The part that this process plays, as the benchmark wrote it
    #[arg(long, hide = true)]
    pub(crate) role: Option<String>,
}

impl Options {
    pub(crate) fn selects(&self, scenario: &str) -> bool {
        self.only.as_ref().is_none_or(|part| scenario.contains(part.as_str()))
    }

    /// `whole` in an ordinary run.
    pub(crate) fn shortened(&self, whole: Duration) -> Duration {
        if self.quick { whole / 4 } else { whole }
    }
}
