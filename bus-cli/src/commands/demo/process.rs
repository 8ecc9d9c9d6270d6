//! [`Process`]: a child of the demonstration, which does not outlive it.
//!
//! Its input is a pipe that nobody writes to: its end tells the child that the parent has gone, also when that was
//! killed and could do nothing more.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::exit::{Exit, Failure};

/// A child that runs another verb of this program. Dropping it ends it.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    output: BufReader<ChildStdout>,
    /// Apart from the child, of which waiting would close it.
    lifeline: Option<ChildStdin>,
}

impl Process {
    /// Starts this program with the arguments that `arrange` sets.
    pub(super) fn start(name: &'static str, arrange: impl FnOnce(&mut Command)) -> Result<Self, Failure> {
        let failed = |error| Failure::io(format_args!("cannot start {name}"), &error);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        arrange(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let Some(output) = child.stdout.take() else {
            return Err(Failure::new(Exit::Failed, format!("{name} has no output")));
        };
        let lifeline = child.stdin.take();
        Ok(Self { name, child, output: BufReader::new(output), lifeline })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stands for the child also when its number is used anew.
    pub(super) fn pidfd(&self) -> Option<OwnedFd> {
        pidfd_open(self.raw_pid()?, PidfdFlags::empty()).ok()
    }

    /// The next line that it says.
    pub(super) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(Failure::new(Exit::Failed, format!("{} ended without its report", self.name))),
            Ok(_) => Ok(line),
            Err(error) => Err(Failure::io(format_args!("cannot hear {}", self.name), &error)),
        }
    }

    /// Fails when it has ended.
    pub(super) fn check_running(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(Failure::io(format_args!("cannot watch {}", self.name), &error)),
        }
    }

    /// Waits for its end, which must be a good one.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.ended(status)),
            Err(error) => Err(Failure::io(format_args!("cannot wait for {}", self.name), &error)),
        }
    }

    /// Lets go of it, and waits until it has ended.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        self.lifeline = None;
        self.finish()
    }

    fn raw_pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        Failure::new(Exit::Failed, format!("{} ended with {status}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing for a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: returns when its parent lets go of it, or has gone.
pub(super) fn wait_for_parent() {
    let mut input = io::stdin().lock();
    loop {
        match input.read(&mut [0; 64]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// In a child: its end is that of its parent, at the latest.
pub(super) fn end_with_parent() -> Result<(), Failure> {
    let watch = || {
        wait_for_parent();
        std::process::exit(Exit::Failed.code().into());
    };
    let watching = std::thread::Builder::new().name("bus-lifeline".into()).spawn(watch);
    watching.map(drop).map_err(|error| Failure::io("cannot watch the parent", &error))
}
