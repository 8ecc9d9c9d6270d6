//! [`Daemon`]: a bus served from a thread of this process, or from its main thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use bus_core::lane::stamp::{clock, now_ns};
use bus_core::{Address, Bus, ConnectError, Door, limits};
use rustix::process::{Resource, getrlimit};

use crate::broker::{Broker, Rules};
use crate::claim::{Claim, ClaimError};
use crate::config::{Config, KeptLinks};
use crate::event_loop::{EventLoop, Left, LoopOptions, Outside};
use crate::gateway::Links;
use crate::listener::Listener;
use crate::reserve::RESERVED_DESCRIPTORS;
use crate::signals::{Signals, Stopper};
use crate::systemd::{Watchdog, notify_ready, notify_stopping};

/// A daemon that serves a bus from a thread of this process.
///
/// ```
/// use bus_core::Address;
/// use bus_daemon::{Config, Daemon};
///
/// let folder = tempfile::tempdir()?;
/// let socket = Some(Address::new(folder.path().join("bus.sock"))?);
/// let daemon = Daemon::start(Config { socket, ..Config::default() })?;
///
/// let bus = daemon.bus()?;
/// let sender = bus.sender::<u32>("numbers").open()?;
/// let receiver = bus.receiver::<u32>("numbers").open()?;
/// sender.send(7)?;
/// assert_eq!(receiver.recv()?, 7);
/// daemon.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Daemon {
    address: Address,
    door: Door,
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Daemon {
    /// Starts serving; returns when the socket is bound.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("bus.sock");
    /// use bus_daemon::{Config, Daemon};
    ///
    /// let socket = Some(bus_core::Address::new(path)?);
    /// let daemon = Daemon::start(Config { socket, window_messages: 1_000, ..Config::default() })?;
    /// daemon.shutdown()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StartError`] names what is in the way, and what to do.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let signals = Signals::manual()?;
        let stopper = signals.stopper()?;
        let (claim, serve, links) = prepare(config, signals, None)?;
        let (address, door) = (claim.address().clone(), serve.door());
        let thread = std::thread::Builder::new().name("busd".to_owned()).spawn(move || {
            let ended = serve.run();
            links.wait_for_end();
            give_up(claim, ended)
        })?;
        Ok(Self { address, door, stopper, thread: Some(thread) })
    }

    /// Serves from this thread until a signal, or an idle exit.
    ///
    /// # Errors
    /// [`StartError`], and what made the event loop stop.
    pub(crate) fn foreground(config: Config, signals: Signals) -> Result<(), StartError> {
        let drain_ms = config.drain_timeout_ms;
        let (claim, serve, links) = prepare(config, signals, Some(drain_ms))?;
        tracing::info!(socket = %claim.address(), "serving");
        notify_ready("serving");
        let ended = serve.run();
        // They hold processes and FIFOs, however the loop has ended.
        links.wait_for_end();
        give_up(claim, ended)?;
        tracing::info!("ended");
        Ok(())
    }

    /// Where the bus is served.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let socket = Some(bus_core::Address::new(folder.path().join("bus.sock"))?);
    /// # let daemon = bus_daemon::Daemon::start(bus_daemon::Config { socket, ..Default::default() })?;
    /// let bus = bus_core::Bus::connect_to(daemon.address())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The served bus, for threads of this process: by memory, without a socket.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let socket = Some(bus_core::Address::new(folder.path().join("bus.sock"))?);
    /// # let daemon = bus_daemon::Daemon::start(bus_daemon::Config { socket, ..Default::default() })?;
    /// daemon.bus()?.sender::<u32>("numbers").open()?.send(7)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`] when the daemon has ended.
    pub fn bus(&self) -> Result<Bus, ConnectError> {
        Bus::builder().address(self.address.clone()).door(self.door.clone()).connect()
    }

    /// Ends in order: no new ends, receivers get a while to drain, then everybody is told.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let socket = Some(bus_core::Address::new(folder.path().join("bus.sock"))?);
    /// # let daemon = bus_daemon::Daemon::start(bus_daemon::Config { socket, ..Default::default() })?;
    /// daemon.shutdown()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What made the event loop stop.
    pub fn shutdown(mut self) -> io::Result<()> {
        self.stopper.stop();
        self.wait()
    }

    /// Waits until the daemon ends by itself.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let socket = Some(bus_core::Address::new(folder.path().join("bus.sock"))?);
    /// use bus_daemon::{Config, Daemon};
    ///
    /// // Nobody comes, so it ends.
    /// let daemon = Daemon::start(Config { socket, idle_exit_ms: Some(1), ..Config::default() })?;
    /// daemon.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What made the event loop stop.
    pub fn join(mut self) -> io::Result<()> {
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(io::Error::other("the daemon's thread has panicked")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stopper.stop();
        // Whoever wants the outcome calls `shutdown`.
        let _ = self.wait();
    }
}

/// The daemon has ended: the address is free.
fn give_up(claim: Claim, ended: io::Result<Left>) -> io::Result<()> {
    if ended? == Left::Nobody {
        claim.leave_nobody();
    }
    Ok(())
}

