//! Channels between processes.
#![warn(missing_docs)]

mod address;
mod admin;
mod bus;
mod channel;
mod codec;
mod error;
pub mod limits;
mod local;
mod message;
mod name;
mod receiver;
mod sender;
mod stream;
mod ticket;
mod transport;
#[doc(hidden)]
pub mod wire;

pub use address::{Address, AddressError, SOCKET_PATH_MAX_BYTES, SOCKET_VARIABLE};
pub use bus::{About, Bus, BusBuilder, Kicked, Peeked};
pub use channel::{
    ChannelInfo, ChannelOptions, ChannelSummary, Ledger, PeerInfo, Peers, Removed, UnknownWhenFull, WhenFull,
};
pub use codec::{Codec, DecodeError, EncodeError, UnknownCodec};
pub use error::{
    AdminError, ConfirmError, ConnectError, FlushError, OpenError, PeersError, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, TryRecvError, TrySendError, Undecodable,
};
pub use message::{Headers, Message, MessageInfo, SenderId};
pub use name::{ChannelName, ChannelNameError};
pub use receiver::{
    BytesBatch, BytesDelivery, BytesItem, Delivery, IntoIter, Iter, OwnedDelivery, Receiver, ReceiverBuilder, TryIter,
};
pub use sender::{Outgoing, Sender, SenderBuilder};
pub use stream::session::Autostart;
pub use ticket::Ticket;
pub use wire::HeaderBlockError;
