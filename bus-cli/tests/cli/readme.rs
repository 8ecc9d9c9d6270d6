//! The README, word for word.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::finding::Home;
use crate::world::run;

#[test]
fn the_tour_of_the_shell_can_be_typed_as_it_stands() {
    let home = Home::new();
    let mut shown = Vec::new();
    for line in tour("## From the shell").filter(|line| !line.starts_with("cargo install")) {
        let mut shell = Command::new("sh");
        home.inhabit(shell.arg("-c").arg(line).env("PATH", path_with_bus()));
        let outcome = run(&mut shell, b"");
        assert_eq!(outcome.code, 0, "{line}: {}", outcome.stderr);
        shown.push(String::from_utf8(outcome.stdout).unwrap());
    }
    let [published, list, two, rest, with_header, job, filtered, created, show] = &shown[..] else {
        panic!("{shown:?}")
    };
    assert!(list.contains("\nnumbers "), "{list}");
    assert_eq!([published, two, rest], ["", "1\n2\n", "3\n"]);
    assert_eq!([with_header, job, filtered, created], ["", "acme wants resize cat.png\n", "", ""]);
    assert_eq!(serde_json::from_str::<Value>(show).unwrap()["capacity"], 1);
}

/// The commands of the first block of a chapter.
fn tour(chapter: &str) -> impl Iterator<Item = &'static str> {
    let (_, chapter) = README.split_once(chapter).unwrap();
    let (_, block) = chapter.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.lines().filter(|line| !line.is_empty())
}

/// `PATH`, with the program under test as `bus`.
fn path_with_bus() -> OsString {
    let folder = Path::new(env!("CARGO_BIN_EXE_bus")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

const README: &str = include_str!("../../../README.md");
