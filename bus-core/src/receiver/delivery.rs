//! [`Delivery`] and [`OwnedDelivery`]: a message that is lent until it is acknowledged or given back.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use super::Receiver;
use crate::local::{Envelope, LocalReceiver};
use crate::message::{Headers, MessageInfo};
use crate::stream::receiver::Held;

/// A message lent to the receiver. Acknowledge it, or it comes again.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
/// # bus.sender::<u32>("numbers").open()?.send(7)?;
/// let delivery = receiver.next_delivery()?;
/// println!("at work on {}", *delivery);
/// delivery.ack();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a delivery that is dropped is given back"]
pub struct Delivery<'a, T> {
    owned: OwnedDelivery<T>,
    receiver: PhantomData<&'a mut Receiver<T>>,
}

impl<T> Delivery<'_, T> {
    pub(super) fn new(lender: Lender<T>, envelope: Envelope<T>) -> Self {
        Self { owned: OwnedDelivery::new(lender, envelope), receiver: PhantomData }
    }

    /// What the bus knows of the message.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// assert!(!receiver.next_delivery()?.info().redelivered);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn info(&self) -> &MessageInfo {
        self.owned.info()
    }

    /// The headers that the sender set.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// assert!(receiver.next_delivery()?.headers().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn headers(&self) -> &Headers {
        self.owned.headers()
    }

    /// Acknowledges the message, and gives the value.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// assert_eq!(receiver.next_delivery()?.ack(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ack(self) -> T {
        self.owned.ack()
    }

    /// Gives the message back: it comes again, first, with its attempt counted.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// receiver.next_delivery()?.nack();
    /// assert_eq!(receiver.next_delivery()?.info().attempt, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nack(self) {
        self.owned.nack();
    }

    /// Keeps the message beyond this call. The order waits for it: the receiver gives nothing
    /// further until it is acknowledged or given back.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// let job = receiver.next_delivery()?.into_owned();
    /// let worker = std::thread::spawn(move || job.ack());
    /// assert_eq!(worker.join().unwrap(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_owned(self) -> OwnedDelivery<T> {
        self.owned
    }
}

impl<T> Deref for Delivery<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.owned
    }
}

/// A [`Delivery`] that may leave the receiver, for another thread say.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
/// # let sender = bus.sender::<u32>("numbers").open()?;
/// sender.send(7)?;
/// sender.send(8)?;
/// let first = receiver.next_delivery()?.into_owned();
/// assert!(receiver.try_recv().is_err()); // order waits for it
/// assert_eq!(first.ack(), 7);
/// assert_eq!(receiver.recv()?, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a delivery that is dropped is given back"]
pub struct OwnedDelivery<T> {
    /// Empty once it is settled.
    loan: Option<(Lender<T>, Envelope<T>)>,
}

pub(super) enum Lender<T> {
    Stream(Held),
    Local(LocalReceiver<T>),
}

impl<T> OwnedDelivery<T> {
    pub(super) fn new(lender: Lender<T>, envelope: Envelope<T>) -> Self {
        Self { loan: Some((lender, envelope)) }
    }

    fn envelope(&self) -> &Envelope<T> {
        let (_, envelope) = self.loan.as_ref().expect("settling takes the delivery by value");
        envelope
    }

    /// What the bus knows of the message.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// let job = receiver.next_delivery()?.into_owned();
    /// assert_eq!(job.info().sequence, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn info(&self) -> &MessageInfo {
        &self.envelope().info
    }

    /// The headers that the sender set.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// let job = receiver.next_delivery()?.into_owned();
    /// assert_eq!(job.headers().value("trace"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn headers(&self) -> &Headers {
        &self.envelope().headers
    }

    /// Acknowledges the message, and gives the value.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// assert_eq!(receiver.next_delivery()?.into_owned().ack(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ack(mut self) -> T {
        let (lender, envelope) = self.loan.take().expect("settling takes the delivery by value");
        lender.acknowledge();
        envelope.value
    }

    /// Acknowledges the message once `give` has taken its value. Where it hands the value back, the message
    /// is given back as well.
    pub(crate) fn hand_over(mut self, give: impl FnOnce(T) -> Result<(), T>) -> bool {
        let (lender, envelope) = self.loan.take().expect("settling takes the delivery by value");
        let Envelope { value, headers, info } = envelope;
        match give(value) {
            Ok(()) => {
                lender.acknowledge();
                true
            }
            Err(value) => {
                self.loan = Some((lender, Envelope { value, headers, info }));
                false
            }
        }
    }

    /// Gives the message back: it comes again, first, with its attempt counted.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// # let mut receiver = bus.receiver::<u32>("numbers").open()?;
    /// # bus.sender::<u32>("numbers").open()?.send(7)?;
    /// receiver.next_delivery()?.into_owned().nack();
    /// assert_eq!(receiver.recv()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nack(self) {
        drop(self);
    }
}

impl<T> Lender<T> {
    fn acknowledge(&self) {
        match self {
            Self::Stream(stream) => stream.settle(true),
            Self::Local(local) => local.acknowledge(),
        }
    }
}

impl<T> Drop for OwnedDelivery<T> {
    fn drop(&mut self) {
        match self.loan.take() {
            Some((Lender::Stream(stream), _)) => stream.settle(false),
            Some((Lender::Local(local), envelope)) => local.give_back(envelope),
            None => {}
        }
    }
}

impl<T> Deref for OwnedDelivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.envelope().value
    }
}

impl<T> fmt::Debug for OwnedDelivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.loan.as_ref().map(|(_, envelope)| &envelope.info);
        f.debug_struct("Delivery").field("info", &info).finish_non_exhaustive()
    }
}
