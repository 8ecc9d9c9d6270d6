//! What the service manager is told: ready, ending, alive. Without one, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that connections are served.
pub(crate) fn notify_ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the daemon has been told to end and drains; `drain_ms` is how long that may take.
pub(crate) fn notify_stopping(drain_ms: u64) {
    let extend_us = u32::try_from(drain_ms.saturating_mul(1_000)).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(extend_us)]);
}

/// The service manager's dead man's switch. The event loop pings from its own tick, so that a loop
/// that hangs is noticed; a thread that pinged for it would say that all is well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    interval: Duration,
}

impl Watchdog {
    /// The watchdog that the service manager asked for, if it did.
    #[must_use]
    pub(crate) fn from_environment() -> Option<Self> {
        // Half of the time after which we would be killed: one late tick is forgiven.
        sd_notify::watchdog_enabled()
            .map(|timeout| Self { interval: timeout / 2 })
            .filter(|own| !own.interval.is_zero())
    }

    /// How often to [`ping`](Self::ping).
    #[must_use]
    pub(crate) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Says that the loop turns.
    pub(crate) fn ping(&self) {
        notify(&[NotifyState::Watchdog]);
    }
}

/// A service manager that is not listening is no reason to stop serving.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
