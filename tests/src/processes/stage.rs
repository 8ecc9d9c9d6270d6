//! [`Stage`]: the processes of one campaign, and their deaths.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use bus_core::{Address, Bus, ChannelInfo};
use tempfile::TempDir;

use super::dice::Dice;
use super::journal::{Received, Sent, now_ns};
use super::verdict::{Broken, Figures, Record};
use super::{CHANNEL, NARROW};
use crate::{PATIENCE, Route};

/// A folder, and the processes that live in it. What still lives is killed when this is dropped.
#[derive(Debug)]
pub struct Stage {
    /// What decides who dies, and when.
    pub dice: Dice,
    /// Senders ask for lanes.
    lanes: bool,
    address: Address,
    daemon: Option<Process>,
    senders: Vec<Process>,
    /// The first is seated, or about to be; the others are in line.
    receivers: VecDeque<Process>,
    started: u64,
    record: Record,
    /// Last, so that the folder goes after the processes.
    folder: TempDir,
}

impl Stage {
    /// An empty stage with a daemon. Each daemon declares the two channels: senders of [`CHANNEL`] may
    /// have few parcels unacknowledged, so that they wait for room again and again.
    ///
    /// # Panics
    /// When there is no temporary folder.
    #[must_use]
    pub fn new(dice: Dice, route: Route) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::new(folder.path().join("bus.sock")).expect("a short path");
        let mut stage = Self {
            dice,
            lanes: route == Route::Lane,
            address,
            daemon: None,
            senders: Vec::new(),
            receivers: VecDeque::new(),
            started: 0,
            record: Record::default(),
            folder,
        };
        stage.start_daemon();
        stage
    }

    /// Starts a daemon at the address. Whoever needs it waits for it.
    pub fn start_daemon(&mut self) {
        self.start_daemon_with("");
    }

    /// As [`start_daemon`](Self::start_daemon), with more channels, as its config has them.
    ///
    /// # Panics
    /// When there is no room for the config.
    pub fn start_daemon_with(&mut self, channels: &str) {
        let ours = format!("[channels.{CHANNEL}]\nwindow = 256\n[channels.{NARROW}]\ncapacity = 2\n");
        self.start_daemon_by(&(ours + channels));
    }

    /// As [`start_daemon`](Self::start_daemon), with another config.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn start_daemon_by(&mut self, config: &str) {
        fs::write(self.path("busd.toml"), config).expect("a file");
        let log = File::options().append(true).create(true).open(self.path("busd.log")).expect("a log file");
        let mut command = Command::new(program("busd"));
        command.arg("--socket").arg(self.address.path()).arg("--config").arg(self.path("busd.toml"));
        // Should the test itself be killed, its daemon does not stay for ever.
        command.args(["--idle-exit", "2m"]).env_remove("BUS_LOG").stdout(Stdio::null()).stderr(log);
        self.daemon = Some(Process::start(0, command));
    }

    /// What the daemon holds: its descriptors, and its maps of memory files.
    ///
    /// # Panics
    /// When there is no daemon.
    #[must_use]
    pub fn daemon_holds(&self) -> (usize, usize) {
        let pid = self.daemon.as_ref().expect("a daemon").child.id();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        (descriptors, maps.lines().filter(|map| map.contains("memfd:")).count())
    }

    /// Kills the daemon.
    pub fn kill_daemon(&mut self) {
        drop(self.daemon.take());
        self.record.daemon_deaths_ns.push(now_ns());
    }

    /// Starts one more sender.
    pub fn add_sender(&mut self) {
        self.started += 1;
        let producer = self.started;
        let mut command = self.role("kill_sender", &sent_by(producer), producer);
        if self.lanes {
            command.arg("lane");
        }
        command.stdin(Stdio::piped());
        self.senders.push(Process::start(producer, command));
    }

    /// Kills one of the senders.
    pub fn kill_sender(&mut self) {
        let chosen = self.dice.roll(self.senders.len() as u64) as usize;
        let sender = self.senders.swap_remove(chosen);
        self.record.killed.push(sender.number);
    }

    /// Starts one more receiver; a standby waits in line.
    pub fn add_receiver(&mut self, standby: bool) {
        self.started += 1;
        let mut command = self.role("kill_receiver", "received", self.started);
        if standby {
            command.arg("standby");
        }
        self.receivers.push_back(Process::start(self.started, command));
    }

    /// Kills the receiver that was started first.
    pub fn kill_receiver(&mut self) {
        drop(self.receivers.pop_front());
        self.record.receivers_killed += 1;
    }

    fn role(&self, name: &str, journal: &str, number: u64) -> Command {
        let mut command = Command::new(program(name));
        let errors = File::create(self.path(&format!("{name}-{number}.log"))).expect("a log file");
        command.arg(self.address.path()).arg(self.path(journal)).arg(number.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
        command
    }

    /// Lets a random while pass, of less than `most`.
    pub fn pass_time(&mut self, most: Duration) {
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        thread::sleep(Duration::from_micros(self.dice.roll(most_us)));
    }

    /// Waits until something more has been received.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn wait_for_progress(&self) {
        let before = self.received_bytes();
        let deadline = Instant::now() + PATIENCE;
        while self.received_bytes() == before {
            if Instant::now() > deadline {
                self.fail("nothing is received any more");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn received_bytes(&self) -> u64 {
        fs::metadata(self.path("received")).map_or(0, |metadata| metadata.len())
    }

    /// Lets the senders end in order and the receivers take what is left, and compares.
    ///
    /// # Panics
    /// When a promise was not kept, with the seed.
    pub fn finish(mut self) -> Figures {
        for sender in &mut self.senders {
            drop(sender.child.stdin.take());
        }
        let deadline = Instant::now() + PATIENCE;
        let mut senders = std::mem::take(&mut self.senders);
        for sender in &mut senders {
            match sender.wait_until(deadline) {
                Some(true) => {}
                Some(false) => self.fail(&format!("sender {} failed", sender.number)),
                None => self.fail(&format!("sender {} does not end", sender.number)),
            }
        }
        let figures = self.wait_for_a_verdict();
        self.expect_nothing_left();
        figures
    }

    /// The books balance, and of lanes whose ends have left the daemon keeps nothing.
    fn expect_nothing_left(&mut self) {
        let bus = self.bus();
        let mut seen = String::new();
        let mut at_rest = |is_right: &mut dyn FnMut(&ChannelInfo) -> bool| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let info = bus.show(CHANNEL);
                if info.as_ref().is_ok_and(&mut *is_right) {
                    return true;
                }
                seen = format!("{info:?}");
                if Instant::now() > deadline {
                    return false;
                }
                thread::sleep(Duration::from_millis(1));
            }
        };
        let counted = at_rest(&mut |ChannelInfo { ledger, .. }| {
            ledger.balances() && ledger.queued == 0 && ledger.in_delivery == 0
        });
        let ended = |receiver: &mut Process| receiver.child.try_wait().expect("a child can be waited for");
        let receivers: Vec<_> = self.receivers.iter_mut().map(ended).collect();
        self.receivers.clear();
        let freed = counted && at_rest(&mut |info| info.receiver.is_none() && self.daemon_holds().1 == 0);
        if !freed {
            let holds = self.daemon_holds();
            self.fail(&format!(
                "something is left: {seen}; the daemon has descriptors and maps {holds:?}, the receivers had ended: {receivers:?}"
            ));
        }
    }

    fn wait_for_a_verdict(&mut self) -> Figures {
        for producer in 1..=self.started {
            let journal = self.path(&sent_by(producer));
            if journal.exists() {
                self.record.sent.insert(producer, Sent::read_all(&journal));
            }
        }
        let (mut came_at, mut received_bytes) = (Instant::now(), 0);
        loop {
            let bytes = self.received_bytes();
            if bytes > received_bytes {
                (came_at, received_bytes) = (Instant::now(), bytes);
            }
            self.record.received = Received::read_all(&self.path("received"));
            match self.record.check() {
                Ok(figures) => return figures,
                Err(Broken::Missing { .. }) if came_at.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(broken) => self.fail(&format!("{broken:?}")),
            }
        }
    }

    /// A client of the daemon, once it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn bus(&self) -> Bus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Bus::connect_to(&self.address) {
                Ok(bus) => return bus,
                Err(error) if Instant::now() > deadline => self.fail(&error.to_string()),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// The processes of the receivers, in the order of their start.
    #[must_use]
    pub fn receiver_pids(&self) -> Vec<u32> {
        self.receivers.iter().map(|receiver| receiver.child.id()).collect()
    }

    /// The processes of the senders.
    #[must_use]
    pub fn sender_pids(&self) -> Vec<u32> {
        self.senders.iter().map(|sender| sender.child.id()).collect()
    }

    /// What the receivers have written down, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        Received::read_all(&self.path("received"))
    }

    /// Waits until the receiver that was started first has ended, which it does only for an error. Returns what it said.
    ///
    /// # Panics
    /// When it does not end.
    pub fn receiver_fails(&mut self) -> String {
        let mut receiver = self.receivers.pop_front().expect("a receiver");
        let ended = receiver.wait_until(Instant::now() + PATIENCE);
        let said = fs::read_to_string(self.path(&format!("kill_receiver-{}.log", receiver.number))).unwrap_or_default();
        assert_eq!(ended, Some(false), "the receiver does not end with an error: {said}");
        said
    }

    /// Ends the test; the journals stay where they are, for whoever wants to know why.
    fn fail(&self, complaint: &str) -> ! {
        let kept = env::temp_dir().join(format!("bus-kill-{}", self.dice.seed()));
        // A copy, because the folder itself goes in any case.
        let copied = copy_files(self.folder.path(), &kept);
        let seed = self.dice.seed();
        let log = fs::read_to_string(self.path("busd.log")).unwrap_or_default();
        panic!("{complaint}\nseed {seed} (BUS_KILL_SEED); journals in {} ({copied:?})\n{log}", kept.display());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn sent_by(producer: u64) -> String {
    format!("sent-{producer}")
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A process that is killed, as by `kill -9`, when this is dropped.
#[derive(Debug)]
struct Process {
    number: u64,
    child: Child,
}

impl Process {
    fn start(number: u64, mut command: Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { number, child }
    }

    /// Whether it ended well, or `None` when it did not end.
    fn wait_until(&mut self, deadline: Instant) -> Option<bool> {
        loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => return Some(status.success()),
                None if Instant::now() > deadline => return None,
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended already, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of this workspace, beside the test's own; the daemon is built when it is not there.
fn program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test is a program");
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).expect("the test is in a target folder");
    let program = profile.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    if name == "busd" && !program.exists() {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--package", "bus-daemon"]);
        if profile.ends_with("release") {
            command.arg("--release");
        }
        let status = command.status().expect("cargo runs");
        assert!(status.success(), "busd does not build");
    }
    program
}
