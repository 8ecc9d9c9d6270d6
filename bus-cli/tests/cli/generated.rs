//! Help, completions and manuals.

use crate::world::{bus_command, run, text};

fn output(arguments: &[&str]) -> String {
    let outcome = run(bus_command().args(arguments), b"");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{arguments:?}");
    String::from_utf8(outcome.stdout).unwrap()
}

const VERBS: [&str; 17] = [
    "publish",
    "consume",
    "run",
    "list",
    "show",
    "create",
    "delete",
    "purge",
    "skip",
    "kick",
    "link",
    "unlink",
    "links",
    "daemon",
    "demo",
    "completions",
    "man",
];

#[test]
fn the_help_lists_every_verb_and_every_exit_code() {
    let help = output(&["--help"]);
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is not in {help}");
        let of_verb = output(&[verb, "--help"]);
        assert!(of_verb.contains(&format!("Usage: bus {verb}")) && of_verb.contains("Examples:\n  "), "{of_verb}");
    }
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "130", "143"] {
        assert!(help.contains(&format!("\n  {code:>3}  ")), "{code} is not in {help}");
    }
    assert!(!help.contains("demo-"), "{help}");
}

#[test]
fn the_version_is_told() {
    assert_eq!(output(&["--version"]), format!("bus {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = output(&["completions", shell]);
        assert!(script.contains("publish") && script.contains("until-empty"), "{shell}");
        // Neither what only this program types, nor what it does not know.
        for hidden in ["demo-", "demo__", "given subcommand(s)"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
    // Where a shell can be told of them, values are completed too.
    assert!(output(&["completions", "bash"]).contains("block reject drop-oldest drop-newest"));
}

#[test]
fn every_verb_has_a_manual() {
    let main = output(&["man"]);
    assert!(main.contains(".TH bus 1"), "{main}");
    assert!(main.contains("the channel has a receiver") && main.contains("bus\\-publish"), "{main}");
    assert!(!main.contains("demo\\-"), "{main}");
    for verb in VERBS {
        let page = output(&["man", verb]);
        assert!(page.contains(&format!(".TH bus-{verb} 1")), "{verb}: {page}");
    }
    assert!(output(&["man", "publish"]).contains("tail \\-f app.log"));
}

#[test]
fn all_manuals_can_be_written_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("man1");
    assert_eq!(output(&["man", "--dir", text(&folder)]), "");
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected: Vec<String> =
        VERBS.iter().map(|verb| format!("bus-{verb}.1")).chain(["bus.1".to_owned()]).collect();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_manual_of_no_verb_is_wrong_usage() {
    for verb in ["publsh", "demo-producer", "help"] {
        run(bus_command().args(["man", verb]), b"")
            .fails(2, &[&format!("no verb is called {verb:?}: there are publish, ")]);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let outcome = run(bus_command().args(["man", "--dir", "/dev/null/man"]), b"");
    outcome.is(1, "", "bus: cannot write manuals into /dev/null/man: Not a directory (os error 20)\n");
}
