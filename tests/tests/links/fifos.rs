//! What goes through FIFOs, and what their writers and readers may do.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bus_core::framing::Framing;
use bus_core::{ChannelOptions, LinkState, Pipe};
use bus_tests::eventually;

use crate::place::{place, spec, texts, writer};

#[test]
fn what_a_shell_loop_writes_to_a_fifo_comes_out_byte_for_byte() {
    place("shell loop", |place| {
        let fifo = place.fifo("in");
        let before = place.descriptors_at_rest();
        let link = place.link("lines", Pipe::FromFifo(fifo.clone()));
        let metadata = fs::metadata(&fifo).unwrap();
        assert!(metadata.file_type().is_fifo());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let receiver = place.receiver("lines");
        // First each echo opens and closes the FIFO; then two write at the same time, a line at once.
        let script = "for i in $(seq 1 200); do echo \"loop $i\" > $0; done; \
                      (for i in $(seq 1 5000); do echo \"a $i\"; done > $0) & \
                      (for i in $(seq 1 5000); do echo \"b $i\"; done > $0) & wait";
        let mut shell = Command::new("sh").args(["-c", script, &fifo]).spawn().unwrap();
        let lines = texts(&receiver, 10_200);
        assert!(shell.wait().unwrap().success());
        for (name, count) in [("loop", 200), ("a", 5_000), ("b", 5_000)] {
            let prefix = format!("{name} ");
            let of_one: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
            assert!(of_one.iter().copied().eq((1..=count).map(|i| i.to_string())), "{name}: {}", of_one.len());
        }
        assert_eq!(place.unlink(&link).messages, 10_200);
        assert!(!Path::new(&fifo).exists());
        // It may have read from a lane.
        drop(receiver);
        place.has_only(&before);
    });
}

/// Lines of these many bytes, newlines included, by writers that write each at once; together they fill the pipe again
/// and again.
fn write_together(fifo: &str, lengths: &'static [usize]) -> Vec<Vec<String>> {
    let writers = ["a", "b", "c", "d"].map(|name| {
        let fifo = fifo.to_owned();
        std::thread::spawn(move || {
            let mut fifo = writer(&fifo);
            let lines = (0..LINES_EACH).zip(lengths.iter().cycle()).map(|(number, length)| {
                let line = format!("{name}{number:04}{}", name.repeat(length - 6));
                fifo.write_all(format!("{line}\n").as_bytes()).unwrap();
                line
            });
            lines.collect()
        })
    });
    writers.into_iter().map(|writer| writer.join().unwrap()).collect()
}

const LINES_EACH: usize = 300;

