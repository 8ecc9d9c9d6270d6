//! Gateways as ordinary ends of their channel: room, limits, the exclusive receiver, and how they end.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bus_core::{AdminError, Bus, ChannelOptions, LinkState, Pipe};
use bus_tests::eventually;

use crate::place::{is_alive, numbers, place, place_with, spec, writer};

#[test]
fn a_full_channel_makes_the_writer_of_a_fifo_wait_and_loses_nothing() {
    place("back-pressure", |place| {
        let options = ChannelOptions { capacity: Some(10), ..ChannelOptions::default() };
        place.bus.create("narrow", options).unwrap();
        let fifo = place.fifo("in");
        place.link("narrow", Pipe::FromFifo(fifo.clone()));
        let (done, is_done) = std::sync::mpsc::channel();
        let writing = std::thread::spawn(move || {
            // More than the channel, the gateway and the pipe hold.
            writer(&fifo).write_all(numbers(200_000).as_bytes()).unwrap();
            done.send(()).unwrap();
        });
        eventually("the sender waits", || {
            place.bus.show("narrow").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        assert_eq!(place.bus.show("narrow").unwrap().ledger.queued, 10);
        assert!(is_done.try_recv().is_err(), "the writer has not been made to wait");
        let receiver = place.receiver("narrow");
        for number in 1..=200_000_u32 {
            assert_eq!(receiver.recv().unwrap(), number.to_string().as_bytes());
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_gateway_ends_at_once_while_it_waits_for_room_a_writer_a_reader_or_a_message() {
    place("prompt ends", |place| {
        let before = place.descriptors_at_rest();
        place.bus.create("narrow", ChannelOptions { capacity: Some(1), ..ChannelOptions::default() }).unwrap();
        let full = place.fifo("full");
        let links = [
            place.link("narrow", Pipe::FromFifo(full.clone())),
            place.link("silent", Pipe::FromFifo(place.fifo("silent"))),
            place.link("unread", Pipe::ToFifo(place.fifo("unread"))),
            place.link("empty", Pipe::ToFifo(place.fifo("empty"))),
            place.link("stuck", Pipe::ToFifo(place.fifo("stuck"))),
            place.link("idle", Pipe::ToCommand("cat".to_owned())),
        ];
        let mut blocked = writer(&full);
        blocked.write_all(b"1\n2\n3\n").unwrap();
        let _reader = OpenOptions::new().read(true).open(place.fifo("empty")).unwrap();
        let _stuck = OpenOptions::new().read(true).open(place.fifo("stuck")).unwrap();
        place.send("stuck", [vec![b'x'; 1_000_000]]);
        eventually("all wait", || {
            let blocked = place.bus.show("narrow").unwrap().senders.iter().any(|it| it.blocked_ms.is_some());
            let stuck = place.bus.show("stuck").unwrap().ledger.in_delivery == 1;
            blocked && stuck && place.info(&links[3]).state == LinkState::Running
        });
        let begun = Instant::now();
        links.iter().for_each(|link| drop(place.unlink(link)));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        // What was stuck half way is in the channel again.
        assert_eq!(place.receiver("stuck").recv().unwrap().len(), 1_000_000);
        for fifo in ["full", "silent", "unread", "empty", "stuck"] {
            assert!(!place.path(fifo).exists(), "{fifo}");
        }
        place.has_only(&before);
    });
}

#[test]
fn every_message_that_was_read_and_finds_no_room_at_the_end_is_counted() {
    place("counted", |place| {
        let options = ChannelOptions { capacity: Some(10), window: Some(3), ..ChannelOptions::default() };
        place.bus.create("narrow", options).unwrap();
        let link = place.link("narrow", Pipe::FromFifo(place.fifo("in")));
        writer(&place.fifo("in")).write_all(numbers(1_000).as_bytes()).unwrap();
        eventually("the sender waits", || {
            place.bus.show("narrow").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        let note = place.unlink(&link).note;
        let lost = 1_000 - place.bus.show("narrow").unwrap().ledger.accepted;
        assert_eq!(note, format!("{lost} messages were read and not accepted: the channel had no room for them"));
    });
}

#[test]
fn what_lies_in_the_pipe_at_the_end_is_told_as_well() {
    place("left in the pipe", |place| {
        place.bus.create("narrow", ChannelOptions { capacity: Some(1), ..ChannelOptions::default() }).unwrap();
        let link = place.link("narrow", Pipe::FromFifo(place.fifo("in")));
        let mut writer = writer(&place.fifo("in"));
        writer.write_all(b"1\n2\n3\n").unwrap();
        eventually("the sender waits", || {
            place.bus.show("narrow").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        // While it waits for room to read on it reads nothing.
        writer.write_all(&[b'x'; 60_000]).unwrap();
        let note = place.unlink(&link).note;
        assert!(note.ends_with("60000 bytes lay in the pipe and were not read"), "{note}");
        assert!(place.daemon.log().contains("60000 bytes lay in the pipe and were not read"));
    });
}

#[test]
fn a_gateway_that_takes_messages_is_the_channels_only_receiver_and_shows_its_name() {
    place("exclusive", |place| {
        let receiver = place.receiver("jobs");
        let fifo = place.fifo("out");
        match place.bus.link(spec("jobs", Pipe::ToFifo(fifo.clone()))) {
            Err(AdminError::ReceiverTaken { text }) => assert!(text.contains("channel jobs has a receiver"), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(!Path::new(&fifo).exists());
        drop(receiver);
        place.link("jobs", Pipe::ToFifo(fifo.clone()));
        let holder = place.bus.show("jobs").unwrap().receiver.unwrap();
        assert!(holder.name.contains(": to-fifo /"), "{holder:?}");
        assert_eq!(holder.pid, place.daemon.pid());
    });
}

#[test]
fn a_gateway_takes_what_senders_in_lanes_send() {
    place("lanes", |place| {
        let copy = place.path("copy");
        let link = place.link("busy", Pipe::ToCommand(format!("cat > {}", copy.display())));
        let bus = Bus::builder().address(place.daemon.address().clone()).lanes().connect().unwrap();
        let sender = bus.raw_sender("busy").open().unwrap();
        for number in 1..=20_000_u32 {
            sender.send(number.to_string().into_bytes()).unwrap();
        }
        sender.flush().unwrap();
        eventually("all went through", || place.info(&link).messages == 20_000);
        place.unlink(&link);
        assert!(fs::read_to_string(copy).unwrap() == numbers(20_000));
    });
}

#[test]
fn the_end_of_the_daemon_leaves_no_process_and_no_fifo_behind() {
    place("daemon end", |place| {
        let copy = place.path("copy");
        let fifo = place.fifo("in");
        place.link("lines", Pipe::FromFifo(fifo.clone()));
        place.link("unread", Pipe::ToFifo(place.fifo("out")));
        let worker = place.link("lines", Pipe::ToCommand(format!("cat > {}", copy.display())));
        let command = place.link("nothing", Pipe::FromCommand("sleep 600".to_owned()));
        let pids = [worker, command].map(|link| place.info(&link).pid.unwrap());
        // Neither SIGTERM nor the end of a pipe ends these, nor what they have started.
        let stubborn = place.path("stubborn");
        let deaf = format!(
            "trap '' TERM; echo $$ >> {0}; (echo $(exec sh -c 'echo $PPID') >> {0}; sleep 600) & exec sleep 601",
            stubborn.display()
        );
        place.link("deaf", Pipe::ToCommand(deaf.clone()));
        place.link("dumb", Pipe::FromCommand(deaf));
        eventually("all run", || fs::read_to_string(&stubborn).is_ok_and(|text| text.lines().count() == 4));
        writer(&fifo).write_all(numbers(10_000).as_bytes()).unwrap();
        place.daemon.end();
        assert!(pids.into_iter().all(|pid| !is_alive(pid)));
        let stubborn = fs::read_to_string(stubborn).unwrap();
        assert!(stubborn.lines().all(|pid| !runs(pid.trim().parse().unwrap())), "{stubborn}");
        assert!(!Path::new(&fifo).exists() && !place.path("out").exists());
        // What was written before was handed on to the end.
        assert!(fs::read_to_string(copy).unwrap() == numbers(10_000));
    });
}

/// Nobody is left who could signal them: their pipes end, and that ends whoever reads or writes one.
#[test]
fn a_daemon_that_is_killed_leaves_no_command_behind_that_uses_its_pipe() {
    place("daemon killed", |place| {
        let pids = place.path("pids");
        let tells = |then: &str| format!("trap '' TERM; echo $$ >> {}; {then}", pids.display());
        place.link("read", Pipe::ToCommand(tells("exec cat > /dev/null")));
        place.link(
            "left",
            Pipe::ToCommand(tells(&format!("exec setsid --wait sh -c '{}'", tells("exec cat > /dev/null")))),
        );
        place.link(
            "child",
            Pipe::ToCommand(tells(&format!(
                "(echo $(exec sh -c 'echo $PPID') >> {}; cat > /dev/null) <&0 & wait",
                pids.display()
            ))),
        );
        place.link("full", Pipe::FromCommand(tells("exec yes")));
        let idle = place.link("idle", Pipe::FromCommand("exec sleep 600".to_owned()));
        let idle = place.info(&idle).pid.unwrap();
        eventually("all run", || fs::read_to_string(&pids).is_ok_and(|text| text.lines().count() == 6));
        // The flood is held back by the channel.
        eventually("the flood waits", || {
            place.bus.show("full").is_ok_and(|info| info.senders.iter().any(|it| it.blocked_ms.is_some()))
        });
        place.daemon.kill();
        for pid in fs::read_to_string(&pids).unwrap().lines() {
            let pid = pid.trim().parse().unwrap();
            eventually("it has ended", || !runs(pid));
        }
        // As the README says of one that does neither.
        assert!(runs(idle));
        let idle = rustix::process::Pid::from_raw(idle.cast_signed()).unwrap();
        rustix::process::kill_process(idle, rustix::process::Signal::KILL).unwrap();
    });
}

/// Whether a process is there, and has not ended: one whose parent has died may be waited for late.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[test]
fn there_are_no_more_gateways_than_the_limit() {
    place_with("limit", "links_max = 1\n", |place| {
        let link = place.link("a", Pipe::FromFifo(place.fifo("a")));
        let refusal = place.refusal("b", Pipe::FromFifo(place.fifo("b")));
        assert!(refusal.contains("there are 1 gateways, the limit links_max"), "{refusal}");
        place.unlink(&link);
        place.link("b", Pipe::FromFifo(place.fifo("b")));
    });
}

#[test]
fn deleting_the_channel_and_kick_end_idle_gateways_at_once_with_the_reason() {
    place("deleted channel", |place| {
        let before = place.descriptors_at_rest();
        // None of them has a reason to look at the channel.
        let links = [
            place.link("jobs", Pipe::FromFifo(place.fifo("in"))),
            place.link("jobs", Pipe::ToFifo(place.fifo("out"))),
            place.link("jobs", Pipe::FromCommand("sleep 600".to_owned())),
        ];
        place.await_state(&links[1], LinkState::WaitingForReader);
        place.bus.delete("jobs").unwrap();
        for link in &links {
            let info = place.await_state(link, LinkState::Ended);
            assert_eq!((info.note.as_str(), info.pid), ("the channel was deleted", None));
        }
        assert!(!place.path("in").exists() && !place.path("out").exists());
        let worker = place.link("other", Pipe::ToCommand("cat".to_owned()));
        let sink = place.link("more", Pipe::ToFifo(place.fifo("out")));
        place.await_state(&sink, LinkState::WaitingForReader);
        for (channel, link) in [("other", &worker), ("more", &sink)] {
            place.bus.kick(channel).unwrap();
            let note = place.await_state(link, LinkState::Ended).note;
            assert_eq!(note, "the receiver was removed from the channel by kick");
        }
        assert!(!place.path("out").exists());
        place.bus.links().unwrap().iter().for_each(|link| drop(place.unlink(link)));
        place.has_only(&before);
    });
}
