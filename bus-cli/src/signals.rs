//! Ctrl-C and SIGTERM: an orderly end.
//!
//! A verb that waits, in `read` or for a message, cannot be told to stop. So a thread of its own
//! waits for the signal. While the verb is at work on a message, it gives it a moment to come to
//! the message's end and to leave in order; while the verb waits, the thread ends the process.
//! What was not acknowledged goes back to the channel when the connection closes.

use std::io;
use std::os::fd::OwnedFd;
use std::process::exit;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Exit, Failure};

/// Knows whether a signal has come, and whether the verb is at work.
#[derive(Debug)]
pub(crate) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    came: Option<Exit>,
    working: bool,
    /// A process that works for the verb, and is to end with it.
    handler: Option<OwnedFd>,
}

impl Signals {
    /// Takes charge of SIGINT and SIGTERM.
    pub(crate) fn take_charge() -> Result<Arc<Self>, Failure> {
        let begun = Self::begin();
        begun.map_err(|error| Failure::io("cannot take charge of signals", &error))
    }

    fn begin() -> io::Result<Arc<Self>> {
        let mut incoming = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let signals = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let shared = Arc::clone(&signals);
        std::thread::Builder::new().name("bus-signals".into()).spawn(move || {
            for signal in incoming.forever() {
                shared.end(if signal == SIGINT { Exit::Interrupted } else { Exit::Terminated });
            }
        })?;
        Ok(signals)
    }

    /// From now until the guard is dropped the verb is at work, and is not cut off at once.
    ///
    /// # Errors
    /// A signal has come: leave.
    pub(crate) fn work(&self) -> Result<Work<'_>, Failure> {
        let mut state = self.lock();
        match state.came {
            Some(exit) => Err(Failure::silent(exit)),
            None => {
                state.working = true;
                Ok(Work { signals: self })
            }
        }
    }

    /// Whether a signal has come.
    pub(crate) fn came(&self) -> Option<Exit> {
        self.lock().came
    }

    /// Waits, unless a signal comes.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<(), Failure> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), duration, |state| state.came.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.came.map_or(Ok(()), |exit| Err(Failure::silent(exit)))
    }

    /// A signal has come: lets the verb leave, and ends the process if it does not.
    fn end(&self, exit_code: Exit) {
        let mut state = self.lock();
        state.came = Some(exit_code);
        if let Some(handler) = &state.handler {
            terminate(handler);
        }
        self.changed.notify_all();
        // A verb that leaves ends the process, and this thread with it.
        let (mut working, mut since) = (state.working, Instant::now());
        loop {
            let patience = if working { WORK_PATIENCE } else { LEAVE_PATIENCE };
            let rest = patience.saturating_sub(since.elapsed());
            if rest.is_zero() {
                exit(exit_code.code().into());
            }
            state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
            if state.working != working {
                (working, since) = (state.working, Instant::now());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verb is at work.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    signals: &'a Signals,
}

impl Work<'_> {
    /// A process works for the verb now; a signal ends it too, also one that has come already.
    pub(crate) fn with_handler(&self, handler: OwnedFd) {
        let mut state = self.signals.lock();
        if state.came.is_some() {
            terminate(&handler);
        }
        state.handler = Some(handler);
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut state = self.signals.lock();
        state.working = false;
        state.handler = None;
        self.signals.changed.notify_all();
    }
}

fn terminate(handler: &OwnedFd) {
    // It may have ended just now, which is as well.
    let _ = pidfd_send_signal(handler, Signal::TERM);
}

/// How long a verb that is at work may take to come to an end: an output that nobody reads, or a
/// handler that does not listen, must not hold up Ctrl-C.
const WORK_PATIENCE: Duration = Duration::from_secs(1);

/// How long a verb that has just stopped working may take to notice the signal and leave.
const LEAVE_PATIENCE: Duration = Duration::from_millis(50);
