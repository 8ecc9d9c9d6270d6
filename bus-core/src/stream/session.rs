//! From nothing to `Welcome`: connecting, introducing an endpoint, and starting a daemon on request.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::inbox::{Fill, Inbox};
use crate::address::Address;
use crate::error::{ConnectError, OpenError};
use crate::lane::forked::Origin;
use crate::lane::stamp::clock;
use crate::limits::{HELLO_TIMEOUT_MS, MESSAGE_MAX_BYTES, REPLY_MAX_BYTES};
use crate::name::ChannelName;
use crate::transport::{ClientEnd, Connection, Interest};
use crate::wire::{FrameLimits, Hello, Kind, LaneWish, Refused, RefusedCode, Role, Welcome, put_control, read_control};

/// Whether to start a daemon where none answers.
///
/// ```
/// use bus_core::Autostart;
///
/// let autostart = Autostart::Daemon { program: "busd".into(), arguments: vec!["--idle-exit".into(), "10m".into()] };
/// # let _ = (autostart, Autostart::Never);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Autostart {
    /// Do not.
    #[default]
    Never,
    /// Run `program` with `arguments` in the background, with `BUS_SOCKET` set to the address, and
    /// wait until it answers.
    Daemon {
        /// What to run, such as `busd`.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) name: String,
    pub(crate) autostart: Autostart,
    /// The way to a daemon in this process.
    pub(crate) door: Option<Door>,
    /// What its senders wish, where they do not say otherwise.
    pub(crate) lane: LaneWish,
    /// How long its user waits for a connection, a daemon's start included.
    pub(crate) connect_timeout: Option<Duration>,
}

/// Opens connections to a daemon in this process.
#[derive(Clone)]
pub struct Door {
    open: Arc<dyn Fn() -> io::Result<ClientEnd> + Send + Sync>,
    /// Where the daemon is.
    origin: Origin,
}

