//! `bus link`, `unlink`, `links`, and gateways in `bus show`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Instant;

use serde_json::Value;

use crate::world::{PATIENCE, World};

fn links(world: &World) -> Value {
    serde_json::from_str(&world.output(&["links", "--json"])).unwrap()
}

#[test]
fn a_fifo_is_linked_listed_shown_and_unlinked() {
    let world = World::new();
    let fifo = world.path("in");
    let path = fifo.to_str().unwrap();
    world.run(&["link", "jobs", "--from-fifo", path]).is(0, "", &format!("bus: linked 1: jobs from-fifo {path}\n"));
    OpenOptions::new().write(true).open(&fifo).unwrap().write_all(b"one\ntwo").unwrap();
    world.run(&["consume", "jobs", "-n", "2"]).is(0, "one\ntwo\n", "");
    let width = path.len() + 10;
    let headings = format!(
        "LINK  CHANNEL  {:<width$}  KEPT  STATE    PID  MESSAGES  REFUSED  RESTARTS  LAST EXIT  NOTE\n",
        "PIPE"
    );
    let line = format!(
        "   1  jobs     {:<width$}        running              2        0         0",
        format!("from-fifo {path}")
    );
    let listed = world.output(&["links"]);
    assert_eq!(listed.lines().map(str::trim_end).collect::<Vec<_>>(), [headings.trim_end(), &line]);
    let shown = world.output(&["show", "jobs"]);
    assert!(shown.ends_with(&listed) && shown.contains("link 1: from-fifo /"), "{shown}");
    world.run(&["unlink", "jobs"]).is(0, "", &format!("bus: unlinked 1: jobs from-fifo {path}\n"));
    assert!(!fifo.exists());
    assert_eq!(links(&world), Value::Array(Vec::new()));
}

#[test]
fn refusals_have_the_codes_of_the_table() {
    let world = World::new();
    world.run(&["link", "jobs"]).fails(2, &["--from-fifo <PATH>|--to-fifo <PATH>"]);
    world.run(&["link", "jobs", "--from-fifo", "a", "--to-fifo", "b"]).fails(2, &["cannot be used with"]);
    world.run(&["link", "jobs", "--from-command", "a", "--ack", "line"]).fails(2, &["cannot be used with"]);
    world.run(&["link", "a..b", "--from-fifo", "a"]).fails(2, &[]);
    world.run(&["unlink", "7"]).fails(1, &["there is no gateway 7: `bus links` shows those that are"]);
    world.run(&["unlink", "jobs"]).fails(1, &["channel jobs has no gateway"]);
    let socket = world.socket();
    let refused = world.run(&["link", "jobs", "--to-fifo", socket.to_str().unwrap()]);
    refused.fails(1, &["is a socket and no FIFO, and stays as it is"]);
    world.run(&["link", "jobs", "--to-command", "cat"]).is(0, "", "bus: linked 2: jobs to-command cat\n");
    let kept = world.run(&["link", "other", "--to-command", "cat", "--keep"]);
    kept.fails(1, &["the daemon was started without a config file: end it and start `busd --config PATH`"]);
    let taken = world.run(&["link", "jobs", "--to-fifo", world.path("out").to_str().unwrap()]);
    taken.fails(9, &["channel jobs has a receiver: link 2: to-command cat"]);
    assert!(!world.path("out").exists());
}

#[test]
fn one_of_several_gateways_of_a_channel_is_ended_by_its_pipe() {
    let world = World::new();
    for command in ["sleep 600", "sleep 601"] {
        world.output(&["-q", "link", "jobs", "--from-command", command, "--null"]);
    }
    world.run(&["unlink", "jobs", "--from-command", "sleep 600"]).is(
        0,
        "",
        "bus: unlinked 1: jobs from-command sleep 600\n",
    );
    let left = links(&world);
    assert_eq!(left[0]["spec"]["pipe"]["from-command"], "sleep 601");
    assert_eq!((left[0]["state"].as_str(), left.as_array().unwrap().len()), (Some("running"), 1));
}

#[test]
fn how_the_command_of_a_gateway_ended_last_is_shown_with_its_channel() {
    let world = World::new();
    world.output(&["-q", "create", "jobs"]);
    world.output(&["-q", "link", "jobs", "--from-command", "exit 7", "--restart", "never"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = world.output(&["show", "jobs"]);
        let line = shown.lines().find(|line| line.contains("from-command exit 7  ")).unwrap_or_default();
        if line.contains(" exit status 7 ") {
            break;
        }
        assert!(Instant::now() < deadline, "{shown}");
    }
}

/// Nobody declared the channel, and it vanished with its last message.
#[test]
fn how_the_command_of_a_gateway_ended_is_shown_when_its_channel_is_gone() {
    let world = World::new();
    world.output(&["-q", "link", "jobs", "--from-command", "exit 7", "--restart", "never"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = world.run(&["show", "jobs"]);
        if shown.code == 1 {
            assert!(shown.stderr.starts_with("bus: no channel is called jobs: "), "{}", shown.stderr);
            assert!(shown.stderr.contains("; it had gateways:\n"), "{}", shown.stderr);
            assert!(shown.stderr.contains(" exit status 7 "), "{}", shown.stderr);
            break;
        }
        assert!(Instant::now() < deadline, "{}", shown.stderr);
    }
}

#[test]
fn lines_of_json_pass_pipes_with_their_headers() {
    let world = World::new();
    let path = |name: &str| world.path(name).to_str().unwrap().to_owned();
    world.output(&["-q", "link", "from", "--to-command", &format!("cat > '{}'", path("lines")), "--jsonl"]);
    world.run(&["publish", "from", "a\nb", "-H", "size=L"]).is(0, "", "");
    world.output(&["-q", "link", "to", "--from-command", &format!("tail -n +1 -F '{}'", path("lines")), "--jsonl"]);
    let shown = world.output(&["consume", "to", "-n", "1", "--format", "%p %h"]);
    assert_eq!(shown, "a\nb {\"size\":\"L\"}");
    assert_eq!(links(&world)[0]["spec"]["framing"], "json-lines");
}
