//! The route through shared memory: a message is written once and read once, and no system call lies
//! between.
//!
//! [`region`] makes and maps the memory, [`layout`] draws it, [`ring`] writes and reads it, and [`doorbell`] and
//! [`sleep`] are where one sleeps beside it, and is woken. Knows no daemon, no channel and no frame of control; all
//! the unsafe code of the project is in this folder, in `region.rs`, `processor.rs`, `forked.rs`, `biased.rs`,
//! `ring/slot.rs` and `in_place.rs`.

pub(crate) mod biased;
pub mod board;
pub mod doorbell;
pub mod forked;
mod in_place;
pub mod layout;
pub mod memory;
mod processor;
pub mod region;
pub mod ring;
pub mod sleep;
pub mod stamp;
