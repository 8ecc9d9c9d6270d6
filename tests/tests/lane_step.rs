//! The ends of a ring, killed before every single store that they make: the code is the real one, and its memory
//! takes no more stores after the chosen one, as when `kill -9` comes between two instructions.
//!
//! A killed process's stores are seen in the order of its program; what a living one's may be seen as is the loom
//! model's affair, in `bus-core`.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};

use bus_core::Codec;
use bus_core::lane::layout::{MessageHeader, PAGE_BYTES, WORD_BYTES};
use bus_core::lane::memory::{Fence, Memory};
use bus_core::lane::ring::{Bounds, Limits, NotWritten, Reader, Record, Start, Writer, at_rest, counts, walk};
use bus_core::wire::Flags;

/// Small, so that it wraps again and again.
const RING_BYTES: u64 = 1024;
const LIMITS: Limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: 512 };
const BOUNDS: Bounds = Bounds { first_bytes: 512, ring_bytes: RING_BYTES, window_messages: 8 };

/// How many messages the sender would send.
const MESSAGES: u64 = 24;

/// How many messages a receiver claims at once.
const CLAIMS: [u64; 3] = [1, 3, 100];

#[test]
fn a_sender_killed_at_any_store_has_sent_whole_messages_and_all_that_it_was_told() {
    let all = Run::new(u64::MAX, u64::MAX, 1).run();
    assert!(all.told == MESSAGES && all.writer_was_told_it_is_full, "{all:?}");
    let stores = all.stores_of_sender;
    for last_store in 0..=stores {
        let run = Run::new(last_store, u64::MAX, 1);
        let end = run.run();
        let published = end.acknowledged;
        assert!((end.told..=end.told + 1).contains(&published), "{published} came, {} were told", end.told);
        let counted = counts(&&run.data, Some(&&run.cursor)).published;
        assert!((published..=published + 1).contains(&counted), "the books are one ahead at most");
    }
    println!("killed at each of {stores} stores: 0 torn, 0 lost");
}

#[test]
fn whatever_receiver_is_killed_at_any_store_the_next_goes_on_where_it_stood() {
    let mut points = 0;
    for claims in CLAIMS {
        let stores = Run::new(u64::MAX, u64::MAX, claims).run().stores_of_receiver;
        for last_store in 0..stores {
            let run = Run::new(u64::MAX, last_store, claims);
            let end = run.run();
            run.expect_next_receiver_after(&end);
            points += 1;
        }
    }
    println!("killed at {points} stores: 0 lost, 0 doubled without a mark, 0 out of order");
}

/// As when the machine runs out of memory, and all are killed for it but the daemon.
#[test]
fn both_may_be_killed_at_any_store() {
    let mut points = 0;
    for claims in CLAIMS {
        let all = Run::new(u64::MAX, u64::MAX, claims).run();
        for senders in 0..=all.stores_of_sender {
            for receivers in 0..=all.stores_of_receiver {
                let run = Run::new(senders, receivers, claims);
                let end = run.run();
                run.expect_daemon_knows(&end);
                points += 1;
            }
        }
    }
    println!("killed at {points} pairs of stores: 0 torn, 0 lost, 0 doubled without a mark");
}

/// One lane, from its first message until its sender has sent all, or is dead.
struct Run {
    data: Mortal,
    cursor: Mortal,
    /// Of the next receiver.
    next: Mortal,
    claims: u64,
}

/// How far all had come.
#[derive(Debug)]
struct End {
    /// Messages whose sender was told that they are sent.
    told: u64,
    /// Messages that were handed to the receiver's user.
    handed_out: u64,
    /// Messages that its user had acknowledged: the last call may not have come to its end.
    acknowledged: u64,
    acknowledging: u64,
    stores_of_sender: u64,
    stores_of_receiver: u64,
    writer_was_told_it_is_full: bool,
    /// Where the sender has sent the next receiver to, this one being dead.
    turned: Option<Start>,
}

