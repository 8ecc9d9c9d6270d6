//! The bytes of every frame kind, and of payloads in bincode, as they always were.
//!
//! The vectors lie in `golden/*.hex`. They are compared both ways: what we write is what they say,
//! and what they say is read as what we meant. A difference is a new protocol version, unless it is
//! a new vector: `BUS_GOLDEN=write cargo test -p bus-core --test golden` writes them all.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::path::PathBuf;
use std::{env, fs};

use bus_core::framing::Framing;
use bus_core::wire::*;
use bus_core::{
    ChannelInfo, ChannelName, ChannelOptions, ChannelSummary, Ledger, PeerInfo, Peers, Rates, Removed, WhenFull,
};
use bus_core::{Codec, Headers, LinkInfo, LinkSpec, LinkState, Pipe, Unlink};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[test]
fn frames_of_greeting_are_as_they_always_were() {
    let typed = Some(TypeDeclaration { codec: Codec::Bincode, type_name: "Job".into() });
    let hello = |role| Hello { name: "worker".into(), pid: 4_711, role, clock: 4_026_531_834 };
    control("hello_control", Kind::Hello, hello(Role::Control));
    let sender = SenderHello {
        channel: channel(),
        declares: typed.clone(),
        require_receiver: true,
        resume: None,
        lane: LaneWish::Never,
    };
    control("hello_sender", Kind::Hello, hello(Role::Sender(sender.clone())));
    let resume = Some(Resume {
        sender: 0x0102_0304_0506_0708,
        token: TOKEN,
        next_sequence: 1 << 40,
        last_sequence: (1 << 40) + 5,
    });
    control("hello_sender_resumes", Kind::Hello, hello(Role::Sender(SenderHello { resume, ..sender })));
    let receiver = ReceiverHello {
        channel: channel(),
        declares: None,
        standby: true,
        until_disconnected: false,
        returning: None,
        reads_lanes: false,
    };
    control("hello_receiver", Kind::Hello, hello(Role::Receiver(receiver.clone())));
    let known = KnownSender { sender: u64::MAX, pid: 9, sequence: 250 };
    let returning = Some(Returning { senders: vec![known], sender_seen: true, seated: true, lanes: true });
    let returns = ReceiverHello { declares: typed, returning, ..receiver };
    control("hello_receiver_returns", Kind::Hello, hello(Role::Receiver(returns)));

    let welcome = |role| Welcome { daemon: 77, role };
    control("welcome_control", Kind::Welcome, welcome(WelcomeRole::Control));
    let receiver =
        ReceiverWelcome { message_max_bytes: 16 << 20, place_in_line: 2, lag_messages: 512, lag_bytes: 131_072 };
    control("welcome_receiver", Kind::Welcome, welcome(WelcomeRole::Receiver(receiver)));
    let sender = SenderWelcome {
        sender: 5,
        token: TOKEN,
        window_messages: 65_536,
        window_bytes: 16 << 20,
        message_max_bytes: 16 << 20,
        exact: true,
        when_full: WhenFull::DropOldest,
        settled: Settled { accepted: 3, acked: 2, dropped: 1 },
        receivers: 1,
    };
    control("welcome_sender", Kind::Welcome, welcome(WelcomeRole::Sender(sender)));
    let refused = Refused { code: RefusedCode::ReceiverTaken, text: "taken by pid 12".into() };
    control("refused", Kind::Refused, refused);
}

#[test]
fn frames_of_traffic_are_as_they_always_were() {
    let want = Want { number: 300, bytes: 70_000, wait: true };
    let progress = Progress { taken: 300, acked: 299, head_given_back: 2 };
    control("want", Kind::Want, want);
    control("unwant", Kind::Unwant, want);
    control("granted", Kind::Granted, want);
    control("full", Kind::Full, Want { wait: false, ..want });
    control("progress", Kind::Progress, progress);
    control("recalled", Kind::Recalled, progress);
    control("goodbye_sender", Kind::Goodbye, ());
    control("goodbye_receiver", Kind::Goodbye, progress);
    control("settled", Kind::Settled, Settled { accepted: 1 << 33, acked: 65_535, dropped: 250 });
    control("peers", Kind::Peers, Peers::new(2_000, 1));
    control("receivers", Kind::Receivers, Receivers { count: 3 });
    control("closing", Kind::Closing, Closing { code: ClosingCode::Kicked, text: "removed by kick".into() });
    for (name, kind) in [
        ("watch", Kind::Watch),
        ("confirm", Kind::Confirm),
        ("recall", Kind::Recall),
        ("seated", Kind::Seated),
        ("ended", Kind::Ended),
    ] {
        control(name, kind, ());
    }
}

