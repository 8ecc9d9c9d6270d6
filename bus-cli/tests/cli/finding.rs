//! How `bus` finds its daemon, and starts one.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use bus_core::{Address, Bus};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::world::{World, bus_command, run, text};

/// A user's runtime folder without a daemon. One that was started in it ends with the test.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("bus/bus.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bus_command();
        self.inhabit(&mut command).args(arguments);
        command
    }

    /// Lets a command live in it.
    pub(crate) fn inhabit<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("XDG_RUNTIME_DIR", self.folder.path()).env_remove("BUS_AUTOSTART").env_remove("BUS_SOCKET")
    }

    fn daemon(&self) -> Option<bus_core::About> {
        Bus::connect_to(&Address::new(self.socket()).unwrap()).ok()?.about().ok()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon() {
            let _ = kill_process(Pid::from_raw(daemon.pid.cast_signed()).unwrap(), Signal::KILL);
        }
    }
}

fn unreachable(socket: &Path, reason: &str) -> String {
    let socket = text(socket);
    format!("bus: no daemon answers at {socket}: {reason}; start one with `bus daemon --socket {socket}`\n")
}

const NOT_FOUND: &str = "No such file or directory (os error 2)";

#[test]
fn a_daemon_is_started_for_the_user_and_announced_once() {
    let home = Home::new();
    let note = format!("bus: no daemon at {}: starting one that ends after 10m without work\n", text(&home.socket()));
    run(&mut home.command(&["publish", "jobs", "a"]), b"").is(0, "", &note);
    let daemon = home.daemon().unwrap();
    run(&mut home.command(&["consume", "jobs", "-n", "1"]), b"").is(0, "a\n", "");
    assert_eq!(home.daemon().unwrap().pid, daemon.pid);
}

#[test]
fn a_quiet_start_is_not_announced() {
    let home = Home::new();
    run(&mut home.command(&["-q", "publish", "jobs", "a"]), b"").is(0, "", "");
    assert!(home.daemon().is_some());
}

#[test]
fn no_daemon_is_started_where_that_is_turned_off() {
    let home = Home::new();
    let expected = unreachable(&home.socket(), NOT_FOUND);
    run(&mut home.command(&["list", "--no-autostart"]), b"").is(3, "", &expected);
    run(home.command(&["list"]).env("BUS_AUTOSTART", "0"), b"").is(3, "", &expected);
    assert!(!home.socket().exists());
}

#[test]
fn a_bus_that_is_named_is_never_started() {
    let home = Home::new();
    let socket = home.folder.path().join("named");
    let expected = unreachable(&socket, NOT_FOUND);
    run(&mut home.command(&["list", "--socket", text(&socket)]), b"").is(3, "", &expected);
    run(home.command(&["list"]).env("BUS_SOCKET", &socket), b"").is(3, "", &expected);
    assert!(!socket.exists());
}

#[test]
fn an_option_wins_over_the_environment_and_stands_anywhere() {
    let world = World::new();
    let socket = world.socket();
    let mut command = bus_command();
    command.env("BUS_SOCKET", "/nowhere").args(["--socket", text(&socket), "publish", "jobs", "a"]);
    run(&mut command, b"").is(0, "", "");
    run(bus_command().env("BUS_SOCKET", &socket).args(["consume", "jobs", "-n", "1"]), b"").is(0, "a\n", "");
}

#[test]
fn a_socket_that_nobody_serves_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    drop(UnixListener::bind(&socket).unwrap());
    let expected = unreachable(&socket, "Connection refused (os error 111)");
    run(bus_command().args(["list", "--socket", text(&socket)]), b"").is(3, "", &expected);
}

/// It was told to start a daemon there, which refuses to take the place of a file.
#[test]
fn a_socket_that_is_another_file_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s");
    std::fs::write(&file, "kept").unwrap();
    for path in [folder.path(), &file] {
        let path = text(path);
        let refused =
            "Connection refused (os error 111): it is no socket: choose another place with --socket or BUS_SOCKET";
        let told = format!("bus: no daemon answers at {path}: {refused}\n");
        run(bus_command().args(["list", "--socket", path]), b"").is(3, "", &told);
    }
}

#[test]
fn what_is_no_daemon_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut connection, &[b'x'; 64]).unwrap();
        // Until the other has read it and left.
        let _ = std::io::Read::read_to_end(&mut connection, &mut Vec::new());
    });
    let outcome = run(bus_command().args(["list", "--socket", text(&socket)]), b"");
    outcome.fails(3, &["what answers at", text(&socket), "is no daemon of this release"]);
    stranger.join().unwrap();
}

#[test]
fn a_path_over_the_limit_of_sockets_is_wrong_usage() {
    let socket = format!("/tmp/{}", "x".repeat(200));
    let outcome = run(bus_command().args(["list", "--socket", &socket]), b"");
    outcome.fails(2, &["has 205 bytes, and a local socket holds 107", "choose a shorter folder"]);
}

#[test]
fn a_bus_of_another_user_is_denied() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = closed.join("s");
    let mut command = if rustix::process::geteuid().is_root() {
        // No folder is closed to root: be somebody else, with a copy that anybody may run.
        let copy = folder.path().join("bus");
        std::fs::copy(env!("CARGO_BIN_EXE_bus"), &copy).unwrap();
        std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new(copy);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        command
    } else {
        std::fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        bus_command()
    };
    let outcome = run(command.current_dir("/").args(["list", "--socket", text(&socket)]), b"");
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    outcome.fails(7, &["access to the bus at", text(&socket), "is denied", "Permission denied"]);
}

#[test]
fn a_runtime_folder_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let outcome = run(bus_command().arg("list").env("XDG_RUNTIME_DIR", &file), b"");
    let expected = format!(
        "bus: no daemon answers at {}/bus/bus.sock: Not a directory (os error 20): \
         choose another place with --socket or BUS_SOCKET\n",
        text(&file)
    );
    outcome.is(3, "", &expected);
}

#[test]
fn a_daemon_that_cannot_be_started_says_why() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let folder = home.folder.path().join("bus");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let reason = format!("runtime folder {} has mode 0755, and the default place must have 0700", text(&folder));
    let outcome = run(&mut home.command(&["-q", "list"]), b"");
    outcome.fails(3, &["bus: the daemon ", " could not be started: ", &reason, "run chmod 700 on it\n"]);
}