fn prepare(
    config: Config,
    signals: Signals,
    drain_ms_told: Option<u64>,
) -> Result<(Claim, EventLoop<ToldToEnd>, Links), StartError> {
    let (claim, listener) = Claim::take(&config)?;
    let connections_max = connections_max(&config);
    let mut broker = Broker::new(rules(&config, &claim, connections_max)?);
    for (name, options) in &config.channels {
        broker.declare(name.clone(), options.clone());
    }
    let options = LoopOptions {
        started_at_ns: broker.started_at_ns(),
        poll: Duration::from_micros(config.poll_us),
        idle_exit: config.idle_exit_ms.map(Duration::from_millis),
        drain: Duration::from_millis(config.drain_timeout_ms),
        connections_max: connections_max as usize,
    };
    let watchdog = drain_ms_told.and_then(|_| Watchdog::from_environment());
    let outside = ToldToEnd { signals, watchdog, drain_ms_told };
    let links = Links::new(claim.address().clone(), config.links_max, KeptLinks::new(config.file))?;
    let event_loop = EventLoop::new(Listener::new(listener), outside, broker, links.clone(), options)?;
    for spec in config.links {
        // The loop lets its end in as soon as it runs. One that fails is logged, and keeps nobody from the bus.
        links.start(spec, None);
    }
    Ok((claim, event_loop, links))
}

/// As many as are configured, if the system has descriptors for so many; where not, that is told with the remedy.
fn connections_max(config: &Config) -> u32 {
    let (wanted, fitting) = (config.connections_max, descriptors_for_connections());
    if fitting < wanted {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let text = format!(
            "the descriptor limit of {limit} leaves room for {fitting} connections, and connections_max is {wanted}: \
             raise the limit ({RAISE_DESCRIPTORS})"
        );
        if fitting < FEW_CONNECTIONS { tracing::warn!("{text}") } else { tracing::info!("{text}") }
    }
    wanted.min(fitting)
}

/// Fewer than these are soon in use.
const FEW_CONNECTIONS: u32 = 256;

/// What raises the descriptor limit.
pub(crate) const RAISE_DESCRIPTORS: &str = "ulimit -n, LimitNOFILE of a unit";

/// What the system lets this process open, without those that it needs for itself: an app that embeds
/// the daemon may need more, and a full descriptor table is met when it comes.
fn descriptors_for_connections() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let others = OWN_DESCRIPTORS + RESERVED_DESCRIPTORS as u64;
    u32::try_from(limit.saturating_sub(others).max(1)).unwrap_or(u32::MAX)
}

/// Descriptors of the daemon that are no connections, with some to spare: its sockets, files and pipes.
const OWN_DESCRIPTORS: u64 = 32;

fn rules(config: &Config, claim: &Claim, connections_max: u32) -> io::Result<Rules> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    let mut allowed_uids = vec![rustix::process::geteuid().as_raw()];
    allowed_uids.extend_from_slice(&config.allowed_uids);
    Ok(Rules {
        message_max_bytes: config.message_max_bytes,
        window_messages: config.window_messages,
        window_bytes: config.window_bytes,
        capacity_messages: config.capacity_messages,
        capacity_bytes: config.capacity_bytes,
        push_ahead_messages: config.push_ahead_messages,
        push_ahead_bytes: config.push_ahead_bytes,
        connections_max,
        user_connections_max: config.per_user.connections_max,
        user_channels_max: config.per_user.channels_max,
        user_bytes_max: config.per_user.queued_bytes_max,
        user_lanes_max: config.per_user.lanes_max,
        user_lane_bytes_max: config.per_user.lane_bytes_max,
        hello_timeout_ms: config.hello_timeout_ms,
        resume_grace_ms: config.resume_grace_ms,
        former_receivers_ms: if claim.follows_ends() { limits::FORMER_RECEIVERS_MS } else { 0 },
        departed_senders_max: config.departed_senders_max,
        departed_senders_ttl_ms: config.departed_senders_ttl_ms,
        lane_idle_ms: config.lane_idle_ms,
        started_at_ns: now_ns(),
        wall_clock_offset_ns: wall_clock_ns().wrapping_sub(now_ns()),
        allowed_uids,
        token_key: *claim.key().bytes(),
        seed: u64::from_le_bytes(seed),
        clock: clock(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    })
}

/// Nanoseconds since the Unix epoch.
fn wall_clock_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Signals, and systemd's watchdog.
struct ToldToEnd {
    signals: Signals,
    watchdog: Option<Watchdog>,
    drain_ms_told: Option<u64>,
}

impl Outside for ToldToEnd {
    fn fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    fn wants_end(&mut self) -> bool {
        let came = self.signals.drain();
        if let Some(drain_ms) = self.drain_ms_told.filter(|_| came) {
            notify_stopping(drain_ms);
        }
        came
    }

    fn alive_interval(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(Watchdog::interval)
    }

    fn alive(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.ping();
        }
    }
}

/// Why a daemon does not serve.
///
/// ```
/// use bus_daemon::{ClaimError, Config, Daemon, InvalidConfig, StartError};
///
/// let started = Daemon::start(Config { window_messages: 0, ..Config::default() });
/// let Err(StartError::Claim(ClaimError::Config(InvalidConfig::OutOfRange { key, .. }))) = started else { panic!() };
/// assert_eq!(key.to_string(), "window_messages");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address could not be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The operating system refused something, or the event loop failed.
    #[error("the daemon cannot serve: {0}")]
    Io(#[from] io::Error),
}
