//! A peer that writes anything anywhere, at any time: the other end reports it, and goes on.

use proptest::prelude::*;

use super::tests::{Memories, bounds, chain, header, say_head};
use super::*;
use crate::codec::Codec;
use crate::lane::layout::{MessageHeader, NOBODY, PAGE_BYTES, RECORD_BYTES, WORD_BYTES, cursor, data};
use crate::lane::memory::Memory;
use crate::lane::memory::tests::Heap;

const RING_BYTES: u64 = 4096;

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Receive(usize),
    Scribble { word: usize, value: u64 },
}

/// Values as a liar would choose them: near what is right, near the limits, anything.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..5000,
        (0_u64..512).prop_map(|word| word * 8),
        (0_u64..64).prop_map(|below| RING_BYTES.wrapping_sub(below)),
        (0_u64..64).prop_map(|below| u64::MAX - below),
        any::<u64>(),
        (any::<u32>(), any::<u32>()).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low % 5000)),
        // A record's first word, and a jump's.
        Just(u64::from_le_bytes([b'b', b'U', 1, 2, 0, 0, 0, 0])),
        Just(u64::from_le_bytes([b'b', b'U', 1, 64, 0, 0, 0, 0])),
    ]
}

fn steps(words: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..400).prop_map(Step::Send),
        3 => (0_usize..8).prop_map(Step::Receive),
        1 => (words, value()).prop_map(|(word, value)| Step::Scribble { word, value }),
    ];
    prop::collection::vec(step, 1..200)
}

fn send(writer: &mut Writer<&Heap, &Heap>, sequence: &mut u64, bytes: usize) -> Result<(), NotWritten> {
    *sequence += 1;
    let payload = vec![1; bytes];
    writer.write(&header(*sequence, b"", &payload), b"", &payload)?;
    writer.publish();
    Ok(())
}

/// What a sender and a receiver do that both mean ill: what is sent comes from anywhere.
#[derive(Clone, Debug)]
enum Plot {
    /// A payload that is itself so many records of so many words, the last of which may be one word longer.
    SendChain {
        records: u64,
        words: u64,
        spoilt: bool,
    },
    Receive(usize),
    /// Says a head within or between what was sent, so many words before the tail; and how far it is off with the count.
    SayHead {
        back: u64,
        off: i64,
    },
    Scribble {
        word: usize,
        value: u64,
    },
    Look,
    Turn,
}

fn plots() -> impl Strategy<Value = Vec<Plot>> {
    let step = prop_oneof![
        6 => (0_u64..12, 4_u64..8, any::<bool>())
            .prop_map(|(records, words, spoilt)| Plot::SendChain { records, words, spoilt }),
        4 => (0_usize..8).prop_map(Plot::Receive),
        2 => (0_u64..200, prop_oneof![4 => Just(0), 1 => -3_i64..3]).prop_map(|(back, off)| Plot::SayHead { back, off }),
        1 => (prop_oneof![Just(cursor::HEAD), 0_usize..40], value())
            .prop_map(|(word, value)| Plot::Scribble { word, value }),
        2 => Just(Plot::Look),
        1 => Just(Plot::Turn),
    ];
    prop::collection::vec(step, 1..120)
}

/// Whether all from there on that was published is the sender's own, in its order, to the last.
fn is_own_to_the_last(data: &Heap, start: Start, sent: &Writer<&Heap, &Heap>) -> Result<(), TestCaseError> {
    let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: u32::MAX };
    let mut expected = start.messages;
    let end = walk(data, limits, start, |_, record| {
        expected += 1;
        record.header.sequence == expected
    });
    prop_assert_eq!(end.map(|end| end.messages), Ok(sent.messages()));
    Ok(())
}

