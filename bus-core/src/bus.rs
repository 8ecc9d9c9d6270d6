//! [`Bus`]: from here senders and receivers are opened, and the daemon is asked.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::Address;
use crate::admin::{ControlConnection, unexpected};
use crate::channel::{ChannelInfo, ChannelOptions, ChannelSummary, Removed};
use crate::error::{AdminError, ConnectError};
use crate::link::{LinkInfo, LinkSpec, Unlink};
use crate::local::LocalBus;
use crate::message::Message;
use crate::name::ChannelName;
use crate::receiver::ReceiverBuilder;
use crate::sender::SenderBuilder;
use crate::stream::session::{Autostart, Dialer, Door};
use crate::wire::{LaneWish, Reply, Request, Role};

/// A bus: channels by name. Cheap to clone; each end has a connection of its own.
///
/// ```
/// use bus_core::Bus;
///
/// let bus = Bus::in_process();
/// let jobs = bus.sender::<u32>("jobs").open()?;
/// let worker = bus.receiver::<u32>("jobs").open()?;
/// jobs.send(7)?;
/// assert_eq!(worker.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) place: Place,
}

/// Where the channels of a bus live.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Daemon(Dialer),
    Process(Arc<LocalBus>),
}

impl Bus {
    /// The bus of this user: see [`Address::of_user`].
    ///
    /// ```no_run
    /// let bus = bus_core::Bus::connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] when no daemon answers; see [`ConnectError`].
    pub fn connect() -> Result<Self, ConnectError> {
        Self::builder().connect()
    }

    /// The bus at `address`.
    ///
    /// ```no_run
    /// # use bus_core::{Address, Bus};
    /// let bus = Bus::connect_to(&Address::new("/run/bus/bus.sock")?)?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] when no daemon answers; see [`ConnectError`].
    pub fn connect_to(address: &Address) -> Result<Self, ConnectError> {
        Self::builder().address(address.clone()).connect()
    }

    /// A bus within this process, without a daemon: values are moved, nothing is serialised.
    ///
    /// ```
    /// let bus = bus_core::Bus::in_process();
    /// # let _ = bus;
    /// ```
    #[must_use]
    pub fn in_process() -> Self {
        Self { place: Place::Process(Arc::new(LocalBus::default())) }
    }

    /// A connection with other than the usual options.
    ///
    /// ```no_run
    /// let bus = bus_core::Bus::builder().name("importer").connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    #[must_use]
    pub fn builder() -> BusBuilder {
        BusBuilder {
            address: None,
            name: None,
            autostart: Autostart::Never,
            door: None,
            lane: LaneWish::WhenBusy,
            connect_timeout: None,
        }
    }

