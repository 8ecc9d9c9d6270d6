//! `bus consume | bus publish`: what comes out goes in again, byte for byte.

use std::process::Stdio;

use serde_json::Value;

use crate::world::World;

/// Payloads of every kind: empty, delimiters, no UTF-8, large.
fn payloads() -> Vec<Vec<u8>> {
    let all_bytes: Vec<u8> = (0..=255).collect();
    vec![b"".to_vec(), b"\n".to_vec(), b"a\0b\nc".to_vec(), all_bytes.clone(), "ä".into(), all_bytes.repeat(1000)]
}

/// `bus consume from ... | bus publish to ...`
fn pipe(world: &World, framing: &str) {
    let mut consume = world.command(&["consume", "from", "--until-empty", framing]);
    let mut consumer = consume.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut publish = world.command(&["publish", "to", framing]);
    let mut publisher = publish.stdin(consumer.stdout.take().unwrap()).spawn().unwrap();
    assert!(publisher.wait().unwrap().success());
    assert!(consumer.wait().unwrap().success());
}

#[test]
fn binary_payloads_survive_lengths() {
    let world = World::new();
    let mut input = Vec::new();
    for payload in payloads() {
        input.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        input.extend_from_slice(&payload);
    }
    world.run_with(&["publish", "from", "--len32"], &input).is(0, "", "");
    pipe(&world, "--len32");
    let outcome = world.run(&["consume", "to", "--until-empty", "--len32"]);
    assert_eq!((outcome.code, outcome.stdout == input), (0, true));
}

#[test]
fn payloads_headers_and_codecs_survive_objects() {
    let world = World::new();
    let bus = world.bus();
    let sender = bus.raw_sender("from").open().unwrap();
    let headers = bus_core::Headers::new().with("z", "1").with("a", "\"\n\u{1}ä").with("", "");
    for payload in payloads() {
        sender.outgoing().headers(&headers).codec(bus_core::Codec::Postcard).feed(payload).unwrap();
    }
    sender.flush().unwrap();
    pipe(&world, "--jsonl");
    let mut receiver = bus.raw_receiver("to").open().unwrap();
    for payload in payloads() {
        let delivery = receiver.next_delivery().unwrap();
        assert_eq!((delivery.headers(), delivery.info().codec), (&headers, bus_core::Codec::Postcard));
        assert!(*delivery == payload, "{} bytes", payload.len());
        delivery.ack();
    }
}

#[test]
fn a_typed_value_can_be_looked_at_and_passed_on() {
    let world = World::new();
    let bus = world.bus();
    bus.sender::<Vec<u32>>("from").codec(bus_core::Codec::Json).open().unwrap().send_confirmed(vec![1, 2]).unwrap();
    let shown: Value = serde_json::from_str(&world.output(&["consume", "from", "--peek", "--jsonl"])).unwrap();
    assert_eq!((shown["codec"].as_str(), shown["payload"].as_str()), (Some("json"), Some("[1,2]")));
    pipe(&world, "--jsonl");
    let receiver = bus.receiver::<Vec<u32>>("to").codec(bus_core::Codec::Json).open().unwrap();
    assert_eq!(receiver.recv().unwrap(), [1, 2]);
}

#[test]
fn a_reader_that_has_enough_is_no_error_and_loses_nothing() {
    let world = World::new();
    world.publish_numbers("jobs", 60_000);
    let mut consumer = world.start(&["consume", "jobs"]);
    assert_eq!(consumer.line(), "1");
    consumer.close_output().is(0, "", "");
    let shown: Value = serde_json::from_str(&world.output(&["show", "jobs", "--json"])).unwrap();
    let acknowledged = shown["ledger"]["acknowledged"].as_u64().unwrap();
    // More than fits into a pipe and its reader's buffer cannot have been written.
    assert!((1..30_000).contains(&acknowledged), "{acknowledged}");
    let rest: String = (acknowledged + 1..=60_000).map(|number| format!("{number}\n")).collect();
    assert!(world.drain("jobs") == rest);
}