#[test]
fn frames_of_lanes_are_as_they_always_were() {
    let lane = LaneId(300);
    let start = LaneStart { logical: 1 << 40, place: 4_096, messages: 70_000 };
    let fetches = Role::Lane(LaneHello { lane, ticket: TOKEN });
    control("hello_lane", Kind::Hello, Hello { name: "worker".into(), pid: 4_711, role: fetches, clock: 0 });
    control("welcome_lane", Kind::Welcome, Welcome { daemon: 77, role: WelcomeRole::Lane });
    let proof = LaneProof { uid: 1_000, token: TOKEN };
    let offered = LaneOffered { lane, ticket: TOKEN, ring_bytes: 64 << 20, window_messages: 65_536, proof };
    control("lane_offered", Kind::LaneOffered, offered);
    for (name, kind) in [
        ("moved", Kind::Moved),
        ("nudge", Kind::Nudge),
        ("lane_kept", Kind::LaneKept),
        ("sender_gone", Kind::SenderGone),
        ("lane_recalled", Kind::LaneRecalled),
    ] {
        control(name, kind, LaneNamed { lane });
    }
    let given = LaneGiven {
        lane,
        ticket: TOKEN,
        generation: 2,
        sender: u64::MAX,
        pid: 4_711,
        ring_bytes: 64 << 20,
        not_before_ns: 1 << 50,
        start,
        attempts: vec![LaneAttempts { before: 70_003, times: 2 }],
        sender_gone: true,
        brought: true,
        proof,
        in_use: true,
    };
    control("lane_given", Kind::LaneGiven, given);
    control("watching", Kind::Watching, Watching { lane, generation: 2 });
    control("cursor_given", Kind::CursorGiven, CursorGiven { lane, generation: 2, ticket: Some(TOKEN) });
    control("turned", Kind::Turned, Turned { lane, generation: 2 });
    let fault = Some("its sender has written an impossible tail".into());
    control("lane_skip", Kind::LaneSkip, LaneSkip { lane, from: 69_000, before: 70_003, most: u64::MAX });
    control("lane_skipped", Kind::LaneSkipped, LaneSkipped { lane, messages: 1_003 });
    control("lane_ended", Kind::LaneEnded, LaneEnded { lane, messages: 70_003 });
    control("lane_left", Kind::LaneLeft, LaneLeft { lane, sequence: 70_500 });
    let brought = LaneBrought {
        lane,
        proof,
        channel: "jobs".parse().unwrap(),
        sender: u64::MAX,
        pid: 4_711,
        by: LaneEnd::Receiver,
        ring_bytes: 64 << 20,
        generation: 2,
        not_before_ns: 1 << 50,
        start,
        attempts: vec![LaneAttempts { before: 70_003, times: 2 }],
    };
    let brings = Role::LaneBrought(Box::new(brought));
    control(
        "hello_lane_brought",
        Kind::Hello,
        Hello { name: "worker".into(), pid: 4_711, role: brings, clock: 4_026_531_834 },
    );
    control("brought", Kind::Brought, ());
    control("lane_done", Kind::LaneDone, LaneDone { lane, messages: 70_000, fault });
}

#[test]
fn frames_of_messages_are_as_they_always_were() {
    let data = FrameHeader {
        kind: Kind::Data,
        flags: Flags(Flags::CONFIRM),
        codec: Codec::Json,
        sequence: 0x1122_3344_5566_7788,
        sent_at_ns: 1_700_000_000_123_456_789,
        body_bytes: 0,
        header_block_bytes: 0,
    };
    let headers = Headers::new().with("trace", "7f").with("größe", "");
    message("data", data, None, &headers, b"{\"a\":1}");
    message("data_empty", FrameHeader { flags: Flags(0), ..data }, None, &Headers::new(), b"");
    let deliver = FrameHeader { kind: Kind::Deliver, flags: Flags(Flags::REDELIVERED), codec: Codec::Raw, ..data };
    let origin =
        Origin { sender: 0x0102_0304_0506_0708, accepted_at_ns: 0x1112_1314_1516_1718, pid: 4_711, attempt: 3 };
    message("deliver", deliver, Some(origin), &headers, &[0, 0xff, b'\n']);
}

