//! The config file: what it sets, and the exact words for each way in which it can be wrong.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bus_core::framing::Framing;
use bus_core::{ChannelName, ChannelOptions, LinkSpec, Pipe, Restart, WhenFull};
use bus_daemon::{Config, ConfigError, PerUser};

struct File {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl File {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busd.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        Self { path, _folder: folder }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.path)
    }
}

/// The message without the folder, so that a test can write it down.
fn refusal(text: impl AsRef<[u8]>) -> String {
    let file = File::new(text);
    let message = file.load().unwrap_err().to_string();
    message.replace(file.path.parent().unwrap().to_str().unwrap(), "")
}

#[track_caller]
fn assert_refused(text: &str, message: &str) {
    assert_eq!(refusal(text), format!("/busd.toml:{message}"), "of {text:?}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    let file = File::new("");
    assert_eq!(file.load().unwrap(), Config { file: Some(file.path.clone()), ..Config::default() });
}

#[test]
fn every_key_is_read() {
    let text = r#"
        socket = "/run/bus/bus.sock"
        socket_mode = "0660"
        socket_group = 12
        allowed_uids = [1000, 1001]
        message_max_bytes = "1MiB"
        window_messages = 2
        window_bytes = 3
        capacity_messages = 4
        capacity_bytes = "5kB"
        push_ahead_messages = 6
        push_ahead_bytes = "7 KiB"
        connections_max = 8
        links_max = 20
        hello_timeout = "9ms"
        resume_grace = "10s"
        lane_idle = "23s"
        departed_senders_max = 11
        departed_senders_ttl = "12m"
        idle_exit = "1h"
        drain_timeout = "0s"
        poll = "15us"

        [per_user]
        connections_max = 16
        channels_max = 17
        queued_bytes_max = "18GiB"
        lanes_max = 21
        lane_bytes_max = "22MiB"

        [channels.jobs]

        [channels."orders.eu"]
        capacity = 2
        capacity_bytes = "1MB"
        window = 3
        message_max_bytes = "64KiB"
        when_full = "drop-oldest"

        [[link]]
        channel = "jobs"
        to_command = "./worker"
        framing = "delimiter"
        delimiter = "--"
        restart = "always"
        restart_limit = 3
        ack = "line"
    "#;
    let mut worker = LinkSpec::new(ChannelName::new("jobs").unwrap(), Pipe::ToCommand("./worker".to_owned()));
    worker.framing = Framing::Delimited(b"--".to_vec());
    (worker.restart, worker.restart_limit, worker.ack_lines) = (Restart::Always, 3, true);
    // What stands in the file comes back with the daemon.
    worker.keep = true;
    let orders = ChannelOptions {
        capacity: Some(2),
        capacity_bytes: Some(1_000_000),
        window: Some(3),
        message_max_bytes: Some(65_536),
        when_full: WhenFull::DropOldest,
    };
    let file = File::new(text);
    let expected = Config {
        file: Some(file.path.clone()),
        socket: Some(bus_core::Address::new("/run/bus/bus.sock").unwrap()),
        socket_mode: 0o660,
        socket_group: Some(12),
        allowed_uids: vec![1000, 1001],
        message_max_bytes: 1 << 20,
        window_messages: 2,
        window_bytes: 3,
        capacity_messages: 4,
        capacity_bytes: 5_000,
        push_ahead_messages: 6,
        push_ahead_bytes: 7 << 10,
        connections_max: 8,
        links_max: 20,
        per_user: PerUser {
            connections_max: 16,
            channels_max: 17,
            queued_bytes_max: 18 << 30,
            lanes_max: 21,
            lane_bytes_max: 22 << 20,
        },
        hello_timeout_ms: 9,
        resume_grace_ms: 10_000,
        lane_idle_ms: 23_000,
        departed_senders_max: 11,
        departed_senders_ttl_ms: 720_000,
        idle_exit_ms: Some(3_600_000),
        drain_timeout_ms: 0,
        poll_us: 15,
        links: vec![worker],
        channels: [("jobs".parse().unwrap(), ChannelOptions::default()), ("orders.eu".parse().unwrap(), orders)].into(),
    };
    assert_eq!(file.load().unwrap(), expected);
}

#[test]
fn the_mode_may_be_an_octal_number_and_the_group_a_name() {
    let config = File::new("socket_mode = 0o660\nsocket_group = \"root\"\n").load().unwrap();
    assert_eq!((config.socket_mode, config.socket_group), (0o660, Some(0)));
}

#[test]
fn the_example_file_shows_every_key_with_its_default() {
    let example = include_str!("../packaging/busd.toml");
    // Prose is "# like this", a setting "#like = this".
    let settings: String = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with([' ', '#']))
        .map(|line| format!("{line}\n"))
        .collect();
    let shown = File::new(&settings).load();
    // The group in the example has no default and needs another mode.
    assert!(shown.unwrap_err().to_string().contains("socket_group is 0"));

    let shown = File::new(settings.replace("socket_group = 0\n", "")).load().unwrap();
    assert!(
        shown.socket.is_some() && shown.idle_exit_ms.is_some() && shown.channels.len() == 1 && shown.links.len() == 1
    );
    let defaults = Config { poll_us: 50, ..Config::default() };
    assert_eq!(
        Config {
            socket: None,
            idle_exit_ms: None,
            channels: Default::default(),
            links: Vec::new(),
            file: None,
            ..shown
        },
        defaults
    );

    for (table, prefix) in [("", ""), ("[per_user]\n", "per_user."), ("[channels.jobs]\n", "channels.jobs.")] {
        let message = refusal(format!("{table}nothing = 1\n"));
        let keys: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() >= 3, "{prefix}: {message}");
        for key in keys {
            let line = match key {
                "per_user" | "channels" => format!("[{key}"),
                "link" => "[[link]]".to_owned(),
                _ => format!("{key} = "),
            };
            assert!(settings.lines().any(|shown| shown.starts_with(&line)), "{prefix}{key} is not shown");
        }
    }
}

