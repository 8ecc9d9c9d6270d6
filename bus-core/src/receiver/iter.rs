//! Receivers as iterators.

use super::Receiver;

/// See [`Receiver::iter`].
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
/// # bus.sender::<u32>("numbers").open()?.send(7)?;
/// for number in &receiver {
///     assert_eq!(number, 7);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Iter<'a, T> {
    pub(super) receiver: &'a Receiver<T>,
}

impl<T: Send + 'static> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

/// See [`Receiver::try_iter`].
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let receiver = bus.receiver::<u32>("numbers").open()?;
/// # bus.sender::<u32>("numbers").open()?.send(7)?;
/// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TryIter<'a, T> {
    pub(super) receiver: &'a Receiver<T>,
}

impl<T: Send + 'static> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// Values of a receiver that nobody else needs.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
/// # bus.sender::<u32>("numbers").open()?.send(7)?;
/// let worker = std::thread::spawn(move || receiver.into_iter().sum::<u32>());
/// assert_eq!(worker.join().unwrap(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T: Send + 'static> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<'a, T: Send + 'static> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Send + 'static> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}