#[test]
fn frames_of_orders_are_as_they_always_were() {
    let options = ChannelOptions {
        capacity: Some(2),
        capacity_bytes: None,
        window: Some(256),
        message_max_bytes: Some(1 << 20),
        when_full: WhenFull::Reject,
    };
    for (name, request) in [
        ("request_list", Request::List),
        ("request_show", Request::Show(channel())),
        ("request_create", Request::Create(channel(), options)),
        ("request_delete", Request::Delete(channel())),
        ("request_purge", Request::Purge(channel())),
        ("request_skip", Request::Skip(channel())),
        ("request_kick", Request::Kick(channel())),
        ("request_peek", Request::Peek { channel: channel(), after: 1 << 20, messages: 10 }),
        ("request_about", Request::About),
    ] {
        control(name, Kind::Request, request);
    }

    let mut spec = LinkSpec::new(channel(), Pipe::ToCommand("gzip > jobs.gz".into()));
    spec.framing = Framing::null();
    spec.ack_lines = true;
    spec.keep = true;
    let fifo = LinkSpec::new(channel(), Pipe::FromFifo("/run/jobs".into()));
    for (name, request) in [
        ("request_link", Request::Link(Box::new(spec.clone()))),
        ("request_link_fifo", Request::Link(Box::new(fifo.clone()))),
        ("request_unlink_id", Request::Unlink(Unlink::Id(3))),
        ("request_unlink", Request::Unlink(Unlink::Channel { channel: channel(), pipe: Some(fifo.pipe.clone()) })),
        ("request_links", Request::Links),
        ("request_unlink_for_now", Request::UnlinkForNow(Unlink::Id(3))),
    ] {
        control(name, Kind::Request, request);
    }
    let mut link = LinkInfo::new(7, spec);
    (link.state, link.pid, link.restarts) = (LinkState::Restarting, Some(4_711), 2);
    (link.last_exit, link.messages, link.refused) = (Some("signal 9".into()), 900, 1);
    link.note = "the command ended".into();
    control("reply_linked", Kind::Reply, Reply::Linked(Box::new(LinkInfo::new(8, fifo))));
    control("reply_links", Kind::Reply, Reply::Links(vec![link]));

    let ledger = Ledger { accepted: 900, acknowledged: 800, queued: 60, in_delivery: 40, ..Ledger::default() };
    let mut info = ChannelInfo::empty(channel());
    info.codec = Some(Codec::Postcard);
    info.type_name = Some("Job".into());
    info.ledger = ledger;
    info.oldest_ms = Some(1_500);
    info.receiver = Some(PeerInfo::new(12, 1_000, "consumer".into()));
    info.senders = vec![PeerInfo::new(13, 1_000, "producer".into())];
    info.sender_count = 1;
    info.rates = Some(Rates::of((90_000, 5_760_000), (80_000, 5_120_000), 4_000));
    (info.lanes, info.no_lane) = (1, Some("user 1000 has 1 lanes".into()));
    let about = Reply::About { version: "0.1.0".into(), pid: 42, uptime_ms: 86_400_000, connections: 7 };
    for (name, reply) in [
        ("reply_channels", Reply::Channels(vec![ChannelSummary::new(channel(), ledger, 6_400, Peers::new(2, 1))])),
        ("reply_channel", Reply::Channel(Box::new(info))),
        ("reply_created", Reply::Created(true)),
        ("reply_removed", Reply::Removed(Removed { messages: 60, recalled: 40 })),
        ("reply_kicked", Reply::Kicked { pid: 12, name: "consumer".into() }),
        ("reply_peeked", Reply::Peeked { next: Some(11) }),
        ("reply_about", about),
        ("reply_refused", Reply::Refused(Refused { code: RefusedCode::NoSuchChannel, text: "no jobs".into() })),
    ] {
        control(name, Kind::Reply, reply);
    }
}

#[test]
fn codes_are_as_they_always_were() {
    let refused = [
        RefusedCode::Version,
        RefusedCode::Protocol,
        RefusedCode::Denied,
        RefusedCode::ReceiverTaken,
        RefusedCode::TypeMismatch,
        RefusedCode::Limit,
        RefusedCode::NoSuchChannel,
        RefusedCode::Exists,
        RefusedCode::ShuttingDown,
    ];
    let closing = [ClosingCode::ShuttingDown, ClosingCode::Deleted, ClosingCode::Kicked, ClosingCode::Fault];
    bincode("bincode_refused_codes", refused.to_vec());
    bincode("bincode_closing_codes", closing.to_vec());
    bincode("bincode_policies", WhenFull::ALL.to_vec());
    bincode("bincode_codecs", Codec::ALL.to_vec());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Polygon { name: String, corners: Vec<(i32, i32)>, note: Option<char> },
}