/// The short way finds at the head what the long one finds there, or nothing.
fn is_plain_if_it_looks_so(reader: &Reader<&Heap, &Heap>) -> Result<(), TestCaseError> {
    let like = header(0, b"", b"").first_word();
    let at = reader.head();
    let record = reader.record_just_there(at).filter(|record| {
        let MessageHeader { header_block_bytes, .. } = record.header;
        header_block_bytes == 0 && record.header.first_word() == like
    });
    let plain = reader.plain(at, like);
    let said = |Plain { sequence, stamp_ns, payload_bytes, next }| (sequence, stamp_ns, payload_bytes, next);
    let header =
        |record: Record| (record.header.sequence, record.header.stamp_ns, record.header.payload_bytes, record.next);
    prop_assert_eq!(plain.map(said), record.map(header));
    if let (Some(plain), Some(record)) = (plain, record) {
        let [mut one, mut other] = [0, 1].map(|byte| vec![byte; plain.payload_bytes as usize]);
        reader.copy_plain(&plain, &mut one);
        reader.copy_payload(&record, &mut other);
        prop_assert_eq!(one, other);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Payloads may be records, and the receiver may point into them: its sender believes it nowhere but where one of
    /// its own records begins, so what the next receiver is given, or its sender takes back, is its own from there on,
    /// and all of it.
    #[test]
    fn a_receiver_that_points_into_payloads_of_records_costs_others_nothing(plots in plots()) {
        let memories = Memories::new(RING_BYTES);
        let mut cursors = vec![Heap::new(PAGE_BYTES)];
        cursors.extend(plots.iter().map(|_| Heap::new(PAGE_BYTES)));
        let mut generation = 0;
        let mut writer = Writer::new(&memories.data, &cursors[0], bounds(1000));
        let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: u32::MAX };
        let mut reader = Reader::new(&memories.data, &cursors[0], limits, 0, Start::default());
        let mut believed = 0;
        for plot in plots {
            let cursor = &cursors[generation];
            match plot {
                Plot::SendChain { records, words, spoilt } => {
                    let mut payload = chain(records, words * WORD_BYTES as u64);
                    if spoilt && records > 0 {
                        let last = (records - 1) as usize * words as usize * WORD_BYTES + 24;
                        payload[last] += 8;
                    }
                    let written = writer.write(&header(writer.messages() + 1, b"", &payload), b"", &payload);
                    prop_assert_ne!(written, Err(NotWritten::TooLarge));
                    writer.publish();
                }
                Plot::Receive(most) => {
                    for _ in 0..if reader.look().is_ok() { most } else { 0 } {
                        let Ok(Some(record)) = reader.record(reader.head()) else { break };
                        reader.claim(record.next.messages);
                        reader.acknowledge(record.next);
                    }
                }
                Plot::SayHead { back, off } => {
                    let logical = memories.data.load(data::TAIL).saturating_sub(back * WORD_BYTES as u64);
                    // The count that belongs there is the best that a liar can say.
                    let messages = writer.acknowledged().max(writer.messages().saturating_sub(back / 30));
                    say_head(cursor, logical, messages.saturating_add_signed(off));
                }
                Plot::Scribble { word, value } => cursor.store(word, value),
                Plot::Look => drop(writer.look()),
                Plot::Turn => {
                    generation += 1;
                    let start = writer.turn(&cursors[generation], generation as u64);
                    prop_assert!(start.messages >= believed, "what was written over is not gone back to");
                    prop_assert!(start.messages <= start.taken && start.taken <= writer.messages());
                    is_own_to_the_last(&memories.data, start, &writer)?;
                    reader = Reader::new(&memories.data, &cursors[generation], limits, generation as u64, start);
                }
            }
            believed = writer.acknowledged();
        }
        let start = writer.turn(&cursors[0], NOBODY);
        is_own_to_the_last(&memories.data, start, &writer)?;
    }

    /// The receiver against its sender: every message that it makes of that is within the limits, and each
    /// look ends.
    #[test]
    fn a_sender_that_scribbles_is_found_out_or_harmless(
        steps in steps(prop_oneof![Just(data::TAIL), 512_usize..1024, 0_usize..1024]),
    ) {
        let memories = Memories::new(RING_BYTES);
        let (mut writer, mut reader) = (memories.writer(bounds(1000)), memories.reader(RING_BYTES));
        let mut sequence = 0;
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    // What does not fit is not sent.
                    let _ = send(&mut writer, &mut sequence, bytes);
                }
                Step::Receive(most) => {
                    if reader.look().is_err() {
                        return Ok(());
                    }
                    for _ in 0..most {
                        is_plain_if_it_looks_so(&reader)?;
                        match reader.record(reader.head()) {
                            Ok(Some(record)) => {
                                let mut payload = vec![0; record.header.payload_bytes as usize];
                                reader.copy_payload(&record, &mut payload);
                                let mut block = vec![0; record.header.header_block_bytes as usize];
                                reader.copy_header_block(&record, &mut block);
                                prop_assert!((payload.len() + block.len()) as u64 <= RING_BYTES);
                                reader.acknowledge(record.next);
                            }
                            Ok(None) => break,
                            Err(_) => return Ok(()),
                        }
                    }
                }
                Step::Scribble { word, value } => memories.data.store(word, value),
            }
        }
    }

    /// The sender against its receiver: it writes within the ring, whatever it is told.
    #[test]
    fn a_receiver_that_scribbles_is_found_out_or_harmless(
        steps in steps(prop_oneof![Just(cursor::HEAD), 0_usize..40]),
    ) {
        let memories = Memories::new(RING_BYTES);
        let (mut writer, mut reader) = (memories.writer(bounds(1000)), memories.reader(RING_BYTES));
        let mut sequence = 0;
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    match send(&mut writer, &mut sequence, bytes) {
                        Ok(()) | Err(NotWritten::Full | NotWritten::Short) => {}
                        Err(NotWritten::Broken(_)) => return Ok(()),
                        Err(NotWritten::TooLarge) => prop_assert!(false, "it fits into an empty ring"),
                    }
                }
                Step::Receive(most) => {
                    // A sender that believed a forged head has written over what was not read: nonsense, as
                    // from any liar.
                    for _ in 0..if reader.look().is_ok() { most } else { 0 } {
                        let Ok(Some(record)) = reader.record(reader.head()) else { break };
                        reader.acknowledge(record.next);
                    }
                }
                Step::Scribble { word, value } => memories.cursor.store(word, value),
            }
        }
        let start = writer.turn(&memories.cursor, 1);
        prop_assert!(start.messages <= start.taken && start.taken <= writer.messages());
        // Another receiver begins there, and finds records or a fault.
        let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: 4096 };
        let mut next = Reader::new(&memories.data, &memories.cursor, limits, 1, start);
        if next.look().is_ok() {
            let _ = next.record(next.head());
        }
    }
}

