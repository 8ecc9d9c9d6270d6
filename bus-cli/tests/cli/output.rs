//! An output that takes nothing, or is not there: told, and never taken for success.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::world::{Outcome, World, bus_command, run};

const FULL: &str = "bus: cannot write the output: No space left on device (os error 28)\n";

/// Runs it with a device as its output that is always full.
fn run_into_full(command: &mut Command) -> (Option<i32>, String) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Runs it by a shell, with `redirection` behind it.
fn run_redirected(world: &World, arguments: &[&str], redirection: &str) -> Outcome {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}"), env!("CARGO_BIN_EXE_bus")]);
    shell.arg("--socket").arg(world.socket()).args(arguments).env("BUS_AUTOSTART", "0");
    run(&mut shell, b"")
}

/// They ended with 0, and whoever wrote help or manuals to a full disk did not know.
#[test]
fn help_manuals_and_completions_that_cannot_be_written_are_an_error() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["publish", "--help"],
        &["completions", "bash"],
        &["man"],
        &["man", "consume"],
    ] {
        assert_eq!(run_into_full(bus_command().args(arguments)), (Some(1), FULL.to_owned()), "{arguments:?}");
    }
}

#[test]
fn answers_that_cannot_be_written_are_an_error() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["show", "jobs"],
        &["show", "jobs", "--json"],
        &["links", "--json"],
        &["consume", "jobs", "--peek"],
        &["create", "more", "--json"],
        &["purge", "more", "--json"],
    ] {
        assert_eq!(run_into_full(&mut world.command(arguments)), (Some(1), FULL.to_owned()), "{arguments:?}");
    }
}

#[test]
fn messages_that_cannot_be_written_are_an_error_and_are_not_lost() {
    let world = World::new();
    world.publish("jobs", &["a", "b"]);
    let outcome = run_into_full(&mut world.command(&["consume", "jobs", "-n", "2"]));
    let told =
        "bus: jobs: cannot write the output: No space left on device (os error 28); what is not written comes again\n";
    assert_eq!(outcome, (Some(1), told.to_owned()));
    assert_eq!(world.drain("jobs"), "a\nb\n");
}

/// The standard library puts /dev/null in its place, as other programs do for a child that is to say nothing.
#[test]
fn an_output_that_goes_nowhere_is_told_and_is_no_reason_to_stop() {
    let world = World::new();
    for output in [">&-", "1<>/dev/null"] {
        world.publish("jobs", &["a", "b"]);
        let told = "bus: the output is closed or /dev/null: messages are thrown away\n";
        run_redirected(&world, &["consume", "jobs", "-n", "1"], output).is(0, "", told);
        run_redirected(&world, &["-q", "consume", "jobs", "-n", "1"], output).is(0, "", "");
    }
    // A command has an output of its own.
    world.publish("jobs", &["a"]);
    run_redirected(&world, &["consume", "jobs", "-n", "1", "--exec", "cat >&2"], ">&-").is(0, "", "a");
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn messages_may_be_thrown_away_on_purpose() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    run_redirected(&world, &["consume", "jobs", "-n", "1"], ">/dev/null").is(0, "", "");
    assert_eq!(world.drain("jobs"), "");
}
