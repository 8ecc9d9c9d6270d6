//! [`LinkSpec`]: a gateway to be made, and [`LinkInfo`]: one that is there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::framing::Framing;
use crate::name::ChannelName;

/// The pipe at the other side of a gateway.
///
/// ```
/// use bus_core::Pipe;
///
/// let pipe = Pipe::FromFifo("/run/jobs.fifo".to_owned());
/// assert_eq!(pipe.to_string(), "from-fifo /run/jobs.fifo");
/// assert!(pipe.is_source());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pipe {
    /// What is written to the FIFO at this path, from `/`, becomes messages.
    FromFifo(String),
    /// Messages can be read from the FIFO at this path, from `/`.
    ToFifo(String),
    /// What this command, run by `sh -c`, writes to its output becomes messages.
    FromCommand(String),
    /// Messages are the input of this command, run by `sh -c`.
    ToCommand(String),
}

impl Pipe {
    /// Whether messages come from it; else they go to it.
    ///
    /// ```
    /// # use bus_core::Pipe;
    /// assert!(!Pipe::ToCommand("sort".to_owned()).is_source());
    /// ```
    #[must_use]
    pub fn is_source(&self) -> bool {
        matches!(self, Self::FromFifo(_) | Self::FromCommand(_))
    }

    /// The option of `bus link`, without its dashes.
    ///
    /// ```
    /// # use bus_core::Pipe;
    /// assert_eq!(Pipe::ToCommand("sort".to_owned()).kind(), "to-command");
    /// ```
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FromFifo(_) => "from-fifo",
            Self::ToFifo(_) => "to-fifo",
            Self::FromCommand(_) => "from-command",
            Self::ToCommand(_) => "to-command",
        }
    }

    /// The path or the command.
    ///
    /// ```
    /// # use bus_core::Pipe;
    /// assert_eq!(Pipe::ToCommand("sort".to_owned()).target(), "sort");
    /// ```
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::FromFifo(target) | Self::ToFifo(target) | Self::FromCommand(target) | Self::ToCommand(target) => {
                target
            }
        }
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.target())
    }
}

/// Whether a command is run again when it has ended.
///
/// ```
/// assert_eq!(bus_core::Restart::default(), bus_core::Restart::OnFailure);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is not.
    Never,
    /// Unless it ended with 0.
    #[default]
    OnFailure,
    /// However it ended.
    Always,
}

/// A gateway to be made.
///
/// ```
/// use bus_core::framing::Framing;
/// use bus_core::{ChannelName, LinkSpec, Pipe};
///
/// let mut spec = LinkSpec::new(ChannelName::new("jobs")?, Pipe::ToCommand("gzip > jobs.gz".to_owned()));
/// spec.framing = Framing::null();
/// # Ok::<(), bus_core::ChannelNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkSpec {
    /// The channel.
    pub channel: ChannelName,
    /// The other side.
    pub pipe: Pipe,
    /// How messages stand in the pipe.
    pub framing: Framing,
    /// Whether a command is run again.
    pub restart: Restart,
    /// How often in a row.
    pub restart_limit: u32,
    /// A worker acknowledges each message by a line on its output.
    pub ack_lines: bool,
    /// It stands in the config file of the daemon, or is to be written there, and comes back with the daemon.
    pub keep: bool,
}

impl LinkSpec {
    /// A gateway with the usual options.
    ///
    /// ```
    /// # use bus_core::{ChannelName, LinkSpec, Pipe, Restart};
    /// let spec = LinkSpec::new(ChannelName::new("jobs")?, Pipe::FromCommand("tail -f jobs.log".to_owned()));
    /// assert_eq!((spec.restart, spec.restart_limit), (Restart::OnFailure, 10));
    /// # Ok::<(), bus_core::ChannelNameError>(())
    /// ```
    #[must_use]
    pub fn new(channel: ChannelName, pipe: Pipe) -> Self {
        let restart_limit = crate::limits::LINK_RESTARTS;
        Self {
            channel,
            pipe,
            framing: Framing::lines(),
            restart: Restart::default(),
            restart_limit,
            ack_lines: false,
            keep: false,
        }
    }
}

/// Which gateways are to be ended.
///
/// ```no_run
/// use bus_core::{Bus, ChannelName, Unlink};
///
/// let all = Unlink::Channel { channel: ChannelName::new("jobs")?, pipe: None };
/// println!("{} ended", Bus::connect()?.unlink(all)?.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unlink {
    /// This one.
    Id(u64),
    /// All of a channel, or those of one pipe.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// The other side, as it was linked.
        pipe: Option<Pipe>,
    },
}

/// What a gateway is doing.
///
/// ```
/// assert_eq!(bus_core::LinkState::WaitingForReader.name(), "waiting for reader");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It is being made.
    Starting,
    /// It is at work.
    Running,
    /// Nobody has opened the FIFO to read.
    WaitingForReader,
    /// The command has ended, and is run again after a pause.
    Restarting,
    /// It is being ended.
    Ending,
    /// It has ended by itself: see [`LinkInfo::note`].
    Ended,
}

impl LinkState {
    /// For people.
    ///
    /// ```
    /// assert_eq!(bus_core::LinkState::Running.name(), "running");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::WaitingForReader => "waiting for reader",
            Self::Restarting => "restarting",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

/// A gateway that is there.
///
/// ```no_run
/// for link in bus_core::Bus::connect()?.links()? {
///     println!("{} {}: {} messages, {} refused", link.id, link.state.name(), link.messages, link.refused);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkInfo {
    /// Its number, for `bus unlink`.
    pub id: u64,
    /// What was ordered.
    pub spec: LinkSpec,
    /// What it is doing.
    pub state: LinkState,
    /// The process of its command.
    pub pid: Option<u32>,
    /// How often its command was run again.
    pub restarts: u32,
    /// How its command ended last, such as `exit status 1` or `signal 9`.
    pub last_exit: Option<String>,
    /// Messages that went through.
    pub messages: u64,
    /// Messages that did not become any, because they are over the limit, torn, or over the channel's
    /// capacity where that rejects.
    pub refused: u64,
    /// What happened to it last, for people.
    pub note: String,
}

impl LinkInfo {
    /// One that has just been ordered.
    ///
    /// ```
    /// # use bus_core::{ChannelName, LinkInfo, LinkSpec, LinkState, Pipe};
    /// let spec = LinkSpec::new(ChannelName::new("jobs")?, Pipe::ToFifo("/run/jobs.fifo".to_owned()));
    /// assert_eq!(LinkInfo::new(1, spec).state, LinkState::Starting);
    /// # Ok::<(), bus_core::ChannelNameError>(())
    /// ```
    #[must_use]
    pub fn new(id: u64, spec: LinkSpec) -> Self {
        Self {
            id,
            spec,
            state: LinkState::Starting,
            pid: None,
            restarts: 0,
            last_exit: None,
            messages: 0,
            refused: 0,
            note: String::new(),
        }
    }
}