#[test]
fn lines_of_several_writers_up_to_4096_bytes_never_mix() {
    place("several writers", |place| {
        let fifo = place.fifo("in");
        place.link("lines", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("lines");
        let reader = std::thread::spawn(move || texts(&receiver, 4 * LINES_EACH));
        let written = write_together(&fifo, &[7, 4_095, 4_096, 100]);
        let read = reader.join().unwrap();
        // Each line as it was written, and those of one writer in order.
        for lines in written {
            let of_one = |line: &&String| line.starts_with(&lines[0][..1]);
            assert!(read.iter().filter(of_one).eq(&lines), "{}", lines[0]);
        }
    });
}

#[test]
fn of_longer_lines_of_several_writers_no_byte_is_lost_and_those_of_one_are_whole() {
    place("long lines", |place| {
        let fifo = place.fifo("in");
        let link = place.link("lines", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("lines");
        let reader = std::thread::spawn(move || (texts(&receiver, 4 * LINES_EACH), receiver));
        let written = write_together(&fifo, &[4_097, 20_000, 70_000, 7]);
        let (read, receiver) = reader.join().unwrap();
        // The kernel may mix them, short ones into long ones too: as many lines, and bytes of each writer.
        for (name, lines) in ["a", "b", "c", "d"].iter().zip(&written) {
            let bytes = |lines: &[String]| lines.iter().map(|line| line.matches(name).count()).sum::<usize>();
            assert_eq!(bytes(&read), bytes(lines), "{name}");
        }
        assert_eq!(place.info(&link).refused, 0);
        // Alone each is whole.
        let alone = |length: usize| "x".repeat(length - 1);
        let mut fifo = writer(&fifo);
        for length in [4_096, 4_097, 70_000, 1 << 20] {
            fifo.write_all(format!("{}\n", alone(length)).as_bytes()).unwrap();
            assert!(texts(&receiver, 1) == [alone(length)], "{length}");
        }
    });
}

#[test]
fn the_last_fragment_of_a_writer_is_a_message_and_the_next_writer_is_heard() {
    place("fragments", |place| {
        let fifo = place.fifo("in");
        place.link("lines", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("lines");
        for round in 0..50 {
            write!(writer(&fifo), "whole {round}\nfragment {round}").unwrap();
            assert_eq!(texts(&receiver, 2), [format!("whole {round}"), format!("fragment {round}")]);
        }
        // A writer that stays is not at its end: what it has begun is no message yet.
        let mut slow = writer(&fifo);
        slow.write_all(b"beg").unwrap();
        slow.write_all(b"un\n").unwrap();
        assert_eq!(texts(&receiver, 1), ["begun"]);
    });
}

#[test]
fn whole_writes_null_and_lengths_frame_messages_as_in_the_shell() {
    place("framings", |place| {
        for (name, framing, bytes) in [
            ("whole", Framing::Whole, &b"a\nb"[..]),
            ("null", Framing::null(), b"a\nb\0"),
            ("len32", Framing::Length32, b"\x03\0\0\0a\nb"),
            ("text", Framing::Delimited(b"--".to_vec()), b"a\nb--"),
        ] {
            let (from, to) = (place.fifo("from"), place.fifo("to"));
            let mut source = spec(name, Pipe::FromFifo(from.clone()));
            let mut sink = spec(name, Pipe::ToFifo(to.clone()));
            (source.framing, sink.framing) = (framing.clone(), framing);
            let links = [place.bus.link(source).unwrap(), place.bus.link(sink).unwrap()];
            writer(&from).write_all(bytes).unwrap();
            let mut read = vec![0; bytes.len()];
            File::open(&to).unwrap().read_exact(&mut read).unwrap();
            assert_eq!(read, bytes, "{name}");
            links.iter().for_each(|link| drop(place.unlink(link)));
        }
    });
}

#[test]
fn messages_wait_in_the_channel_while_nobody_reads_the_fifo() {
    place("no reader", |place| {
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        place.send("jobs", ["one", "two"]);
        place.await_state(&link, LinkState::WaitingForReader);
        assert_eq!(place.bus.show("jobs").unwrap().ledger.queued, 2);
        let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines();
        assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["one", "two"]);
        place.await_acknowledged("jobs", 2);
        drop(lines);
        // The reader has gone while the gateway waits for a message: the message waits for the next.
        place.send("jobs", ["three"]);
        place.await_state(&link, LinkState::WaitingForReader);
        let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "three");
    });
}

/// With all that it has started.
fn kill_group(leader: &mut std::process::Child) {
    let group = rustix::process::Pid::from_child(leader);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    leader.wait().unwrap();
}

#[test]
fn a_message_whose_reader_was_killed_in_the_middle_comes_whole_to_the_next() {
    place("killed reader", |place| {
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        let mut message = vec![b'm'; 3_000_000];
        message[0] = b'A';
        place.send("jobs", [message.clone()]);
        let script = "exec 3< $0; head -c 100000 <&3; sleep 600";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, &fifo]).stdout(Stdio::piped()).process_group(0);
        let mut reader = shell.spawn().unwrap();
        let mut some = vec![0; 100_000];
        reader.stdout.take().unwrap().read_exact(&mut some).unwrap();
        assert_eq!(some, message[..100_000]);
        kill_group(&mut reader);
        place.await_state(&link, LinkState::WaitingForReader);
        let mut whole = vec![0; message.len() + 1];
        File::open(&fifo).unwrap().read_exact(&mut whole).unwrap();
        message.push(b'\n');
        assert!(whole == message, "the message is not whole");
        place.await_acknowledged("jobs", 1);
    });
}

#[test]
fn what_a_reader_of_a_fifo_left_unread_comes_again_whole_to_the_next() {
    place("unread rest", |place| {
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        place.send("jobs", ["abcdefghij", "klm", "nop"]);
        let mut first = File::open(&fifo).unwrap();
        let mut some = [0; 13];
        first.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"abcdefghij\nkl");
        drop(first);
        place.await_state(&link, LinkState::WaitingForReader);
        // What was read whole is acknowledged, and nothing else.
        eventually("the first is acknowledged", || place.bus.show("jobs").unwrap().ledger.acknowledged == 1);
        let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines();
        assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["klm", "nop"]);
        place.await_acknowledged("jobs", 3);
    });
}

#[test]
fn a_line_over_the_limit_is_refused_with_figures_and_the_next_lines_come() {
    place("long lines", |place| {
        let options = ChannelOptions { message_max_bytes: Some(1_000), ..ChannelOptions::default() };
        place.bus.create("short", options).unwrap();
        let fifo = place.fifo("in");
        let link = place.link("short", Pipe::FromFifo(fifo.clone()));
        let receiver = place.receiver("short");
        let long = "y".repeat(1_000_000);
        writer(&fifo).write_all(format!("before\n{long}\nafter\n").as_bytes()).unwrap();
        assert_eq!(texts(&receiver, 2), ["before", "after"]);
        let info = place.info(&link);
        assert_eq!((info.messages, info.refused), (2, 1));
        assert_eq!(info.note, "message 2 is over the limit of 1000 bytes: split it, or raise max-message");
    });
}

