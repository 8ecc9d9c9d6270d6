//! The main job on files that nobody wrote for it: four shells publish at once, and what arrives of each is
//! byte for byte what it read, through the death of the consumer and of the daemon.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread::scope;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::Value;

use crate::foreign::{FILES, beginning};
use crate::world::{Outcome, Running, World, text};

/// A shell that publishes its input, or this file.
fn shell(world: &World, file: Option<&Path>) -> Running {
    const PUBLISH: &str = r#"exec "$0" --socket "$1" publish real"#;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(file.map_or(PUBLISH.to_owned(), |file| format!("{PUBLISH} < {}", text(file))));
    shell.arg(env!("CARGO_BIN_EXE_bus")).arg(world.socket());
    Running::start(shell.env("BUS_AUTOSTART", "0"))
}

/// Lines, also one without a newline behind it.
fn messages(file: &[u8]) -> usize {
    file.iter().filter(|byte| **byte == b'\n').count() + usize::from(!file.ends_with(b"\n"))
}

/// What came of each sender's process, in the order of its sequence.
#[derive(Default)]
struct Arrived {
    by_pid: HashMap<u64, Vec<Vec<u8>>>,
    doubles: usize,
}

/// One message as a consumer shows it.
struct Shown {
    pid: u64,
    sequence: usize,
    redelivered: bool,
    payload: Vec<u8>,
}

impl Shown {
    /// From a line of `--jsonl`.
    fn from_json(line: &str) -> Self {
        let message: Value = serde_json::from_str(line).unwrap();
        Self {
            pid: message["sender"]["pid"].as_u64().unwrap(),
            sequence: message["sequence"].as_u64().unwrap().try_into().unwrap(),
            redelivered: message["redelivered"].as_bool().unwrap(),
            payload: match message["payload"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => STANDARD.decode(message["payload_base64"].as_str().unwrap()).unwrap(),
            },
        }
    }

    /// From the name of the file that a handler has put the payload in.
    fn from_handler(name: &str, folder: &Path) -> Self {
        let fields: Vec<&str> = name.split('.').collect();
        let [pid, sequence, _attempt, redelivered] = fields[..] else { panic!("{name}") };
        Self {
            pid: pid.parse().unwrap(),
            sequence: sequence.parse().unwrap(),
            redelivered: redelivered.parse().unwrap(),
            payload: std::fs::read(folder.join(name)).unwrap(),
        }
    }
}

impl Arrived {
    fn note(&mut self, shown: Shown) {
        let Shown { pid, sequence, redelivered, payload } = shown;
        let messages = self.by_pid.entry(pid).or_default();
        let next = messages.len() + 1;
        assert!(sequence <= next, "lost between {next} and {sequence} of {pid}");
        if sequence == next {
            messages.push(payload);
            return;
        }
        assert!(redelivered, "a double that is not marked: {sequence} of {pid}");
        self.doubles += 1;
        // A handler is given a part only when its consumer dies over it.
        let before = std::mem::replace(&mut messages[sequence - 1], payload);
        assert!(messages[sequence - 1].starts_with(&before), "{sequence} of {pid} came otherwise again");
    }

    /// Of each process what it read, no more and no less.
    fn is(&self, files: &[&[u8]; 4], pids: &[u64; 4]) {
        assert_eq!(self.by_pid.len(), files.len());
        for (file, pid) in files.iter().zip(pids) {
            let mut bytes = self.by_pid[pid].join(&b'\n');
            if file.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            assert!(bytes == *file, "{} of {} bytes arrived, {} doubles", bytes.len(), file.len(), self.doubles);
        }
    }
}

/// A consumer that shows what comes, and how its lines are read.
struct Consumer<'a> {
    arguments: &'a [&'a str],
    parse: &'a dyn Fn(&str) -> Shown,
    running: Running,
}

impl<'a> Consumer<'a> {
    fn start(world: &World, arguments: &'a [&'a str], parse: &'a dyn Fn(&str) -> Shown) -> Self {
        Self { arguments, parse, running: world.start(arguments) }
    }

    fn read(&mut self, lines: usize, arrived: &mut Arrived) {
        for _ in 0..lines {
            arrived.note((self.parse)(&self.running.line()));
        }
    }

    /// `kill -9`, and another in its place. A handler that it leaves behind has ended by then.
    fn kill(self, world: &World, arrived: &mut Arrived) -> Self {
        self.running.signal(Signal::KILL);
        let outcome = self.running.end();
        assert_eq!(outcome.code, 1009);
        note_all(&outcome, self.parse, arrived);
        Self::start(world, self.arguments, self.parse)
    }

    fn end(self, arrived: &mut Arrived) {
        let outcome = self.running.end();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        note_all(&outcome, self.parse, arrived);
    }
}

