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
fn options_that_contradict_each_other_are_wrong_and_both_are_named() {
    for (arguments, one, other) in [
        (&["publish", "jobs", "a", "--file", "x"][..], "[MESSAGE]...", "--file <PATH>"),
        (&["publish", "jobs", "a", "--null"], "[MESSAGE]...", "--null"),
        (&["publish", "jobs", "a", "--jsonl"], "[MESSAGE]...", "--jsonl"),
        (&["publish", "jobs", "--null", "--lines"], "--null", "--lines"),
        (&["publish", "jobs", "--whole", "--lines"], "--whole", "--lines"),
        (&["publish", "jobs", "--len32", "--whole"], "--len32", "--whole"),
        (&["publish", "jobs", "--delimiter", "x", "--jsonl"], "--delimiter <STR>", "--jsonl"),
        (&["publish", "jobs", "a", "--try", "--timeout", "1s"], "--try", "--timeout <DURATION>"),
        (&["publish", "jobs", "--file", "-", "--file", "-"], "--file -", "twice: the input can be read once"),
        (&["consume", "jobs", "--null", "--format", "%p"], "--format <TEMPLATE>", "--null"),
        (&["consume", "jobs", "--exec", "true", "--jsonl"], "--exec <CMD>", "--jsonl"),
        (&["consume", "jobs", "--exec", "true", "--format", "%p"], "--exec <CMD>", "--format <TEMPLATE>"),
        (&["consume", "jobs", "--exec", "true", "--peek"], "--exec <CMD>", "--peek"),
        (&["consume", "jobs", "--peek", "--standby"], "--peek", "--standby"),
        (&["consume", "jobs", "--peek", "--until-empty"], "--peek", "--until-empty"),
        (&["consume", "jobs", "--peek", "--until-disconnected"], "--peek", "--until-disconnected"),
        (&["consume", "jobs", "--peek", "--idle", "1s"], "--peek", "--idle <DURATION>"),
        (&["consume", "jobs", "--peek", "--timeout", "1s"], "--peek", "--timeout <DURATION>"),
        (&["consume", "jobs", "--until-empty", "--idle", "1s"], "--until-empty", "--idle <DURATION>"),
        (&["consume", "jobs", "--until-empty", "--until-disconnected"], "--until-empty", "--until-disconnected"),
        (&["run", "--in", "jobs", "--until-empty", "--idle", "1s", "--", "true"], "--until-empty", "--idle <DURATION>"),
        (&["man", "publish", "--dir", "x"], "[VERB]", "--dir <DIR>"),
    ] {
        let named =
            [one, other].map(|option| if option.contains(' ') { option.to_owned() } else { format!("{option}'") });
        wrong(arguments, &["cannot be used", &named[0], &named[1]]);
        let named_too = run(bus_command().args(arguments), b"").stderr;
        for framing in ["--lines", "--null", "--len32"].iter().filter(|framing| !arguments.contains(framing)) {
            let told = named_too.split("\n\n").next().unwrap();
            assert!(!told.contains(framing), "{framing} was not typed: {told}");
        }
    }
}

#[test]
fn an_option_without_the_one_that_it_belongs_to_is_wrong() {
    for (arguments, missing) in [
        (&["publish", "jobs", "--count", "2"][..], "<MESSAGE>..."),
        (&["consume", "jobs", "--max-attempts", "2"], "--exec <CMD>"),
        (&["consume", "jobs", "--retry-delay", "2s"], "--exec <CMD>"),
        (&["consume", "jobs", "--exec", "true", "--retry-delay", "2s"], "--max-attempts <N>"),
        (&["run", "--out", "jobs", "--until-empty", "--", "true"], "--in CHANNEL"),
        (&["run", "--in", "jobs", "-H", "a=1", "--", "true"], "--out <CHANNEL>"),
    ] {
        wrong(arguments, &[missing]);
    }
}

#[test]
fn values_that_are_none_are_named() {
    for (arguments, reason) in [
        (&["publish", "jobs", "a", "--count", "x"][..], "'x' for '--count <N>'"),
        (&["publish", "jobs", "a", "--count", "0"], "'0' for '--count <N>': 0 would do nothing: give 1 or more"),
        (
            &["publish", "jobs", "a", "--rate", "0"],
            "'0' for '--rate <N>': not a rate: write a number of messages a second above 0",
        ),
        (&["publish", "jobs", "a", "--timeout", "soon"], "not a duration: write 5s, 250ms, 1m30s"),
        (&["publish", "jobs", "a", "--codec", "xml"], "[possible values: raw, bincode, postcard, json]"),
        (&["publish", "jobs", "a", "-H", "novalue"], "not a header: write key=value"),
        (&["publish", "jobs", "--delimiter", ""], "a delimiter has at least one byte"),
        (&["publish", "jobs", "--delimiter", r"\q"], "unknown escape"),
        (&["publish", "jobs", "--delimiter", r"\x+1"], "unknown escape"),
        (&["consume", "jobs", "--format", "%q"], "unknown field %q"),
        (&["consume", "jobs", "-n", "-1"], "'-1'"),
        (&["consume", "jobs", "-n", "many"], "'many' for '--messages <N>': not a number: give 1 or more"),
        (&["consume", "jobs", "-n", "0"], "'0' for '--messages <N>': 0 would do nothing: give 1 or more"),
        (&["consume", "jobs", "--idle=-1s"], "'-1s' for '--idle <DURATION>': not a duration: write 5s, 250ms, 1m30s"),
        (
            &["consume", "jobs", "--exec", "true", "--max-attempts", "0"],
            "'0' for '--max-attempts <N>': 0 would do nothing: give 1 or more",
        ),
        (&["consume", "jobs", "-n", "18446744073709551616"], "over the limit of 18446744073709551615: give less"),
        (
            &["create", "jobs", "--capacity", "0"],
            "'0' for '--capacity <MESSAGES>': 0 would let nothing through: give 1",
        ),
        (&["create", "jobs", "--window", "4294967296"], "over the limit of 4294967295: give less"),
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
