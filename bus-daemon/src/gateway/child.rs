//! [`Command`]: the process of a gateway, run by the shell in a group of its own, run again as ordered, and
//! always waited for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bus_core::wire::RefusedCode;
use bus_core::{LinkState, Restart};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

use super::link::{Link, NotUp, Over};
use super::log_lines::log_lines;
use super::scarcity::is_scarcity;
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
    end: Arc<OwnedFd>,
    /// Given when whatever is left of its group has ended with it.
    all_ended: Arc<Stop>,
    log: Option<JoinHandle<String>>,
    /// When what is left of its group is killed, once it has ended.
    kill_at: Option<Instant>,
}

/// How far a run has come.
#[derive(Clone, Copy)]
pub(super) enum Run {
    Running,
    /// Its process has ended; others of its group may still write, and have until then to end.
    Ending(Instant),
    /// Nobody of its group is left.
    Over,
}

/// The pipes of a command that takes messages; none of them waits.
pub(super) struct WorkerPipes {
    pub(super) input: File,
    /// Where that acknowledges.
    pub(super) output: Option<File>,
    /// Readable when the command has ended.
    pub(super) end: Arc<OwnedFd>,
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
    pub(super) fn start_source(&mut self) -> io::Result<File> {
        let child = &mut self.start(Stdio::null(), Stdio::piped())?.child;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        without_waiting(output.into())
    }

    /// Runs it.
    pub(super) fn start_sink(&mut self) -> io::Result<WorkerPipes> {
        let output = if self.link.spec.ack_lines { Stdio::piped() } else { Stdio::null() };
        let Running { child, end, .. } = self.start(Stdio::piped(), output)?;
        let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let output = child.stdout.take().map(|output| without_waiting(output.into())).transpose()?;
        Ok(WorkerPipes { input: without_waiting(input.into())?, output, end: Arc::clone(end) })
    }

