//! [`Process`]: a child of the demonstration, which does not outlive it.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::exit::{Exit, Failure};

/// A child that runs another verb of this program. Dropping it ends it.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program with the arguments that `arrange` sets.
    pub(super) fn start(name: &'static str, arrange: impl FnOnce(&mut Command)) -> Result<Self, Failure> {
        let failed = |error| Failure::io(format_args!("cannot start {name}"), &error);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        arrange(&mut command);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let Some(output) = child.stdout.take() else {
            return Err(Failure::new(Exit::Failed, format!("{name} has no output")));
        };
        Ok(Self { name, child, output: BufReader::new(output) })
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

    /// Asks it to end, and waits until it has.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        if let Some(pid) = self.raw_pid() {
            // It is not yet waited for, so the number is still its own.
            kill_process(pid, Signal::TERM)
                .map_err(|error| Failure::io(format_args!("cannot end {}", self.name), &error.into()))?;
        }
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
