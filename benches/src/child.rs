//! Processes of a measurement: started, told to go, asked for their report, ended.
//!
//! A child says `ready` on its output, may wait for a line on its input, and ends with one line of
//! JSON. Whatever it does, the benchmark waits for a bounded time only.

use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::role::Role;

/// How long a child may take to say something. Every measurement lasts a few seconds at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that plays a role; dropping it ends it.
pub(crate) struct Player {
    name: &'static str,
    process: Child,
    output: ChildStdout,
    said: Vec<u8>,
}

impl Player {
    /// Starts `role` and waits until it is ready.
    pub(crate) fn start(role: &Role) -> Result<Self> {
        Self::start_with(role, Stdio::piped())
    }

    /// The same with an input of its own.
    pub(crate) fn start_with(role: &Role, input: Stdio) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--role").arg(serde_json::to_string(role)?).stdin(input);
        let mut player = Self::spawn(role.name(), command)?;
        let line = player.hear()?;
        ensure!(line == "ready", "{} said {line:?} instead of ready", player.name);
        Ok(player)
    }

    /// Starts any program; it is not waited for.
    pub(crate) fn spawn(name: &'static str, mut command: Command) -> Result<Self> {
        let mut process = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
        let output = process.stdout.take().context("a child without an output")?;
        Ok(Self { name, process, output, said: Vec::new() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The thread that plays its role.
    pub(crate) fn main_thread(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Lets a child go on that waits in [`await_go`].
    pub(crate) fn go(&mut self) -> Result<()> {
        let input = self.process.stdin.as_mut().context("a child without an input")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// The next line of JSON that the child says.
    pub(crate) fn report<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.hear()?;
        serde_json::from_str(&line).with_context(|| format!("{} reported {line:?}", self.name))
    }

    /// Waits until the child has ended well.
    pub(crate) fn finish(mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.wait_for_output(deadline)?;
            if self.output.read(&mut [0; 4096])? == 0 {
                break;
            }
        }
        let status = self.process.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// The next line that the child says.
    fn hear(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.said.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.said.drain(..=end).collect();
                return Ok(String::from_utf8(line)?.trim_end().to_owned());
            }
            self.wait_for_output(deadline)?;
            let mut chunk = [0; 4096];
            let count = self.output.read(&mut chunk)?;
            ensure!(count > 0, "{} ended without its report", self.name);
            self.said.extend_from_slice(&chunk[..count]);
        }
    }

    fn wait_for_output(&self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&timeout))? == 0 {
            bail!("{} said nothing for {} s", self.name, PATIENCE.as_secs());
        }
        Ok(())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and that is just as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In a child: says one line to the benchmark.
pub(crate) fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        // The benchmark has gone.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// In a child: says `report` to the benchmark.
pub(crate) fn tell(report: &impl Serialize) -> Result<()> {
    say(&serde_json::to_string(report)?)
}

/// In a child: says that it is ready and waits until it is told to go.
pub(crate) fn await_go() -> Result<()> {
    say("ready")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    ensure!(line == "go\n", "the benchmark has gone");
    Ok(())
}
