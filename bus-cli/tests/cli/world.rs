//! What the tests need: a daemon in a folder of its own, and `bus` run against it. Nothing here
//! waits for time to pass; whoever waits, waits for an event, with a bound.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bus_core::{Address, Peers, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// How long anything may take that is to happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `bus`, away from the bus of whoever runs the tests.
pub(crate) fn bus_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bus"));
    for variable in ["BUS_SOCKET", "BUS_LOG", "XDG_RUNTIME_DIR"] {
        command.env_remove(variable);
    }
    command.env("BUS_AUTOSTART", "0");
    command
}

/// A daemon of its own. Ends with the test.
pub(crate) struct World {
    folder: TempDir,
    daemon: Child,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let daemon = serve(&folder.path().join("s"));
        Self { folder, daemon }
    }

    /// Kills the daemon, and starts another in its place.
    pub(crate) fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = serve(&self.socket());
    }

    /// Gives the daemon a signal: one that is stopped answers nobody until it goes on.
    pub(crate) fn signal_daemon(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.daemon), signal).unwrap();
    }

    /// A path in a folder that goes with the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// `bus` with these arguments, at this daemon.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = bus_command();
        command.arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    /// Runs `bus` to its end, without input.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome {
        run(&mut self.command(arguments), b"")
    }

    /// Runs `bus` to its end, with this input.
    pub(crate) fn run_with<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Outcome {
        run(&mut self.command(arguments), input)
    }

    /// Runs `bus`, which must end with 0 and without a word on stderr, and gives its output.
    pub(crate) fn output<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let outcome = self.run(arguments);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
        String::from_utf8(outcome.stdout).unwrap()
    }

    /// Publishes these, one message each.
    pub(crate) fn publish(&self, channel: &str, messages: &[&str]) {
        assert_eq!(self.output(&[&["publish", channel], messages].concat()), "");
    }

    /// Publishes the numbers from 1 to `last`, one message each.
    pub(crate) fn publish_numbers(&self, channel: &str, last: u32) {
        let lines: String = (1..=last).map(|number| format!("{number}\n")).collect();
        self.run_with(&["publish", channel], lines.as_bytes()).is(0, "", "");
    }

    /// What a channel holds, as lines; it is empty then.
    pub(crate) fn drain(&self, channel: &str) -> String {
        self.output(&["consume", channel, "--until-empty"])
    }

    /// Starts `bus`, and does not wait for its end.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// The library, connected to the same daemon.
    pub(crate) fn bus(&self) -> bus_core::Bus {
        bus_core::Bus::connect_to(&Address::new(self.socket()).unwrap()).unwrap()
    }

    /// Waits until so many messages have come into the channel.
    pub(crate) fn await_accepted(&self, channel: &str, messages: u64) {
        let bus = self.bus();
        let deadline = Instant::now() + PATIENCE;
        while bus.show(channel).map_or(0, |info| info.ledger.accepted) < messages {
            assert!(Instant::now() < deadline, "fewer than {messages} messages come into {channel}");
            std::thread::yield_now();
        }
    }

    /// Waits until the channel has these ends, this very call's own sender not counted.
    pub(crate) fn await_peers(&self, channel: &str, senders: u32, receivers: u32) {
        let watcher: Sender<Vec<u8>> = self.bus().raw_sender(channel).open().unwrap();
        let wanted = Peers::new(senders + 1, receivers);
        let deadline = Instant::now() + PATIENCE;
        let mut peers = watcher.peers().unwrap();
        while peers != wanted {
            peers = watcher.peers_changed(peers, Some(deadline)).unwrap_or_else(|error| panic!("{error}: {peers:?}"));
        }
    }
}

/// Starts a daemon, and waits until it serves.
fn serve(socket: &Path) -> Child {
    let mut command = bus_command();
    command.arg("daemon").arg("--socket").arg(socket).args(["--log", "info"]);
    let mut daemon = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("serving") {
        assert!(log.read_line(&mut said).unwrap() > 0, "the daemon ended at once: {said}");
    }
    // Read on, or the daemon would wait for room in the pipe.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    daemon
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Outcome {
    let mut running = Running::start(command);
    let mut stdin = running.input();
    let input = input.to_vec();
    // Beside reading, because neither side may wait for the other. Who does not read, need not.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let outcome = running.end();
    writer.join().unwrap();
    outcome
}

/// A `bus` at work. Ends with the test.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        let stdout = child.stdout.take().map(BufReader::new);
        Self { stdin: child.stdin.take(), child, stdout, stderr: Some(stderr) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output, without the newline.
    pub(crate) fn line(&mut self) -> String {
        let Self { child, stdout, .. } = self;
        let stdout = stdout.as_mut().unwrap();
        let mut line = Vec::new();
        loop {
            if stdout.buffer().is_empty() {
                assert!(is_readable(stdout.get_ref()), "no line within {PATIENCE:?}: {:?}", child.try_wait());
            }
            let here = stdout.fill_buf().unwrap();
            assert!(!here.is_empty(), "no line comes any more: {:?}", child.try_wait());
            let (taken, whole) =
                here.iter().position(|byte| *byte == b'\n').map_or((here.len(), false), |at| (at, true));
            line.extend_from_slice(&here[..taken]);
            stdout.consume(taken + usize::from(whole));
            if whole {
                return String::from_utf8(line).unwrap();
            }
        }
    }

    /// Gives it input.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Its input, for another thread to write to.
    pub(crate) fn input(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads no more of its output, and waits for its end.
    pub(crate) fn close_output(mut self) -> Outcome {
        self.stdout = None;
        self.end()
    }

    /// Waits for its end, and reads its output only then.
    pub(crate) fn end_unread(self) -> Outcome {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        assert!(is_readable(&pidfd), "bus did not end within {PATIENCE:?}");
        self.end()
    }

    /// Waits for its end. Its input stays open until then.
    pub(crate) fn end(mut self) -> Outcome {
        let stdout = self.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).unwrap();
                bytes
            })
        });
        let status = wait(&mut self.child);
        let code = status.code().unwrap_or_else(|| 1000 + status.signal().unwrap());
        let stdout = stdout.map_or(Vec::new(), |reader| reader.join().unwrap());
        Outcome { code, stdout, stderr: self.stderr.take().unwrap().join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing for a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a child, but not forever.
fn wait(child: &mut Child) -> ExitStatus {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    if !is_readable(&pidfd) {
        child.kill().unwrap();
        panic!("bus did not end within {PATIENCE:?}");
    }
    child.wait().unwrap()
}

/// Waits until there is something to read, or an end, but not forever.
pub(crate) fn is_readable(descriptor: impl AsFd) -> bool {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&patience)).unwrap() > 0
}

/// How a `bus` ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; 1000 more than the signal when it was ended by one.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// It ended so, and with exactly this.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        let seen = (self.code, String::from_utf8_lossy(&self.stdout), self.stderr.as_str());
        assert_eq!(seen, (code, stdout.into(), stderr));
    }

    /// It failed so, without output, and with this in what it said.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, phrases: &[&str]) {
        assert_eq!((self.code, String::from_utf8_lossy(&self.stdout)), (code, "".into()), "{}", self.stderr);
        for phrase in phrases {
            assert!(self.stderr.contains(phrase), "{phrase:?} is not in {:?}", self.stderr);
        }
    }
}

/// The text of a path.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
