//! Frames from a peer that says anything: the header is checked, and each control body is read as
//! what its kind promises. What can be read is written as something that reads the same.

#![no_main]

use std::fmt::Debug;

use bus_core::Peers;
use bus_core::wire::*;
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

const LIMITS: FrameLimits = FrameLimits { message_max_bytes: 1 << 20, control_max_bytes: 1 << 20 };

fuzz_target!(|bytes: &[u8]| {
    let mut stream = bytes;
    while let Ok(Some(header)) = FrameHeader::decode(stream, LIMITS) {
        assert_eq!(header.encode(), stream[..HEADER_BYTES]);
        let Some((frame, rest)) = stream.split_at_checked(header.frame_bytes()) else { return };
        read(header, &frame[HEADER_BYTES..]);
        stream = rest;
    }
});

fn read(header: FrameHeader, content: &[u8]) {
    match header.kind {
        Kind::Data => read_message(header, content),
        Kind::Deliver => {
            let (origin, content) = content.split_first_chunk().expect("the length counts the origin");
            assert_eq!(Origin::decode(origin).encode(), *origin);
            read_message(header, content);
        }
        Kind::Hello => read_body::<Hello>(header.kind, content),
        Kind::Want | Kind::Unwant | Kind::Granted | Kind::Full => read_body::<Want>(header.kind, content),
        Kind::Progress | Kind::Recalled => read_body::<Progress>(header.kind, content),
        Kind::Goodbye => {
            read_body::<()>(header.kind, content);
            read_body::<Progress>(header.kind, content);
        }
        Kind::Request => read_body::<Request>(header.kind, content),
        Kind::Welcome => read_body::<Welcome>(header.kind, content),
        Kind::Refused => read_body::<Refused>(header.kind, content),
        Kind::Settled => read_body::<Settled>(header.kind, content),
        Kind::Peers => read_body::<Peers>(header.kind, content),
        Kind::Receivers => read_body::<Receivers>(header.kind, content),
        Kind::Reply => read_body::<Reply>(header.kind, content),
        Kind::Closing => read_body::<Closing>(header.kind, content),
        Kind::Moved | Kind::Nudge | Kind::LaneKept | Kind::SenderGone | Kind::LaneRecalled => {
            read_body::<LaneNamed>(header.kind, content);
        }
        Kind::Watching => read_body::<Watching>(header.kind, content),
        Kind::Turned => read_body::<Turned>(header.kind, content),
        Kind::LaneDone => read_body::<LaneDone>(header.kind, content),
        Kind::LaneOffered => read_body::<LaneOffered>(header.kind, content),
        Kind::LaneGiven => read_body::<LaneGiven>(header.kind, content),
        Kind::LaneSkip => read_body::<LaneSkip>(header.kind, content),
        Kind::LaneSkipped => read_body::<LaneSkipped>(header.kind, content),
        Kind::LaneEnded => read_body::<LaneEnded>(header.kind, content),
        Kind::LaneLeft => read_body::<LaneLeft>(header.kind, content),
        Kind::CursorGiven => read_body::<CursorGiven>(header.kind, content),
        Kind::Watch | Kind::Confirm | Kind::Brought | Kind::Recall | Kind::Seated | Kind::Ended => {
            read_body::<()>(header.kind, content);
        }
    }
}

fn read_message(header: FrameHeader, content: &[u8]) {
    let (block, payload) = content.split_at(header.header_block_bytes as usize);
    assert_eq!(payload.len(), header.body_bytes as usize);
    let _ = decode_headers(block);
}

fn read_body<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: Kind, bytes: &[u8]) {
    let Ok(body) = read_control::<T>(kind, bytes) else { return };
    let mut frame = Vec::new();
    put_control(kind, &body, &mut frame);
    assert_eq!(read_control::<T>(kind, &frame[HEADER_BYTES..]), Ok(body));
}
