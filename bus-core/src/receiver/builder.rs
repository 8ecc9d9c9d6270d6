//! [`ReceiverBuilder`]: the options of a receiver, and its opening.

use std::fmt;
use std::io::Read as _;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Decode, DecodeFrom, Receiver, Route};
use crate::bus::{Bus, Place};
use crate::codec::{Codec, DecodeError};
use crate::declare::{cut, declaration, short_type_name};
use crate::error::OpenError;
use crate::limits::{ENDPOINT_NAME_MAX_BYTES, TYPE_NAME_MAX_BYTES};
use crate::name::ChannelName;
use crate::stream::receiver::{ReceiverOptions, StreamReceiver};
use crate::waiting::Waiting;

/// Options of a receiver.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let receiver = bus.receiver::<u32>("numbers").name("adder").standby().open()?;
/// # Ok::<(), bus_core::OpenError>(())
/// ```
pub struct ReceiverBuilder<T> {
    bus: Bus,
    channel: String,
    decode: Decode<T>,
    decode_from: DecodeFrom<T>,
    codec: Codec,
    type_name: Option<String>,
    name: Option<String>,
    until_disconnected: bool,
    standby: bool,
    waiting: Waiting,
}

impl<T: DeserializeOwned> ReceiverBuilder<T> {
    pub(crate) fn typed(bus: Bus, channel: &str) -> Self {
        let type_name = Some(short_type_name::<T>());
        let decode_from: DecodeFrom<T> = |codec, source, bytes| codec.decode_from(source, bytes);
        Self::new(bus, channel, Codec::Bincode, type_name, (|codec, bytes| codec.decode(bytes), decode_from))
    }
}

impl ReceiverBuilder<Vec<u8>> {
    pub(crate) fn raw(bus: Bus, channel: &str) -> Self {
        let decode_from: DecodeFrom<Vec<u8>> = |codec, mut source, bytes| {
            let mut payload = vec![0; bytes];
            let read = source.read_exact(&mut payload);
            read.map(|()| payload).map_err(|source| DecodeError { codec, source: source.into() })
        };
        Self::new(bus, channel, Codec::Raw, None, (|_, bytes| Ok(bytes.to_vec()), decode_from))
    }
}

impl<T> ReceiverBuilder<T> {
    fn new(
        bus: Bus,
        channel: &str,
        codec: Codec,
        type_name: Option<String>,
        decodes: (Decode<T>, DecodeFrom<T>),
    ) -> Self {
        let channel = channel.to_owned();
        Self {
            bus,
            channel,
            decode: decodes.0,
            decode_from: decodes.1,
            codec,
            type_name,
            name: None,
            until_disconnected: false,
            standby: false,
            waiting: Waiting::default(),
        }
    }

    /// How values become bytes; bincode otherwise.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").codec(bus_core::Codec::Json).open()?;
    /// assert!(bus.sender::<u32>("numbers").open().is_err());
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The name of the type; the last segment of the type's path otherwise.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("ages").type_name("Age").open()?;
    /// assert!(bus.sender::<u32>("ages").type_name("Age").open().is_ok());
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn type_name(mut self, name: impl Into<String>) -> Self {
        self.type_name = Some(cut(name.into(), TYPE_NAME_MAX_BYTES));
        self
    }

    /// The name of the endpoint, as `bus show` tells it; the program's otherwise.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").name("adder").open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(cut(name.into(), ENDPOINT_NAME_MAX_BYTES));
        self
    }

    /// Ends with `Disconnected` once a sender was there, all have left and the channel is drained. Receivers that stand in
    /// line then end one after the other.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
    /// bus.sender::<u32>("numbers").open()?.send(7)?;
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn until_disconnected(mut self) -> Self {
        self.until_disconnected = true;
        self
    }

    /// Waits in line when the channel has a receiver, and takes over when that one leaves or dies.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let first = bus.receiver::<u32>("numbers").open()?;
    /// let second = bus.receiver::<u32>("numbers").standby().open()?;
    /// assert!(!second.is_seated());
    /// drop(first);
    /// assert!(second.is_seated());
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn standby(mut self) -> Self {
        self.standby = true;
        self
    }

    /// How it waits for messages that come by a lane; [`Waiting::Adaptive`] otherwise.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").waiting(bus_core::Waiting::Spin).open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }
}

impl<T: Send + 'static> ReceiverBuilder<T> {
    /// Opens the receiver.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<u32>("numbers").until_disconnected().open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError::ReceiverTaken`] when the channel has a receiver; see [`OpenError`].
    pub fn open(self) -> Result<Receiver<T>, OpenError> {
        let channel = ChannelName::new(&self.channel)?;
        let declares = declaration(self.codec, self.type_name.as_deref());
        let Self { standby, until_disconnected, waiting, .. } = self;
        let route = match &self.bus.place {
            Place::Daemon(dialer) => {
                let mut dialer = dialer.clone();
                if let Some(name) = &self.name {
                    dialer.name.clone_from(name);
                }
                let channel = channel.clone();
                let options = ReceiverOptions { dialer, channel, declares, standby, until_disconnected, waiting };
                Route::Stream(StreamReceiver::open(options)?)
            }
            Place::Process(local) => Route::Local(local.receiver(&channel, declares, standby, until_disconnected)?),
        };
        let decodes = self.type_name.is_some();
        let expected = self.type_name.unwrap_or_else(|| "bytes".to_owned());
        Ok(Receiver {
            route,
            decode: self.decode,
            decode_from: self.decode_from,
            decodes,
            expected,
            channel,
            not_sync: PhantomData,
        })
    }
}

impl<T> fmt::Debug for ReceiverBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverBuilder").field("channel", &self.channel).finish_non_exhaustive()
    }
}