impl Door {
    /// A door that `open` opens.
    pub fn new(open: impl Fn() -> io::Result<ClientEnd> + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), origin: Origin::here() }
    }

    fn open(&self) -> io::Result<ClientEnd> {
        if !self.origin.is_here() {
            let text = "its daemon is in the process that this one was forked from: connect by the socket";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        }
        (self.open)()
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// A connection whose hello was answered. The inbox may hold what came right after.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(super) inbox: Inbox,
    pub(crate) welcome: Welcome,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum DialError {
    Unreachable(io::Error),
    Refused(Refused),
    Protocol(String),
}

impl Dialer {
    /// Whether a sender may have a lane. One in the daemon's own process stays where it is: memory is as fast.
    pub(crate) fn may_have_lanes(&self) -> bool {
        self.door.is_none()
    }

    /// Connects and introduces the endpoint.
    pub(crate) fn dial(&self, role: &Role) -> Result<Session, DialError> {
        self.dial_within(role, HELLO_PATIENCE)
    }

    fn dial_within(&self, role: &Role, patience: Duration) -> Result<Session, DialError> {
        let connection = match &self.door {
            Some(door) => door.open().map(Connection::Memory),
            None => Connection::open(self.address.path(), patience),
        };
        let connection = connection.map_err(DialError::Unreachable)?;
        let deadline = Instant::now() + patience;
        let hello = Hello { name: self.name.clone(), pid: std::process::id(), role: role.clone(), clock: clock() };
        let mut bytes = Vec::new();
        put_control(Kind::Hello, &hello, &mut bytes);
        match connection.send_all(&bytes, deadline) {
            // A daemon that refuses at once may have closed before it read; its reason can be read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(DialError::Unreachable(error)),
            Ok(()) | Err(_) => {}
        }
        let limits = FrameLimits { message_max_bytes: MESSAGE_MAX_BYTES, control_max_bytes: REPLY_MAX_BYTES };
        let mut inbox = Inbox::with_read_bytes(limits, super::inbox::CONTROL_READ_BYTES);
        let welcome = await_welcome(&connection, &mut inbox, deadline, patience)?;
        Ok(Session { connection, inbox, welcome })
    }

    /// Connects an end of `channel`; starts a daemon first where none answers and that is wished.
    pub(crate) fn dial_end(&self, role: &Role, channel: &ChannelName) -> Result<Session, OpenError> {
        match self.dial_within(role, self.patience()) {
            Ok(session) => Ok(session),
            Err(DialError::Refused(refused)) => {
                Err(OpenError::from_refusal(&self.address, channel, refused.code, refused.text))
            }
            Err(error) => Ok(self.start_after(error, role)?),
        }
    }

    /// As [`dial`](Self::dial), and starts the daemon if nobody answers.
    pub(crate) fn dial_or_start(&self, role: &Role) -> Result<Session, ConnectError> {
        self.dial_within(role, self.patience()).or_else(|error| self.start_after(error, role))
    }

    /// Starts the daemon, if nobody is there who could answer.
    fn start_after(&self, error: DialError, role: &Role) -> Result<Session, ConnectError> {
        match (error, &self.autostart) {
            (DialError::Unreachable(error), Autostart::Daemon { program, arguments }) if nobody_listens(&error) => {
                self.start_daemon(program, arguments, role)
            }
            (error, _) => Err(self.connect_error(error)),
        }
    }

    /// How long the user of this dialer waits for an answer.
    fn patience(&self) -> Duration {
        self.connect_timeout.unwrap_or(HELLO_PATIENCE)
    }

    /// Runs the daemon, and waits until one answers: this one, or that of somebody who was faster.
    fn start_daemon(&self, program: &Path, arguments: &[OsString], role: &Role) -> Result<Session, ConnectError> {
        let mut command = Command::new(program);
        command.args(arguments).env(crate::address::SOCKET_VARIABLE, self.address.path());
        // What it says before it serves is the reason when it does not.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Of its own process group: a Ctrl-C in the shell is not meant for it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let failed = |source| ConnectError::Autostart { program: program.to_owned(), source };
        let mut child = command.spawn().map_err(failed)?;
        let session = self.dial_while_starting(role, &mut child, failed);
        child.stderr = None;
        // Waited for, so that it leaves no zombie in a program that outlives it.
        std::thread::Builder::new().name("bus-autostart".into()).spawn(move || child.wait()).map_err(failed)?;
        session
    }

    fn dial_while_starting(
        &self,
        role: &Role,
        child: &mut Child,
        failed: impl Fn(io::Error) -> ConnectError,
    ) -> Result<Session, ConnectError> {
        let patience = self.connect_timeout.unwrap_or(START_PATIENCE);
        let begun = Instant::now();
        // An attempt that comes too late is made all the same: the daemon may be there.
        let rest = || patience.saturating_sub(begun.elapsed()).clamp(ATTEMPT_PATIENCE, HELLO_PATIENCE);
        let mut deadline = begun + patience;
        let mut ended = None;
        let mut backoff = Backoff::default();
        loop {
            match (self.dial_within(role, rest()), ended.take()) {
                (Ok(session), _) => return Ok(session),
                (Err(DialError::Unreachable(error)), reason) if nobody_listens(&error) => {
                    let late = Instant::now() >= deadline;
                    match reason {
                        Some(reason) if late => return Err(failed(io::Error::other(reason))),
                        None if late => {
                            let text = format!("the daemon that was started did not serve within {}", shown(patience));
                            let late = io::Error::new(io::ErrorKind::TimedOut, text);
                            return Err(self.connect_error(DialError::Unreachable(late)));
                        }
                        Some(_) => ended = reason,
                        None => {
                            if let Some(status) = child.try_wait().map_err(&failed)? {
                                // It may have found another that is about to serve.
                                deadline = deadline.min(Instant::now() + OTHER_STARTER_PATIENCE);
                                ended = Some(reason_of_end(child, status));
                            }
                        }
                    }
                    std::thread::sleep(backoff.next_delay().min(rest()));
                }
                (Err(error), _) => return Err(self.connect_error(error)),
            }
        }
    }

    /// What a failure to connect means to the caller.
    pub(crate) fn connect_error(&self, error: DialError) -> ConnectError {
        let address = self.address.clone();
        match error {
            DialError::Unreachable(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!("{source}: only the user that runs the daemon may connect");
                ConnectError::Denied { address, text }
            }
            DialError::Unreachable(source) => ConnectError::Unreachable { address, source },
            DialError::Protocol(text) => ConnectError::Protocol { address, text },
            DialError::Refused(Refused { code: RefusedCode::Denied, text }) => ConnectError::Denied { address, text },
            DialError::Refused(Refused { code: RefusedCode::Version, text }) => {
                ConnectError::Protocol { address, text }
            }
            DialError::Refused(Refused { text, .. }) => ConnectError::Refused { address, text },
        }
    }
}

/// Whether another attempt would be refused as well.
pub(super) fn is_final(code: RefusedCode) -> bool {
    match code {
        RefusedCode::ShuttingDown | RefusedCode::Limit | RefusedCode::LaneUnknown => false,
        RefusedCode::Version
        | RefusedCode::Protocol
        | RefusedCode::Denied
        | RefusedCode::ReceiverTaken
        | RefusedCode::TypeMismatch
        | RefusedCode::NoSuchChannel
        | RefusedCode::Exists => true,
    }
}

/// The last line that a daemon said before it ended.
fn reason_of_end(child: &mut Child, status: ExitStatus) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        // What cannot be read leaves the status.
        let _ = stderr.take(SAID_MAX_BYTES).read_to_end(&mut said);
    }
    match String::from_utf8_lossy(&said).lines().rfind(|line| !line.is_empty()) {
        Some(line) => line.to_owned(),
        None => format!("it ended at once with {status}"),
    }
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn await_welcome(
    connection: &Connection,
    inbox: &mut Inbox,
    deadline: Instant,
    patience: Duration,
) -> Result<Welcome, DialError> {
    loop {
        if let Some(frame) = inbox.front().map_err(|error| DialError::Protocol(error.to_string()))? {
            let body = &inbox.front_bytes()[crate::wire::HEADER_BYTES..];
            let protocol = |error: crate::wire::ControlError| DialError::Protocol(error.to_string());
            let answer = match frame.kind {
                Kind::Welcome => Ok(read_control::<Welcome>(Kind::Welcome, body).map_err(protocol)?),
                Kind::Refused => Err(DialError::Refused(read_control(Kind::Refused, body).map_err(protocol)?)),
                Kind::Closing => Err(DialError::Unreachable(io::ErrorKind::ConnectionRefused.into())),
                kind => Err(DialError::Protocol(format!("a {kind:?} frame came in place of a welcome"))),
            };
            inbox.pop_front();
            return answer;
        }
        if connection.wait(Interest::Readable, Some(deadline)).map_err(DialError::Unreachable)?.is_none() {
            let text = format!("no answer to the hello within {}", shown(patience));
            return Err(DialError::Unreachable(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        match inbox.fill(connection).map_err(DialError::Unreachable)? {
            Fill::Bytes | Fill::Nothing => {}
            Fill::Closed => {
                return Err(DialError::Unreachable(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    "the daemon closed the connection before it answered",
                )));
            }
        }
    }
}

/// Growing pauses between attempts to reconnect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// 2 ms at first, doubled up to 256 ms: a daemon that restarts is found at once, and one that
    /// stays away costs next to nothing.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = Duration::from_millis(2 << self.attempts.min(7));
        self.attempts += 1;
        delay
    }
}

