//! [`World`]: a bus for one test, over one route.

use std::thread;
use std::time::Instant;

use bus_core::{AdminError, Bus, Ledger};

use crate::{Daemon, PATIENCE, watch};

/// How messages travel in a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Within the process.
    Local,
    /// Through a daemon, over sockets.
    Stream,
    /// Through shared memory, where there can be a lane.
    Lane,
}

/// A bus of its own, over one route.
#[derive(Debug)]
pub struct World {
    bus: Bus,
    daemon: Option<Daemon>,
    route: Route,
}

impl World {
    /// Runs a test in a world of its own, under the watchdog; then the books are checked.
    ///
    /// # Panics
    /// When the test fails, when it hangs, and when a ledger does not balance.
    pub fn run(route: Route, name: &str, test: fn(&Self)) {
        let world = std::sync::Arc::new(Self::new(route));
        let shared = std::sync::Arc::clone(&world);
        let body = move || {
            test(&shared);
            shared.audit();
        };
        let give_up = || {
            if let Some(daemon) = &world.daemon {
                eprintln!("the daemon's log:\n{}", daemon.log());
                daemon.kill();
            }
        };
        watch(name, body, give_up);
    }

    fn new(route: Route) -> Self {
        match route {
            Route::Local => Self { bus: Bus::in_process(), daemon: None, route },
            Route::Stream | Route::Lane => {
                let daemon = Daemon::start();
                let builder = Bus::builder().address(daemon.address().clone());
                let builder = if route == Route::Lane { builder.lanes() } else { builder.no_lanes() };
                let bus = builder.connect().expect("it has just answered");
                Self { bus, daemon: Some(daemon), route }
            }
        }
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// How its messages travel.
    #[must_use]
    pub fn route(&self) -> Route {
        self.route
    }

    /// What the daemon has on its books for a channel; `None` where there is no daemon.
    ///
    /// # Panics
    /// When they do not balance.
    #[must_use]
    pub fn ledger(&self, channel: &str) -> Option<Ledger> {
        self.daemon.as_ref()?;
        let ledger = self.bus.show(channel).expect("the channel is known").ledger;
        assert!(ledger.balances(), "channel {channel}: {ledger:?}");
        Some(ledger)
    }

    /// Waits until the books of a channel say what `is_right` wants to see.
    ///
    /// # Panics
    /// When they never do.
    pub fn expect_ledger(&self, channel: &str, is_right: impl Fn(&Ledger) -> bool) {
        if self.daemon.is_some() {
            let mut last = None;
            let right = holds_in_time(|| {
                last = self.ledger(channel);
                last.as_ref().is_some_and(&is_right)
            });
            assert!(right, "the ledger of channel {channel} came to rest as {last:?}");
        }
    }

    /// Waits until a sender of `channel` is seen to wait for room. In one process nobody sees a
    /// thread wait: there it may be a moment before.
    pub fn wait_until_a_sender_waits(&self, channel: &str) {
        if self.daemon.is_some() {
            eventually("a sender waits for room", || {
                let senders = self.bus.show(channel).expect("the channel is known").senders;
                senders.iter().any(|sender| sender.blocked_ms.is_some())
            });
        }
    }

    /// Whatever is left, it must be accounted for.
    fn audit(&self) {
        match self.bus.list() {
            Err(AdminError::Unsupported { .. }) => {}
            Err(other) => panic!("the daemon does not answer after the test: {other}"),
            Ok(channels) => {
                for channel in channels {
                    assert!(channel.ledger.balances(), "channel {}: {:?}", channel.channel, channel.ledger);
                }
            }
        }
    }
}

/// Waits until `condition` holds, for what comes to be known in its own time, such as counts.
///
/// # Panics
/// When it does not in ten seconds.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_in_time(condition), "never came true: {what}");
}

fn holds_in_time(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::yield_now();
    }
    true
}
