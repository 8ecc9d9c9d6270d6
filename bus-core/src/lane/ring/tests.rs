//! The ring between two threads: natively, and by Miri.

use super::*;
use crate::codec::Codec;
use crate::lane::layout::{Fixed, MessageHeader, NOBODY, PAGE_BYTES, RECORD_BYTES, WORD_BYTES, cursor, data};
use crate::lane::memory::tests::Heap;
use crate::wire::Flags;

const RING_BYTES: u64 = 4096;

pub(super) struct Memories {
    pub(super) data: Heap,
    pub(super) cursor: Heap,
}

impl Memories {
    pub(super) fn new(ring_bytes: u64) -> Self {
        Self { data: Heap::new(PAGE_BYTES + ring_bytes as usize), cursor: Heap::new(PAGE_BYTES) }
    }

    pub(super) fn writer(&self, bounds: Bounds) -> Writer<&Heap, &Heap> {
        Writer::new(&self.data, &self.cursor, bounds)
    }

    pub(super) fn reader(&self, ring_bytes: u64) -> Reader<&Heap, &Heap> {
        let limits = Limits { ring_bytes, message_max_bytes: ring_bytes as u32 };
        Reader::new(&self.data, &self.cursor, limits, 0, Start::default())
    }
}

pub(super) fn bounds(window_messages: u64) -> Bounds {
    Bounds { first_bytes: 1024, ring_bytes: RING_BYTES, window_messages }
}

pub(super) fn header(sequence: u64, header_block: &[u8], payload: &[u8]) -> MessageHeader {
    MessageHeader {
        flags: Flags::default(),
        codec: Codec::Raw,
        sequence,
        stamp_ns: sequence * 10,
        payload_bytes: payload.len() as u32,
        header_block_bytes: header_block.len() as u32,
    }
}

fn write(writer: &mut Writer<&Heap, &Heap>, sequence: u64, payload: &[u8]) -> Result<(), NotWritten> {
    writer.write(&header(sequence, b"", payload), b"", payload)
}

fn payload(reader: &Reader<&Heap, &Heap>, record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; record.header.payload_bytes as usize];
    reader.copy_payload(record, &mut bytes);
    bytes
}

#[test]
fn a_message_is_seen_whole_once_it_is_published() {
    let memories = Memories::new(RING_BYTES);
    let (mut writer, mut reader) = (memories.writer(bounds(10)), memories.reader(RING_BYTES));
    writer.write(&header(1, b"head", b"payload"), b"head", b"payload").unwrap();
    reader.look().unwrap();
    assert_eq!(reader.record(reader.head()), Ok(None));
    writer.publish();
    reader.look().unwrap();
    let record = reader.record(reader.head()).unwrap().unwrap();
    let mut block = [0; 4];
    reader.copy_header_block(&record, &mut block);
    assert_eq!((&block, payload(&reader, &record)), (b"head", b"payload".to_vec()));
    assert_eq!((record.header.sequence, record.header.stamp_ns), (1, 10));
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut reader.payload(&record), &mut read).unwrap();
    assert_eq!(read, b"payload");
}

/// It was jumped again for ever, by whoever asked for the next message.
#[test]
fn a_jump_with_nothing_behind_it_is_no_record() {
    let memories = Memories::new(RING_BYTES);
    let mut reader = memories.reader(RING_BYTES);
    for (index, word) in Fixed::Jump(512).encode().into_iter().enumerate() {
        memories.data.store(PAGE_BYTES / WORD_BYTES + index, word);
    }
    memories.data.store(data::TAIL, RECORD_BYTES);
    reader.look().unwrap();
    assert_eq!(reader.record(reader.head()), Err(Broken::Record));
}

#[test]
fn the_window_counts_messages_as_well() {
    let memories = Memories::new(RING_BYTES);
    let (mut writer, mut reader) = (memories.writer(bounds(2)), memories.reader(RING_BYTES));
    write(&mut writer, 1, b"").unwrap();
    write(&mut writer, 2, b"").unwrap();
    assert_eq!(write(&mut writer, 3, b""), Err(NotWritten::Full));
    writer.publish();
    reader.look().unwrap();
    let record = reader.record(reader.head()).unwrap().unwrap();
    reader.acknowledge(record.next);
    write(&mut writer, 3, b"").unwrap();
    assert_eq!(write(&mut writer, 4, b""), Err(NotWritten::Full));
}

