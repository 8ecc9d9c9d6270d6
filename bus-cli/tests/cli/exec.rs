//! `bus consume --exec`.

use crate::world::{World, text};

#[test]
fn the_command_gets_the_payload_and_what_the_bus_knows() {
    let world = World::new();
    world.run(&["publish", "jobs", "hi", "-H", "content-type=text", "-H", "PATH_=x"]).is(0, "", "");
    let object = world.output(&["consume", "jobs", "--peek", "--jsonl"]);
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    let (id, pid) = (object["sender"]["id"].as_str().unwrap(), &object["sender"]["pid"]);
    let command = "cat; echo; echo $BUS_CHANNEL $BUS_SENDER $BUS_PID $BUS_SEQUENCE $BUS_ATTEMPT $BUS_REDELIVERED; \
                   echo $BUS_CODEC $BUS_SENT_AT $BUS_HEADER_CONTENT_TYPE $BUS_HEADER_PATH_";
    let expected = format!("hi\njobs {id} {pid} 1 1 false\nraw {} text x\n", object["sent_at"].as_str().unwrap());
    assert_eq!(world.output(&["consume", "jobs", "-n", "1", "--exec", command]), expected);
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn each_message_runs_the_command_in_order() {
    let world = World::new();
    world.publish("jobs", &["a", "b", "c"]);
    let shown = world.output(&["consume", "jobs", "--until-empty", "--exec", "echo \"[$(cat)]\""]);
    assert_eq!(shown, "[a]\n[b]\n[c]\n");
}

#[test]
fn a_failing_command_gives_the_message_back_and_ends_it_with_8() {
    let world = World::new();
    world.publish("jobs", &["a", "b", "c"]);
    let outcome = world.run(&["consume", "jobs", "--exec", "test $(cat) != b"]);
    assert_eq!((outcome.code, outcome.stdout.as_slice()), (8, &b""[..]));
    let ends = "the command ended with 1 at attempt 1 of 1; given back\n";
    assert!(outcome.stderr.starts_with("bus: jobs: message 2 of sender ") && outcome.stderr.ends_with(ends));
    let shown = world.output(&["consume", "jobs", "--until-empty", "--format", r"%p %a %r\n"]);
    assert_eq!(shown, "b 2 true\nc 1 false\n");
}

#[test]
fn a_failing_command_is_run_again_as_often_as_wanted() {
    let world = World::new();
    world.publish("jobs", &["a", "b"]);
    let log = world.path("log");
    // Fails twice for the first message.
    let command = format!(
        "echo $BUS_SEQUENCE $BUS_ATTEMPT $BUS_REDELIVERED >> {}; test $BUS_ATTEMPT -ge 3 -o $BUS_SEQUENCE = 2",
        text(&log)
    );
    let arguments = ["consume", "jobs", "--until-empty", "--retry-delay", "10ms", "--max-attempts", "3"];
    let outcome = world.run(&[&arguments[..], &["--exec", &command]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("the command ended with 1 at attempt").count(), 2, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "1 1 false\n1 2 true\n1 3 true\n2 1 false\n");
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn attempts_have_an_end() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    let arguments = ["consume", "jobs", "--exec", "kill -9 $$", "--max-attempts", "2", "--retry-delay", "0"];
    let outcome = world.run(&arguments);
    assert_eq!(outcome.code, 8);
    assert!(outcome.stderr.contains("the command was ended by signal 9 at attempt 1 of 2\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("at attempt 2 of 2; given back\n"), "{}", outcome.stderr);
    assert_eq!(world.drain("jobs"), "a\n");
}

#[test]
fn a_command_need_not_read_its_input() {
    let world = World::new();
    world.run_with(&["publish", "jobs", "--whole"], &vec![b'x'; 1 << 20]).is(0, "", "");
    world.run(&["consume", "jobs", "-n", "1", "--exec", "exec 0<&-; true"]).is(0, "", "");
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn a_large_payload_comes_whole() {
    let world = World::new();
    world.run_with(&["publish", "jobs", "--whole"], &vec![b'x'; 1 << 20]).is(0, "", "");
    world.run(&["consume", "jobs", "-n", "1", "--exec", "wc -c | tr -d ' '"]).is(0, "1048576\n", "");
}

#[test]
fn a_header_cannot_pass_for_what_the_bus_says() {
    let world = World::new();
    world.run_with(&["publish", "jobs", "--jsonl"], br#"{"payload":"x","headers":{"A":"a\u0000b"}}"#).is(0, "", "");
    world.run(&["consume", "jobs", "-n", "1", "--exec", "echo $BUS_HEADER_A"]).is(0, "a\n", "");
}

#[test]
fn the_timeout_ends_it_between_commands_although_messages_wait() {
    let world = World::new();
    world.publish("jobs", &["a", "b"]);
    let outcome = world.run(&["consume", "jobs", "--timeout", "3s", "--exec", "cat; sleep 3"]);
    outcome.is(4, "a", "bus: jobs: the time passed\n");
    assert_eq!(world.drain("jobs"), "b\n");
}

#[test]
fn the_timeout_cuts_the_wait_for_another_attempt_short() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    let arguments = ["consume", "jobs", "--exec", "false", "--max-attempts", "2", "--retry-delay", "1h"];
    let outcome = world.run(&[&arguments[..], &["--timeout", "3s"]].concat());
    outcome.fails(4, &["the command ended with 1 at attempt 1 of 2\nbus: jobs: the time passed\n"]);
    assert_eq!(world.drain("jobs"), "a\n");
}

#[test]
fn a_command_that_ends_while_its_child_holds_the_input_has_ended() {
    let world = World::new();
    // More than a pipe holds, and a child that keeps the pipe open without reading.
    world.run_with(&["publish", "jobs", "--whole"], &vec![b'x'; 1 << 20]).is(0, "", "");
    let pid_file = world.path("pid");
    let command = format!("exec 3<&0; sleep 1000 >/dev/null 2>&1 & echo $! > {}", text(&pid_file));
    let outcome = world.run(&["consume", "jobs", "-n", "1", "--exec", &command]);
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    outcome.is(0, "", "");
}
