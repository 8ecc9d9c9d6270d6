//! `bus publish`: from arguments, input and files into the channel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::{World, text};

#[test]
fn arguments_are_messages_in_their_order() {
    let world = World::new();
    world.run(&["publish", "jobs", "a", "", "b c"]).is(0, "", "");
    assert_eq!(world.drain("jobs"), "a\n\nb c\n");
}

#[test]
fn an_argument_may_be_any_bytes() {
    let world = World::new();
    let arguments = [OsStr::new("publish"), OsStr::new("jobs"), OsStr::from_bytes(b"\xff\xfe")];
    world.run(&arguments).is(0, "", "");
    assert_eq!(world.run(&["consume", "jobs", "-n", "1"]).stdout, b"\xff\xfe\n");
}

#[test]
fn a_negative_number_is_a_message_and_no_option() {
    let world = World::new();
    world.run(&["publish", "jobs", "-5", "-1.5", "--", "--x"]).is(0, "", "");
    assert_eq!(world.drain("jobs"), "-5\n-1.5\n--x\n");
}

#[test]
fn the_last_line_without_a_newline_is_a_message() {
    let world = World::new();
    world.run_with(&["publish", "jobs"], b"first\n\nlast").is(0, "", "");
    assert_eq!(world.drain("jobs"), "first\n\nlast\n");
}

#[test]
fn an_empty_input_is_no_message() {
    let world = World::new();
    world.run(&["publish", "jobs"]).is(0, "", "");
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn each_framing_separates_messages_its_own_way() {
    let world = World::new();
    for (framing, input) in [
        (&["--lines"][..], &b"a\nb\n"[..]),
        (&["--null"], b"a\0b"),
        (&["--delimiter", r"\r\n"], b"a\r\nb\r\n"),
        (&["--len32"], b"\x01\0\0\0a\x01\0\0\0b"),
        (&["--jsonl"], b"{\"payload\":\"a\"}\n{\"payload_base64\":\"Yg==\"}"),
    ] {
        world.run_with(&[&["publish", "jobs"], framing].concat(), input).is(0, "", "");
        assert_eq!(world.drain("jobs"), "a\nb\n", "{framing:?}");
    }
    world.run_with(&["publish", "jobs", "--whole"], b"a\nb\n").is(0, "", "");
    assert_eq!(world.drain("jobs"), "a\nb\n\n");
}

#[test]
fn files_are_read_one_after_the_other() {
    let world = World::new();
    let (first, second) = (world.path("first"), world.path("second"));
    std::fs::write(&first, "a\nb").unwrap();
    std::fs::write(&second, "c\n").unwrap();
    let files = ["--file", text(&first), "--file", "-", "--file", text(&second)];
    world.run_with(&[&["publish", "jobs"][..], &files].concat(), b"x\n").is(0, "", "");
    assert_eq!(world.drain("jobs"), "a\nb\nx\nc\n");
    world.run(&[&["publish", "jobs", "--whole"][..], &files].concat()).is(0, "", "");
    assert_eq!(world.output(&["consume", "jobs", "--until-empty", "--delimiter", "|"]), "a\nb||c\n|");
}

#[test]
fn a_file_that_is_not_there_is_found_before_anything_is_published() {
    let world = World::new();
    let (there, missing) = (world.path("there"), world.path("missing"));
    std::fs::write(&there, "a\n").unwrap();
    let outcome = world.run(&["publish", "jobs", "--file", text(&there), "--file", text(&missing)]);
    outcome.is(1, "", &format!("bus: cannot open {}: No such file or directory (os error 2)\n", text(&missing)));
    assert_eq!(world.drain("jobs"), "");
}

#[test]
fn arguments_are_published_as_often_as_wanted() {
    let world = World::new();
    world.run(&["publish", "jobs", "a", "b", "--count", "2"]).is(0, "", "");
    assert_eq!(world.drain("jobs"), "a\nb\na\nb\n");
}

#[test]
fn the_rate_is_not_exceeded() {
    let world = World::new();
    let begun = Instant::now();
    world.run(&["publish", "jobs", "a", "--count", "6", "--rate", "50"]).is(0, "", "");
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(world.drain("jobs"), "a\n".repeat(6));
}

#[test]
fn headers_and_codec_go_with_every_message() {
    let world = World::new();
    world.run(&["publish", "jobs", "1", "2", "-H", "a=1", "-H", "b=x=y", "--codec", "json"]).is(0, "", "");
    let shown = world.output(&["consume", "jobs", "-n", "2", "--jsonl"]);
    let ends = r#""codec":"json","headers":{"a":"1","b":"x=y"},"payload":""#;
    assert_eq!(shown.matches(ends).count(), 2, "{shown}");
}

#[test]
fn an_object_wins_over_the_options() {
    let world = World::new();
    let object = br#"{"payload":"x","codec":"json","headers":{"a":"2"},"attempt":9,"sequence":"ignored"}"#;
    world
        .run_with(&["publish", "jobs", "--jsonl", "-H", "a=1", "-H", "b=1", "--codec", "postcard"], object)
        .is(0, "", "");
    let shown = world.output(&["consume", "jobs", "-n", "1", "--jsonl"]);
    assert!(shown.contains(r#""sequence":1,"#) && shown.contains(r#""attempt":1,"#), "{shown}");
    assert!(
        shown.ends_with("\"codec\":\"json\",\"headers\":{\"a\":\"2\",\"b\":\"1\"},\"payload\":\"x\"}\n"),
        "{shown}"
    );
}

#[test]
fn a_line_does_not_wait_for_the_next_one() {
    let world = World::new();
    let mut publisher = world.start(&["publish", "jobs"]);
    let mut consumer = world.start(&["consume", "jobs"]);
    for line in ["first", "second"] {
        publisher.write(format!("{line}\n").as_bytes());
        assert_eq!(consumer.line(), line);
    }
    publisher.close_input();
    publisher.end().is(0, "", "");
}

#[test]
fn a_try_does_not_wait_for_room() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "2"]);
    world.run(&["publish", "jobs", "--try", "a", "b", "c"]).is(
        6,
        "",
        "bus: message 3 for jobs: channel jobs is full with 2 of 2 messages: wait for its receiver, \
         or raise its capacity (`bus create --capacity`); the 2 messages before it were accepted\n",
    );
    assert_eq!(world.drain("jobs"), "a\nb\n");
}

