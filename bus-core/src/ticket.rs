//! [`Ticket`]: names everything that a sender had sent at a moment.

/// Stands for all that a sender had sent when the ticket was drawn. Waiting on it is how an
/// unknown outcome becomes a known one.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let sender = bus.sender::<u32>("numbers").open()?;
/// sender.feed(1)?;
/// let ticket = sender.ticket();
/// sender.feed(2)?;
/// sender.wait(&ticket, None)?; // for the first alone
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(crate) sequence: u64,
}
