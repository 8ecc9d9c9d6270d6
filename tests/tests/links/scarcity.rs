//! A daemon that is short of descriptors: gateways wait, say so, and go on.

use std::fs;
use std::io::Write as _;

use bus_core::{LinkInfo, LinkState, Pipe, Sender};
use bus_tests::eventually;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::place::{Place, place, place_with, spec, texts, writer};

/// The daemon's table of descriptors is full until this is dropped.
struct Scarcity {
    daemon: Pid,
    before: Rlimit,
    /// They have what was free.
    _fillers: Vec<Sender<Vec<u8>>>,
}

impl Scarcity {
    fn of(place: &Place) -> Self {
        Self::beside(place, 0)
    }

    /// Beside so many places that are taken by calls of `open` which have not returned.
    fn beside(place: &Place, taken: u64) -> Self {
        let open = || -> Vec<u64> {
            let names = fs::read_dir(format!("/proc/{}/fd", place.daemon.pid())).unwrap();
            names.map(|name| name.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
        };
        let daemon = Pid::from_raw(place.daemon.pid().cast_signed()).unwrap();
        let limit = open().into_iter().max().unwrap() + 1;
        let maximum = getrlimit(Resource::Nofile).maximum;
        let before = prlimit(Some(daemon), Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
        let mut fillers = Vec::new();
        while open().len() as u64 + taken < limit {
            // A connection each.
            fillers.extend(place.bus.raw_sender("filler").open());
        }
        Self { daemon, before, _fillers: fillers }
    }
}

impl Drop for Scarcity {
    fn drop(&mut self) {
        let before = Rlimit { current: self.before.current, maximum: self.before.maximum };
        // It may have ended.
        let _ = prlimit(Some(self.daemon), Resource::Nofile, before);
    }
}

/// What the daemon has logged of gateways that wait.
fn waits(place: &Place) -> String {
    place.daemon.log().lines().filter(|line| line.contains("it waits, and tries again")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_fifo_whose_writer_has_left_is_opened_anew_when_there_is_a_descriptor_and_loses_nothing() {
    place("scarce FIFO", |place| {
        let fifo = place.fifo("in");
        let link = place.link("jobs", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("jobs");
        writer(&fifo).write_all(b"first\n").unwrap();
        assert_eq!(texts(&receiver, 1), ["first"]);
        let scarcity = Scarcity::of(place);
        for round in 0..3 {
            writer(&fifo).write_all(format!("{round}\n").as_bytes()).unwrap();
        }
        // Nobody can connect to ask it meanwhile.
        eventually("it says why it waits", || waits(place).contains("Too many open files"));
        // What is written meanwhile lies in the pipe.
        writer(&fifo).write_all(b"meanwhile\n").unwrap();
        drop(scarcity);
        assert_eq!(texts(&receiver, 4), ["0", "1", "2", "meanwhile"]);
        let info = place.info(&link);
        assert_eq!(info.state, LinkState::Running);
        assert_eq!(info.note, "the system was short of what it needs, and is no more");
    });
}

#[test]
fn a_command_that_cannot_be_run_for_want_of_descriptors_is_run_later_and_that_counts_as_no_restart() {
    place("scarce command", |place| {
        let gate = place.fifo("gate");
        assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let script = format!("cat {gate} > /dev/null; exit 1");
        for pipe in [Pipe::FromCommand(script.clone()), Pipe::ToCommand(script)] {
            let mut command = spec("jobs", pipe);
            command.restart_limit = 1;
            let link = place.bus.link(command).unwrap();
            eventually("it runs", || place.info(&link).state == LinkState::Running);
            let scarcity = Scarcity::of(place);
            // It ends, and is to be run again.
            let mut open = writer(&gate);
            open.write_all(b"go\n").unwrap();
            drop(open);
            let waiting = format!("link={} ", link.id);
            eventually("it says why it waits", || {
                waits(place).lines().any(|line| line.contains(&waiting) && line.contains("Too many open files"))
            });
            drop(scarcity);
            let info = place.await_state(&link, LinkState::Running);
            assert_eq!(info.restarts, 1);
            place.unlink(&link);
        }
    });
}

#[test]
fn gateways_that_wait_for_readers_end_with_the_daemon_also_when_its_table_is_full() {
    place("scarce end", |place| {
        let links: Vec<_> = (0..8)
            .map(|number| place.link(&format!("c{number}"), Pipe::ToFifo(place.fifo(&format!("out{number}")))))
            .collect();
        for link in &links {
            place.await_state(link, LinkState::WaitingForReader);
        }
        let _scarcity = Scarcity::beside(place, 8);
        place.daemon.end();
        assert!(!place.daemon.log().contains("has not ended within"), "{}", place.daemon.log());
        assert!((0..8).all(|number| !place.path(&format!("out{number}")).exists()));
    });
}

/// It ended for ever when the daemon refused its end, and the note of one that had waited for something else stayed.
#[test]
fn a_gateway_of_the_config_waits_for_what_others_hold_and_says_so_only_as_long() {
    let config = r#"
        [per_user]
        channels_max = 1
        [[link]]
        channel = "one"
        from_fifo = "{folder}/one"
        [[link]]
        channel = "two"
        from_fifo = "{folder}/two"
    "#;
    place_with("refused", config, |place| {
        let links = || place.bus.links().unwrap();
        let waits = |link: &LinkInfo| link.note.contains("per_user.channels_max: tried again every 1000 ms");
        eventually("one runs, and the other waits", || {
            let links = links();
            links.iter().any(|link| link.state == LinkState::Running) && links.iter().any(waits)
        });
        let (waiting, running): (Vec<_>, Vec<_>) = links().into_iter().partition(waits);
        place.unlink(&running[0]);
        let info = place.await_state(&waiting[0], LinkState::Running);
        assert_eq!(info.note, "the system was short of what it needs, and is no more");
    });
}
