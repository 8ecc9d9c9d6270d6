//! On which processors a measurement runs, and what else does meanwhile: a processor that has gone to sleep takes
//! longer to wake than everything that is measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Where the two ends of a measurement run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Placement {
    /// Where the kernel puts them. Two that wake each other it leaves for long on the one processor, or the two, that
    /// they were on first.
    Anywhere,
    /// Each on a processor of its own, where there are two.
    Apart,
}

impl Placement {
    /// Puts two threads where they are to run.
    pub(crate) fn put(self, ends: [Pid; 2]) -> Result<()> {
        if self == Self::Anywhere {
            return Ok(());
        }
        let all = sched_getaffinity(None)?;
        let processors = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor));
        for (end, processor) in ends.into_iter().zip(processors) {
            let mut own = CpuSet::new();
            own.set(processor);
            sched_setaffinity(Some(end), &own)?;
        }
        Ok(())
    }
}

/// Measures with all processes on one processor.
pub(super) fn alone<R>(measure: impl FnOnce() -> Result<R>) -> Result<R> {
    let all = sched_getaffinity(None)?;
    let mut first = CpuSet::new();
    first.set((0..CpuSet::MAX_CPU).find(|processor| all.is_set(*processor)).unwrap_or(0));
    // Who is started from now on inherits it.
    sched_setaffinity(None, &first)?;
    let measured = measure();
    sched_setaffinity(None, &all)?;
    measured
}

/// Measures with all processors awake: each has a thread that gives way to everybody else.
pub(super) fn warm<R>(measure: impl FnOnce() -> Result<R>) -> Result<R> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors {
            scope.spawn(|| {
                // Of this thread alone.
                let _ = rustix::process::nice(19);
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let measured = measure();
        over.store(true, Ordering::Relaxed);
        measured
    })
}