/// It waited: the window had room, and what was tried came later.
#[test]
fn a_try_does_not_wait_for_room_in_a_channel_that_nobody_declared() {
    let world = World::new();
    world.publish_numbers("jobs", 65_536);
    world.run(&["publish", "jobs", "--try", "more"]).fails(6, &["message 1 for jobs", "full"]);
    assert!(world.drain("jobs").ends_with("65535\n65536\n"));
}

#[test]
fn waiting_for_room_ends_after_the_timeout() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "1"]);
    world.run(&["publish", "jobs", "--timeout", "2s", "a", "b"]).is(
        4,
        "",
        "bus: message 2 for jobs: the time passed before there was room, and the message was not sent: \
         channel jobs is full with 1 of 1 message: wait for its receiver, or raise its capacity \
         (`bus create --capacity`); or give it longer; the message before it was accepted\n",
    );
    assert_eq!(world.drain("jobs"), "a\n");
}

/// It was told that the channel was full, which held 3 messages of 65,536.
#[test]
fn a_window_that_is_used_up_is_told_from_a_full_channel() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--window", "3"]);
    let used_up = "the window of 3 messages for each sender of channel jobs is used up: wait until its receiver \
                   acknowledges some, or raise it (`bus create --window`)";
    let publish = |how: &[&str]| world.run(&[&["publish", "jobs"], how, &["1", "2", "3", "4"]].concat());
    let accepted = "the 3 messages before it were accepted\n";
    publish(&["--try"]).is(6, "", &format!("bus: message 4 for jobs: {used_up}; {accepted}"));
    let late = "the time passed before there was room, and the message was not sent";
    let told = format!("bus: message 4 for jobs: {late}: {used_up}; or give it longer; {accepted}");
    publish(&["--timeout", "100ms"]).is(4, "", &told);
    assert_eq!(world.drain("jobs"), "1\n2\n3\n1\n2\n3\n");
}

#[test]
fn a_channel_that_is_full_by_bytes_says_so() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity-bytes", "10"]);
    world.run(&["publish", "jobs", "--try", "abcdef", "abcdef"]).is(
        6,
        "",
        "bus: message 2 for jobs: channel jobs is full with 6 of 10 bytes: wait for its receiver, \
         or raise its capacity (`bus create --capacity-bytes`); the message before it was accepted\n",
    );
}

#[test]
fn a_channel_that_rejects_ends_it_when_full() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "1", "--when-full", "reject"]);
    world.run(&["publish", "jobs", "a", "b"]).is(
        6,
        "",
        "bus: message 2 for jobs: channel jobs is full with 1 of 1 message, and rejects what does not fit: \
         wait for its receiver, or raise its capacity (`bus create --capacity`); the message before it was accepted\n",
    );
}

/// Of lines many are looked at before one is sent.
#[test]
fn the_first_line_that_is_rejected_is_named_and_only_those_before_it_count_as_accepted() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "10", "--when-full", "reject"]);
    let lines: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let told = "bus: message 11 for jobs: channel jobs is full with 10 of 10 messages, and rejects what does not fit: \
                wait for its receiver, or raise its capacity (`bus create --capacity`); the 10 messages before it were accepted\n";
    world.run_with(&["publish", "jobs"], lines.as_bytes()).is(6, "", told);
    world.output(&["-q", "purge", "jobs"]);
    let outcome = world.run(&["run", "--out", "jobs", "--", "seq", "1", "1000"]);
    outcome.is(6, "", told);
}

#[test]
fn what_a_channel_drops_is_told() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "2", "--when-full", "drop-oldest"]);
    let outcome = world.run_with(&["publish", "jobs"], b"a\nb\nc\nd\ne\n");
    outcome.is(0, "", "bus: 3 messages of 5 dropped: jobs was full\n");
    assert_eq!(world.drain("jobs"), "d\ne\n");
}

