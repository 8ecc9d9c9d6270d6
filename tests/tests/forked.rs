//! A child that was forked off in the middle of its parent's work has copies of its parent's ends. None of them writes to
//! the parent's socket or lane, and the parent goes on as if it had no child. The work is done by the program `forked`.

use std::process::{Command, Stdio};

use bus_tests::Daemon;

#[test]
fn ends_on_the_stream_belong_to_the_process_that_opened_them() {
    run(&["stream"], Some(&Daemon::start()));
}

#[test]
fn ends_of_a_lane_belong_to_the_process_that_opened_them() {
    run(&["lane"], Some(&Daemon::start()));
}

#[test]
fn ends_within_a_process_belong_to_the_process_that_opened_them() {
    run(&["local"], None);
}

fn run(arguments: &[&str], daemon: Option<&Daemon>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forked"));
    command.args(arguments).args(daemon.map(|daemon| daemon.address().path())).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}
