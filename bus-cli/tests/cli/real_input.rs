//! The main job on files that nobody wrote for it: four shells publish at once, and what arrives of each is
//! byte for byte what it read, through the death of the consumer and of the daemon.

use std::collections::HashMap;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Outcome, Running, World};

/// Neither a file of this repository nor a program is a test's invention.
fn files() -> [Vec<u8>; 4] {
    let read = |name: &str| std::fs::read(format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut binary = std::fs::read(env!("CARGO_BIN_EXE_bus")).unwrap();
    binary.truncate(1 << 20);
    let crlf = String::from_utf8(read("LICENSE-APACHE").repeat(10)).unwrap().replace('\n', "\r\n").into_bytes();
    let lock = String::from_utf8(read("Cargo.lock")).unwrap();
    let long = [lock.replace('\n', "\t").repeat(5), String::new(), lock.replace('\n', " ").repeat(20)].join("\n");
    let json: String = lock.lines().map(|line| Value::from(line).to_string() + "\n").collect();
    [binary, crlf, long.into_bytes(), json.repeat(3).into_bytes()]
}

/// A shell that publishes its input.
fn shell(world: &World) -> Running {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" --socket \"$1\" publish real", env!("CARGO_BIN_EXE_bus")]).arg(world.socket());
    Running::start(shell.env("BUS_AUTOSTART", "0"))
}

/// Writes the files to the shells, by turns.
fn write(shells: &mut [Running], files: &[&[u8]]) {
    const PIECES: usize = 16;
    for piece in 0..PIECES {
        for (shell, file) in shells.iter_mut().zip(files) {
            shell.write(&file[file.len() * piece / PIECES..file.len() * (piece + 1) / PIECES]);
        }
    }
}

/// What came of each sender's process, in the order of its sequence.
#[derive(Default)]
struct Arrived {
    by_pid: HashMap<u64, Vec<Vec<u8>>>,
    doubles: usize,
}

impl Arrived {
    fn note(&mut self, line: &str) {
        let message: Value = serde_json::from_str(line).unwrap();
        let messages = self.by_pid.entry(message["sender"]["pid"].as_u64().unwrap()).or_default();
        let sequence = message["sequence"].as_u64().unwrap();
        let next = messages.len() as u64 + 1;
        assert!(sequence <= next, "lost between {next} and {sequence}");
        if sequence < next {
            assert_eq!(message["redelivered"], true, "a double that is not marked: {line}");
            self.doubles += 1;
            return;
        }
        messages.push(match message["payload"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => STANDARD.decode(message["payload_base64"].as_str().unwrap()).unwrap(),
        });
    }

    /// The next lines of a consumer.
    fn read(&mut self, consumer: &mut Running, lines: usize) {
        for _ in 0..lines {
            self.note(&consumer.line());
        }
    }

    /// What it wrote besides. A line that its death tore is none.
    fn take(&mut self, outcome: &Outcome) {
        let whole = outcome.stdout.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        std::str::from_utf8(&outcome.stdout[..whole]).unwrap().lines().for_each(|line| self.note(line));
    }
}

#[test]
fn four_shells_publish_four_files_and_every_byte_arrives_whoever_is_killed() {
    let files = files();
    let (first, second): (Vec<&[u8]>, Vec<&[u8]>) = files.iter().map(|file| file.split_at(file.len() / 2)).unzip();
    let mut world = World::new();
    let mut shells: Vec<Running> = (0..4).map(|_| shell(&world)).collect();
    let pids: Vec<u64> = shells.iter().map(|shell| shell.pid().into()).collect();
    let mut arrived = Arrived::default();

    let mut consumer = world.start(&["consume", "real", "--jsonl"]);
    write(&mut shells, &first);
    arrived.read(&mut consumer, 200);
    consumer.signal(Signal::KILL);
    let outcome = consumer.end();
    assert_eq!(outcome.code, 1009);
    arrived.take(&outcome);

    let mut consumer = world.start(&["consume", "real", "--jsonl", "--until-disconnected"]);
    arrived.read(&mut consumer, 200);
    // The shells wait for input, and hold what nobody has acknowledged.
    world.restart();
    let consumer = std::thread::spawn(move || consumer.end());
    write(&mut shells, &second);
    for mut shell in shells {
        shell.close_input();
        shell.end().is(0, "", "");
    }
    let outcome = consumer.join().unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    arrived.take(&outcome);

    for (file, pid) in files.iter().zip(&pids) {
        let mut bytes = arrived.by_pid[pid].join(&b'\n');
        if file.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        assert!(bytes == *file, "{} of {} bytes arrived, {} doubles", bytes.len(), file.len(), arrived.doubles);
    }
    assert_eq!(arrived.by_pid.len(), files.len());
}