/// Values are decoded from memory that their sender writes to all the while: each is a value or an error, and what
/// stands there now was not there a moment ago.
#[test]
fn a_value_that_changes_while_it_is_decoded_is_a_value_or_an_error() {
    type Value = Vec<(String, Option<Vec<u32>>, (u8, i64, bool))>;
    let rounds = if cfg!(miri) { 3 } else { 300 };
    let value: Value = (0..100).map(|at| ("x".repeat(at), Some(vec![at as u32; at]), (1, -2, true))).collect();
    let mut bytes = Vec::new();
    Codec::Bincode.encode(&value, &mut bytes).unwrap();
    assert!(bytes.len() > 2000, "several pieces");
    let memories = Memories::new(8 * RING_BYTES);
    let bounds = Bounds { first_bytes: 8 * RING_BYTES, ring_bytes: 8 * RING_BYTES, ..bounds(10) };
    let (mut writer, mut reader) = (memories.writer(bounds), memories.reader(8 * RING_BYTES));
    writer.write(&header(1, b"", &bytes), b"", &bytes).unwrap();
    writer.publish();
    reader.look().unwrap();
    let record = reader.record(reader.head()).unwrap().unwrap();
    let decode = || Codec::Bincode.decode_from::<Value>(reader.payload(&record), bytes.len());
    assert_eq!(decode().unwrap(), value);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let first = (PAGE_BYTES + RECORD_BYTES as usize) / WORD_BYTES;
            let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                memories.data.store(first + (dice >> 32) as usize % bytes.len().div_ceil(WORD_BYTES), dice);
            }
        });
        for _ in 0..rounds {
            // The limit of bincode holds for what it would take memory for.
            let _ = decode();
            let _ = Codec::Postcard.decode_from::<Value>(reader.payload(&record), bytes.len());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