#[test]
fn a_figure_out_of_its_limits_is_named_with_them() {
    assert_refused("window_messages = 0\n", "1:19: window_messages is 0 messages: give 1 to 4294967295");
    assert_refused(
        "# first\nmessage_max_bytes = \"2GiB\"\n",
        "2:21: message_max_bytes is 2147483648 bytes: give 1 to 1073741824",
    );
    assert_refused("message_max_bytes = 0\n", "1:21: message_max_bytes is 0 bytes: give 1 to 1073741824");
    assert_refused(
        "capacity_bytes = \"2TiB\"\n",
        "1:18: capacity_bytes is 2199023255552 bytes: give 1 to 1099511627776",
    );
    assert_refused("hello_timeout = \"0s\"\n", "1:17: hello_timeout is 0 ms: give 1 to 3600000");
    assert_refused("idle_exit = \"0s\"\n", "1:13: idle_exit is 0 ms: give 1 to 31536000000");
    assert_refused("poll = \"1s\"\n", "1:8: poll is 1000000 us: give 0 to 10000");
    assert_refused("[per_user]\nchannels_max = 0\n", "2:16: per_user.channels_max is 0 channels: give 1 to 1048576");
    assert_refused(
        "channels.\"orders.eu\" = { window = 0 }\n",
        "1:35: channels.\"orders.eu\".window is 0 messages: give 1 to 4294967295",
    );
    assert_refused(
        "[channels.jobs]\nmessage_max_bytes = \"17MiB\"\n",
        "2:21: channels.jobs.message_max_bytes is 17825792 bytes, over the daemon's message_max_bytes of 16777216: raise that, or lower this",
    );
}