/// What a consumer wrote at last. A line that its death tore is none.
fn note_all(outcome: &Outcome, parse: &dyn Fn(&str) -> Shown, arrived: &mut Arrived) {
    let whole = outcome.stdout.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    std::str::from_utf8(&outcome.stdout[..whole]).unwrap().lines().for_each(|line| arrived.note(parse(line)));
}

/// Who is killed in the middle.
enum Killed {
    Consumer,
    Daemon,
}

/// Gives the files to four shells by pipes, kills each of these in turn whenever a quarter of the first half has
/// arrived, and sees that nothing is missing. The shells have the second half only when all are dead.
fn carry(
    world: &mut World,
    files: [&'static [u8]; 4],
    killed: &[Killed],
    arguments: &[&str],
    parse: &dyn Fn(&str) -> Shown,
) {
    let mut shells = [(); 4].map(|()| shell(world, None));
    let pids = shells.each_ref().map(|shell| shell.pid().into());
    // Or the consumer could see one shell end before the next is there.
    world.await_peers("real", 4, 0);
    let halves = files.map(|file| beginning(file, (messages(file) / 2).min(50_000)).len());
    let part = files.iter().zip(halves).map(|(file, half)| messages(&file[..half])).sum::<usize>() / 4;
    let mut arrived = Arrived::default();
    scope(|scope| {
        // Ends with the shells, and so with a test that fails.
        let feed = |(shell, (file, half)): (&mut Running, (&'static [u8], usize))| {
            let (more, wanted) = mpsc::channel();
            let mut input = shell.input();
            scope.spawn(move || {
                if input.write_all(&file[..half]).is_ok() && wanted.recv().is_ok() {
                    let _ = input.write_all(&file[half..]);
                }
            });
            more
        };
        let more: Vec<mpsc::Sender<()>> = shells.iter_mut().zip(files.into_iter().zip(halves)).map(feed).collect();
        let shells = shells;
        let mut consumer = Consumer::start(world, arguments, parse);
        for killed in killed {
            consumer.read(part, &mut arrived);
            match killed {
                Killed::Consumer => consumer = consumer.kill(world, &mut arrived),
                Killed::Daemon => world.restart(),
            }
        }
        more.iter().for_each(|more| more.send(()).unwrap());
        consumer.end(&mut arrived);
        shells.into_iter().for_each(|shell| shell.end().is(0, "", ""));
    });
    arrived.is(&files, &pids);
}

fn carry_all(killed: &[Killed]) {
    let arguments = ["consume", "real", "--jsonl", "--until-disconnected"];
    carry(&mut World::new(), FILES.each_ref().map(Vec::as_slice), killed, &arguments, &Shown::from_json);
}

#[test]
fn four_shells_publish_four_files_and_every_byte_arrives_once() {
    let world = World::new();
    let files = FILES.each_ref().map(Vec::as_slice);
    let mut number = 0;
    let shells = files.map(|file| {
        number += 1;
        let path = world.path(&number.to_string());
        std::fs::write(&path, file).unwrap();
        shell(&world, Some(&path))
    });
    let pids = shells.each_ref().map(|shell| shell.pid().into());
    let all: usize = files.iter().map(|file| messages(file)).sum();
    let arguments = ["consume", "real", "--jsonl", "-n", &all.to_string()];
    let mut arrived = Arrived::default();
    Consumer::start(&world, &arguments, &Shown::from_json).end(&mut arrived);
    shells.into_iter().for_each(|shell| shell.end().is(0, "", ""));
    arrived.is(&files, &pids);
    assert_eq!(arrived.doubles, 0);
}

#[test]
fn every_byte_arrives_although_the_consumer_is_killed() {
    carry_all(&[Killed::Consumer]);
}

#[test]
fn every_byte_arrives_although_the_daemon_is_killed() {
    carry_all(&[Killed::Daemon]);
}

#[test]
fn every_byte_arrives_although_one_after_the_other_is_killed() {
    carry_all(&[Killed::Consumer, Killed::Daemon, Killed::Daemon]);
}

/// A process for each message is slow: 2,400 of them.
#[test]
fn a_handler_gets_every_byte_although_the_consumer_and_the_daemon_are_killed() {
    let mut world = World::new();
    let folder = world.path("handled");
    std::fs::create_dir(&folder).unwrap();
    let handler = r#"name=$BUS_PID.$BUS_SEQUENCE.$BUS_ATTEMPT.$BUS_REDELIVERED; cat > "$FOLDER/$name"; echo $name"#;
    let handler = format!("FOLDER={}; {handler}", text(&folder));
    let arguments = ["consume", "real", "--until-disconnected", "--exec", &handler];
    let parse = |line: &str| Shown::from_handler(line, &folder);
    carry(
        &mut world,
        FILES.each_ref().map(|file| beginning(file, 600)),
        &[Killed::Consumer, Killed::Daemon],
        &arguments,
        &parse,
    );
}