#[test]
fn a_ring_that_is_not_to_grow_says_that_it_is_short_and_not_that_it_is_full() {
    let memories = Memories::new(RING_BYTES);
    let mut writer = memories.writer(bounds(1_000));
    writer.set_growth(Growth::Withheld);
    let mut sequence = 0;
    let mut fill = |writer: &mut Writer<_, _>| loop {
        match write(writer, sequence + 1, b"eight by") {
            Ok(()) => sequence += 1,
            Err(not) => return (sequence, not),
        }
    };
    let (short, not) = fill(&mut writer);
    assert_eq!(not, NotWritten::Short);
    writer.set_growth(Growth::WhenFull);
    let (full, not) = fill(&mut writer);
    assert_eq!(not, NotWritten::Full);
    assert!(full > short && short * 40 <= 1024, "{short}, then {full}");
}

#[test]
fn a_message_larger_than_the_ring_is_told_apart_from_a_full_ring() {
    let memories = Memories::new(RING_BYTES);
    let mut writer = memories.writer(bounds(10));
    assert_eq!(write(&mut writer, 1, &[0; RING_BYTES as usize]), Err(NotWritten::TooLarge));
    write(&mut writer, 1, &[1; 3000]).unwrap();
    assert_eq!(write(&mut writer, 2, &[2; 3000]), Err(NotWritten::Full));
}

#[test]
fn another_receiver_goes_on_where_the_last_was_honoured() {
    let memories = Memories::new(RING_BYTES);
    let second_cursor = Heap::new(PAGE_BYTES);
    let (mut writer, mut reader) = (memories.writer(bounds(100)), memories.reader(RING_BYTES));
    for sequence in 1..=5 {
        write(&mut writer, sequence, &[sequence as u8; 100]).unwrap();
    }
    writer.publish();
    reader.look().unwrap();
    let first = reader.record(reader.head()).unwrap().unwrap();
    assert!(reader.claim(3));
    reader.acknowledge(first.next);
    let start = writer.turn(&second_cursor, 1);
    assert_eq!((start.messages, start.taken), (1, 3));
    // The first one is told before it hands out anything else, and frees nothing any more.
    assert!(!reader.claim(4));
    reader.acknowledge(Position { logical: reader.tail(), place: 0, messages: 5 });
    writer.look().unwrap();
    assert_eq!(writer.acknowledged(), 1, "the new cursor is not written to yet");
    let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: 4096 };
    let mut second = Reader::new(&memories.data, &second_cursor, limits, 1, start);
    second.look().unwrap();
    let record = second.record(second.head()).unwrap().unwrap();
    assert_eq!((record.header.sequence, payload(&second, &record)), (2, vec![2; 100]));
    assert!(second.claim(2));
}

/// What it copied out just then was half of another message, and it handed that out.
#[test]
fn a_receiver_sees_that_what_it_has_read_may_be_written_over() {
    let memories = Memories::new(RING_BYTES);
    let second_cursor = Heap::new(PAGE_BYTES);
    let (mut writer, mut reader) = (memories.writer(bounds(100)), memories.reader(RING_BYTES));
    write(&mut writer, 1, &[1; 100]).unwrap();
    writer.publish();
    reader.look().unwrap();
    let record = reader.record(reader.head()).unwrap().unwrap();
    assert!(reader.claim(1));
    assert_eq!(payload(&reader, &record), vec![1; 100]);
    assert!(reader.is_still_honoured());
    writer.turn(&second_cursor, 1);
    assert!(!reader.is_still_honoured());
}

/// It gave its place and its count to the next one, who read from anywhere; and one that scribbled over its head
/// sent its sender back to where it had begun, long written over.
/// What was in the lane was lost with the daemon that had it from its sender: the receiver had let go of it.
#[test]
fn a_receiver_has_a_lane_to_itself_until_its_sender_honours_the_next() {
    let memories = Memories::new(RING_BYTES);
    let mut writer: Writer<_, &dyn Memory> = Writer::new(&memories.data, &memories.cursor, bounds(10));
    let mut reader = memories.reader(RING_BYTES);
    writer.write(&header(1, b"", b"payload"), b"", b"payload").unwrap();
    writer.publish();
    assert!(reader.claim(1) && !reader.is_anothers());
    writer.turn(&Nothing, 1);
    assert!(!reader.is_honoured(), "it takes nothing more by itself");
    assert!(!reader.is_anothers(), "and nobody else does");
    let next = Heap::new(PAGE_BYTES);
    writer.turn(&next, 2);
    assert!(reader.is_anothers());
}