impl Run {
    fn new(sender_stores: u64, receiver_stores: u64, claims: u64) -> Self {
        let data = Mortal::new(PAGE_BYTES + RING_BYTES as usize, sender_stores);
        let [cursor, next] = [receiver_stores, u64::MAX].map(|stores| Mortal::new(PAGE_BYTES, stores));
        Self { data, cursor, next, claims }
    }

    fn run(&self) -> End {
        let mut writer = Writer::new(&self.data, &self.cursor, BOUNDS);
        let mut reader = Reader::new(&self.data, &self.cursor, LIMITS, 0, Start::default());
        let mut end = End {
            told: 0,
            handed_out: 0,
            acknowledged: 0,
            acknowledging: 0,
            stores_of_sender: 0,
            stores_of_receiver: 0,
            writer_was_told_it_is_full: false,
            turned: None,
        };
        let mut taken = Vec::new();
        // Turns of different lengths, so that the ring is empty, full and anything between.
        for turn in 0..200_u64 {
            for _ in 0..turn % 5 {
                if self.data.is_dead() || end.told == MESSAGES {
                    break;
                }
                let (block, payload) = content(end.told + 1);
                match writer.write(&header(end.told + 1, &block, &payload), &block, &payload) {
                    Ok(()) => {
                        writer.publish();
                        writer.must_wake();
                        end.told += u64::from(!self.data.is_dead());
                    }
                    Err(NotWritten::Full) => {
                        end.writer_was_told_it_is_full = true;
                        break;
                    }
                    Err(other) => panic!("{other:?} of an honest receiver"),
                }
            }
            for _ in 0..turn % 4 {
                if self.cursor.is_dead() {
                    break;
                }
                reader.look().unwrap();
                let next = taken.last().map_or(reader.head(), |record: &Record| record.next);
                if let Some(record) = reader.record(next).unwrap() {
                    if reader.taken() < record.next.messages {
                        let ahead = (record.next.messages - 1 + self.claims).min(reader.published());
                        assert!(reader.claim(record.next.messages.max(ahead)));
                    }
                    if self.cursor.is_dead() {
                        break;
                    }
                    expect_whole(&reader, &record);
                    end.handed_out = record.next.messages;
                    taken.push(record);
                }
                if turn % 3 > 0 && !taken.is_empty() {
                    let record = taken.remove(0);
                    end.acknowledging = record.next.messages;
                    reader.acknowledge(record.next);
                    if !self.cursor.is_dead() {
                        end.acknowledged = record.next.messages;
                    }
                }
            }
            if self.data.is_dead() && self.cursor.is_dead() {
                break;
            }
        }
        if !self.cursor.is_dead() {
            // What is left, at leisure.
            reader.look().unwrap();
            let mut at = reader.head();
            while let Some(record) = reader.record(at).unwrap() {
                expect_whole(&reader, &record);
                at = record.next;
                reader.claim(record.next.messages);
                if self.cursor.is_dead() {
                    break;
                }
                end.handed_out = end.handed_out.max(record.next.messages);
                end.acknowledging = record.next.messages;
                reader.acknowledge(record.next);
                if self.cursor.is_dead() {
                    break;
                }
                end.acknowledged = record.next.messages;
            }
        }
        if self.cursor.is_dead() {
            end.turned = Some(writer.turn(&self.next, 1));
        }
        (end.stores_of_sender, end.stores_of_receiver) = (self.data.stored.get(), self.cursor.stored.get());
        end
    }

