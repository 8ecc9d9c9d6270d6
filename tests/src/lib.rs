//! What the tests of the whole share: a [`World`] to run in, a [`Daemon`] that is a real process,
//! and a `watchdog` that turns a hang into a failure with a name.

mod daemon;
pub mod processes;
mod watchdog;
mod world;

pub use daemon::Daemon;
pub use watchdog::watch;
pub use world::{Route, World, eventually};

use std::time::Duration;

/// How long anything may take that must happen. A busy machine is slow, and it must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for what must not happen.
pub const MOMENT: Duration = Duration::from_millis(30);
