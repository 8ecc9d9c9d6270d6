//! [`Waiting`]: what an end does while there is nothing to do.

/// How an end of a channel waits for the other, where both share a lane.
///
/// On the stream, and while there is no daemon, every end sleeps.
///
/// ```
/// use bus_core::Waiting;
///
/// let bus = bus_core::Bus::in_process();
/// let receiver = bus.receiver::<u32>("numbers").waiting(Waiting::Spin).open()?;
/// let sender = bus.sender::<u32>("numbers").lane().waiting(Waiting::Spin).open()?;
/// sender.send(1)?;
/// assert_eq!(receiver.recv()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// A receiver looks again for 20 µs where that paid the last time, and then sleeps: waking costs about as
    /// much. If its sender ran on the same processor it makes way for that once instead. A sender whose lane is full, and
    /// could take more memory, makes way for up to 50 µs; else it sleeps.
    #[default]
    Adaptive,
    /// Looks again and again, and at what the daemon says once in a millisecond: it has a processor to itself, and
    /// nobody is ever slow to wake it.
    Spin,
    /// Sleeps at once: the processor is for others.
    Sleep,
}
