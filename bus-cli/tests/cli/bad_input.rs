//! What is typed wrong: exit code 2, and a text that names it.

use crate::world::{bus_command, run};

fn wrong(arguments: &[&str], phrases: &[&str]) {
    let outcome = run(bus_command().args(arguments), b"");
    assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.stderr);
    outcome.fails(2, phrases);
}

#[test]
fn a_malformed_channel_name_is_wrong_for_every_verb() {
    for verb in ["publish", "consume", "show", "create", "delete", "purge", "skip", "kick"] {
        wrong(&[verb, "a..b"], &["channel name \"a..b\" has an empty token"]);
    }
    let long = "x".repeat(129);
    for (name, reason) in [
        ("", "a channel name must not be empty"),
        ("a b", "channel name \"a b\" has ' ' at byte 1"),
        ("ä", "has 'ä' at byte 0"),
        (".a", "has an empty token"),
        ("_sys.log", "is reserved"),
        (&long, "channel name of 129 bytes is over the limit of 128: shorten it"),
    ] {
        wrong(&["publish", name, "x"], &[reason]);
    }
}

#[test]
fn options_that_contradict_each_other_are_wrong() {
    for arguments in [
        &["publish", "jobs", "a", "--file", "x"][..],
        &["publish", "jobs", "a", "--null"],
        &["publish", "jobs", "a", "--jsonl"],
        &["publish", "jobs", "--null", "--lines"],
        &["publish", "jobs", "--len32", "--whole"],
        &["publish", "jobs", "--delimiter", "x", "--jsonl"],
        &["publish", "jobs", "a", "--try", "--timeout", "1s"],
        &["publish", "jobs", "--count", "2"],
        &["consume", "jobs", "--null", "--format", "%p"],
        &["consume", "jobs", "--exec", "true", "--jsonl"],
        &["consume", "jobs", "--exec", "true", "--format", "%p"],
        &["consume", "jobs", "--exec", "true", "--peek"],
        &["consume", "jobs", "--peek", "--standby"],
        &["consume", "jobs", "--peek", "--until-empty"],
        &["consume", "jobs", "--peek", "--until-disconnected"],
        &["consume", "jobs", "--peek", "--idle", "1s"],
        &["consume", "jobs", "--peek", "--timeout", "1s"],
        &["consume", "jobs", "--max-attempts", "2"],
        &["consume", "jobs", "--retry-delay", "2s"],
        &["man", "publish", "--dir", "x"],
    ] {
        wrong(arguments, &["Usage: bus "]);
    }
}

#[test]
fn values_that_are_none_are_named() {
    for (arguments, reason) in [
        (&["publish", "jobs", "a", "--count", "x"][..], "'x' for '--count <N>'"),
        (&["publish", "jobs", "a", "--rate", "0"], "not a rate"),
        (&["publish", "jobs", "a", "--timeout", "soon"], "not a duration: write 5s, 250ms, 1m30s"),
        (&["publish", "jobs", "a", "--codec", "xml"], "[possible values: raw, bincode, postcard, json]"),
        (&["publish", "jobs", "a", "-H", "novalue"], "not a header: write key=value"),
        (&["publish", "jobs", "--delimiter", ""], "a delimiter has at least one byte"),
        (&["publish", "jobs", "--delimiter", r"\q"], "unknown escape"),
        (&["publish", "jobs", "--delimiter", r"\x+1"], "unknown escape"),
        (&["consume", "jobs", "--format", "%q"], "unknown field %q"),
        (&["consume", "jobs", "-n", "-1"], "'-1'"),
        (&["consume", "jobs", "--exec", "true", "--max-attempts", "0"], "'0' for '--max-attempts <N>'"),
        (&["create", "jobs", "--capacity", "0"], "'0' for '--capacity <MESSAGES>'"),
        (&["create", "jobs", "--capacity-bytes", "1 parsec"], "not a size: write 1000, 64KiB, 16MiB or 1GB"),
        (&["create", "jobs", "--capacity-bytes", "0"], "0 would let nothing through: give 1 or more"),
        (&["create", "jobs", "--max-message", "4GiB"], "a message has less than 4 GiB"),
        (&["create", "jobs", "--max-message", "0KiB"], "0 would let nothing through: give 1 or more"),
        (&["create", "jobs", "--when-full", "panic"], "[possible values: block, reject, drop-oldest, drop-newest]"),
        (&["demo", "--messages", "0"], "'0' for '--messages <N>'"),
        (&["demo", "--messages", "18446744073709551614"], "is not in 1..=1000000000000"),
        (&["completions", "cmd"], "'cmd' for '<SHELL>'"),
    ] {
        wrong(arguments, &[reason]);
    }
}

#[test]
fn an_unknown_verb_or_none_is_wrong() {
    wrong(&["publsh", "jobs"], &["unrecognized subcommand 'publsh'", "'publish'"]);
    wrong(&[], &["Usage: bus "]);
    wrong(&["publish"], &["<CHANNEL>"]);
}
