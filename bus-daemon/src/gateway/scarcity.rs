//! What a gateway does when the system is short of descriptors, memory or processes: it keeps what it has, says so,
//! and tries again with growing pauses. Whoever has just ordered a gateway is told at once instead.

use std::error::Error;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus_core::OpenError;
use rustix::io::Errno;

use super::link::{Link, Over};

/// Whether it may work in a while, with nothing changed but what others hold.
pub(super) fn is_scarcity(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN))
}

/// The same, of an error that has its cause behind it.
pub(super) fn is_caused_by_scarcity(error: &(dyn Error + 'static)) -> bool {
    is_caused(error, is_scarcity)
}

fn is_caused(error: &(dyn Error + 'static), by: impl Fn(&io::Error) -> bool) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(&by) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The same, of an end that the daemon does not let in: it keeps its last descriptors for others, and answers late
/// or not at all who finds none. The other limits, too, are of what others hold.
pub(super) fn may_open_later(error: &OpenError) -> bool {
    matches!(error, OpenError::Limit { .. }) || may_connect_later(error)
}

/// The same, of a connection.
pub(super) fn may_connect_later(error: &(dyn Error + 'static)) -> bool {
    is_caused(error, |error| is_scarcity(error) || error.kind() == io::ErrorKind::TimedOut)
}

impl Link {
    /// Does what may find the system short, until it is done, fails for another reason, or the order to stop is given.
    pub(super) fn persist<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> Result<T, Over> {
        let mut pauses = Pauses::default();
        let outcome = loop {
            match attempt() {
                Err(error) if is_scarcity(&error) => {
                    if pauses.wait(self, &error)? {
                        return Err(Over::Stopped);
                    }
                }
                outcome => break outcome,
            }
        };
        if outcome.is_ok() {
            self.is_supplied();
        }
        Ok(outcome?)
    }

    /// It has what it needs: if it had to wait for that, its note says so no more.
    pub(super) fn is_supplied(&self) {
        if self.is_short.swap(false, Ordering::Relaxed) {
            tracing::info!(link = %self, "it has what it waited for");
            self.note("the system was short of what it needs, and is no more");
        }
    }
}

/// The pauses of one time of scarcity.
#[derive(Default)]
pub(super) struct Pauses {
    next: Option<Duration>,
}

impl Pauses {
    /// Waits for the next try. Whether the order to stop came first.
    pub(super) fn wait(&mut self, link: &Link, why: &dyn std::fmt::Display) -> io::Result<bool> {
        if self.next.is_none() {
            tracing::warn!(%link, "it waits, and tries again: {why}");
        }
        let pause = self.next.unwrap_or(FIRST_PAUSE);
        self.next = Some((pause * 2).min(LONGEST_PAUSE));
        link.note(format!(
            "{why}: tried again every {} ms at least, nothing is lost; raise the limit of the daemon (LimitNOFILE=, ulimit -n), or unlink others",
            LONGEST_PAUSE.as_millis()
        ));
        link.is_short.store(true, Ordering::Relaxed);
        link.stop.wait(pause)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use bus_core::{Address, ConnectError};

    #[test]
    fn an_end_for_which_there_is_no_place_or_no_answer_in_time_may_be_opened_later() {
        let unreachable = |source: io::Error| {
            let address = Address::new("/run/bus/bus.sock").unwrap();
            OpenError::Connect(ConnectError::Unreachable { address, source })
        };
        let full = OpenError::Limit { text: "the daemon has used up its descriptors".to_owned() };
        let denied = OpenError::Denied { text: "not for this user".to_owned() };
        assert!(may_open_later(&full));
        assert!(may_open_later(&unreachable(io::ErrorKind::TimedOut.into())));
        assert!(may_open_later(&unreachable(Errno::MFILE.into())));
        assert!(!may_open_later(&unreachable(io::ErrorKind::NotFound.into())));
        assert!(!may_open_later(&denied));
    }
}
