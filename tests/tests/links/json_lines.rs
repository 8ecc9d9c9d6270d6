//! Messages as lines of JSON in pipes: headers, codecs and bytes that are no text.

use std::fs;
use std::io::Write as _;

use bus_core::framing::{Framing, jsonl};
use bus_core::{Codec, Headers, Pipe};
use bus_tests::eventually;

use crate::place::{Place, place, spec, writer};

fn link_json(place: &Place, channel: &str, pipe: Pipe) -> bus_core::LinkInfo {
    let mut spec = spec(channel, pipe);
    spec.framing = Framing::JsonLines;
    place.bus.link(spec).unwrap()
}

/// What no line framing carries.
fn messages() -> Vec<(Vec<u8>, Headers, Codec)> {
    let every_byte: Vec<u8> = (0..=255).collect();
    vec![
        (b"text\nwith \"lines\" and \x1b".to_vec(), Headers::new().with("trace", "7f").with("a", ""), Codec::Raw),
        (every_byte.repeat(300), Headers::new().with("\u{e4}\n", "{\"x\":1}"), Codec::Bincode),
        (Vec::new(), Headers::new(), Codec::Json),
    ]
}

#[test]
fn payloads_headers_and_codecs_pass_commands_and_fifos_byte_for_byte() {
    place("json lines", |place| {
        let sender = place.bus.raw_sender("from").open().unwrap();
        for (payload, headers, codec) in messages() {
            sender.outgoing().headers(&headers).codec(codec).send(payload).unwrap();
        }
        let lines = place.path("lines");
        let worker = link_json(place, "from", Pipe::ToCommand(format!("cat > '{}'", lines.display())));
        place.await_acknowledged("from", 3);
        assert_eq!(place.unlink(&worker).messages, 3);
        // What came out goes in again, by a command and by a FIFO.
        link_json(place, "to", Pipe::FromCommand(format!("cat '{}'", lines.display())));
        link_json(place, "to", Pipe::FromFifo(place.fifo("in")));
        let mut receiver = place.receiver("to");
        for way in ["command", "FIFO"] {
            for (payload, headers, codec) in messages() {
                let delivery = receiver.next_delivery().unwrap();
                assert_eq!(
                    (&*delivery, delivery.headers(), delivery.info().codec),
                    (&payload, &headers, codec),
                    "{way}"
                );
                delivery.ack();
            }
            if way == "command" {
                writer(&place.fifo("in")).write_all(&fs::read(&lines).unwrap()).unwrap();
            }
        }
    });
}

#[test]
fn a_reader_of_a_fifo_gets_the_whole_object() {
    place("json reader", |place| {
        link_json(place, "jobs", Pipe::ToFifo(place.fifo("out")));
        let headers = Headers::new().with("trace", "7f");
        let sender = place.bus.raw_sender("jobs").open().unwrap();
        sender.outgoing().headers(&headers).send(vec![0xff]).unwrap();
        let mut line = String::new();
        let file = fs::File::open(place.fifo("out")).unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(file), &mut line).unwrap();
        assert!(line.starts_with("{\"channel\":\"jobs\",\"sender\":{"), "{line}");
        let message = jsonl::parse(line.as_bytes()).unwrap();
        assert_eq!((message.payload, message.headers, message.codec), (vec![0xff], headers, Some(Codec::Raw)));
        place.await_acknowledged("jobs", 1);
    });
}

#[test]
fn a_line_that_is_no_message_is_refused_with_its_number_and_the_next_ones_come() {
    place("bad json", |place| {
        let link = link_json(place, "jobs", Pipe::FromFifo(place.fifo("in")));
        let lines = "{\"payload\":\"a\"}\n{\"paylod\":\"b\"}\nplain\n{\"payload\":\"c\"}\n";
        writer(&place.fifo("in")).write_all(lines.as_bytes()).unwrap();
        let receiver = place.receiver("jobs");
        assert_eq!([receiver.recv().unwrap(), receiver.recv().unwrap()], [b"a", b"c"]);
        eventually("both are counted", || place.info(&link).refused == 2);
        let info = place.info(&link);
        assert_eq!(info.messages, 2);
        assert_eq!(info.note, "line 3 is no message: a message is an object, such as {\"payload\":\"text\"}");
        assert!(place.daemon.log().contains("line 2 is no message: unknown field `paylod`"), "{}", place.daemon.log());
    });
}
