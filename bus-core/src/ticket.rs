//! [`Ticket`]: names everything that a sender had sent at a moment.

/// Stands for all that a sender had sent when the ticket was drawn. Waiting on it is how an
/// unknown outcome becomes a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(crate) sequence: u64,
}