/// A time span, in milliseconds.
fn shown(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}

/// How long a daemon may take to answer, where its user does not say.
const HELLO_PATIENCE: Duration = Duration::from_millis(HELLO_TIMEOUT_MS);

/// How long the last attempt at a daemon that was started may take.
const ATTEMPT_PATIENCE: Duration = Duration::from_millis(1);

/// How long a started daemon may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long the daemon of another starter may take, once ours has ended, to bind its socket.
const OTHER_STARTER_PATIENCE: Duration = Duration::from_secs(1);

/// How much of what a failed daemon said is read.
const SAID_MAX_BYTES: u64 = 64 * 1024;

/// Locks, also after a panic of another holder: the states of endpoints are consistent between
/// statements, because user code never runs under their locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn wall_clock_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    // Before 1970 there is no bus.
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// A session that asks questions.
pub(crate) struct Asking {
    connection: Connection,
    inbox: Inbox,
}

impl Asking {
    pub(crate) fn new(session: Session) -> Self {
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: REPLY_MAX_BYTES };
        let mut inbox = Inbox::with_read_bytes(limits, 64 * 1024);
        inbox.take_over(session.inbox);
        Self { connection: session.connection, inbox }
    }

    /// Sends a request and waits for the body of its reply; `before` sees the frames that come first.
    pub(crate) fn ask(
        &mut self,
        request: &crate::wire::Request,
        deadline: Instant,
        mut before: impl FnMut(Kind, &[u8]),
    ) -> Result<Vec<u8>, DialError> {
        let mut bytes = Vec::new();
        put_control(Kind::Request, request, &mut bytes);
        self.connection.send_all(&bytes, deadline).map_err(DialError::Unreachable)?;
        loop {
            if let Some(frame) = self.inbox.front().map_err(|error| DialError::Protocol(error.to_string()))? {
                if frame.kind == Kind::Reply {
                    return Ok(self.inbox.front_bytes()[crate::wire::HEADER_BYTES..].to_vec());
                }
                before(frame.kind, self.inbox.front_bytes());
                self.inbox.pop_front();
                continue;
            }
            if self.connection.wait(Interest::Readable, Some(deadline)).map_err(DialError::Unreachable)?.is_none() {
                let text = format!("no answer within {HELLO_TIMEOUT_MS} ms");
                return Err(DialError::Unreachable(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            if self.inbox.fill(&self.connection).map_err(DialError::Unreachable)? == Fill::Closed {
                return Err(DialError::Unreachable(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }
}