    fn start(&mut self, input: Stdio, output: Stdio) -> io::Result<&mut Running> {
        let all_ended = Arc::new(Stop::new()?);
        let mut command = std::process::Command::new("/bin/sh");
        command.arg("-c").arg(self.text).process_group(0);
        command.stdin(input).stdout(output).stderr(Stdio::piped());
        command.env("BUS_CHANNEL", self.link.spec.channel.as_str());
        let mut child = command.spawn()?;
        let group = Pid::from_child(&child);
        let watched = pidfd_open(group, PidfdFlags::empty()).map_err(io::Error::from);
        let watched = watched.and_then(|end| Ok((end, self.log_errors(&mut child, &all_ended)?)));
        let (end, log) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                // Unwatched it could not be ended in order. It was no run, and is not counted as one.
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                all_ended.give();
                return Err(error);
            }
        };
        self.started_at = Instant::now();
        self.link.change(|info| info.pid = Some(child.id()));
        self.link.now_unless_ending(LinkState::Running);
        let running = Running { child, group, end: Arc::new(end), all_ended, log, kill_at: None };
        // From here on it has an owner, who ends it whatever fails.
        Ok(self.running.insert(running))
    }

    fn log_errors(&self, child: &mut Child, stop: &Arc<Stop>) -> io::Result<Option<JoinHandle<String>>> {
        let Some(errors) = child.stderr.take() else { return Ok(None) };
        let errors = without_waiting(errors.into())?;
        let (link, stop) = (self.link.to_string(), Arc::clone(stop));
        let thread = std::thread::Builder::new().name(format!("link {} log", self.link.id));
        thread.spawn(move || log_lines(&link, errors, &stop)).map(Some)
    }

    /// Looks for a moment whether it begins, or until it shows by `output` that it has: so whoever ordered it learns
    /// of a slip of the pen. The moment is one of its own: on a busy machine it may not have run yet when it is over.
    /// Nobody waits for one of the config.
    pub(super) fn begins(&mut self, output: Option<BorrowedFd<'_>>) -> Result<(), NotUp> {
        let Some(running) = self.running.as_ref().filter(|_| self.link.is_ordered) else { return Ok(()) };
        let (mut until, at_last) = (self.started_at + BEGIN_GRACE, self.started_at + BEGIN_LONGEST);
        let mut output = output;
        loop {
            let now = Instant::now();
            if running.has_ended() {
                break;
            }
            if self.link.stop.is_given() || now >= at_last || (now >= until && running.has_begun()) {
                return Ok(());
            }
            if now >= until {
                until = now + BEGIN_LOOK;
            }
            let left = until.saturating_duration_since(now);
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
        match running.exit().and_then(|exit| exit.code()) {
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

    /// Readable when the process has ended, while that is not seen.
    pub(super) fn end_to_watch(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().filter(|running| running.kill_at.is_none()).map(|running| running.end.as_fd())
    }

    /// How far it has come. With its process everybody of its group is to end, and a second later is killed: a pipe
    /// that one of them holds would hide the end for ever.
    pub(super) fn look(&mut self) -> Run {
        let Some(running) = &mut self.running else { return Run::Over };
        if !running.has_ended() {
            return Run::Running;
        }
        let now = Instant::now();
        let kill_at = match running.kill_at {
            Some(kill_at) => kill_at,
            None => {
                let exit = running.exit().map(describe);
                self.link.change(|info| (info.pid, info.last_exit) = (None, exit));
                running.signal(Signal::TERM);
                *running.kill_at.insert(now + TERM_GRACE)
            }
        };
        if now < kill_at && !running.group_has_ended() {
            // Nobody tells of processes that are not one's own.
            return Run::Ending(kill_at.min(now + GROUP_LOOK));
        }
        running.signal(Signal::KILL);
        Run::Over
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
        while let Run::Ending(until) = self.look() {
            if self.link.stop.wait(until.saturating_duration_since(Instant::now()))? {
                return Err(Over::Stopped);
            }
        }
        let ran = self.started_at.elapsed();
        let Some(status) = self.reap() else { return Ok(Ended::RunAgain) };
        if self.link.stop.is_given() {
            return Err(Over::Stopped);
        }
        let ended = describe(status.into());
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
                let until = running.kill_at.unwrap_or_else(|| {
                    running.signal(Signal::TERM);
                    Instant::now() + TERM_GRACE
                });
                running.wait_for_end(until.saturating_duration_since(Instant::now()));
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
        running.all_ended.give();
        if let Some(log) = running.log.take() {
            // It does not panic, and what it logged is logged.
            self.last_words = log.join().unwrap_or_default();
        }
        self.link.change(|info| {
            info.pid = None;
            info.last_exit = status.map(|status| describe(status.into()));
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
            match self.all_ended.wait_or([(self.end.as_fd(), PollFlags::IN)], Some(left)) {
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
        let is_member = |process: std::fs::DirEntry| match Stat::of(&process.path()) {
            Ok(stat) => stat.field(GROUP_FIELD) == Some(&group) && !matches!(stat.field(0), Some("Z" | "X")),
            // Who cannot look has not seen that nobody is there. Else it has just ended.
            Err(error) => is_scarcity(&error),
        };
        match std::fs::read_dir("/proc") {
            Ok(processes) => !processes.flatten().any(is_member),
            // Without /proc nobody is seen, and the rest ends at once.
            Err(error) => !is_scarcity(&error),
        }
    }

    /// Whether it has come so far that it waits for something, or has worked for a moment.
    fn has_begun(&self) -> bool {
        let Ok(stat) = Stat::of(format!("/proc/{}", self.group.as_raw_nonzero()).as_ref()) else { return true };
        let ticks = |at| stat.field(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(u64::MAX);
        // Running or waiting for a disk, it may not even be the shell yet.
        !matches!(stat.field(0), Some("R" | "D"))
            || ticks(USER_FIELD).saturating_add(ticks(SYSTEM_FIELD)) >= BEGIN_TICKS
    }

    /// How its process has ended. It is not waited for.
    fn exit(&self) -> Option<Exit> {
        let id = WaitId::PidFd(self.end.as_fd());
        let looked = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG);
        let status = looked.ok().flatten()?;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Exit::Code(code)),
            (None, Some(signal)) => Some(Exit::Signal(signal)),
            (None, None) => None,
        }
    }

    fn signal(&self, signal: Signal) {
        let reached = kill_process_group(self.group, signal);
        if signal == Signal::KILL || reached.is_err() {
            // The process may have left its own group. It fails when nobody is left.
            let _ = pidfd_send_signal(&self.end, signal);
        }
    }
}

/// What the kernel tells of a process: `pid (name) state parent group ...`, where the name may hold anything.
struct Stat(String);

impl Stat {
    fn of(process: &Path) -> io::Result<Self> {
        std::fs::read_to_string(process.join("stat")).map(Self)
    }

    /// A field, from the state on: proc_pid_stat(5), less three.
    fn field(&self, at: usize) -> Option<&str> {
        self.0.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().nth(at)
    }
}

const GROUP_FIELD: usize = 2;
const USER_FIELD: usize = 11;
const SYSTEM_FIELD: usize = 12;

/// How a process has ended.
#[derive(Clone, Copy)]
enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        // Without a signal it has ended by itself.
        status.signal().map_or_else(|| Self::Code(status.code().unwrap_or_default()), Self::Signal)
    }
}

fn without_waiting(pipe: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&pipe)?;
    rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
    Ok(pipe.into())
}

fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
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

/// The same of the processor's time, in the kernel's ticks of 10 ms.
const BEGIN_TICKS: u64 = 5;

/// How long it waits on a machine that is too busy to run it.
const BEGIN_LONGEST: Duration = Duration::from_secs(5);

/// How soon it looks again whether it has run.
const BEGIN_LOOK: Duration = Duration::from_millis(10);

/// What a shell ends with when a program is there and cannot be run.
const CANNOT_RUN: i32 = 126;

/// What a shell ends with when a program is not there.
const NOT_FOUND: i32 = 127;

/// How long a worker has to end at the end of its input.
pub(super) const INPUT_GRACE: Duration = Duration::from_secs(2);
