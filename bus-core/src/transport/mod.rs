//! Local sockets. Knows bytes and waiting, and no frame.

mod socket;

pub(crate) use socket::{Connection, Interest, timespec};
