//! [`SenderBuilder`]: the options of a sender, and its opening.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;

use super::{Encode, Route, Sender};
use crate::bus::{Bus, Place};
use crate::codec::Codec;
use crate::declare::{cut, declaration, short_type_name};
use crate::error::OpenError;
use crate::limits::{ENDPOINT_NAME_MAX_BYTES, TYPE_NAME_MAX_BYTES};
use crate::name::ChannelName;
use crate::stream::sender::{FlushOnDrop, SenderOptions, StreamSender};
use crate::waiting::Waiting;
use crate::wire::LaneWish;

/// Options of a sender.
///
/// ```
/// # let bus = bus_core::Bus::in_process();
/// let sender = bus.sender::<u32>("numbers").name("counter").no_lane().open()?;
/// # Ok::<(), bus_core::OpenError>(())
/// ```
pub struct SenderBuilder<T> {
    bus: Bus,
    channel: String,
    pub(super) encode: Encode<T>,
    pub(super) codec: Codec,
    type_name: Option<String>,
    name: Option<String>,
    require_receiver: bool,
    /// As the bus says, where it is not set.
    lane: Option<LaneWish>,
    waiting: Waiting,
    values: PhantomData<fn(T)>,
}

impl<T: Serialize> SenderBuilder<T> {
    pub(crate) fn typed(bus: Bus, channel: &str) -> Self {
        let type_name = Some(short_type_name::<T>());
        Self::new(bus, channel, Codec::Bincode, type_name, |codec, value, out| codec.encode(value, out))
    }
}

impl SenderBuilder<Vec<u8>> {
    pub(crate) fn raw(bus: Bus, channel: &str) -> Self {
        Self::new(bus, channel, Codec::Raw, None, |_, value, out| {
            out.extend_from_slice(value);
            Ok(())
        })
    }
}

impl<T> SenderBuilder<T> {
    fn new(bus: Bus, channel: &str, codec: Codec, type_name: Option<String>, encode: Encode<T>) -> Self {
        let channel = channel.to_owned();
        Self {
            bus,
            channel,
            encode,
            codec,
            type_name,
            name: None,
            require_receiver: false,
            lane: None,
            waiting: Waiting::default(),
            values: PhantomData,
        }
    }

    /// How values become bytes; bincode otherwise.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").codec(bus_core::Codec::Json).open()?;
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
    /// let sender = bus.sender::<u32>("ages").type_name("Age").open()?;
    /// assert!(bus.receiver::<u32>("ages").open().is_err());
    /// assert!(bus.receiver::<u32>("ages").type_name("Age").open().is_ok());
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
    /// let sender = bus.sender::<u32>("numbers").name("counter").open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(cut(name.into(), ENDPOINT_NAME_MAX_BYTES));
        self
    }

    /// Sends fail with `Disconnected` while there is no receiver.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").require_receiver().open()?;
    /// assert!(sender.send(7).is_err());
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn require_receiver(mut self) -> Self {
        self.require_receiver = true;
        self
    }

    /// Asks for a lane at once: memory shared with the receiver, through which messages go without passing the
    /// daemon. Otherwise a sender gets one when it is busy: 64 messages, or 4 MiB in two or more, within 10 ms.
    ///
    /// Where there can be none it stays on the stream: on a channel with a capacity of its own or one that drops or
    /// rejects, when the channel has 64 lanes, in the process of the daemon, or where the system forbids it.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").lane().open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn lane(mut self) -> Self {
        self.lane = Some(LaneWish::AtOnce);
        self
    }

    /// Stays on the stream, through the daemon.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").no_lane().open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn no_lane(mut self) -> Self {
        self.lane = Some(LaneWish::Never);
        self
    }

    /// How it waits for room in a lane; [`Waiting::Adaptive`] otherwise.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").lane().waiting(bus_core::Waiting::Spin).open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }
}

impl<T: Send + 'static> SenderBuilder<T> {
    /// Opens the sender.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<u32>("numbers").codec(bus_core::Codec::Json).open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self) -> Result<Sender<T>, OpenError> {
        let channel = ChannelName::new(&self.channel)?;
        let declares = declaration(self.codec, self.type_name.as_deref());
        let route = match &self.bus.place {
            Place::Daemon(dialer) => {
                let mut dialer = dialer.clone();
                if let Some(name) = &self.name {
                    dialer.name.clone_from(name);
                }
                let require_receiver = self.require_receiver;
                let wish = self.lane.unwrap_or(dialer.lane);
                let lane = if dialer.may_have_lanes() { wish } else { LaneWish::Never };
                let options = SenderOptions {
                    dialer,
                    channel: channel.clone(),
                    declares,
                    require_receiver,
                    lane,
                    waiting: self.waiting,
                };
                Route::Stream(Arc::new(FlushOnDrop(StreamSender::open(options)?)))
            }
            Place::Process(local) => Route::Local(local.sender(&channel, declares, self.require_receiver)?),
        };
        Ok(Sender { route, builder: self, channel })
    }
}

impl<T> Clone for SenderBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            channel: self.channel.clone(),
            encode: self.encode,
            codec: self.codec,
            type_name: self.type_name.clone(),
            name: self.name.clone(),
            require_receiver: self.require_receiver,
            lane: self.lane,
            waiting: self.waiting,
            values: PhantomData,
        }
    }
}

impl<T> fmt::Debug for SenderBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderBuilder")
            .field("channel", &self.channel)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}
