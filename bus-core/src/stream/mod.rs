//! The route through the daemon: endpoints on a local socket.
//!
//! A sender keeps a copy of each frame in its [`outbox`] until it is acknowledged; a receiver reads
//! into its [`inbox`] and hands messages out from there. [`session`] connects and introduces both;
//! [`keeper`] brings idle endpoints back after the daemon's death.

mod changes;
pub(crate) mod control_queue;
mod handover;
pub(crate) mod inbox;
mod keeper;
mod outbox;
pub(crate) mod receiver;
pub(crate) mod sender;
mod sentry;
pub(crate) mod session;