#[test]
fn an_oversize_message_with_a_length_is_skipped_and_the_next_ones_come() {
    place("long lengths", |place| {
        let options = ChannelOptions { message_max_bytes: Some(1_000), ..ChannelOptions::default() };
        place.bus.create("short", options).unwrap();
        let mut source = spec("short", Pipe::FromFifo(place.fifo("in")));
        source.framing = Framing::Length32;
        let link = place.bus.link(source).unwrap();
        let mut writer = writer(&place.fifo("in"));
        for message in [vec![b'a'; 10], vec![b'b'; 500_000], vec![b'c'; 10]] {
            writer.write_all(&u32::try_from(message.len()).unwrap().to_le_bytes()).unwrap();
            writer.write_all(&message).unwrap();
        }
        assert_eq!(texts(&place.receiver("short"), 2), ["aaaaaaaaaa", "cccccccccc"]);
        assert_eq!(place.info(&link).refused, 1);
    });
}

#[test]
fn unlink_in_the_middle_of_a_message_that_is_being_read_lets_it_out_whole() {
    place("unlink in the middle", |place| {
        place.bus.create("jobs", ChannelOptions::default()).unwrap();
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        let message: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
        place.send("jobs", [message.clone()]);
        let mut reader = File::open(&fifo).unwrap();
        let mut read = vec![0; 100_000];
        reader.read_exact(&mut read).unwrap();
        std::thread::scope(|scope| {
            let unlinking = scope.spawn(|| place.unlink(&link));
            eventually("it is being ended", || {
                place.bus.links().unwrap().first().is_none_or(|link| link.state == LinkState::Ending)
            });
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(unlinking.join().unwrap().messages, 1);
        });
        assert!(read.len() == message.len() + 1 && read[..message.len()] == message[..], "{} bytes", read.len());
        place.await_acknowledged("jobs", 1);
    });
}

#[test]
fn what_was_written_to_a_fifo_before_unlink_is_handed_on() {
    place("last words", |place| {
        for round in 0..50_u32 {
            let link = place.link("jobs", Pipe::FromFifo(place.fifo("in")));
            writer(&place.fifo("in")).write_all(format!("{round}\n").as_bytes()).unwrap();
            place.unlink(&link);
            assert_eq!(texts(&place.receiver("jobs"), 1), [round.to_string()]);
        }
    });
}

/// The end of a gateway that nobody was writing to read as the end of a writer who had written nothing, and left a message
/// without a byte in the channel.
#[test]
fn nobodys_silence_is_no_message() {
    place("silence", |place| {
        place.bus.create("jobs", ChannelOptions::default()).unwrap();
        let mut whole = spec("jobs", Pipe::FromFifo(place.fifo("in")));
        whole.framing = Framing::Whole;
        let link = place.bus.link(whole).unwrap();
        place.unlink(&link);
        assert_eq!(place.bus.show("jobs").unwrap().ledger.accepted, 0);
    });
}

/// What a reader read more than a quarter of a second after `unlink`, and the gateway had waited for and counted, came
/// again: the daemon had parted with the gateway by then.
#[test]
fn what_is_read_late_after_unlink_is_acknowledged() {
    place("late", |place| {
        place.bus.create("jobs", ChannelOptions::default()).unwrap();
        let fifo = place.fifo("out");
        let link = place.link("jobs", Pipe::ToFifo(fifo.clone()));
        place.send("jobs", [vec![b'x'; 100_000]]);
        let mut reader = File::open(&fifo).unwrap();
        let mut read = [0; 10_000];
        reader.read_exact(&mut read).unwrap();
        std::thread::scope(|scope| {
            let unlinking = scope.spawn(|| place.unlink(&link));
            eventually("it is being ended", || {
                place.bus.links().unwrap().first().is_none_or(|link| link.state == LinkState::Ending)
            });
            // Slow readers are what this is about: it moves, and takes longer than the daemon waits for others.
            for _ in 0..9 {
                std::thread::sleep(std::time::Duration::from_millis(60));
                reader.read_exact(&mut read).unwrap();
            }
            reader.read_exact(&mut [0]).unwrap();
            assert_eq!(unlinking.join().unwrap().messages, 1);
        });
        place.await_acknowledged("jobs", 1);
    });
}
