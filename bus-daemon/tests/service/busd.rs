//! [`Running`]: a `busd` of its own for a test. A child that is told to end is waited for, so none
//! outlives its test.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

pub(crate) fn busd(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_busd"));
    command.env_clear().arg("--socket").arg(socket).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A running daemon and the service manager that it reports to.
pub(crate) struct Running {
    pub(crate) child: Child,
    manager: UnixDatagram,
}

impl Running {
    pub(crate) fn start(folder: &Path, mut command: Command) -> Self {
        let notify = folder.join("notify");
        // A former daemon's, which reports no more.
        let _ = std::fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let child = command.env("NOTIFY_SOCKET", &notify).spawn().unwrap();
        let running = Self { child, manager };
        assert!(running.told().contains("READY=1"));
        running
    }

    pub(crate) fn told(&self) -> String {
        let mut bytes = [0; 4_096];
        loop {
            match self.manager.recv(&mut bytes) {
                Ok(length) => return String::from_utf8_lossy(&bytes[..length]).into_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the daemon told its manager nothing for 30 s: {error}"),
            }
        }
    }

    /// Descriptors that it has open now.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// How many maps of memory files it has.
    pub(crate) fn memory_files(&self) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        maps.lines().filter(|map| map.contains("memfd:")).count()
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let mut stderr = self.child.stderr.take().unwrap();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        (status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only after a failed assertion is there anything left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let mode = PermissionsExt::from_mode(0o700);
    let place = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
    let socket = place.path().join("bus.sock");
    (place, socket)
}
