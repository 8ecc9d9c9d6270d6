//! How the tests open ends. All use one channel, `jobs`, on a bus of their own.

use std::time::Instant;

use bus_core::{ChannelOptions, Receiver, RecvTimeoutError, Sender, WhenFull};
use bus_tests::{MOMENT, PATIENCE, World};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const JOBS: &str = "jobs";

pub(crate) fn sender<T: Serialize + Send + 'static>(world: &World) -> Sender<T> {
    world.bus().sender(JOBS).open().unwrap()
}

pub(crate) fn receiver<T: DeserializeOwned + Send + 'static>(world: &World) -> Receiver<T> {
    world.bus().receiver(JOBS).open().unwrap()
}

pub(crate) fn standby<T: DeserializeOwned + Send + 'static>(world: &World) -> Receiver<T> {
    world.bus().receiver(JOBS).standby().open().unwrap()
}

pub(crate) fn until_disconnected<T: DeserializeOwned + Send + 'static>(world: &World) -> Receiver<T> {
    world.bus().receiver(JOBS).until_disconnected().open().unwrap()
}

pub(crate) fn create(world: &World, capacity: u64, when_full: WhenFull) {
    let options = ChannelOptions { capacity: Some(capacity), when_full, ..Default::default() };
    assert!(world.bus().create(JOBS, options).unwrap());
}

/// For what must happen.
pub(crate) fn in_time() -> Instant {
    Instant::now() + PATIENCE
}

/// The next value, which must come.
pub(crate) fn next<T: Send + 'static>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).unwrap()
}

/// Nothing comes.
pub(crate) fn assert_silent<T: Send + std::fmt::Debug + 'static>(receiver: &Receiver<T>) {
    assert!(matches!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout)));
}