#[test]
fn a_required_receiver_that_is_not_there_ends_it() {
    let world = World::new();
    let outcome = world.run(&["publish", "jobs", "a", "--require-receiver"]);
    outcome.is(
        5,
        "",
        "bus: message 1 for jobs: channel jobs has no receiver, and --require-receiver asks for one: \
         start a consumer first\n",
    );
}

#[test]
fn deleting_the_channel_ends_a_publisher() {
    let world = World::new();
    let mut publisher = world.start(&["publish", "jobs"]);
    publisher.write(b"a\n");
    world.await_peers("jobs", 1, 0);
    assert_eq!(world.output(&["consume", "jobs", "-n", "1"]), "a\n");
    world.output(&["-q", "delete", "jobs"]);
    publisher.write(b"b\n");
    publisher.close_input();
    let deleted = "bus: message 2 for jobs: channel jobs was deleted: publish again to make it anew";
    publisher.end().fails(5, &[deleted]);
}

#[test]
fn a_message_over_the_limit_is_named_and_those_before_it_are_kept() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--max-message", "4"]);
    let limit = "is over the limit of 4 bytes: split it, or raise max-message";
    for (arguments, input, named) in [
        (&["ab", "abcd", "abcde"][..], &b""[..], "message 3 for jobs: message of 5 bytes"),
        (&[], b"ab\nabcd\nabcde\nx", "message 3"),
        (&["--null"], b"ab\0abcd\0abcde", "message 3"),
        (&["--len32"], b"\x02\0\0\0ab\x04\0\0\0abcd\xff\xff\xff\xff", "message 3 of 4294967295 bytes"),
        (
            &["--jsonl"],
            b"{\"payload\":\"ab\"}\n{\"payload\":\"abcd\"}\n{\"payload\":\"abcde\"}",
            "message 3 for jobs: message of 5 bytes",
        ),
    ] {
        let outcome = world.run_with(&[&["publish", "jobs"], arguments].concat(), input);
        outcome.fails(1, &[named, limit, "split it, or raise max-message; the 2 messages before it were accepted\n"]);
        assert_eq!(world.drain("jobs"), "ab\nabcd\n", "{arguments:?}");
    }
    world.run_with(&["publish", "jobs", "--whole"], b"abcde").fails(1, &["message 1 ", limit]);
}

#[test]
fn a_bad_line_of_json_is_named_and_those_before_it_are_kept() {
    let world = World::new();
    for (line, reason) in [
        ("{}", "the object has neither payload nor payload_base64"),
        ("nonsense", "a message is an object, such as {\"payload\":\"text\"}"),
        ("{nonsense}", "key must be a string at column 2"),
        ("", "the line is empty"),
        ("[]", "a message is an object, such as {\"payload\":\"text\"}"),
        (r#"[{},null,"a",null,0,0,0,0,0,0]"#, "a message is an object, such as {\"payload\":\"text\"}"),
        (r#"{"payload":"a","payload":"b"}"#, "duplicate field `payload` at column 24"),
        (r#"{"payload":"a","headers":{"k":"1","k":"2"}}"#, "duplicate header \"k\" at column 42"),
    ] {
        let input = format!("{{\"payload\":\"a\"}}\n{line}\n{{\"payload\":\"c\"}}\n");
        let outcome = world.run_with(&["publish", "jobs", "--jsonl"], input.as_bytes());
        outcome.is(1, "", &format!("bus: line 2 is no message: {reason}; the message before it was accepted\n"));
        assert_eq!(world.drain("jobs"), "a\n");
    }
}

#[test]
fn an_input_that_ends_within_a_message_is_an_error() {
    let world = World::new();
    let outcome = world.run_with(&["publish", "jobs", "--len32"], b"\x01\0\0\0a\x05\0\0\0bc");
    outcome.is(
        1,
        "",
        "bus: the input ends within message 2: 2 of 5 bytes are there; the message before it was accepted\n",
    );
}

#[test]
fn a_folder_cannot_be_read_as_a_file() {
    let world = World::new();
    let folder = world.path("");
    let outcome = world.run(&["publish", "jobs", "--file", text(&folder)]);
    outcome.is(1, "", &format!("bus: {}: cannot read: Is a directory (os error 21)\n", text(&folder)));
}

#[test]
fn what_is_not_accepted_in_time_is_told_once() {
    let world = World::new();
    let mut publisher = world.start(&["publish", "jobs", "--timeout", "2s"]);
    publisher.write(b"a\n");
    assert_eq!(world.output(&["consume", "jobs", "-n", "1"]), "a\n");
    world.signal_daemon(Signal::STOP);
    publisher.write(b"b\n");
    let outcome = publisher.end();
    world.signal_daemon(Signal::CONT);
    outcome.is(
        4,
        "",
        "bus: jobs: the time passed before the daemon had accepted every message: what it has not may still arrive\n",
    );
}
