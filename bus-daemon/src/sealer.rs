//! [`Sealer`]: does on a thread of its own what the kernel may take its time for.
//!
//! A file is sealed against writing when no page of it is in use by the kernel: for one that somebody has given to a
//! pipe it waits 150 ms, in the call, before it refuses. And the last to let go of a ring that was full waits until
//! its pages are given back, for some milliseconds. The event loop waits for neither.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

/// What has come of a job.
type Outcome<T> = (T, io::Result<bool>);

type Work = Box<dyn FnOnce() -> io::Result<bool> + Send>;

enum Job<T> {
    Seal(T, Work),
    LetGo(Box<dyn Any + Send>),
}

/// A thread for sealing, from the first job on. What comes of a job is told with the `T` that names it.
pub(crate) struct Sealer<T> {
    thread: Option<Running<T>>,
    results: (Sender<Outcome<T>>, Receiver<Outcome<T>>),
    /// Readable when there are results.
    bell: Arc<OwnedFd>,
    ends: Arc<AtomicBool>,
}

struct Running<T> {
    jobs: Sender<Job<T>>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Sealer<T> {
    pub(crate) fn new() -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { thread: None, results: channel(), bell, ends: Arc::default() })
    }

    /// Does that, in its turn.
    pub(crate) fn seal(&mut self, what: T, work: impl FnOnce() -> io::Result<bool> + Send + 'static) {
        if let Err((error, Job::Seal(what, _))) = self.order(Job::Seal(what, Box::new(work))) {
            tell(&self.results.0, &self.bell, what, Err(error));
        }
    }

    /// Drops that, in its turn.
    pub(crate) fn let_go(&mut self, it: impl Any + Send) {
        // Where there is no thread to be had it is dropped here.
        let _ = self.order(Job::LetGo(Box::new(it)));
    }

    /// What has come of jobs.
    pub(crate) fn results(&self) -> Vec<Outcome<T>> {
        let mut count = [0; 8];
        // First, so that it is readable again for what comes from now on. It fails when there is nothing.
        let _ = rustix::io::read(&*self.bell, &mut count);
        self.results.1.try_iter().collect()
    }

    fn order(&mut self, job: Job<T>) -> Result<(), (io::Error, Job<T>)> {
        let running = match self.thread.take() {
            Some(running) => running,
            None => match self.start() {
                Ok(running) => running,
                Err(error) => return Err((error, job)),
            },
        };
        let running = self.thread.insert(running);
        running.jobs.send(job).map_err(|unsent| (io::Error::other("the thread that seals has ended"), unsent.0))
    }

    fn start(&self) -> io::Result<Running<T>> {
        let (jobs, orders) = channel();
        let (results, bell, ends) = (self.results.0.clone(), Arc::clone(&self.bell), Arc::clone(&self.ends));
        let thread = thread::Builder::new().name("bus-sealer".to_owned()).spawn(move || {
            for job in orders {
                match job {
                    Job::Seal(..) if ends.load(Ordering::Relaxed) => {}
                    Job::Seal(what, work) => {
                        // A fault in one job is no reason to do no others.
                        let done = catch_unwind(AssertUnwindSafe(work));
                        tell(&results, &bell, what, done.unwrap_or_else(|_| Err(io::Error::other("it panicked"))));
                    }
                    Job::LetGo(it) => drop(it),
                }
            }
        })?;
        Ok(Running { jobs, thread })
    }
}

fn tell<T>(results: &Sender<Outcome<T>>, bell: &OwnedFd, what: T, result: io::Result<bool>) {
    // It fails when nobody wants to know any more.
    if results.send((what, result)).is_ok() {
        let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
    }
}

impl<T> AsFd for Sealer<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl<T> Drop for Sealer<T> {
    fn drop(&mut self) {
        // What is left of the jobs nobody asks for; but whoever waits for the daemon's end finds its memory given back.
        self.ends.store(true, Ordering::Relaxed);
        if let Some(Running { jobs, thread }) = self.thread.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;

    fn wait(sealer: &Sealer<u32>, wanted: usize) -> Vec<(u32, Result<bool, String>)> {
        let mut all = Vec::new();
        while all.len() < wanted {
            let mut watched = [PollFd::new(sealer, PollFlags::IN)];
            let ready = poll(&mut watched, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })).unwrap();
            assert_eq!(ready, 1, "nothing came in a minute, after {all:?}");
            all.extend(
                sealer.results().into_iter().map(|(what, done)| (what, done.map_err(|error| error.to_string()))),
            );
        }
        all
    }

    #[test]
    fn what_takes_long_keeps_nobody_waiting_but_the_jobs_behind_it() {
        let mut sealer = Sealer::new().unwrap();
        let (go_on, told) = channel::<()>();
        sealer.seal(1, move || {
            told.recv().unwrap();
            Ok(true)
        });
        sealer.seal(2, || Ok(false));
        assert!(sealer.results().is_empty(), "and whoever ordered it is back here");
        go_on.send(()).unwrap();
        assert_eq!(wait(&sealer, 2), [(1, Ok(true)), (2, Ok(false))]);
    }

    #[test]
    fn a_job_that_panics_has_failed_and_the_next_is_done() {
        let mut sealer = Sealer::new().unwrap();
        sealer.seal(1, || panic!("as it may"));
        sealer.seal(2, || Ok(true));
        assert_eq!(wait(&sealer, 2), [(1, Err("it panicked".to_owned())), (2, Ok(true))]);
    }

    #[test]
    fn what_is_let_go_is_dropped_before_the_sealer_ends() {
        let held = Arc::new(());
        let mut sealer = Sealer::<u32>::new().unwrap();
        sealer.let_go(Arc::clone(&held));
        drop(sealer);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
