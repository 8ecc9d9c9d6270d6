//! Channels between processes: many senders, one receiver, by name.
//!
//! Rust's channels let threads pass messages without sharing data. A bus gives the same channel to
//! processes: order is kept, ownership moves, full queues push back, and ends close as a channel's
//! do. A daemon, `busd`, knows the channels by name.
//!
//! # A first message
//!
//! [`Bus::in_process`] needs no daemon, so this runs anywhere. With [`Bus::connect`] in its place the
//! two ends may live in different processes; nothing else changes.
//!
//! ```
//! use bus_core::Bus;
//!
//! let bus = Bus::in_process();
//! let sender = bus.sender::<String>("greetings").open()?;
//! let receiver = bus.receiver::<String>("greetings").open()?;
//!
//! sender.send("hello".to_owned())?;
//! assert_eq!(receiver.recv()?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Three forms of each call
//!
//! Every call blocks ([`send`](Sender::send), [`recv`](Receiver::recv)), tries
//! ([`try_send`](Sender::try_send), [`try_recv`](Receiver::try_recv)) or has a deadline
//! ([`send_timeout`](Sender::send_timeout), [`recv_timeout`](Receiver::recv_timeout)). The value
//! comes back in the error:
//!
//! ```
//! use bus_core::{Bus, ChannelOptions, TrySendError};
//!
//! let bus = Bus::in_process();
//! bus.create("small", ChannelOptions { capacity: Some(1), ..Default::default() })?;
//! let sender = bus.sender::<u8>("small").open()?;
//!
//! sender.send(1)?;
//! assert!(matches!(sender.try_send(2), Err(TrySendError::Full(2))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Deliveries
//!
//! [`recv`](Receiver::recv) gives a value that is yours. [`next_delivery`](Receiver::next_delivery)
//! lends a message until it is acknowledged: if the worker fails, or its process is killed, the
//! message comes again, first, and says so.
//!
//! ```
//! use bus_core::Bus;
//!
//! fn work(job: &u32) -> Result<(), std::num::TryFromIntError> {
//!     u8::try_from(*job).map(drop)
//! }
//!
//! let bus = Bus::in_process();
//! let mut receiver = bus.receiver::<u32>("jobs").open()?;
//! bus.sender::<u32>("jobs").open()?.send(1_000)?;
//!
//! let delivery = receiver.next_delivery()?;
//! assert!(work(&delivery).is_err());
//! drop(delivery); // not acknowledged: given back
//!
//! let again = receiver.next_delivery()?;
//! assert_eq!((again.info().attempt, again.info().redelivered), (2, true));
//! again.ack();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Batches
//!
//! [`send`](Sender::send) puts one frame into the daemon's socket. [`feed`](Sender::feed) gathers
//! many, and [`flush`](Sender::flush) waits until the daemon has accepted them all.
//!
//! ```
//! # let bus = bus_core::Bus::in_process();
//! let sender = bus.sender::<u64>("numbers").open()?;
//! for number in 0..1_000 {
//!     sender.feed(number)?;
//! }
//! sender.flush()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ends
//!
//! Senders and receivers of a bus come and go, so a receiver waits for the next sender. With
//! [`until_disconnected`](ReceiverBuilder::until_disconnected) it ends as a channel's does:
//!
//! ```
//! # let bus = bus_core::Bus::in_process();
//! let receiver = bus.receiver::<u8>("bytes").until_disconnected().open()?;
//! let sender = bus.sender::<u8>("bytes").open()?;
//! sender.send(1)?;
//! drop(sender);
//! assert_eq!(receiver.iter().collect::<Vec<_>>(), [1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One receiver at a time holds a channel. Another is refused, or waits in line with
//! [`standby`](ReceiverBuilder::standby).
//!
//! # Types and codecs
//!
//! A channel remembers the type and [`Codec`] of its first typed end and refuses others, naming
//! both. Raw ends ([`Bus::raw_sender`], [`Bus::raw_receiver`]) carry bytes and may attach to any.
//!
//! # Threads, event loops and tasks
//!
//! [`bridge`] joins channels of `crossbeam-channel` to those of the bus, for `select!` and pools of threads. A
//! [`Receiver`] is [`AsFd`](std::os::fd::AsFd): its descriptor is readable while a message waits. With the
//! feature `tokio`, `Sender::into_async` and `Receiver::into_async` make futures of the calls, a `Sink` of the
//! one and a `Stream` of the other; none of them loses a value when it is dropped.
//!
//! # When the daemon dies
//!
//! A sender keeps what is not acknowledged and sends it again to the next daemon. Calls that block
//! stay blocked through a short restart, calls with a deadline honour it, and calls that try say
//! `Away`. What may have been handed out before is marked: [`MessageInfo::redelivered`].
//!
//! # Processes that fork
//!
//! An end belongs to the process that opened it. In a child by `fork` without `exec` each call of it says `Forked`,
//! and dropping it says nothing to anybody: the parent goes on with it. The child opens ends of its own.

mod address;
mod admin;
#[cfg(feature = "tokio")]
mod asynchronous;
pub mod bridge;
mod bus;
mod channel;
mod closing;
mod codec;
mod declare;
#[doc(hidden)]
pub mod endpoint;
mod error;
pub mod framing;
#[doc(hidden)]
pub mod lane;
pub mod limits;
mod link;
mod local;
mod message;
mod name;
mod obstacle;
mod receiver;
mod sender;
mod signal;
mod stream;
mod ticket;
mod transport;
mod waiting;
#[doc(hidden)]
pub mod wire;

pub use address::{Address, AddressError, SOCKET_PATH_MAX_BYTES, SOCKET_VARIABLE};
#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncReceiver, AsyncSender, SinkError};
pub use bus::{About, Bus, BusBuilder, Kicked, Peeked};
pub use channel::{
    ChannelInfo, ChannelOptions, ChannelSummary, Ledger, PeerInfo, Peers, Rates, Removed, UnknownWhenFull, WhenFull,
};
pub use codec::{Codec, DecodeError, EncodeError, UnknownCodec};
pub use error::{
    AdminError, ConfirmError, ConnectError, FlushError, OpenError, PeersError, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, TryRecvError, TrySendError, Undecodable,
};
pub use link::{LinkInfo, LinkSpec, LinkState, Pipe, Restart, Unlink};
pub use message::{Headers, Message, MessageInfo, SenderId};
pub use name::{ChannelName, ChannelNameError};
pub use obstacle::Obstacle;
pub use receiver::{
    BytesBatch, BytesDelivery, BytesItem, Delivery, InPlaceDelivery, IntoIter, Iter, OwnedDelivery, Receiver,
    ReceiverBuilder, TryIter,
};
pub use sender::{Outgoing, Sender, SenderBuilder, Slot};
pub use stream::session::Autostart;
#[doc(hidden)]
pub use stream::session::Door;
pub use ticket::Ticket;
#[doc(hidden)]
pub use transport::{ClientEnd, DaemonEnd, memory_pair};
pub use waiting::Waiting;
pub use wire::HeaderBlockError;