    /// The receiver is dead: its sender has turned to the next, or it is gone as well, and the daemon looks.
    fn expect_next_receiver_after(&self, end: &End) {
        let rest = at_rest(&&self.cursor);
        let start = Start { taken: rest.taken, ..rest.start.unwrap_or_default() };
        expect_between(start, end);
        let Some(turned) = end.turned else { return };
        assert_eq!(turned, start, "both see the same");
        let mut next = Reader::new(&self.data, &self.next, LIMITS, 1, turned);
        next.look().unwrap();
        let mut at = next.head();
        while let Some(record) = next.record(at).unwrap() {
            assert_eq!(record.header.sequence, at.messages + 1);
            expect_whole(&next, &record);
            at = record.next;
        }
        assert_eq!(at.messages, end.told, "all that was told comes");
    }

    /// Both are dead: what the daemon finds in the files.
    fn expect_daemon_knows(&self, end: &End) {
        let rest = at_rest(&&self.cursor);
        let start = Start { taken: rest.taken, ..rest.start.unwrap_or_default() };
        expect_between(start, end);
        let mut sequence = start.messages;
        let behind = walk(&&self.data, LIMITS, start, |reader, record| {
            sequence += 1;
            assert_eq!(record.header.sequence, sequence);
            expect_whole(reader, record);
            true
        });
        let published = behind.unwrap().messages;
        assert!((end.told..=end.told + 1).contains(&published), "{published} are there, {} were told", end.told);
        let counts = counts(&&self.data, Some(&&self.cursor));
        assert!((published..=published + 1).contains(&counts.published));
    }
}

/// Nothing that was acknowledged comes again, everything else does, and what was handed out is marked.
fn expect_between(start: Start, end: &End) {
    assert!((end.acknowledged..=end.acknowledging).contains(&start.messages), "{start:?} after {end:?}");
    assert!(start.taken >= end.handed_out, "{start:?} would come without a mark after {end:?}");
}

fn expect_whole<D: Memory, C: Memory>(reader: &Reader<D, C>, record: &Record) {
    let (block, payload) = content(record.header.sequence);
    let mut read = (vec![0; record.header.header_block_bytes as usize], vec![0; record.header.payload_bytes as usize]);
    reader.copy_header_block(record, &mut read.0);
    reader.copy_payload(record, &mut read.1);
    assert_eq!(read, (block, payload), "message {} is torn", record.header.sequence);
}

/// Header block and payload of a message: of all lengths, filled so that no other has the same.
fn content(sequence: u64) -> (Vec<u8>, Vec<u8>) {
    let filling = |salt: u64| move |at: u64| (sequence * 31 + at * 7 + salt) as u8 | 1;
    let block = (0..sequence % 4 * 5).map(filling(1)).collect();
    (block, (0..sequence * 37 % 120).map(filling(2)).collect())
}

fn header(sequence: u64, block: &[u8], payload: &[u8]) -> MessageHeader {
    MessageHeader {
        flags: Flags::default(),
        codec: Codec::Raw,
        sequence,
        stamp_ns: sequence,
        payload_bytes: payload.len() as u32,
        header_block_bytes: block.len() as u32,
    }
}

/// Memory whose writer dies: after so many stores it takes none.
struct Mortal {
    words: RefCell<Vec<u64>>,
    stores_max: u64,
    stored: Cell<u64>,
    dead: Cell<bool>,
}

impl Mortal {
    fn new(bytes: usize, stores_max: u64) -> Self {
        let words = RefCell::new(vec![0; bytes / WORD_BYTES]);
        Self { words, stores_max, stored: Cell::new(0), dead: Cell::new(false) }
    }

    /// Whether it would have stored something more.
    fn is_dead(&self) -> bool {
        self.dead.get()
    }
}

impl Memory for Mortal {
    fn words(&self) -> usize {
        self.words.borrow().len()
    }

    fn load(&self, word: usize) -> u64 {
        self.words.borrow()[word]
    }

    fn store(&self, word: usize, value: u64) {
        if self.stored.get() == self.stores_max {
            self.dead.set(true);
            return;
        }
        self.stored.set(self.stored.get() + 1);
        self.words.borrow_mut()[word] = value;
    }

    fn fence(&self, _: Fence) {}
}
