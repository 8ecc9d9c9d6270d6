//! A ring that has seen as many bytes and messages as numbers can count: everything is as in one that is new.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::{Memories, bounds, header};
use super::*;
use crate::lane::layout::PAGE_BYTES;
use crate::lane::memory::tests::Heap;

const RING_BYTES: u64 = 4096;

/// More than a test writes, in bytes.
const SPARE_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Receive(usize),
    /// Another receiver comes.
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..400).prop_map(Step::Send),
        6 => (0_usize..8).prop_map(Step::Receive),
        1 => Just(Step::Turn),
    ]
}

/// Around each power of two that a number of fewer bits could end at, and just before the last of all.
fn count(spare: u64) -> impl Strategy<Value = u64> {
    let around = (31_u32..64, -2_000_i64..2_000).prop_map(|(bits, by)| (1_u64 << bits).saturating_add_signed(by));
    let last = (0_u64..2_000).prop_map(move |below| u64::MAX - spare - below);
    prop_oneof![around, last].prop_map(move |count| count.min(u64::MAX - spare))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_ring_goes_on_at_any_count_of_bytes_and_messages(
        logical in count(SPARE_BYTES),
        messages in count(1_000),
        place in 0_u64..64,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let start = Start { logical: logical & !7, place: place * 8, messages, taken: messages };
        let memories = Memories::new(RING_BYTES);
        let mut cursors = vec![Heap::new(PAGE_BYTES)];
        // Made before, so that they live as long as who writes to them.
        cursors.extend(steps.iter().map(|_| Heap::new(PAGE_BYTES)));
        let mut generation = 0;
        let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: RING_BYTES as u32 };
        let mut writer = Writer::new(&memories.data, &cursors[0], bounds(20));
        writer.begin_at(start);
        let mut reader = Reader::new(&memories.data, &cursors[0], limits, 0, start);
        let (mut sequence, mut sent) = (0, VecDeque::new());
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    let payload = vec![sequence as u8; bytes];
                    match writer.write(&header(sequence + 1, b"", &payload), b"", &payload) {
                        Ok(()) => {
                            writer.publish();
                            sequence += 1;
                            sent.push_back((sequence, payload));
                        }
                        Err(refused) => prop_assert_eq!((refused, sent.is_empty()), (NotWritten::Full, false)),
                    }
                }
                Step::Receive(most) => {
                    reader.look().unwrap();
                    for _ in 0..most {
                        let record = reader.record(reader.head()).unwrap();
                        let Some(record) = record else {
                            prop_assert!(sent.is_empty());
                            break;
                        };
                        let mut payload = vec![0; record.header.payload_bytes as usize];
                        reader.copy_payload(&record, &mut payload);
                        prop_assert_eq!(Some((record.header.sequence, payload)), sent.pop_front());
                        prop_assert!(reader.claim(record.next.messages));
                        reader.acknowledge(record.next);
                    }
                    let left = counts(&memories.data, Some(&&cursors[generation]));
                    prop_assert!(left.acknowledged <= left.published && left.bytes <= RING_BYTES);
                }
                Step::Turn => {
                    reader.give_back(3);
                    let left = at_rest(&&cursors[generation]);
                    prop_assert_eq!((left.given_back, left.taken), (3, reader.head().messages));
                    let left = left.start.unwrap();
                    let end = record_end(&&memories.data, limits, left).map(|end| (end.logical, end.place, end.messages));
                    prop_assert_eq!(end, Some((left.logical, left.place, left.messages)));
                    generation += 1;
                    let next = writer.turn(&cursors[generation], generation as u64);
                    prop_assert_eq!(next.messages, reader.head().messages);
                    prop_assert_eq!(next.logical, reader.head().logical);
                    reader = Reader::new(&memories.data, &cursors[generation], limits, generation as u64, next);
                }
            }
        }
    }
}
