//! `bus consume`: its forms of output, and its ends.

use serde_json::Value;

use crate::world::{World, run};

#[test]
fn each_framing_separates_messages_its_own_way() {
    let world = World::new();
    world.publish("jobs", &["ab", "", "c"]);
    // Peeking takes nothing, so every form sees the same messages.
    for (framing, output) in [
        (&[][..], &b"ab\n\nc\n"[..]),
        (&["--lines"], b"ab\n\nc\n"),
        (&["--null"], b"ab\0\0c\0"),
        (&["--delimiter", "--"], b"ab----c--"),
        (&["--len32"], b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"),
        (&["--whole"], b"abc"),
        (&["--format", r"%n=%p;"], b"1=ab;2=;3=c;"),
    ] {
        assert_eq!(world.run(&[&["consume", "jobs", "--peek"], framing].concat()).stdout, output, "{framing:?}");
    }
    assert_eq!(world.run(&["consume", "jobs", "--until-empty", "--len32"]).stdout, b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c");
}

#[test]
fn a_message_is_one_object_with_these_fields() {
    let world = World::new();
    world.run(&["publish", "jobs", "hi", "-H", "z=1", "-H", "a=2"]).is(0, "", "");
    let line = world.output(&["consume", "jobs", "-n", "1", "--jsonl"]);
    let object: Value = serde_json::from_str(&line).unwrap();
    let sender = object["sender"]["id"].as_str().unwrap();
    let pid = object["sender"]["pid"].as_u64().unwrap();
    let sent_at = object["sent_at"].as_str().unwrap();
    assert_eq!((sender.len(), sent_at.len()), (16, "2026-01-31T12:00:00.123456789Z".len()), "{line}");
    let expected = format!(
        "{{\"channel\":\"jobs\",\"sender\":{{\"id\":\"{sender}\",\"pid\":{pid}}},\"sequence\":1,\
         \"sent_at\":\"{sent_at}\",\"redelivered\":false,\"attempt\":1,\"codec\":\"raw\",\
         \"headers\":{{\"z\":\"1\",\"a\":\"2\"}},\"payload\":\"hi\"}}\n"
    );
    assert_eq!(line, expected);
}

#[test]
fn a_payload_that_is_no_text_stands_in_base64() {
    let world = World::new();
    world.run_with(&["publish", "jobs", "--whole"], b"\xff\0").is(0, "", "");
    let object: Value = serde_json::from_str(&world.output(&["consume", "jobs", "-n", "1", "--jsonl"])).unwrap();
    assert_eq!((&object["payload"], &object["payload_base64"]), (&Value::Null, &Value::from("/wA=")));
}

#[test]
fn a_template_has_every_field() {
    let world = World::new();
    world.run(&["publish", "jobs", "hi", "-H", "k=v"]).is(0, "", "");
    let object = world.output(&["consume", "jobs", "--peek", "--jsonl"]);
    let object: Value = serde_json::from_str(&object).unwrap();
    let (id, pid) = (&object["sender"]["id"], &object["sender"]["pid"]);
    let (id, sent_at) = (id.as_str().unwrap(), object["sent_at"].as_str().unwrap());
    assert_eq!(
        world.output(&["consume", "jobs", "-n", "1", "--format", r"%p %s %i %n %t %c %a %r %h %%\n"]),
        format!("hi {id} {pid} 1 {sent_at} jobs 1 false {{\"k\":\"v\"}} %\n")
    );
}

#[test]
fn it_ends_after_the_number_that_is_wanted() {
    let world = World::new();
    world.publish("jobs", &["a", "b", "c"]);
    assert_eq!(world.output(&["consume", "jobs", "-n", "2"]), "a\nb\n");
    assert_eq!(world.drain("jobs"), "c\n");
}

#[test]
fn the_timeout_ends_it_with_4() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    let outcome = world.run(&["consume", "jobs", "-n", "2", "--timeout", "2s"]);
    outcome.is(4, "a\n", "bus: jobs: the time passed after 1 of 2 messages\n");
    world.run(&["consume", "jobs", "--timeout", "2s"]).is(4, "", "bus: jobs: the time passed\n");
    // In time, the timeout is no end of its own.
    world.publish("jobs", &["a"]);
    assert_eq!(world.output(&["consume", "jobs", "-n", "1", "--timeout", "30s"]), "a\n");
}

#[test]
fn silence_ends_it_when_asked_for() {
    let world = World::new();
    world.publish("jobs", &["a"]);
    assert_eq!(world.output(&["consume", "jobs", "--idle", "50ms"]), "a\n");
}

#[test]
fn emptiness_ends_it_when_asked_for() {
    let world = World::new();
    assert_eq!(world.drain("jobs"), "");
    world.publish_numbers("jobs", 50_000);
    let all: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    assert!(world.drain("jobs") == all);
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn it_ends_once_all_senders_have_left() {
    let world = World::new();
    let mut publisher = world.start(&["publish", "jobs"]);
    let mut consumer = world.start(&["consume", "jobs", "--until-disconnected"]);
    publisher.write(b"a\n");
    assert_eq!(consumer.line(), "a");
    publisher.write(b"b\n");
    publisher.close_input();
    publisher.end().is(0, "", "");
    consumer.end().is(0, "b\n", "");
}

#[test]
fn peeking_takes_nothing_and_needs_no_seat() {
    let world = World::new();
    world.publish_numbers("jobs", 1000);
    let all: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(world.output(&["consume", "jobs", "--peek"]), all);
    assert_eq!(world.output(&["consume", "jobs", "--peek", "-n", "2"]), "1\n2\n");
    assert_eq!(world.drain("jobs"), all);
    let consumer = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    assert_eq!(world.output(&["consume", "jobs", "--peek"]), "");
    drop(consumer);
    world.run(&["consume", "none", "--peek"]).is(
        1,
        "",
        "bus: no channel is called none: `bus list` shows those that are\n",
    );
}

#[test]
fn a_second_consumer_is_refused_and_told_who_holds_the_channel() {
    let world = World::new();
    let consumer = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    let outcome = world.run(&["consume", "jobs"]);
    outcome.fails(9, &["jobs", "bus consume", &consumer.pid().to_string()]);
}

#[test]
fn standing_by_takes_over_from_a_consumer_that_dies() {
    let world = World::new();
    let mut first = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    let mut second = world.start(&["consume", "jobs", "--standby"]);
    world.await_peers("jobs", 0, 2);
    world.publish("jobs", &["a"]);
    assert_eq!(first.line(), "a");
    first.signal(rustix::process::Signal::KILL);
    assert_eq!(first.end().code, 1009);
    world.publish("jobs", &["b"]);
    // What the first did not live to acknowledge comes again.
    let line = second.line();
    assert!(line == "b" || (line == "a" && second.line() == "b"), "{line}");
}

#[test]
fn being_kicked_ends_it_with_5() {
    let world = World::new();
    let consumer = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    let kicked = format!("bus: removed bus consume (pid {}) from jobs\n", consumer.pid());
    world.run(&["kick", "jobs"]).is(0, "", &kicked);
    consumer.end().is(5, "", "bus: jobs: the receiver was removed from the channel by kick\n");
}

#[test]
fn deleting_the_channel_ends_it_with_5() {
    let world = World::new();
    let consumer = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    world.output(&["-q", "delete", "jobs"]);
    consumer.end().is(5, "", "bus: jobs: the channel was deleted\n");
}

#[test]
fn aliases_do_the_same() {
    let world = World::new();
    world.run(&["send", "jobs", "a"]).is(0, "", "");
    world.run(&["pub", "jobs", "b"]).is(0, "", "");
    world.run(&["recv", "jobs", "-n", "1"]).is(0, "a\n", "");
    run(&mut world.command(&["sub", "jobs", "-n", "1"]), b"").is(0, "b\n", "");
}
