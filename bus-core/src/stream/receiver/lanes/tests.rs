//! Lanes of one receiver with real rings, written to by this process.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;
use crate::codec::Codec;
use crate::lane::layout::{MessageHeader, PAGE_BYTES};
use crate::lane::ring::{Bounds, Writer};
use crate::wire::{Flags, LaneGiven, LaneProof, LaneStart};

const RING_BYTES: u64 = 64 * 1024;

/// The stream of a receiver to which nothing is sent by it.
const NO_STREAM: Stream = Stream { head_ns: None, received: 0, waiting: 0, is_up: true };

/// The sender's end of a lane, and what keeps its files.
struct Sending {
    writer: Writer<Map, Map>,
    _files: [MemoryFile; 3],
}

/// A memory file, mapped by its writer, and a descriptor for all others.
fn written(bytes: usize) -> (MemoryFile, Map, OwnedFd) {
    let file = MemoryFile::create("bus-test", bytes).unwrap();
    let map = file.map_writable().unwrap();
    file.forbid_new_writers().unwrap();
    let reading = file.reading_descriptor().unwrap();
    (file, map, reading)
}

fn lane(id: u64) -> (Lane, Ends, Sending) {
    let (data, data_map, data_fd) = written(PAGE_BYTES + RING_BYTES as usize);
    let cursor = MemoryFile::create("bus-test", PAGE_BYTES).unwrap();
    let (board, _, board_fd) = written(PAGE_BYTES);
    let [ringer, bell] = UnixStream::pair().map(|(one, other)| [one, other].map(OwnedFd::from)).unwrap();
    let cursor_fd = cursor.as_fd().try_clone_to_owned().unwrap();
    let given = LaneGiven {
        lane: LaneId(id),
        ticket: [0; 16],
        generation: 0,
        sender: id,
        pid: 1,
        ring_bytes: RING_BYTES,
        not_before_ns: 0,
        start: LaneStart { logical: 0, place: 0, messages: 0 },
        attempts: Vec::new(),
        sender_gone: false,
        brought: false,
        proof: LaneProof { uid: 0, token: [0; 16] },
        in_use: true,
    };
    let (lane, ends) = Lane::new(given, 1 << 20, vec![data_fd, cursor_fd, ringer, bell, board_fd]).unwrap();
    let bounds = Bounds { first_bytes: RING_BYTES, ring_bytes: RING_BYTES, window_messages: 10_000 };
    let writer = Writer::new(data_map, cursor.map_readable().unwrap(), bounds);
    (lane, ends, Sending { writer, _files: [data, cursor, board] })
}

/// A message, as it is sent and as it is to come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    stamp_ns: u64,
    lane: u64,
    sequence: u64,
    block: Vec<u8>,
    payload: Vec<u8>,
    codec: u8,
}

fn send(writer: &mut Writer<Map, Map>, said: &Said) {
    let header = MessageHeader {
        flags: Flags::default(),
        codec: Codec::from_id(said.codec).unwrap(),
        sequence: said.sequence,
        stamp_ns: said.stamp_ns,
        payload_bytes: said.payload.len() as u32,
        header_block_bytes: said.block.len() as u32,
    };
    writer.write(&header, &said.block, &said.payload).unwrap();
    writer.publish();
}

/// What one lane is sent: how much later than the one before, payload, header block, codec. Most are alike.
fn messages() -> impl Strategy<Value = Vec<(u64, usize, usize, u8)>> {
    let bytes = prop_oneof![6 => Just(64_usize), 2 => 0_usize..300];
    let block = prop_oneof![9 => Just(0_usize), 1 => 1_usize..20];
    let codec = prop_oneof![9 => Just(Codec::Raw.id()), 1 => Just(Codec::Json.id())];
    prop::collection::vec((0_u64..6, bytes, block, codec), 0..80)
}

/// Lends one batch as a receiver does. Returns what it has.
fn lend_batch(lanes: &mut Lanes, loan: &mut LaneLoan, most: usize) -> Vec<(Lent, Vec<u8>)> {
    let Ok(Next::Lane(index)) = lanes.next(NO_STREAM) else { return Vec::new() };
    let mut first = lanes.claim(index).expect("its sender honours it");
    lanes.begins(index);
    first.content = lanes.copy_to(loan, index, &first.record, Copied::All);
    lanes.pass(index);
    loan.lent.push(first);
    lanes.lend_runs(NO_STREAM, loan, most);
    loan.lent.iter().map(|lent| (*lent, loan.content(lent).to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is sent in whatever lanes, and however much is taken at once: it comes by stamp, of the same stamp the
    /// first lane first, each message once and whole, and claimed before.
    #[test]
    fn what_is_lent_in_batches_comes_by_stamp_once_and_whole(
        sent in prop::collection::vec(messages(), 1..5),
        most in 1_usize..50,
    ) {
        let (mut lanes, mut sending) = (Lanes::default(), Vec::new());
        for id in 0..sent.len() as u64 {
            let (lane, ends, sender) = lane(id);
            lanes.add(lane, ends);
            sending.push(sender);
        }
        let mut expected = Vec::new();
        for (id, (messages, sending)) in sent.iter().zip(&mut sending).enumerate() {
            let mut stamp_ns = 1;
            for (at, (later_ns, bytes, block, codec)) in messages.iter().enumerate() {
                stamp_ns += later_ns;
                let fill = (id * 100 + at) as u8;
                let (block, payload) = (vec![!fill; *block], vec![fill; *bytes]);
                let said =
                    Said { stamp_ns, lane: id as u64, sequence: at as u64 + 1, block, payload, codec: *codec };
                send(&mut sending.writer, &said);
                expected.push(said);
            }
        }
        expected.sort();
        let mut came = Vec::new();
        loop {
            let mut loan = LaneLoan::default();
            let batch = lend_batch(&mut lanes, &mut loan, most);
            if batch.is_empty() {
                break;
            }
            prop_assert!(batch.len() <= most, "{} where {most} were asked for", batch.len());
            for (lent, content) in &batch {
                let taken = lanes.iter().find(|lane| lane.id == lent.lane).unwrap().reader.taken();
                prop_assert!(lent.record.next.messages <= taken, "handed out before it is claimed");
                let header = lent.record.header;
                let (block, payload) = content.split_at(header.header_block_bytes as usize);
                came.push(Said {
                    stamp_ns: header.stamp_ns,
                    lane: lent.lane.0,
                    sequence: header.sequence,
                    block: block.to_vec(),
                    payload: payload.to_vec(),
                    codec: header.codec.id(),
                });
            }
            let settled: Vec<Lent> = batch.iter().map(|(lent, _)| *lent).collect();
            prop_assert_eq!(lanes.acknowledge_all(&settled).len(), 0);
        }
        prop_assert_eq!(came, expected);
        for sender in &mut sending {
            prop_assert!(sender.writer.look().is_ok());
            prop_assert_eq!(sender.writer.acknowledged(), sender.writer.messages());
        }
    }
}
