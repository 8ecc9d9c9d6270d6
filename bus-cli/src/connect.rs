//! How the verbs find the bus, and start a daemon for this user where none answers.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bus_core::{Address, Autostart, Bus, BusBuilder, ChannelInfo, ConnectError, SOCKET_VARIABLE};

use crate::args::GlobalArgs;
use crate::exit::{Exit, Failure};
use crate::stdio;

/// What every verb needs to know besides its own arguments.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Named by `--socket` or `BUS_SOCKET`: whoever names a bus has a daemon of his own.
    socket: Option<PathBuf>,
    autostart: bool,
    quiet: bool,
    /// How `bus show` names the ends of this process.
    endpoint_name: String,
}

impl Surroundings {
    pub(crate) fn new(global: &GlobalArgs, verb: &str) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let socket = global.socket.clone().or_else(|| variable(SOCKET_VARIABLE).map(PathBuf::from));
        let forbidden = variable(AUTOSTART_VARIABLE).is_some_and(|value| value == "0");
        let autostart = !(global.no_autostart || forbidden);
        Self { socket, autostart, quiet: global.quiet, endpoint_name: format!("bus {verb}") }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Tells the user something that is no error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            stdio::tell(text);
        }
    }

    /// Connects to the bus.
    pub(crate) fn connect(&self) -> Result<Bus, Failure> {
        self.connect_within(None)
    }

    /// Connects to the bus, within the time of `--timeout` where that was given.
    pub(crate) fn connect_within(&self, timeout: Option<Duration>) -> Result<Bus, Failure> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let address = match &self.socket {
            Some(path) => Address::new(path)?,
            None => Address::of_user()?,
        };
        match self.builder(address.clone(), deadline).connect() {
            Err(ConnectError::Unreachable { source, .. }) if self.may_start(&source) => {
                let starting = self.builder(address.clone(), deadline).autostart(self.daemon(&address)?);
                starting.connect()
            }
            connected => connected,
        }
        .map_err(|error| Failure::not_connected(error, timeout))
    }

    /// What the daemon says of a channel, if it says so at once: for the text of an error.
    pub(crate) fn ask_about(&self, channel: &str) -> Option<ChannelInfo> {
        let address = match &self.socket {
            Some(path) => Address::new(path).ok()?,
            None => Address::of_user().ok()?,
        };
        let bus = self.builder(address, Some(Instant::now() + ASKING_PATIENCE)).connect().ok()?;
        bus.show(channel).ok()
    }

    fn builder(&self, address: Address, deadline: Option<Instant>) -> BusBuilder {
        let builder = Bus::builder().address(address).name(&self.endpoint_name);
        match deadline {
            Some(deadline) => builder.connect_timeout(deadline.saturating_duration_since(Instant::now())),
            None => builder,
        }
    }

    /// A daemon is started only for the user's own bus, and only where nobody listens.
    fn may_start(&self, unreachable: &io::Error) -> bool {
        let nobody = matches!(unreachable.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        self.autostart && self.socket.is_none() && nobody
    }

    /// How a daemon is started; the user is told.
    fn daemon(&self, address: &Address) -> Result<Autostart, Failure> {
        self.note(format_args!("no daemon at {address}: starting one that ends after {IDLE_EXIT} without work"));
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(Exit::Unreachable, format!("no daemon at {address}, and none can be started: {error}"))
        })?;
        let arguments = ["daemon", "--detached", "--idle-exit", IDLE_EXIT].map(OsString::from).to_vec();
        Ok(Autostart::Daemon { program, arguments })
    }
}

/// Turns the automatic start off when it is 0.
const AUTOSTART_VARIABLE: &str = "BUS_AUTOSTART";

/// How long the text of an error waits for the daemon to say more.
const ASKING_PATIENCE: Duration = Duration::from_millis(300);

/// How long a daemon that was started by a verb stays without work.
const IDLE_EXIT: &str = "10m";