#[test]
fn payloads_in_bincode_are_as_they_always_were() {
    bincode("bincode_unsigned", vec![0_u64, 250, 251, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX]);
    bincode("bincode_signed", vec![0_i64, -1, 1, -126, 125, i64::from(i16::MIN), i64::MIN, i64::MAX]);
    bincode("bincode_small", (u8::MAX, i8::MIN, true, false, 'ß', ()));
    bincode("bincode_floats", (1.5_f32, -0.0_f64, f64::INFINITY));
    bincode("bincode_text", (String::new(), "größe".to_owned(), Some("x".to_owned()), None::<String>));
    bincode("bincode_map", BTreeMap::from([("a".to_owned(), vec![1_u8, 2]), ("b".to_owned(), Vec::new())]));
    let corners = vec![(0, 0), (300, -300)];
    let polygon = Shape::Polygon { name: "p".into(), corners, note: Some('!') };
    bincode("bincode_enum", vec![Shape::Point, Shape::Circle(0.25), polygon]);
}

#[test]
fn every_kind_of_frame_has_a_vector() {
    if writes() {
        return;
    }
    let mut kinds: Vec<Kind> = Vec::new();
    for entry in fs::read_dir(folder()).expect("the vectors are there") {
        let path = entry.expect("an entry").path();
        let bytes = from_hex(&fs::read_to_string(path).expect("a vector"));
        kinds.extend(FrameHeader::decode(&bytes, LIMITS).ok().flatten().map(|header| header.kind));
    }
    for kind in Kind::ALL {
        assert!(kinds.contains(&kind), "no vector shows a {kind:?} frame");
    }
}

fn control<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, kind: Kind, body: T) {
    let mut frame = Vec::new();
    put_control(kind, &body, &mut frame);
    let golden = compare(name, &frame);
    let header = FrameHeader::decode(&golden, LIMITS).expect("a good header").expect("a whole header");
    assert_eq!(header, FrameHeader::control(kind, (golden.len() - HEADER_BYTES) as u32), "{name}");
    assert_eq!(read_control::<T>(kind, &golden[HEADER_BYTES..]).expect("a good body"), body, "{name}");
}

fn message(name: &str, mut header: FrameHeader, origin: Option<Origin>, headers: &Headers, payload: &[u8]) {
    let mut block = Vec::new();
    header.header_block_bytes = encode_headers(headers, &mut block).expect("short headers");
    header.body_bytes = payload.len() as u32;
    let mut frame = header.encode().to_vec();
    frame.extend(origin.iter().flat_map(Origin::encode));
    frame.extend_from_slice(&block);
    frame.extend_from_slice(payload);

    let golden = compare(name, &frame);
    assert_eq!(FrameHeader::decode(&golden, LIMITS), Ok(Some(header)), "{name}");
    assert_eq!(header.frame_bytes(), golden.len(), "{name}");
    let mut rest = &golden[HEADER_BYTES..];
    if origin.is_some() {
        let (bytes, after) = rest.split_first_chunk().expect("an origin");
        assert_eq!(Some(Origin::decode(bytes)), origin, "{name}");
        rest = after;
    }
    let (block, body) = rest.split_at(header.header_block_bytes as usize);
    assert_eq!(decode_headers(block).as_ref(), Ok(headers), "{name}");
    assert_eq!(body, payload, "{name}");
}

/// Payloads and control bodies are bincode of one configuration, so the one shows the other.
fn bincode<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: T) {
    let mut frame = Vec::new();
    put_control(Kind::Request, &value, &mut frame);
    let golden = compare(name, &frame[HEADER_BYTES..]);
    assert_eq!(read_control::<T>(Kind::Request, &golden).expect("a good value"), value, "{name}");
}

/// The bytes of the vector, which must be `ours`.
fn compare(name: &str, ours: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    if writes() {
        fs::write(&path, to_hex(ours)).expect("a vector can be written");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(to_hex(ours), text, "{name} is not what it always was");
    from_hex(&text)
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let numbers: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", numbers.join(" ")).expect("a String takes everything");
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn writes() -> bool {
    env::var("BUS_GOLDEN").is_ok_and(|wish| wish == "write")
}

fn channel() -> ChannelName {
    ChannelName::new("orders.eu").expect("a good name")
}

const TOKEN: [u8; 16] = *b"0123456789abcdef";

const LIMITS: FrameLimits = FrameLimits { message_max_bytes: 1 << 20, control_max_bytes: 1 << 20 };
