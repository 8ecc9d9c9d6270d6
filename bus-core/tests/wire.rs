//! What comes from a socket may be anything: the decoder never panics, believes nothing before it
//! has checked it, and does not care where the stream is cut.

use std::fmt::Debug;

use bus_core::limits::HEADER_BLOCK_MAX_BYTES;
use bus_core::wire::*;
use bus_core::{ChannelName, Codec, Headers, Peers};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = FrameHeader::decode(&bytes, LIMITS);
        let _ = decode_headers(&bytes);
        read_as_everything(&bytes);
    }

    #[test]
    fn a_header_with_arbitrary_fields_never_panics(kind in 0_u8..=255, fields in vec(any::<u8>(), 28)) {
        let mut bytes = vec![b'b', b'U', PROTOCOL, kind];
        bytes.extend(fields);
        if let Ok(Some(header)) = FrameHeader::decode(&bytes, LIMITS) {
            // What is let through is what we would have written, but for flags that we do not know.
            prop_assert_eq!(&header.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written(header in header()) {
        prop_assert_eq!(FrameHeader::decode(&header.encode(), LIMITS), Ok(Some(header)));
    }

    #[test]
    fn a_header_that_is_not_whole_is_waited_for(header in header(), cut in 0..HEADER_BYTES) {
        prop_assert_eq!(FrameHeader::decode(&header.encode()[..cut], LIMITS), Ok(None));
    }

    #[test]
    fn a_wrong_start_is_refused_at_its_first_byte(first in any::<u8>().prop_filter("wrong", |byte| *byte != b'b')) {
        prop_assert_eq!(FrameHeader::decode(&[first], LIMITS), Err(FrameError::Magic));
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(frames in vec(frame(), 1..12), cuts in vec(1..300_usize, 1..40)) {
        let stream: Vec<u8> = frames.concat();
        let (mut here, mut found, mut at) = (Vec::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = stream.len().min(at + cut);
            here.extend_from_slice(&stream[at..end]);
            at = end;
            while let Some(header) = FrameHeader::decode(&here, LIMITS).expect("frames are well formed") {
                if here.len() < header.frame_bytes() {
                    break;
                }
                found.push(here.drain(..header.frame_bytes()).collect::<Vec<u8>>());
            }
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(found, frames);
    }

    /// Nothing but the header is there: whoever allocates what it announces does so after this.
    #[test]
    fn lengths_over_the_limit_are_refused_by_the_header_alone(header in header(), body: u32, block: u32) {
        let header = FrameHeader { body_bytes: body, header_block_bytes: block, ..header };
        let bytes = u64::from(body) + u64::from(block);
        let message = header.kind.carries_message();
        let over = if message {
            block > HEADER_BLOCK_MAX_BYTES || bytes > u64::from(LIMITS.message_max_bytes)
        } else {
            block > 0 || body > LIMITS.control_max_bytes
        };
        prop_assert_eq!(FrameHeader::decode(&header.encode(), LIMITS).is_err(), over);
    }

    #[test]
    fn headers_are_read_as_they_were_written(pairs in vec((".{0,20}", ".{0,60}"), 0..12)) {
        let headers: Headers = pairs.into_iter().collect();
        let mut block = b"before".to_vec();
        let bytes = encode_headers(&headers, &mut block).expect("short headers");
        prop_assert_eq!(block.len(), 6 + bytes as usize);
        prop_assert_eq!(decode_headers(&block[6..]), Ok(headers));
    }

    #[test]
    fn a_header_block_that_is_cut_is_malformed(value in ".{1,40}", cut in 1..6_usize) {
        let mut block = Vec::new();
        encode_headers(&Headers::new().with("key", value), &mut block).expect("short headers");
        prop_assert_eq!(decode_headers(&block[..block.len() - cut.min(block.len() - 1)]), Err(HeaderBlockError::Malformed));
    }

    #[test]
    fn a_control_body_is_read_whole_or_refused(taken: u64, acked: u64, given: u32, more in vec(any::<u8>(), 1..4)) {
        let progress = Progress { taken, acked, head_given_back: given };
        let mut frame = Vec::new();
        put_control(Kind::Progress, &progress, &mut frame);
        let body = &frame[HEADER_BYTES..];
        prop_assert_eq!(read_control::<Progress>(Kind::Progress, body), Ok(progress));
        prop_assert!(read_control::<Progress>(Kind::Progress, &body[..body.len() - 1]).is_err());
        prop_assert!(read_control::<Progress>(Kind::Progress, &[body, &more].concat()).is_err());
    }

    #[test]
    fn a_channel_name_is_checked_and_never_panics(name in "\\PC{0,140}") {
        if let Ok(checked) = ChannelName::new(&name) {
            prop_assert_eq!(checked.as_str(), name.as_str());
            prop_assert!(name.len() <= 128 && name.split('.').all(|token| !token.is_empty()));
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)));
        }
    }
}

#[test]
fn headers_over_the_limit_are_refused_and_leave_nothing_behind() {
    let mut block = b"before".to_vec();
    let headers = Headers::new().with("key", "x".repeat(HEADER_BLOCK_MAX_BYTES as usize));
    assert!(matches!(encode_headers(&headers, &mut block), Err(HeaderBlockError::TooLong { .. })));
    assert_eq!(block, b"before");
}

#[test]
fn another_version_is_told_by_its_number() {
    let mut bytes = FrameHeader::control(Kind::Hello, 0).encode();
    bytes[2] = PROTOCOL + 1;
    assert_eq!(FrameHeader::decode(&bytes, LIMITS), Err(FrameError::Protocol { theirs: PROTOCOL + 1 }));
}

#[test]
fn a_false_count_in_a_control_body_is_refused() {
    // A returning receiver that announces 2^40 senders, and brings none.
    let mut frame = Vec::new();
    put_control(Kind::Hello, &Returning::default(), &mut frame);
    let body = [&[0xfd][..], &(1_u64 << 40).to_le_bytes(), &frame[HEADER_BYTES + 1..]].concat();
    assert!(read_control::<Returning>(Kind::Hello, &body).is_err());
}

/// As the body of every control frame; what can be read is written as something that reads the same.
fn read_as_everything(bytes: &[u8]) {
    read_as::<Hello>(bytes);
    read_as::<Welcome>(bytes);
    read_as::<Refused>(bytes);
    read_as::<Settled>(bytes);
    read_as::<Want>(bytes);
    read_as::<Progress>(bytes);
    read_as::<Receivers>(bytes);
    read_as::<Peers>(bytes);
    read_as::<Closing>(bytes);
    read_as::<Request>(bytes);
    read_as::<Reply>(bytes);
}

fn read_as<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(body) = read_control::<T>(Kind::Request, bytes) else { return };
    let mut frame = Vec::new();
    put_control(Kind::Request, &body, &mut frame);
    assert_eq!(read_control::<T>(Kind::Request, &frame[HEADER_BYTES..]), Ok(body));
}

fn header() -> impl Strategy<Value = FrameHeader> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let codec = prop::sample::select(Codec::ALL.to_vec());
    let lengths = (0..5_000_u32, 0..5_000_u32);
    (kind, any::<u8>(), codec, any::<u64>(), any::<u64>(), lengths).prop_map(
        |(kind, flags, codec, sequence, sent_at_ns, (body_bytes, block))| {
            let header_block_bytes = if kind.carries_message() { block } else { 0 };
            FrameHeader { kind, flags: Flags(flags), codec, sequence, sent_at_ns, body_bytes, header_block_bytes }
        },
    )
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    header().prop_map(|header| {
        let header = FrameHeader { body_bytes: header.body_bytes % 400, header_block_bytes: 0, ..header };
        let mut frame = header.encode().to_vec();
        frame.resize(header.frame_bytes(), b'b');
        frame
    })
}

const LIMITS: FrameLimits = FrameLimits { message_max_bytes: 1 << 20, control_max_bytes: 1 << 16 };
