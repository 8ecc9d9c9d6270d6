//! [`Daemon`]: a `busd` of its own for one test, in a folder of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use bus_core::{Address, Bus};
use tempfile::TempDir;

use crate::PATIENCE;

/// A running `busd`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    address: Address,
    /// Locked, so that the watchdog can end it while the test hangs.
    child: Mutex<Child>,
    /// Last, so that the folder goes after the process.
    folder: TempDir,
}

impl Daemon {
    /// Starts a daemon, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a daemon with this config file, in which `{folder}` stands for its folder.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start_with(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::new(folder.path().join("bus.sock")).expect("a short path");
        let log = File::create(folder.path().join("busd.log")).expect("a log file");
        let file = folder.path().join("busd.toml");
        fs::write(&file, config.replace("{folder}", &folder.path().display().to_string())).expect("a config file");
        let child = spawn(&file, &address, log);
        let daemon = Self { address, child: Mutex::new(child), folder };
        daemon.wait_until_it_answers();
        daemon
    }

    /// Starts a daemon by way of another program, which is given that of the daemon and its arguments.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start_through(program: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::new(folder.path().join("bus.sock")).expect("a short path");
        let log = File::create(folder.path().join("busd.log")).expect("a log file");
        let mut command = Command::new(program);
        command.args(arguments).arg(busd()).arg("--socket").arg(address.path()).args(["--idle-exit", "2m"]);
        command.env_remove("BUS_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("it starts");
        let daemon = Self { address, child: Mutex::new(child), folder };
        daemon.wait_until_it_answers();
        daemon
    }

    /// Starts a daemon that sees a file system of 64 KiB and eight files mounted on `small` in its folder, with its
    /// config in there. Others find that at [`small`](Self::small). Without the means to mount it, the reason.
    ///
    /// # Errors
    /// Why there can be none here.
    ///
    /// # Panics
    /// When the daemon does not answer.
    pub fn start_on_small_disk() -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::new(folder.path().join("bus.sock")).expect("a short path");
        let log = File::create(folder.path().join("busd.log")).expect("a log file");
        let small = folder.path().join("small");
        fs::create_dir(&small).expect("a folder");
        let mount = "mount -t tmpfs -o size=64k,nr_inodes=8,mode=0700 tmpfs \"$0\"";
        let unshare = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(&small);
            command
        };
        let tried = unshare(mount).output().map_err(|error| format!("no unshare: {error}"))?;
        if !tried.status.success() {
            return Err(format!("no mount: {}", String::from_utf8_lossy(&tried.stderr).trim()));
        }
        let script = format!(
            "{mount} && : > \"$0/busd.toml\" && exec \"$1\" --config \"$0/busd.toml\" --socket \"$2\" --idle-exit 2m"
        );
        let mut command = unshare(&script);
        command.arg(busd()).arg(address.path()).env_remove("BUS_LOG").stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn().expect("it has just run");
        let daemon = Self { address, child: Mutex::new(child), folder };
        daemon.wait_until_it_answers();
        Ok(daemon)
    }

    /// The small file system, seen from outside of the daemon.
    #[must_use]
    pub fn small(&self) -> PathBuf {
        let folder = self.folder.path().join("small");
        let root = format!("/proc/{}/root", self.pid());
        Path::new(&root).join(folder.strip_prefix("/").expect("it is absolute"))
    }

    /// Starts it anew with the same folder, once it has ended, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_again(&self) {
        let log = File::options().append(true).open(self.folder.path().join("busd.log")).expect("the log file");
        let child = spawn(&self.folder.path().join("busd.toml"), &self.address, log);
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = Bus::connect_to(&self.address) {
            let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
            assert!(matches!(ended, Ok(None)), "busd ended at once ({ended:?}):\n{}", self.log());
            assert!(Instant::now() < deadline, "busd does not answer: {error}\n{}", self.log());
            // The condition is asked again and again; the pause only leaves the processor to busd.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Its folder, in which a test may put what goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in order, and waits until it has ended.
    ///
    /// # Panics
    /// When it ends with an error.
    pub fn end(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        let status = child.wait().expect("it is ours");
        assert!(status.success(), "busd ended with {status}:\n{}", self.log());
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("busd.log")).unwrap_or_default()
    }

    /// Ends it, as `kill -9` does.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails when it has ended already, and then there is nothing to end.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(config: &Path, address: &Address, log: File) -> Child {
    Command::new(busd())
        .arg("--config")
        .arg(config)
        .arg("--socket")
        .arg(address.path())
        // Should the test itself be killed, its daemon does not stay for ever.
        .args(["--idle-exit", "2m"])
        .env_remove("BUS_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("busd starts")
}

/// The `busd` beside the test's own program; built when it is not there.
fn busd() -> PathBuf {
    static BUSD: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let test = env::current_exe().expect("a test is a program");
        // target/<profile>/deps/<test>
        let profile = test.ancestors().nth(2).expect("the test is in a target folder").to_owned();
        let busd = profile.join(format!("busd{}", env::consts::EXE_SUFFIX));
        if !busd.exists() {
            build_busd(profile.ends_with("release"));
        }
        assert!(busd.exists(), "{} is missing: cargo build -p bus-daemon", busd.display());
        busd
    };
    BUSD.get_or_init(find).clone()
}

fn build_busd(release: bool) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "bus-daemon"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "busd does not build");
}
