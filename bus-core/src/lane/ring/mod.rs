//! A ring of records with one writer and one reader in two processes: atomics, fences and numbers.
//!
//! The sender writes a record, then its tail; the receiver reads up to the tail, then writes its head. Each
//! keeps its own index to itself and loads the other's once, and checks it before use. Neither ever waits
//! here: who has nothing to do says so in its own memory ([`Writer::begin_wait`], [`Reader::begin_wait`]),
//! looks once more, and sleeps; the other rings when it finds an epoch that is new to it.

mod places;
mod reader;
mod writer;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use self::reader::{Limits, Payload, Position, Reader, Record};
pub use self::writer::{Bounds, NotWritten, Writer};

/// Where a receiver begins: where the last one ended, as far as the sender has honoured that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Bytes before it, since the lane began.
    pub logical: u64,
    /// Where in the ring.
    pub place: u64,
    /// Messages before it.
    pub messages: u64,
    /// Messages before this one may have been handed out.
    pub taken: u64,
}

/// What the peer wrote cannot be: the lane is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The sender's index.
    #[error("its sender has written an impossible tail")]
    Tail,
    /// A record.
    #[error("its sender has written what is no record")]
    Record,
    /// The receiver's index.
    #[error("its receiver has written an impossible head")]
    Head,
}
