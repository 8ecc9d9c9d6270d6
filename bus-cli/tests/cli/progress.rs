//! Progress of a long publishing: on a terminal, and nowhere else.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::world::World;

/// Three seconds of messages: progress is shown after two.
const LONG: [&str; 7] = ["publish", "jobs", "x", "--count", "60", "--rate", "20"];

/// A `bus` with a terminal for its errors, and the other side of that.
struct OnTerminal {
    child: Child,
    shown: File,
}

impl OnTerminal {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let mut command = world.command(arguments);
        // It holds the terminal open until it is dropped, here.
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal).spawn().unwrap();
        Self { child, shown: File::from(master) }
    }

    /// What was shown until its end.
    fn end(mut self) -> String {
        let mut shown = Vec::new();
        let mut bytes = [0; 4096];
        // At the end of the last process that has it open, a terminal fails.
        while let Ok(read @ 1..) = self.shown.read(&mut bytes) {
            shown.extend_from_slice(&bytes[..read]);
        }
        assert!(self.child.wait().unwrap().success(), "{shown:?}");
        String::from_utf8(shown).unwrap()
    }
}

#[test]
fn a_long_publishing_is_followed_on_a_terminal_and_nowhere_else() {
    let world = World::new();
    let seen = OnTerminal::start(&world, &LONG);
    let quiet = OnTerminal::start(&world, &[&LONG[..], &["-q"]].concat());
    let piped = world.start(&LONG);
    let shown = seen.end();
    assert!(shown.starts_with("\r\x1b[K") && shown.contains(" messages, ") && shown.contains("/s"), "{shown:?}");
    assert!(shown.ends_with("/s\r\x1b[K"), "the line is cleared: {shown:?}");
    assert_eq!(quiet.end(), "");
    piped.end().is(0, "", "");
}
