//! `busd` as a program: what it says and how it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::busd::{Running, busd, place};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_signal_ends_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let (place, socket) = place();
        let running = Running::start(place.path(), busd(&socket));
        let metadata = socket.symlink_metadata().unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        UnixStream::connect(&socket).unwrap();

        let (code, log) = running.end(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(!socket.exists());
        assert!(place.path().join("bus.sock.lock").exists());
    }
}

#[test]
fn the_service_manager_is_told_that_it_stops() {
    let (place, socket) = place();
    let running = Running::start(place.path(), busd(&socket));
    kill_process(Pid::from_child(&running.child), Signal::TERM).unwrap();
    let told = running.told();
    assert!(told.contains("STOPPING=1") && told.contains("EXTEND_TIMEOUT_USEC=5000000"), "{told}");
}

#[test]
fn an_idle_daemon_still_feeds_the_watchdog() {
    let (place, socket) = place();
    let mut command = busd(&socket);
    command.env("WATCHDOG_USEC", "20000");
    let running = Running::start(place.path(), command);
    for _ in 0..3 {
        assert_eq!(running.told(), "WATCHDOG=1\n");
    }
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}

#[test]
fn an_idle_daemon_ends_by_itself_when_asked() {
    let (place, socket) = place();
    let mut command = busd(&socket);
    command.args(["--idle-exit", "1ms"]);
    let mut running = Running::start(place.path(), command);
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_second_daemon_names_the_first_and_leaves_it_alone() {
    let (place, socket) = place();
    let running = Running::start(place.path(), busd(&socket));
    let second = busd(&socket).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = format!(
        "busd: {} is already served by the daemon with pid {}: use that daemon, end it, or choose another socket with --socket\n",
        socket.display(),
        running.child.id()
    );
    assert_eq!(stderr(&second), text);
    UnixStream::connect(&socket).unwrap();
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way_of_the_next() {
    let (place, socket) = place();
    Running::start(place.path(), busd(&socket)).end(Signal::KILL);
    assert!(socket.exists());
    let next = Running::start(place.path(), busd(&socket));
    UnixStream::connect(&socket).unwrap();
    assert_eq!(next.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_foreign_file_at_the_socket_ends_it_with_1() {
    let (_place, socket) = place();
    std::fs::write(&socket, "precious").unwrap();
    let output = busd(&socket).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is a regular file, not a socket: move it away"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_socket_path_over_the_limit_ends_it_with_1() {
    let (place, _) = place();
    let output = busd(&place.path().join("x".repeat(120))).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("bytes, and a local socket holds 107: choose a shorter folder"));
}

#[test]
fn an_unknown_flag_is_usage() {
    let (_place, socket) = place();
    let output = busd(&socket).arg("--no-such-flag").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_settings_can_be_checked_without_serving() {
    let (place, socket) = place();
    let file = place.path().join("busd.toml");
    std::fs::write(&file, "window_messages = 9\n").unwrap();
    let check = || busd(&socket).arg("--check-config").arg("--config").arg(&file).output().unwrap();

    let output = check();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"the settings are valid\n".as_slice()));

    std::fs::write(&file, "window_messages = 0\n").unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    let text = format!("busd: {}:1:19: window_messages is 0 messages: give 1 to 4294967295\n", file.display());
    assert_eq!(stderr(&output), text);
    assert!(!socket.exists());
}

#[test]
fn the_default_place_is_made_with_its_parents_and_must_be_private() {
    let (home, _) = place();
    let busd = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_busd"));
        command.env_clear().env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path().join("run"));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let folder = home.path().join("run/bus");
    let running = Running::start(home.path(), busd());
    for made in [&folder, &home.path().join("run")] {
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o7777, 0o700, "{}", made.display());
    }
    assert_eq!(running.end(Signal::TERM).0, Some(0));

    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o750)).unwrap();
    let output = busd().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = format!(
        "busd: runtime folder {} has mode 0750, and the default place must have 0700: run chmod 700 on it\n",
        folder.display()
    );
    assert_eq!(stderr(&output), text);
}

#[test]
fn every_descriptor_that_the_system_allows_is_used() {
    let (place, socket) = place();
    let shell = r#"ulimit -S -n 64; exec "$0" "$@""#;
    let mut command = Command::new("/bin/sh");
    command.env_clear().args(["-c", shell, env!("CARGO_BIN_EXE_busd"), "--socket"]).arg(&socket);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let running = Running::start(place.path(), command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_ne!(files[3], "64");
    assert_eq!(files[3], files[4]);
}

#[test]
fn log_lines_are_json_when_asked() {
    let (place, socket) = place();
    let mut command = busd(&socket);
    command.args(["--log", "debug", "--log-format", "json"]);
    let (_, log) = Running::start(place.path(), command).end(Signal::TERM);
    assert!(log.lines().count() > 0);
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
}

#[test]
fn nothing_is_logged_when_off() {
    let (place, socket) = place();
    let mut command = busd(&socket);
    command.env("BUS_LOG", "off");
    let (code, log) = Running::start(place.path(), command).end(Signal::TERM);
    assert_eq!((code, log.as_str()), (Some(0), ""));
}

#[test]
fn a_detached_daemon_leaves_its_session_and_outlives_its_stderr() {
    let (place, socket) = place();
    let mut command = busd(&socket);
    command.args(["--detached", "--log", "trace"]);
    let mut running = Running::start(place.path(), command);
    let pid = Pid::from_child(&running.child);
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);

    let mut first = String::new();
    BufReader::new(running.child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    // Its stderr is now a pipe that nobody reads.
    UnixStream::connect(&socket).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_busd"));
    let output = command.arg("--help").stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "busd: cannot write: No space left on device (os error 28)\n");
}
