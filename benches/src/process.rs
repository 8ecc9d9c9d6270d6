//! What the kernel says of a process: its resident memory and its processor time.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Resident memory, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("{path} names no VmRSS"))?.trim().parse()?;
    Ok(kib / 1024.0)
}

/// What all threads of a process have used of the processors so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessorUse {
    pub(crate) busy_ns: u64,
    /// How often a thread was put on a processor.
    pub(crate) runs: u64,
}

impl ProcessorUse {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/task");
        let mut sum = Self::default();
        for task in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
            // Time on a processor, time in the queue for one, and how often it got one.
            let schedule = fs::read_to_string(task?.path().join("schedstat"))?;
            let mut fields = schedule.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(busy_ns), Some(runs)) = (fields.next(), fields.nth(1)) else { continue };
            sum.busy_ns += busy_ns?;
            sum.runs += runs?;
        }
        Ok(sum)
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { busy_ns: self.busy_ns - earlier.busy_ns, runs: self.runs - earlier.runs }
    }
}

/// Lets this process and those that it starts open as many descriptors as the system allows.
pub(crate) fn allow_many_descriptors() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
