//! The route within one process: channels for [`Bus::in_process`](crate::Bus::in_process).
//!
//! A channel is a [`Mailbox`]: a crossbeam channel that carries the values themselves, and beside it
//! what crossbeam does not know: windows, capacity, the seat, a message that was lent. Nothing is
//! serialised, so codecs and type names are only compared, and limits in bytes do not apply.
//!
//! ```text
//!   LocalSender::push      a place at the Gate (capacity), a sequence (Account), then the queue
//!   LocalReceiver::take    the queue, or what was given back; the place is free again
//! ```
//!
//! Locks are taken in this order and in no other: registry, turn, account, control. None is held
//! while waiting, and none while a value of the user is dropped.

mod account;
mod gate;
mod mailbox;
mod receiver;
mod registry;
mod sender;
#[cfg(test)]
mod tests;

pub(crate) use self::mailbox::Envelope;
pub(crate) use self::receiver::LocalReceiver;
pub(crate) use self::registry::LocalBus;
pub(crate) use self::sender::LocalSender;
