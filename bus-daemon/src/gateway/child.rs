//! [`Command`]: the process of a gateway, run by the shell in a group of its own, run again as ordered, and
//! always waited for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bus_core::wire::RefusedCode;
use bus_core::{LinkState, Restart};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};

use super::link::{Link, NotUp, Over};
use super::log_lines::log_lines;
use super::stop::Stop;

/// See the [module](self).
pub(super) struct Command<'a> {
    link: &'a Link,
    text: &'a str,
    running: Option<Running>,
    started_at: Instant,
    /// Restarts without a long run between them.
    restarts_in_a_row: u32,
    /// The last line of the last run's error output.
    last_words: String,
}

struct Running {
    child: Child,
    group: Pid,
    /// Readable when the process has ended.
    end: OwnedFd,
    /// Given when it has ended, and whatever is left of its group with it.
    ended: Arc<Stop>,
    log: Option<JoinHandle<String>>,
}

/// The pipes of a command that takes messages; none of them waits.
pub(super) struct WorkerPipes {
    pub(super) input: File,
    /// Where that acknowledges.
    pub(super) output: Option<File>,
    /// Given when the command has ended.
    pub(super) ended: Arc<Stop>,
}

/// What is next when a command has ended.
pub(super) enum Ended {
    RunAgain,
    /// With the reason.
    ForGood(String),
}

impl<'a> Command<'a> {
    pub(super) fn new(link: &'a Link, text: &'a str) -> Self {
        Self { link, text, running: None, started_at: Instant::now(), restarts_in_a_row: 0, last_words: String::new() }
    }

    /// Runs it without input. Its output, which does not wait.
    pub(super) fn start_source(&mut self) -> Result<File, NotUp> {
        let child = &mut self.start(Stdio::null(), Stdio::piped())?.child;
        let output = child.stdout.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(without_waiting(output.into())?)
    }

    /// Runs it.
    pub(super) fn start_sink(&mut self) -> Result<WorkerPipes, NotUp> {
        let output = if self.link.spec.ack_lines { Stdio::piped() } else { Stdio::null() };
        let Running { child, ended, .. } = self.start(Stdio::piped(), output)?;
        let input = child.stdin.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let output = child.stdout.take().map(|output| without_waiting(output.into())).transpose()?;
        Ok(WorkerPipes { input: without_waiting(input.into())?, output, ended: Arc::clone(ended) })
    }

