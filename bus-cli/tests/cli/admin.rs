//! `bus list`, `show`, `create`, `delete`, `purge`, `skip`, `kick`.

use serde_json::{Value, json};

use crate::world::World;

fn parsed(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.output(arguments)).unwrap()
}

#[test]
fn the_list_has_a_line_for_each_channel() {
    let world = World::new();
    let headings = "CHANNEL  QUEUED  IN DELIVERY  BYTES  ACCEPTED  ACKNOWLEDGED  SENDERS  RECEIVERS\n";
    assert_eq!(world.output(&["list"]), headings);
    world.publish("jobs.eu", &["abc", "de"]);
    world.output(&["-q", "create", "empty"]);
    let lines = "empty         0            0      0         0             0        0          0\n\
                 jobs.eu       2            0      5         2             0        0          0\n";
    assert_eq!(world.output(&["list"]), format!("{headings}{lines}"));
}

#[test]
fn the_list_is_json_when_wanted() {
    let world = World::new();
    assert_eq!(parsed(&world, &["list", "--json"]), json!([]));
    world.publish("jobs", &["abc"]);
    let listed = parsed(&world, &["list", "--json"]);
    let ledger = json!({
        "accepted": 1, "acknowledged": 0, "queued": 1, "in_delivery": 0,
        "dropped": 0, "purged": 0, "expired": 0, "dead_lettered": 0
    });
    let peers = json!({"senders": 0, "receivers": 0});
    let channel = json!({"channel": "jobs", "kind": "mpsc", "ledger": ledger, "held_bytes": 3, "peers": peers});
    assert_eq!(listed, json!([channel]));
}

#[test]
fn a_channel_is_shown_with_its_options_and_its_account() {
    let world = World::new();
    world.output(&[
        "-q",
        "create",
        "jobs",
        "--capacity",
        "5",
        "--capacity-bytes",
        "1MiB",
        "--window",
        "3",
        "--max-message",
        "64KiB",
        "--when-full",
        "drop-oldest",
    ]);
    let expected = "\
channel          jobs
kind             mpsc, declared
type             any
capacity         5 messages, 1 MiB
window           3 messages
largest message  64 KiB
when full        drop-oldest
accepted         0
acknowledged     0
queued           0
in delivery      0
dropped          0
purged           0
expired          0
dead-lettered    0
held             0 B
oldest           -
";
    assert_eq!(world.output(&["show", "jobs"]), expected);
}

#[test]
fn the_ends_of_a_channel_are_shown() {
    let world = World::new();
    let consumer = world.start(&["consume", "jobs"]);
    let publisher = world.start(&["publish", "jobs"]);
    world.await_peers("jobs", 1, 1);
    let shown = world.output(&["show", "jobs"]);
    let (_, ends) = shown.split_once("\n\n").unwrap();
    let words: Vec<Vec<&str>> = ends.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["END", "PID", "UID", "NAME", "SENDER", "ROUTE", "MESSAGES", "OUTSTANDING", "BLOCKED"]);
    assert_eq!(words[1][..2], ["receiver", &consumer.pid().to_string()]);
    assert_eq!(words[1][3..], ["bus", "consume", "stream", "0", "0"]);
    // This test's own watcher may still be leaving.
    let sender = words.iter().find(|words| words[1] == publisher.pid().to_string()).unwrap();
    assert_eq!((sender[0], &sender[3..5], sender[5].len()), ("sender", &["bus", "publish"][..], 16));
}

#[test]
fn the_account_balances_in_json() {
    let world = World::new();
    world.publish("jobs", &["a", "b", "c", "d"]);
    world.output(&["consume", "jobs", "-n", "1"]);
    world.output(&["-q", "skip", "jobs"]);
    let shown = parsed(&world, &["show", "jobs", "--json"]);
    let ledger = json!({
        "accepted": 4, "acknowledged": 1, "queued": 2, "in_delivery": 0,
        "dropped": 0, "purged": 1, "expired": 0, "dead_lettered": 0
    });
    assert_eq!(shown["ledger"], ledger);
    assert_eq!(
        (&shown["channel"], &shown["receiver"], &shown["when_full"]),
        (&json!("jobs"), &Value::Null, &json!("block"))
    );
}