#[test]
fn a_figure_that_does_not_fit_is_named_with_its_range() {
    assert_refused(
        "window_messages = 5000000000\n",
        "1:19: window_messages: 5000000000 is out of range: give a whole number from 0 to 4294967295",
    );
    assert_refused(
        "connections_max = -1\n",
        "1:19: connections_max: -1 is out of range: give a whole number from 0 to 4294967295",
    );
    assert_refused(
        "message_max_bytes = \"5GiB\"\n",
        "1:21: message_max_bytes: 5368709120 bytes is out of range: give 1 to 1073741824 bytes",
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_the_right_one() {
    assert_refused(
        "window_bytes = \"many\"\n",
        "1:16: window_bytes: \"many\" is no size: write a number of bytes, or one with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB",
    );
    assert_refused(
        "hello_timeout = 5\n",
        "1:17: hello_timeout: invalid type: integer `5`, expected a duration with its unit, such as \"5s\" or \"250ms\"",
    );
    assert_refused(
        "hello_timeout = \"5 parsecs\"\n",
        "1:17: hello_timeout: \"5 parsecs\" is no duration: write a number with its unit, such as \"5s\", \"250ms\" or \"10m\"",
    );
    assert_refused(
        "hello_timeout = \"-5s\"\n",
        "1:17: hello_timeout: \"-5s\" is negative: write a duration of 0s or more",
    );
    assert_refused(
        "window_messages = true\n",
        "1:19: window_messages: invalid type: boolean `true`, expected a whole number",
    );
    assert_refused(
        "allowed_uids = [1, \"root\"]\n",
        "1:20: allowed_uids: invalid type: string \"root\", expected the id of a user",
    );
    assert_refused("channels = 3\n", "1:12: channels: invalid type: integer `3`, expected a map");
}

#[test]
fn an_unknown_key_is_named_with_those_that_there_are() {
    let message = refusal("[channels.jobs]\ncapacty = 2\n");
    assert_eq!(
        message,
        "/busd.toml:2:1: channels.jobs.capacty: unknown field `capacty`, expected one of `capacity`, `capacity_bytes`, `window`, `message_max_bytes`, `when_full`"
    );
    assert!(refusal("windw_messages = 1\n").starts_with("/busd.toml:1:1: windw_messages: unknown field"));
    assert!(refusal("[per_user]\nx = 1\n").starts_with("/busd.toml:2:1: per_user.x: unknown field `x`"));
}

#[test]
fn a_key_given_twice_is_refused() {
    assert_refused("[channels.jobs]\nwindow = 1\nwindow = 2\n", "3:1: duplicate key window");
    assert_refused("window_bytes = 1\nwindow_bytes = 2\n", "2:1: duplicate key window_bytes");
}

#[test]
fn what_is_no_toml_is_shown_where_it_breaks() {
    assert_refused(
        "window_messages = \n",
        "1:19: window_messages: string values must be quoted, expected literal string",
    );
    assert_refused("[per_user\n", "1:10: per_user: unclosed table, expected `]`");
}

#[test]
fn a_bad_channel_name_is_told_the_rule() {
    assert_refused(
        "[channels.\"a b\"]\n",
        "1:11: channels.\"a b\": channel name \"a b\" has ' ' at byte 1: use A-Z a-z 0-9 _ - in tokens joined by single dots",
    );
    assert_refused(
        "[channels.\"_sys.log\"]\n",
        "1:11: channels.\"_sys.log\": channel name \"_sys.log\" is reserved: names that begin with _sys. belong to the daemon",
    );
}

#[test]
fn an_unknown_policy_is_told_the_known_ones() {
    assert_refused(
        "[channels.jobs]\nwhen_full = \"drop\"\n",
        "2:13: channels.jobs.when_full: no policy is called \"drop\": choose block, reject, drop-oldest or drop-newest",
    );
}

#[test]
fn access_that_makes_no_sense_is_refused() {
    assert_refused(
        "socket_mode = \"0777\"\n",
        "1:15: socket_mode is 0777: give 0600 (own user), 0660 (a group) or 0666 (whom allowed_uids names)",
    );
    assert_refused(
        "socket_mode = 600\n",
        "1:15: socket_mode is 1130: give 0600 (own user), 0660 (a group) or 0666 (whom allowed_uids names)",
    );
    assert_refused("socket_mode = \"rw\"\n", "1:15: socket_mode: \"rw\" is no octal number: write it as \"0600\"");
    assert_refused(
        "socket_group = 12\n",
        "1:16: socket_group is 12, and socket_mode 0600 keeps every group out: set socket_mode = \"0660\"",
    );
    assert_refused(
        "socket_group = \"no such group\"\n",
        "1:16: socket_group: no group is called \"no such group\": create it, or give its id as a number",
    );
    assert_refused(
        "allowed_uids = [65534]\n",
        "1:16: allowed_uids has 65534, as which every unmapped user appears: list real users",
    );
}

#[test]
fn a_socket_path_is_checked_where_it_stands() {
    assert_refused("socket = \"bus.sock\"\n", "1:10: socket: socket path \"bus.sock\" is relative: write it from /");
    assert_refused(
        "socket = \"\"\n",
        "1:10: socket: the path of the bus socket is empty: give --socket PATH or set BUS_SOCKET",
    );
    let long = format!("/{}", "x".repeat(107));
    assert_refused(
        &format!("socket = \"{long}\"\n"),
        &format!(
            "1:10: socket: socket path {long} has 108 bytes, and a local socket holds 107: choose a shorter folder with --socket or BUS_SOCKET"
        ),
    );
}

#[test]
fn columns_count_characters() {
    assert_refused(
        "channels = { \"é\" = {} }\n",
        "1:14: channels.\"é\": channel name \"é\" has 'é' at byte 0: use A-Z a-z 0-9 _ - in tokens joined by single dots",
    );
    assert!(refusal("# é\n  per_user = { é = 1 }").starts_with("/busd.toml:2:16: "));
}

#[test]
fn a_file_that_anybody_may_write_to_is_refused() {
    let file = File::new("");
    std::fs::set_permissions(&file.path, PermissionsExt::from_mode(0o646)).unwrap();
    let text =
        format!("config file {} has mode 0646, so anybody may write to it: run chmod o-w on it", file.path.display());
    assert_eq!(file.load().unwrap_err().to_string(), text);
}

#[test]
fn a_file_of_another_user_is_refused() {
    let file = File::new("");
    let own = rustix::process::geteuid();
    if !own.is_root() {
        // Only root can give a file away, and /etc/passwd shows that root's files are accepted.
        assert!(matches!(Config::load("/etc/passwd"), Err(ConfigError::Syntax { .. })));
        return;
    }
    std::os::unix::fs::chown(&file.path, Some(1234), None).unwrap();
    let text = format!(
        "config file {} belongs to uid 1234, and only root or uid 0 may set up this daemon: run chown 0 on it",
        file.path.display()
    );
    assert_eq!(file.load().unwrap_err().to_string(), text);
}

#[test]
fn what_is_no_text_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Config::load(folder.path()), Err(ConfigError::NotAFile { .. })));
    assert!(matches!(Config::load(folder.path().join("missing")), Err(ConfigError::Read { .. })));

    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(Config::load(&pipe), Err(ConfigError::NotAFile { .. })));

    assert!(matches!(File::new([b'#', 0xff]).load(), Err(ConfigError::NotText { at: 1, .. })));
    assert!(matches!(File::new(vec![b'#'; (1 << 20) + 1]).load(), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_link_that_cannot_be_is_refused_with_its_line() {
    let table = "[[link]]\nchannel = \"jobs\"\n";
    assert_refused(
        &format!("links_max = 5\n{table}"),
        "2:1: link: the link of channel jobs needs one of from_fifo, to_fifo, from_command and to_command",
    );
    for (keys, reason) in [
        ("from_fifo = \"/a\"\nto_fifo = \"/b\"", "needs one of from_fifo, to_fifo, from_command and to_command"),
        ("from_fifo = \"a\"", "the path a of a FIFO is relative: write it from /"),
        ("from_command = \"a\"\nack = \"line\"", "--ack is for --to-command, and this is --from-command"),
        ("to_command = \"\"", "--to-command is empty or has a NUL"),
        ("to_command = \"a\"\ndelimiter = \"x\"", "a delimiter needs framing = \"delimiter\""),
        ("to_command = \"a\"\nframing = \"delimiter\"", "framing \"delimiter\" needs a delimiter of at least one byte"),
        ("to_command = \"a\"\nrestarts = 1", "unknown field `restarts`"),
        ("to_command = \"a\"\nrestart = \"often\"", "unknown variant `often`"),
    ] {
        let text = refusal(format!("{table}{keys}\n"));
        assert!(text.contains(reason) && text.starts_with("/busd.toml:"), "{text}");
    }
}