    fn start(&mut self, input: Stdio, output: Stdio) -> Result<&mut Running, NotUp> {
        let ended = Arc::new(Stop::new()?);
        let mut command = std::process::Command::new("/bin/sh");
        command.arg("-c").arg(self.text).process_group(0);
        command.stdin(input).stdout(output).stderr(Stdio::piped());
        command.env("BUS_CHANNEL", self.link.spec.channel.as_str());
        let mut child = command.spawn()?;
        let group = Pid::from_child(&child);
        let end = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(end) => end,
            Err(errno) => {
                // Unwatched it could not be ended in order.
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                return Err(io::Error::from(errno).into());
            }
        };
        // From here on it has an owner, who ends it whatever fails.
        let running = self.running.insert(Running { child, group, end, ended, log: None });
        self.started_at = Instant::now();
        self.link.change(|info| info.pid = Some(running.child.id()));
        if let Some(errors) = running.child.stderr.take() {
            let errors = without_waiting(errors.into())?;
            let (link, stop) = (self.link.to_string(), Arc::clone(&running.ended));
            let thread = std::thread::Builder::new().name(format!("link {} log", self.link.id));
            running.log = Some(thread.spawn(move || log_lines(&link, errors, &stop))?);
        }
        self.link.now_unless_ending(LinkState::Running);
        Ok(running)
    }

    /// Looks for a moment whether it begins, or until it shows by `output` that it has: so whoever ordered it learns
    /// of a slip of the pen. Nobody waits for one of the config.
    pub(super) fn begins(&mut self, output: Option<BorrowedFd<'_>>) -> Result<(), NotUp> {
        let Some(running) = self.running.as_ref().filter(|_| self.link.is_ordered) else { return Ok(()) };
        let until = Instant::now() + BEGIN_GRACE;
        let mut output = output;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if running.has_ended() {
                break;
            }
            if left.is_zero() || self.link.stop.is_given() {
                return Ok(());
            }
            let end = (running.end.as_fd(), PollFlags::IN);
            let said = match output {
                Some(output) => self.link.stop.wait_or([end, (output, PollFlags::IN)], Some(left))?[1],
                None => self.link.stop.wait_or([end], Some(left)).map(|_| PollFlags::empty())?,
            };
            if said.contains(PollFlags::IN) {
                return Ok(());
            }
            // At its end it would be ready for ever.
            output = output.filter(|_| said.is_empty());
        }
        let id = WaitId::PidFd(running.end.as_fd());
        let looked = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG);
        let code = looked.ok().flatten().and_then(|status| status.exit_status());
        match code {
            Some(0) | None => Ok(()),
            Some(code @ (CANNOT_RUN | NOT_FOUND)) => {
                self.reap();
                let text = format!(
                    "the shell cannot run the command, exit status {code}: {}: name a program that the daemon finds in its PATH and may run",
                    self.last_words
                );
                Err(NotUp::new(RefusedCode::Limit, text))
            }
            Some(code) => {
                self.link.note(format!("the command ended with exit status {code} at once"));
                Ok(())
            }
        }
    }

    /// Waits until it has ended, and for the pause before it is run again.
    pub(super) fn after_its_end(&mut self) -> Result<Ended, Over> {
        self.after_its_end_telling(|| {})
    }

    /// The same, and tells as soon as it has ended.
    pub(super) fn after_its_end_telling(&mut self, tell: impl FnOnce()) -> Result<Ended, Over> {
        let Some(running) = &self.running else { return Ok(Ended::RunAgain) };
        while !running.has_ended() {
            if self.link.stop.is_given() {
                return Err(Over::Stopped);
            }
            self.link.stop.wait_or([(running.end.as_fd(), PollFlags::IN)], None)?;
        }
        tell();
        let ran = self.started_at.elapsed();
        let Some(status) = self.reap() else { return Ok(Ended::RunAgain) };
        if self.link.stop.is_given() {
            return Err(Over::Stopped);
        }
        let ended = describe(status);
        let again = match self.link.spec.restart {
            Restart::Never => false,
            Restart::OnFailure => !status.success(),
            Restart::Always => true,
        };
        if !again {
            return Ok(Ended::ForGood(format!("the command ended with {ended}")));
        }
        if ran >= LONG_RUN {
            self.restarts_in_a_row = 0;
        }
        let (restarts, limit) = (self.restarts_in_a_row, self.link.spec.restart_limit);
        if restarts >= limit {
            return Ok(Ended::ForGood(format!(
                "the command ended with {ended}, after {restarts} restarts in a row, the limit of this gateway: see what it says in the daemon's log, and link it again"
            )));
        }
        self.restarts_in_a_row += 1;
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(restarts)).min(LONGEST_PAUSE);
        self.link.change(|info| info.restarts += 1);
        self.link.now_unless_ending(LinkState::Restarting);
        self.link.note(format!("the command ended with {ended}, and is run again after {} ms", pause.as_millis()));
        if self.link.stop.wait(pause)? { Err(Over::Stopped) } else { Ok(Ended::RunAgain) }
    }

    /// Ends it and all of its group: it has `grace` to end by itself at the end of its input, then a second
    /// after SIGTERM, which the whole group has.
    pub(super) fn end(&mut self, grace: Duration) {
        if let Some(running) = &self.running {
            running.wait_for_end(grace);
            if !running.group_has_ended() {
                running.signal(Signal::TERM);
                let until = Instant::now() + TERM_GRACE;
                running.wait_for_end(TERM_GRACE);
                while !running.group_has_ended() && Instant::now() < until {
                    // Nobody tells of processes that are not one's own.
                    std::thread::sleep(GROUP_LOOK);
                }
            }
        }
        self.reap();
    }

    /// Takes leave of a process that has ended, or is to end now, and of whatever is left of its group. Its
    /// leader is waited for last: until then nobody else can have the group's number.
    fn reap(&mut self) -> Option<ExitStatus> {
        let mut running = self.running.take()?;
        running.signal(Signal::KILL);
        let status = running.child.wait().ok();
        running.ended.give();
        if let Some(log) = running.log.take() {
            // It does not panic, and what it logged is logged.
            self.last_words = log.join().unwrap_or_default();
        }
        self.link.change(|info| {
            info.pid = None;
            info.last_exit = status.map(describe);
        });
        status
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        self.reap();
    }
}

impl Running {
    fn has_ended(&self) -> bool {
        self.wait_for_end(Duration::ZERO)
    }

    fn wait_for_end(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.ended.wait_or([(self.end.as_fd(), PollFlags::IN)], Some(left)) {
                Ok([ready]) if !ready.is_empty() => return true,
                Ok(_) if left.is_zero() => return false,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether nobody of the group is alive: the leader, which is not waited for yet, counts as one who is not.
    fn group_has_ended(&self) -> bool {
        if !self.has_ended() {
            return false;
        }
        let group = self.group.as_raw_nonzero().to_string();
        let is_member = |process: std::fs::DirEntry| {
            // `pid (name) state parent group ...`, where the name may hold anything.
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
            let state = fields.next();
            fields.nth(1) == Some(group.as_str()) && !matches!(state, Some("Z" | "X"))
        };
        // Without /proc nobody is seen, and the rest ends at once.
        std::fs::read_dir("/proc").map_or(true, |processes| !processes.flatten().any(is_member))
    }

    fn signal(&self, signal: Signal) {
        // It fails when nobody is left.
        let _ = kill_process_group(self.group, signal);
    }
}

fn without_waiting(pipe: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&pipe)?;
    rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
    Ok(pipe.into())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The pause before the first restart; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// After a run of this length, restarts are counted anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// How long a command has to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// How soon it is seen that a group has ended.
const GROUP_LOOK: Duration = Duration::from_millis(10);

/// How long the answer to an order waits for a command that ends at once. Messages do not wait.
const BEGIN_GRACE: Duration = Duration::from_millis(50);

/// What a shell ends with when a program is there and cannot be run.
const CANNOT_RUN: i32 = 126;

/// What a shell ends with when a program is not there.
const NOT_FOUND: i32 = 127;

/// How long a worker has to end at the end of its input.
pub(super) const INPUT_GRACE: Duration = Duration::from_secs(2);