#[test]
fn declaring_a_channel_again_needs_the_same_options() {
    let world = World::new();
    world.run(&["create", "jobs", "--capacity", "2"]).is(0, "", "bus: created jobs\n");
    world.run(&["create", "jobs", "--capacity", "2"]).is(0, "", "bus: jobs is declared already, with these options\n");
    world.run(&["create", "jobs", "--capacity", "3"]).fails(1, &["bus: ", "jobs"]);
    assert_eq!(parsed(&world, &["create", "more", "--json"]), json!({"channel": "more", "created": true}));
    assert_eq!(parsed(&world, &["create", "more", "--json"]), json!({"channel": "more", "created": false}));
}

#[test]
fn removing_messages_is_counted() {
    let world = World::new();
    world.publish("jobs", &["a", "b", "c", "d"]);
    world.run(&["skip", "jobs"]).is(0, "", "bus: skipped the head of jobs: 1 message removed\n");
    assert_eq!(world.output(&["consume", "jobs", "--peek"]), "b\nc\nd\n");
    world.run(&["purge", "jobs"]).is(0, "", "bus: purged jobs: 3 messages removed\n");
    world.run(&["create", "jobs"]).is(0, "", "bus: created jobs\n");
    world.run(&["purge", "jobs"]).is(0, "", "bus: purged jobs: 0 messages removed\n");
    world.publish("jobs", &["a", "b"]);
    world.run(&["delete", "jobs"]).is(0, "", "bus: deleted jobs: 2 messages removed\n");
    assert_eq!(parsed(&world, &["list", "--json"]), json!([]));
}

#[test]
fn orders_answer_in_json_when_wanted() {
    let world = World::new();
    world.publish("jobs", &["a", "b", "c"]);
    let removed = |messages: u32| json!({"channel": "jobs", "messages": messages, "recalled": 0});
    assert_eq!(parsed(&world, &["skip", "jobs", "--json"]), removed(1));
    assert_eq!(parsed(&world, &["purge", "jobs", "--json"]), removed(2));
    world.output(&["-q", "create", "jobs"]);
    assert_eq!(parsed(&world, &["delete", "jobs", "--json"]), removed(0));
    let consumer = world.start(&["consume", "jobs"]);
    world.await_peers("jobs", 0, 1);
    let kicked = json!({"channel": "jobs", "pid": consumer.pid(), "name": "bus consume"});
    assert_eq!(parsed(&world, &["kick", "jobs", "--json"]), kicked);
}

#[test]
fn a_quiet_order_says_nothing() {
    let world = World::new();
    world.run(&["create", "jobs", "-q"]).is(0, "", "");
    world.run(&["--quiet", "delete", "jobs"]).is(0, "", "");
}

#[test]
fn an_unknown_channel_is_named() {
    let world = World::new();
    for verb in ["show", "delete", "purge", "skip", "kick"] {
        let outcome = world.run(&[verb, "none"]);
        outcome.is(1, "", "bus: no channel is called none: `bus list` shows those that are\n");
    }
}

#[test]
fn kicking_nobody_is_an_error() {
    let world = World::new();
    world.output(&["-q", "create", "jobs"]);
    world.run(&["kick", "jobs"]).fails(1, &["jobs", "no receiver"]);
}

#[test]
fn a_channel_that_exists_otherwise_says_what_is_otherwise() {
    let world = World::new();
    world.output(&["-q", "create", "jobs", "--capacity", "5"]);
    world
        .run(&["create", "jobs", "--capacity", "2", "--when-full", "reject"])
        .fails(1, &["jobs", "--capacity 5 instead of 2", "--when-full block instead of reject"]);
}
