//! Ctrl-C and SIGTERM.

use rustix::process::Signal;

use crate::world::{World, run, text};

#[test]
fn a_waiting_consumer_ends_with_130() {
    let world = World::new();
    let mut consumer = world.start(&["consume", "jobs"]);
    world.publish("jobs", &["a"]);
    assert_eq!(consumer.line(), "a");
    consumer.signal(Signal::INT);
    consumer.end().is(130, "", "");
    world.await_peers("jobs", 0, 0);
}

#[test]
fn a_terminated_consumer_ends_with_143() {
    let world = World::new();
    let mut consumer = world.start(&["consume", "jobs"]);
    world.publish("jobs", &["a"]);
    assert_eq!(consumer.line(), "a");
    consumer.signal(Signal::TERM);
    consumer.end().is(143, "", "");
}

#[test]
fn a_consumer_whose_output_nobody_reads_ends_too_and_gives_back_the_rest() {
    let world = World::new();
    world.publish_numbers("jobs", 60_000);
    let mut consumer = world.start(&["consume", "jobs"]);
    assert_eq!(consumer.line(), "1");
    consumer.signal(Signal::INT);
    // Read on, it may have written all before it notices the signal.
    let outcome = consumer.end_unread();
    assert_eq!(outcome.code, 130);
    // The last line may be torn, as any program's is that is interrupted while it writes; whole
    // ones up to it need not come again, the others do.
    let written = String::from_utf8(outcome.stdout).unwrap().matches('\n').count() + 1;
    let again: u32 = world.output(&["consume", "jobs", "-n", "1"]).trim().parse().unwrap();
    assert!(again as usize <= written + 1, "lost between {written} and {again}");
}

#[test]
fn a_publisher_that_waits_for_input_ends_with_130_and_what_it_read_is_there() {
    let world = World::new();
    let mut consumer = world.start(&["consume", "jobs"]);
    let mut publisher = world.start(&["publish", "jobs"]);
    publisher.write(b"a\nhalf");
    assert_eq!(consumer.line(), "a");
    publisher.signal(Signal::INT);
    publisher.end().is(130, "", "");
}

#[test]
fn a_publisher_that_waits_for_room_ends_with_130() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "1"]);
    let publisher = world.start(&["publish", "jobs", "a", "b"]);
    // It waits once its first message is there.
    let mut receiver = world.bus().raw_receiver("jobs").open().unwrap();
    let first = receiver.next_delivery().unwrap();
    publisher.signal(Signal::INT);
    publisher.end().is(130, "", "");
    drop(first);
}

#[test]
fn an_interrupted_command_is_ended_and_its_message_given_back() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    let pid_file = world.path("pid");
    let command = format!("echo $$ > {}; echo ready; exec sleep 1000", text(&pid_file));
    let mut consumer = world.start(&["consume", "jobs", "--exec", &command]);
    assert_eq!(consumer.line(), "ready");
    consumer.signal(Signal::INT);
    // Its output ends only when the command's does.
    consumer.end().is(130, "", "");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
    let shown = world.output(&["consume", "jobs", "-n", "1", "--format", "%p %a"]);
    assert_eq!(shown, "a 2");
}

#[test]
fn a_command_that_dies_of_the_same_ctrl_c_has_not_failed() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    // The whole group gets the signal, as from a terminal; the end of which of the two is noticed
    // first must not matter.
    for _ in 0..30 {
        let mut command = world.command(&["consume", "jobs", "--exec", "kill -INT 0"]);
        run(std::os::unix::process::CommandExt::process_group(&mut command, 0), b"").is(130, "", "");
    }
    assert_eq!(world.drain("jobs"), "a\n");
}
