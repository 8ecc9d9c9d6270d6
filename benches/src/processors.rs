//! On which processors a measurement runs, and what else does meanwhile: a processor that has gone to sleep takes
//! longer to wake than everything that is measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Where the processes of a measurement run. The kernel decides otherwise once, when they wake each other first, and
/// leaves them there for long: whoever is woken on the processor of the one that wakes it is there in less than
/// half of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Placement {
    /// Where the kernel puts them.
    Anywhere,
    /// Each end on a processor of its own, where there are two.
    Apart,
    /// What stands between the ends on another processor than they, where there are two.
    ServerApart,
    /// All on one.
    Together,
}

impl Placement {
    /// Puts the ends, and what stands between them, where they are to run.
    pub(crate) fn put(self, ends: [Pid; 2], server: Option<Pid>) -> Result<()> {
        let all = processors()?;
        let (first, second) = (all.first().copied().unwrap_or(0), all.get(1).or(all.first()).copied().unwrap_or(0));
        let (places, of_server) = match self {
            Self::Anywhere => return Ok(()),
            Self::Apart => ([first, second], None),
            Self::ServerApart => ([first; 2], Some(second)),
            Self::Together => ([first; 2], Some(first)),
        };
        for (process, processor) in ends.into_iter().zip(places).chain(server.zip(of_server)) {
            let mut own = CpuSet::new();
            own.set(processor);
            sched_setaffinity(Some(process), &own)?;
        }
        Ok(())
    }
}

/// Those that this process may use.
fn processors() -> Result<Vec<usize>> {
    let all = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor)).collect())
}

/// Measures with all processes on one processor.
pub(crate) fn alone<R>(measure: impl FnOnce() -> Result<R>) -> Result<R> {
    let all = sched_getaffinity(None)?;
    let mut first = CpuSet::new();
    first.set(processors()?.first().copied().unwrap_or(0));
    // Who is started from now on inherits it.
    sched_setaffinity(None, &first)?;
    let measured = measure();
    sched_setaffinity(None, &all)?;
    measured
}

/// Measures with all processors awake: each has a thread that gives way to everybody else.
pub(crate) fn warm<R>(measure: impl FnOnce() -> Result<R>) -> Result<R> {
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
