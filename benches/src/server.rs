//! What stands between the ends: a relay or a daemon, each in a fresh folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bus_core::{Address, Bus};
use rustix::process::Pid;
use tempfile::TempDir;

use crate::child::Player;
use crate::ends::{Route, Waits};
use crate::role::Role;
use crate::traffic::Place;

/// How long one that polls does so after traffic, in microseconds.
const POLL_US: u64 = 50;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A relay that sleeps as soon as nothing is there.
    SleepingRelay,
    /// A relay that polls for a while first.
    PollingRelay,
    /// A daemon that sleeps as soon as nothing is there.
    SleepingDaemon,
    /// A daemon that polls for a while first.
    PollingDaemon,
    /// A daemon that nobody has configured.
    Daemon,
    /// The same, with senders that ask for lanes.
    DaemonWithLanes(Waits),
}

/// One that runs; dropping it ends it.
pub(crate) struct Server {
    kind: Kind,
    player: Player,
    socket: PathBuf,
    _folder: TempDir,
}

impl Server {
    /// Starts one and waits until it answers.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("bus.sock");
        let player = match kind {
            Kind::SleepingRelay => Player::start(&Role::Relay { socket: socket.clone(), poll_us: 0 })?,
            Kind::PollingRelay => Player::start(&Role::Relay { socket: socket.clone(), poll_us: POLL_US })?,
            Kind::SleepingDaemon => start_daemon(&socket, Some(0))?,
            Kind::PollingDaemon => start_daemon(&socket, Some(POLL_US))?,
            Kind::Daemon | Kind::DaemonWithLanes(_) => start_daemon(&socket, None)?,
        };
        Ok(Self { kind, player, socket, _folder: folder })
    }

    /// Where the ends of its channels attach.
    pub(crate) fn place(&self) -> Place {
        let route = match self.kind {
            Kind::SleepingRelay | Kind::PollingRelay => Route::Relay,
            Kind::SleepingDaemon | Kind::PollingDaemon | Kind::Daemon => Route::Bus,
            Kind::DaemonWithLanes(waits) => Route::Lane(waits),
        };
        Place { route, socket: self.socket.clone() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.player.pid()
    }

    /// The thread through which all messages go.
    pub(crate) fn main_thread(&self) -> Pid {
        self.player.main_thread()
    }
}

fn start_daemon(socket: &Path, poll_us: Option<u64>) -> Result<Player> {
    let mut command = Command::new(program("busd")?);
    command.arg("--log").arg("warn").arg("--socket").arg(socket).stdin(Stdio::null());
    if let Some(poll_us) = poll_us {
        command.arg("--poll-us").arg(poll_us.to_string());
    }
    let player = Player::spawn("busd", command)?;
    let address = Address::new(socket)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = Bus::connect_to(&address) {
        ensure!(Instant::now() < deadline, "busd does not answer: {error}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(player)
}

/// A program of this workspace, found beside the bench.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let folder = bench.parent().and_then(Path::parent).context("the bench lies in no target folder")?;
    let program = folder.join(name);
    ensure!(program.exists(), "{} is missing: run cargo build --release", program.display());
    Ok(program)
}

/// Brings the programs up to date when cargo runs the bench, as it does for the bench itself.
pub(crate) fn build_programs() -> Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let packages = ["--package", "bus-daemon", "--package", "bus-cli"];
    let status = Command::new(cargo).args(["build", "--release", "--quiet", "--bins"]).args(packages).status()?;
    ensure!(status.success(), "busd and bus were not built: {status}");
    Ok(())
}
