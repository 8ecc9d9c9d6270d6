//! The route through shared memory: a message is written once and read once, and no system call lies
//! between.
//!
//! [`region`] makes and maps the memory, [`layout`] draws it, [`ring`] writes and reads it, and [`doorbell`]
//! wakes whoever sleeps beside it. Knows no daemon, no channel and no frame of control; all the unsafe code
//! of the project is in this folder, in `region.rs`.

pub mod board;
pub mod doorbell;
pub mod layout;
pub mod memory;
pub mod region;
pub mod ring;
pub mod stamp;