#[test]
fn what_a_sender_takes_back_is_nothing_to_its_receiver() {
    let memories = Memories::new(RING_BYTES);
    let mut writer: Writer<_, &dyn Memory> = Writer::new(&memories.data, &memories.cursor, bounds(10));
    writer.turn(&Nothing, NOBODY);
    let reader = memories.reader(RING_BYTES);
    assert!(reader.is_anothers());
}

#[test]
fn a_receiver_that_lies_of_where_it_stands_costs_the_next_nothing() {
    const RING: u64 = 16 * 1024;
    // What it writes for its head, its place and its messages; and the message that the next one begins with.
    type Lie = fn(Position) -> [u64; 3];
    let lies: [(Lie, u64); 6] = [
        (|at| [at.logical | 1, at.place + 8, at.messages], 71),
        (|at| [at.logical | 1, at.place, at.messages + 1], 71),
        // Within a record: nothing of that is believed.
        (|at| [at.logical + 16, at.place, at.messages], 51),
        // Fewer messages than lie before it.
        (|at| [at.logical | 1, at.place, at.messages - 1], 51),
        // As one that has never begun, long after it had.
        (|_| [0, 0, 0], 51),
        (|_| [u64::MAX, 0, 0], 51),
    ];
    for (lie, first) in lies {
        let memories = Memories::new(RING);
        // So long that the sender looks when it is told to, and not before.
        let bounds = Bounds { first_bytes: RING, ring_bytes: RING, ..bounds(100) };
        let (mut writer, mut reader) = (memories.writer(bounds), memories.reader(RING));
        let mut at = reader.head();
        for sequence in 1..=100 {
            write(&mut writer, sequence, &[sequence as u8; 100]).unwrap();
            writer.publish();
            if sequence == 50 || sequence == 70 {
                reader.look().unwrap();
                while let Some(record) = reader.record(at).unwrap() {
                    at = record.next;
                }
                reader.acknowledge(at);
            }
            if sequence == 50 {
                writer.look().unwrap();
            }
        }
        let [head, place, messages] = lie(at);
        memories.cursor.store(cursor::HEAD, head);
        for slot in 0..2 {
            memories.cursor.store(cursor::SLOTS + 2 * slot, place);
            memories.cursor.store(cursor::SLOTS + 2 * slot + 1, messages);
        }
        let next_cursor = Heap::new(PAGE_BYTES);
        let start = writer.turn(&next_cursor, 1);
        let limits = Limits { ring_bytes: RING, message_max_bytes: 4096 };
        let mut next = Reader::new(&memories.data, &next_cursor, limits, 1, start);
        next.look().unwrap();
        let mut at = next.head();
        assert_eq!(at.messages, first - 1);
        for sequence in first..=100 {
            let record = next.record(at).unwrap().unwrap();
            assert_eq!((record.header.sequence, payload(&next, &record)), (sequence, vec![sequence as u8; 100]));
            at = record.next;
        }
    }
}

/// A payload that is itself a chain of valid records, each of so many bytes.
pub(super) fn chain(records: u64, record_bytes: u64) -> Vec<u8> {
    let content = vec![0; (record_bytes - RECORD_BYTES) as usize];
    let forged = Fixed::Message(header(666, b"", &content)).encode();
    let one: Vec<u8> = forged.iter().flat_map(|word| word.to_ne_bytes()).chain(content).collect();
    one.repeat(records as usize)
}

/// Writes a head as a receiver would that has come there.
pub(super) fn say_head(cursor: &Heap, logical: u64, messages: u64) {
    cursor.store(cursor::SLOTS + 2, 0);
    cursor.store(cursor::SLOTS + 3, messages);
    cursor.store(cursor::HEAD, logical | 1);
}

