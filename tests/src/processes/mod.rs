//! Programs that are killed: what the processes of `tests/kill.rs` share.
//!
//! A [`Stage`] is a folder with a daemon, senders and receivers, each a process of its own. Senders
//! write down in a [`journal`] what `send` said `Ok` to, receivers what they were handed, both
//! before they go on; so that what a killed process knew can be read afterwards. [`verdict`] then
//! compares the two sides.

pub mod dice;
pub mod journal;
pub mod parcel;
pub mod roles;
pub mod stage;
pub mod verdict;

pub use dice::Dice;
pub use parcel::Parcel;
pub use stage::Stage;

/// The channel on which the processes meet.
pub const CHANNEL: &str = "parcels";

/// A channel that holds two messages.
pub const NARROW: &str = "narrow";