    /// Begins a sender of `T` to the channel `name`.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.sender::<String>("greetings").open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    pub fn sender<T: Serialize + Send + 'static>(&self, name: impl AsRef<str>) -> SenderBuilder<T> {
        SenderBuilder::typed(self.clone(), name.as_ref())
    }

    /// Begins a receiver of `T` from the channel `name`.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.receiver::<String>("greetings").open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    pub fn receiver<T: DeserializeOwned + Send + 'static>(&self, name: impl AsRef<str>) -> ReceiverBuilder<T> {
        ReceiverBuilder::typed(self.clone(), name.as_ref())
    }

    /// Begins a sender of bytes as they are. It may send to any channel.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let sender = bus.raw_sender("bytes").open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    pub fn raw_sender(&self, name: impl AsRef<str>) -> SenderBuilder<Vec<u8>> {
        SenderBuilder::raw(self.clone(), name.as_ref())
    }

    /// Begins a receiver of bytes as they are. It may receive from any channel.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// let receiver = bus.raw_receiver("bytes").open()?;
    /// # Ok::<(), bus_core::OpenError>(())
    /// ```
    pub fn raw_receiver(&self, name: impl AsRef<str>) -> ReceiverBuilder<Vec<u8>> {
        ReceiverBuilder::raw(self.clone(), name.as_ref())
    }

    /// All channels of the daemon.
    ///
    /// ```no_run
    /// for channel in bus_core::Bus::connect()?.list()? {
    ///     println!("{}", channel.channel);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn list(&self) -> Result<Vec<ChannelSummary>, AdminError> {
        match self.ask("list", &Request::List)? {
            Reply::Channels(channels) => Ok(channels),
            other => Err(unexpected(&other)),
        }
    }

    /// Everything about one channel.
    ///
    /// ```no_run
    /// assert!(bus_core::Bus::connect()?.show("jobs")?.ledger.balances());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::NoSuchChannel`]; see [`AdminError`].
    pub fn show(&self, channel: impl AsRef<str>) -> Result<ChannelInfo, AdminError> {
        self.control("show")?.show(&ChannelName::new(channel)?)
    }

    /// Declares a channel: it stays when it is empty and unattached. `false` when it was declared
    /// before with the same options.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// use bus_core::ChannelOptions;
    ///
    /// assert!(bus.create("orders", ChannelOptions { capacity: Some(2), ..Default::default() })?);
    /// # Ok::<(), bus_core::AdminError>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Refused`] when it was declared with other options; see [`AdminError`].
    pub fn create(&self, channel: impl AsRef<str>, options: ChannelOptions) -> Result<bool, AdminError> {
        let channel = ChannelName::new(channel)?;
        if let Place::Process(local) = &self.place {
            return local.create(&channel, options);
        }
        match self.ask("create", &Request::Create(channel, options))? {
            Reply::Created(new) => Ok(new),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a channel, what it holds and its ends.
    ///
    /// ```
    /// # let bus = bus_core::Bus::in_process();
    /// bus.sender::<u32>("jobs").open()?.send(7)?;
    /// assert_eq!(bus.delete("jobs")?.messages, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::NoSuchChannel`]; see [`AdminError`].
    pub fn delete(&self, channel: impl AsRef<str>) -> Result<Removed, AdminError> {
        let channel = ChannelName::new(channel)?;
        if let Place::Process(local) = &self.place {
            return local.delete(&channel);
        }
        self.removal("delete", &Request::Delete(channel))
    }

    /// Removes what a channel holds.
    ///
    /// ```no_run
    /// println!("{} removed", bus_core::Bus::connect()?.purge("jobs")?.messages);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::NoSuchChannel`]; see [`AdminError`].
    pub fn purge(&self, channel: impl AsRef<str>) -> Result<Removed, AdminError> {
        self.removal("purge", &Request::Purge(ChannelName::new(channel)?))
    }

    /// Removes the message at the head of a channel.
    ///
    /// ```no_run
    /// bus_core::Bus::connect()?.skip("jobs")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::NoSuchChannel`]; see [`AdminError`].
    pub fn skip(&self, channel: impl AsRef<str>) -> Result<Removed, AdminError> {
        self.removal("skip", &Request::Skip(ChannelName::new(channel)?))
    }

    /// Removes the receiver of a channel. What it had not acknowledged goes to the next one.
    ///
    /// ```no_run
    /// let kicked = bus_core::Bus::connect()?.kick("jobs")?;
    /// println!("removed {} (pid {})", kicked.name, kicked.pid);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Refused`] when there is no receiver; see [`AdminError`].
    pub fn kick(&self, channel: impl AsRef<str>) -> Result<Kicked, AdminError> {
        match self.ask("kick", &Request::Kick(ChannelName::new(channel)?))? {
            Reply::Kicked { pid, name } => Ok(Kicked { pid, name }),
            other => Err(unexpected(&other)),
        }
    }

    /// Copies of what a channel holds, without taking it: at most `messages` of them from the
    /// position `after` on (0 begins at the head).
    ///
    /// ```no_run
    /// let peeked = bus_core::Bus::connect()?.peek("jobs", 0, 10)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::NoSuchChannel`]; see [`AdminError`].
    pub fn peek(&self, channel: impl AsRef<str>, after: u64, messages: u32) -> Result<Peeked, AdminError> {
        let request = Request::Peek { channel: ChannelName::new(channel)?, after, messages };
        let (messages, reply) = self.control("peek")?.ask(&request)?;
        match reply {
            Reply::Peeked { next } => Ok(Peeked { messages, next }),
            other => Err(unexpected(&other)),
        }
    }

    /// Who serves this bus.
    ///
    /// ```no_run
    /// println!("busd {}", bus_core::Bus::connect()?.about()?.version);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn about(&self) -> Result<About, AdminError> {
        match self.ask("about", &Request::About)? {
            Reply::About { version, pid, uptime_ms, connections } => {
                Ok(About { version, pid, uptime: Duration::from_millis(uptime_ms), connections })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a gateway: the daemon joins a FIFO or a command to a channel. Returns when it is up; it lives
    /// until [`unlink`](Self::unlink) or the daemon's end. With [`LinkSpec::keep`] it is written to the daemon's
    /// config file too, and comes back with the daemon; where that fails, nothing is made. Only for the user of
    /// the daemon, as whom it runs.
    ///
    /// ```no_run
    /// use bus_core::{Bus, ChannelName, LinkSpec, Pipe};
    ///
    /// let fifo = Pipe::FromFifo("/run/user/1000/jobs.fifo".to_owned());
    /// let link = Bus::connect()?.link(LinkSpec::new(ChannelName::new("jobs")?, fifo))?;
    /// println!("link {}", link.id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::ReceiverTaken`] when messages are to be taken from a channel that has a receiver;
    /// [`AdminError::Denied`], [`AdminError::Refused`] with the path or command and the remedy.
    pub fn link(&self, spec: LinkSpec) -> Result<LinkInfo, AdminError> {
        match self.ask("link", &Request::Link(Box::new(spec)))? {
            Reply::Linked(link) => Ok(*link),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends gateways, and removes those that are kept from the daemon's config file: where that fails, none is
    /// ended. Returns those that are gone, as they were at the end.
    ///
    /// ```no_run
    /// bus_core::Bus::connect()?.unlink(bus_core::Unlink::Id(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Refused`] when there is none; see [`AdminError`].
    pub fn unlink(&self, which: Unlink) -> Result<Vec<LinkInfo>, AdminError> {
        match self.ask("unlink", &Request::Unlink(which))? {
            Reply::Links(links) => Ok(links),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends gateways as [`unlink`](Self::unlink) does, and leaves the daemon's config file as it is: those that
    /// are kept come back with the next daemon.
    ///
    /// ```no_run
    /// bus_core::Bus::connect()?.unlink_for_now(bus_core::Unlink::Id(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError::Refused`] when there is none; see [`AdminError`].
    pub fn unlink_for_now(&self, which: Unlink) -> Result<Vec<LinkInfo>, AdminError> {
        match self.ask("unlink", &Request::UnlinkForNow(which))? {
            Reply::Links(links) => Ok(links),
            other => Err(unexpected(&other)),
        }
    }

    /// All gateways of the daemon.
    ///
    /// ```no_run
    /// for link in bus_core::Bus::connect()?.links()? {
    ///     println!("{} {}", link.spec.channel, link.spec.pipe);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn links(&self) -> Result<Vec<LinkInfo>, AdminError> {
        match self.ask("links", &Request::Links)? {
            Reply::Links(links) => Ok(links),
            other => Err(unexpected(&other)),
        }
    }

    fn removal(&self, what: &'static str, request: &Request) -> Result<Removed, AdminError> {
        match self.ask(what, request)? {
            Reply::Removed(removed) => Ok(removed),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, what: &'static str, request: &Request) -> Result<Reply, AdminError> {
        Ok(self.control(what)?.ask(request)?.1)
    }

    fn control(&self, what: &'static str) -> Result<ControlConnection, AdminError> {
        match &self.place {
            Place::Daemon(dialer) => Ok(ControlConnection::open(dialer)?),
            Place::Process(_) => Err(AdminError::Unsupported { what }),
        }
    }
}

/// Options of a connection.
///
/// ```
/// let builder = bus_core::Bus::builder().name("importer").no_lanes();
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
pub struct BusBuilder {
    address: Option<Address>,
    name: Option<String>,
    autostart: Autostart,
    door: Option<Door>,
    lane: LaneWish,
    connect_timeout: Option<Duration>,
}

impl BusBuilder {
    /// All senders ask for a lane at once, unless they say otherwise; see [`SenderBuilder::lane`].
    ///
    /// ```no_run
    /// let bus = bus_core::Bus::builder().lanes().connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    #[must_use]
    pub fn lanes(mut self) -> Self {
        self.lane = LaneWish::AtOnce;
        self
    }

    /// All senders stay on the stream, unless they say otherwise; see [`SenderBuilder::no_lane`].
    ///
    /// ```no_run
    /// let bus = bus_core::Bus::builder().no_lanes().connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    #[must_use]
    pub fn no_lanes(mut self) -> Self {
        self.lane = LaneWish::Never;
        self
    }

    /// Where the bus is served; [`Address::of_user`] otherwise.
    ///
    /// ```no_run
    /// # use bus_core::{Address, Bus};
    /// let bus = Bus::builder().address(Address::new("/run/bus/bus.sock")?).connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        self.address = Some(address);
        self
    }

    /// The name that ends give themselves, as `bus show` tells it; the program's otherwise.
    ///
    /// ```
    /// let builder = bus_core::Bus::builder().name("importer");
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether to start a daemon where none answers.
    ///
    /// ```
    /// use bus_core::{Autostart, Bus};
    ///
    /// let builder = Bus::builder().autostart(Autostart::Daemon { program: "busd".into(), arguments: vec![] });
    /// # let _ = builder;
    /// ```
    #[must_use]
    pub fn autostart(mut self, autostart: Autostart) -> Self {
        self.autostart = autostart;
        self
    }

    /// How long connecting, and opening an end, may take: 5 s for a daemon that is there and does not answer and
    /// 10 s for one that is being started, otherwise. Where nobody is there and none is started, that is known at
    /// once. An end that has lost its daemon tries to reach the next one for as long as it is wanted.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// let bus = bus_core::Bus::builder().connect_timeout(Duration::from_millis(200)).connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Goes to a daemon in this process by memory. For the daemon itself, which hands such a bus out.
    #[doc(hidden)]
    #[must_use]
    pub fn door(mut self, door: Door) -> Self {
        self.door = Some(door);
        self
    }

    /// Checks that a daemon answers.
    ///
    /// ```no_run
    /// let bus = bus_core::Bus::builder().connect()?;
    /// # Ok::<(), bus_core::ConnectError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(self) -> Result<Bus, ConnectError> {
        let address = match self.address {
            Some(address) => address,
            None => Address::of_user()?,
        };
        let name = self.name.unwrap_or_else(program_name);
        let Self { autostart, door, lane, connect_timeout, .. } = self;
        let dialer = Dialer { address, name, autostart, door, lane, connect_timeout };
        dialer.dial_or_start(&Role::Control)?;
        Ok(Bus { place: Place::Daemon(dialer) })
    }
}

fn program_name() -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_ref().and_then(|program| program.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "unnamed".to_owned())
}

/// The receiver that `kick` removed.
///
/// ```
/// let kicked = bus_core::Kicked { pid: 7, name: "worker".to_owned() };
/// println!("removed {} (pid {})", kicked.name, kicked.pid);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kicked {
    /// Its process; 0 where the operating system would not tell.
    pub pid: u32,
    /// The name that it gave itself.
    pub name: String,
}

/// Copies of what a channel holds.
///
/// ```no_run
/// # let bus = bus_core::Bus::connect()?;
/// let mut after = Some(0);
/// while let Some(position) = after {
///     let peeked = bus.peek("jobs", position, 100)?;
///     for message in &peeked.messages {
///         println!("{} bytes", message.payload.len());
///     }
///     after = peeked.next;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The copies, from the oldest.
    pub messages: Vec<Message>,
    /// Where to go on, or `None` at the end.
    pub next: Option<u64>,
}

/// Who serves a bus.
///
/// ```no_run
/// let about = bus_core::Bus::connect()?.about()?;
/// println!("busd {} has served {:?}", about.version, about.uptime);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Release of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has served.
    pub uptime: Duration,
    /// Connections now.
    pub connections: u32,
}