/// Its head led into a payload that looked like records: there were more of them than messages were sent, and the
/// sender's process panicked each time that it turned. Where more was sent than looked so, it took them for its own.
#[test]
fn a_head_within_a_payload_of_records_is_not_believed() {
    const RING: u64 = 16 * 1024;
    for behind in [0, 20] {
        // The first by what the sender turns to, the second by what it has looked at before.
        for looks in [false, true] {
            let memories = Memories::new(RING);
            let bounds = Bounds { first_bytes: RING, ring_bytes: RING, ..bounds(100) };
            let mut writer = memories.writer(bounds);
            write(&mut writer, 1, &chain(10, RECORD_BYTES)).unwrap();
            (2..2 + behind).for_each(|sequence| write(&mut writer, sequence, b"own").unwrap());
            writer.publish();
            say_head(&memories.cursor, RECORD_BYTES, 0);
            if looks {
                assert_eq!(writer.look(), Err(NotWritten::Broken(Broken::Head)));
            }
            let next_cursor = Heap::new(PAGE_BYTES);
            let start = writer.turn(&next_cursor, 1);
            assert_eq!((start.logical, start.messages, start.taken), (0, 0, writer.messages()));
            let limits = Limits { ring_bytes: RING, message_max_bytes: 4096 };
            let lie = at_rest(&memories.cursor).start.unwrap();
            assert_eq!(record_end(&memories.data, limits, lie), None, "and the daemon finds it out as well");
            let said = Start { place: RECORD_BYTES, ..lie };
            assert_eq!(record_end(&memories.data, limits, said), None);
            let mut next = Reader::new(&memories.data, &next_cursor, limits, 1, start);
            next.look().unwrap();
            let mut at = next.head();
            for sequence in 1..2 + behind {
                let record = next.record(at).unwrap().unwrap();
                assert_eq!(record.header.sequence, sequence);
                at = record.next;
            }
        }
    }
}

/// What was let go of there was written over, and nobody could tell any more where a record begins.
#[test]
fn what_a_liar_lets_go_of_is_not_written_over() {
    let memories = Memories::new(RING_BYTES);
    let mut writer = memories.writer(Bounds { first_bytes: RING_BYTES, ..bounds(1_000) });
    let (mut sent, text) = (0, chain(3, RECORD_BYTES));
    while write(&mut writer, sent + 1, &text).is_ok() {
        sent += 1;
    }
    writer.publish();
    say_head(&memories.cursor, 10 * 4 * RECORD_BYTES + 2 * RECORD_BYTES, 10);
    assert_eq!(write(&mut writer, sent + 1, &text), Err(NotWritten::Broken(Broken::Head)));
    // Where one of its own begins it is as good as any other.
    say_head(&memories.cursor, 10 * 4 * RECORD_BYTES, 10);
    let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: 4096 };
    let place = 10 * 4 * RECORD_BYTES;
    let at = Start { place, ..at_rest(&memories.cursor).start.unwrap() };
    assert!(record_end(&memories.data, limits, at).is_some() && believed(&memories.data).unwrap().logical == 0);
    let elsewhere = Start { place: 0, messages: 99, ..at };
    assert_eq!(record_end(&memories.data, limits, elsewhere).map(|end| (end.place, end.messages)), Some((place, 10)));
    write(&mut writer, sent + 1, &text).unwrap();
    assert_eq!(writer.acknowledged(), 10);
    assert!(
        record_end(&memories.data, limits, at).is_some() && believed(&memories.data).unwrap().logical == at.logical
    );
    assert_eq!(record_end(&memories.data, limits, Start::default()), None, "that is written over");
}

/// Counts what is loaded.
struct Counted<'a> {
    memory: &'a Heap,
    loads: std::cell::Cell<u64>,
}

impl Memory for Counted<'_> {
    fn words(&self) -> usize {
        self.memory.words()
    }

    fn load(&self, word: usize) -> u64 {
        self.loads.set(self.loads.get() + 1);
        self.memory.load(word)
    }

    fn store(&self, word: usize, value: u64) {
        self.memory.store(word, value);
    }

    fn fence(&self, fence: Fence) {
        self.memory.fence(fence);
    }
}

/// From every word of the payload the whole chain was walked, with the sender's state locked: half an hour for 16 MiB.
#[test]
fn a_head_within_a_long_chain_is_found_out_soon() {
    const RING: u64 = 64 * 1024;
    let (data, cursor) = (Heap::new(PAGE_BYTES + RING as usize), Heap::new(PAGE_BYTES));
    let counted = Counted { memory: &data, loads: std::cell::Cell::new(0) };
    let bounds = Bounds { first_bytes: RING, ring_bytes: RING, ..bounds(10_000) };
    let mut writer = Writer::new(&counted, &cursor, bounds);
    let mut chain = chain(200, RECORD_BYTES);
    // Which does not end where it should.
    let last = chain.len() - 8;
    chain[last] = 8;
    for sequence in 1..=1_000 {
        let text = if sequence == 1_000 { &chain[..] } else { b"own" };
        writer.write(&header(sequence, b"", text), b"", text).unwrap();
        writer.publish();
    }
    say_head(&cursor, 999 * 40 + RECORD_BYTES, 999);
    let next = Heap::new(PAGE_BYTES);
    counted.loads.set(0);
    assert_eq!(writer.turn(&next, 1).messages, 0);
    assert!(counted.loads.get() < 200, "{} words were loaded", counted.loads.get());
}

/// Also by Miri, which sees what a processor of another kind might do:
/// `cargo +nightly miri test -p bus-core --lib lane::ring`.
#[test]
fn everything_arrives_in_order_while_both_ends_work() {
    let messages: u64 = if cfg!(miri) { 60 } else { 100_000 };
    let memories = Memories::new(RING_BYTES);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = memories.writer(bounds(20));
            for sequence in 1..=messages {
                let bytes = vec![sequence as u8; (sequence * 37 % 300) as usize];
                while write(&mut writer, sequence, &bytes).is_err() {
                    std::thread::yield_now();
                }
                if sequence % 3 == 0 || sequence > messages - 3 {
                    writer.publish();
                }
            }
        });
        let mut reader = memories.reader(RING_BYTES);
        let mut sequence = 1;
        while sequence <= messages {
            reader.look().unwrap();
            while let Some(record) = reader.record(reader.head()).unwrap() {
                assert_eq!(record.header.sequence, sequence);
                let expected = vec![sequence as u8; (sequence * 37 % 300) as usize];
                assert_eq!(payload(&reader, &record), expected);
                reader.acknowledge(record.next);
                sequence += 1;
            }
            std::thread::yield_now();
        }
    });
}

/// A cursor whose receiver may lose its place.
struct Revocable<'a> {
    cursor: &'a Heap,
    revoked: &'a std::cell::Cell<bool>,
}

impl crate::lane::memory::Memory for Revocable<'_> {
    fn words(&self) -> usize {
        self.cursor.words()
    }

    fn load(&self, word: usize) -> u64 {
        self.cursor.load(word)
    }

    fn store(&self, word: usize, value: u64) {
        self.cursor.store(word, value);
    }

    fn fence(&self, fence: crate::lane::memory::Fence) {
        self.cursor.fence(fence);
    }

    fn is_revoked(&self) -> bool {
        self.revoked.get()
    }
}

/// The next receiver begins where this one stood when it lost its place: what it let go of when it woke up again would
/// have been written over.
#[test]
fn a_receiver_that_has_lost_its_place_makes_no_room_any_more() {
    let (memories, next, revoked) = (Memories::new(RING_BYTES), Heap::new(PAGE_BYTES), std::cell::Cell::new(false));
    let honoured = std::cell::Cell::new(false);
    let first = Revocable { cursor: &memories.cursor, revoked: &revoked };
    let mut writer = Writer::new(&memories.data, first, bounds(3));
    let mut reader = memories.reader(RING_BYTES);
    let write = |writer: &mut Writer<_, _>, sequence| {
        let written = writer.write(&header(sequence, b"", b"text"), b"", b"text");
        writer.publish();
        written
    };
    (1..=3).for_each(|sequence| write(&mut writer, sequence).unwrap());
    reader.look().unwrap();
    let one = reader.record(reader.head()).unwrap().unwrap();
    let two = reader.record(one.next).unwrap().unwrap();
    assert!(reader.claim(2));
    reader.acknowledge(one.next);
    write(&mut writer, 4).unwrap();
    revoked.set(true);
    reader.acknowledge(two.next);
    assert_eq!(write(&mut writer, 5), Err(NotWritten::Full));
    let start = writer.turn(Revocable { cursor: &next, revoked: &honoured }, 1);
    assert_eq!((start.messages, start.taken), (1, 2), "the second may have been handed out, and comes again");
}
