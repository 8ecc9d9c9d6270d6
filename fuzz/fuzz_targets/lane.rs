//! A lane of which one side or both write anything anywhere, also between two loads of the other: nobody panics,
//! reads or writes out of bounds, looks for ever or takes a length for granted.
//!
//! The input is a script: what the two honest ends do, what is scribbled over their pages, and after how many
//! loads. Until something is scribbled everything has to arrive as it was sent.

#![no_main]

use std::cell::{Cell, RefCell};
use std::io::Read;

use bus_core::Codec;
use bus_core::lane::layout::{Fixed, MessageHeader, PAGE_BYTES, WORD_BYTES, cursor, data};
use bus_core::lane::memory::{Fence, Memory};
use bus_core::lane::ring::{
    Bounds, Limits, NotWritten, Position, Reader, Record, SleepsAt, Start, Writer, at_rest, counts, walk, write_cursor,
};
use bus_core::wire::Flags;
use libfuzzer_sys::fuzz_target;

const RING_BYTES: u64 = 4096;
const MESSAGE_MAX_BYTES: u32 = 1500;

/// More than anything may look at before it says what it has found: a receiver that moves its head all the time
/// is looked at 100,000 times, five words each.
const LOADS_MAX: u64 = 600_000;

fuzz_target!(|script: &[u8]| {
    let script = Script::new(script);
    let (data, cursors) = (Page::data(&script), [Page::cursor(&script), Page::cursor(&script)]);
    let bounds = Bounds { first_bytes: 1024, ring_bytes: RING_BYTES, window_messages: 40 };
    let mut sender = Sender { writer: Writer::new(&data, Peers(&cursors[0]), bounds), sequence: 0 };
    let mut receiver = Some(Receiver::new(&data, &cursors[0], 0, Start::default()));
    let mut generation = 0;
    while let Some(step) = script.step() {
        let cursor = &cursors[generation as usize % 2];
        match step % 16 {
            0..4 => sender.send(&script),
            4..8 => {
                // One that has found its sender out lets the lane go.
                receiver = receiver.take().and_then(|receiver| receiver.receive(&script));
            }
            8 => {
                // As when the receiver is gone: the next begins where the sender saw it last.
                generation += 1;
                let next = &cursors[generation as usize % 2];
                next.clear();
                let start = sender.writer.turn(Peers(next), generation);
                assert!(start.messages <= start.taken && start.taken <= sender.writer.messages());
                receiver = Some(Receiver::new(&data, next, generation, start));
            }
            9 => {
                // As a daemon that was brought the lane: it believes neither.
                let rest = at_rest(&Peers(cursor));
                if let Some(start) = rest.start {
                    let walked = walk(&Peers(&data), limits(), start, |reader, record| {
                        copy(reader, record);
                        true
                    });
                    assert!(script.is_scribbled() || walked.is_ok_and(|end| end.messages == sender.sequence));
                }
                let copied = Page::cursor(&script);
                write_cursor(&copied, rest.start.unwrap_or_default());
                let counts = counts(&Peers(&data), Some(&Peers(cursor)));
                assert!(counts.acknowledged <= counts.taken && counts.taken <= counts.published);
            }
            10 => data.scribble(),
            11 => data.forge(),
            12..14 => cursor.scribble(),
            14 => script.arm(),
            _ => {
                // Who waits.
                sender.writer.begin_wait();
                sender.writer.must_wake();
                sender.writer.end_wait();
                sender.writer.settle_stream();
                assert!(sender.writer.look().is_ok() || script.is_scribbled());
            }
        }
        script.end_step();
    }
});

fn limits() -> Limits {
    Limits { ring_bytes: RING_BYTES, message_max_bytes: MESSAGE_MAX_BYTES }
}

/// The real sender's end.
struct Sender<'a> {
    writer: Writer<&'a Page<'a>, Peers<'a>>,
    sequence: u64,
}

impl Sender<'_> {
    fn send(&mut self, script: &Script) {
        let (payload_bytes, block_bytes) = (script.size() * 6 % 1400, script.size() % 64);
        let payload = vec![self.sequence as u8; payload_bytes];
        let block = vec![!self.sequence as u8; block_bytes];
        let header = MessageHeader {
            flags: Flags::default(),
            codec: Codec::Raw,
            sequence: self.sequence + 1,
            stamp_ns: self.sequence * 10,
            payload_bytes: payload_bytes as u32,
            header_block_bytes: block_bytes as u32,
        };
        match self.writer.write(&header, &block, &payload) {
            Ok(()) => {
                self.writer.publish();
                self.sequence += 1;
            }
            Err(NotWritten::Full) => {}
            Err(NotWritten::Broken(_)) => assert!(script.is_scribbled()),
            Err(NotWritten::TooLarge | NotWritten::Short) => panic!("it fits into an empty ring, which may grow"),
        }
    }
}

/// The real receiver's end, as it is used: `next` walks ahead of what is acknowledged.
struct Receiver<'a> {
    reader: Reader<Peers<'a>, &'a Page<'a>>,
    next: Position,
    taken: Vec<Record>,
    script: &'a Script,
}

impl<'a> Receiver<'a> {
    fn new(data: &'a Page<'a>, cursor: &'a Page<'a>, generation: u64, start: Start) -> Self {
        let reader = Reader::new(Peers(data), cursor, limits(), generation, start);
        Self { next: reader.head(), reader, taken: Vec::new(), script: data.script }
    }

    /// `None` when the sender is found out.
    fn receive(mut self, script: &Script) -> Option<Self> {
        let Ok(()) = self.reader.look() else { return self.condemned() };
        for _ in 0..script.size() % 8 {
            let record = match self.reader.record(self.next) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) => return self.condemned(),
            };
            assert!(record.next.logical <= self.reader.tail() && record.next.place <= RING_BYTES);
            assert!(record.next.logical > self.next.logical);
            let honoured = self.reader.claim(record.next.messages);
            let sequence = record.header.sequence;
            let (block, payload) = copy(&self.reader, &record);
            if !self.script.is_scribbled() {
                assert!(honoured && sequence == record.next.messages);
                let filling = (sequence - 1) as u8;
                assert!(payload.iter().all(|byte| *byte == filling) && block.iter().all(|byte| *byte == !filling));
            }
            self.next = record.next;
            self.taken.push(record);
        }
        let acknowledged = (script.size() % 8).min(self.taken.len());
        for record in self.taken.drain(..acknowledged) {
            self.reader.acknowledge(record.next);
        }
        if script.size() % 8 == 0 {
            self.reader.give_back(3);
            (self.next, self.taken) = (self.reader.head(), Vec::new());
        }
        self.reader.begin_wait(if script.size() % 2 == 0 { SleepsAt::Bell } else { SleepsAt::Word });
        self.reader.settle_looks();
        self.reader.must_ring();
        self.reader.end_wait();
        Some(self)
    }

    fn condemned(self) -> Option<Self> {
        assert!(self.script.is_scribbled(), "an honest sender is not found out");
        None
    }
}

fn copy<D: Memory, C: Memory>(reader: &Reader<D, C>, record: &Record) -> (Vec<u8>, Vec<u8>) {
    let header = &record.header;
    assert!(u64::from(header.payload_bytes) + u64::from(header.header_block_bytes) <= u64::from(MESSAGE_MAX_BYTES));
    let mut block = vec![0; header.header_block_bytes as usize];
    reader.copy_header_block(record, &mut block);
    let mut payload = vec![0; header.payload_bytes as usize];
    reader.copy_payload(record, &mut payload);
    let mut again = Vec::new();
    let read = reader.payload(record).read_to_end(&mut again).expect("memory can be read");
    assert_eq!(read, payload.len());
    (block, payload)
}

/// What happens, and when.
struct Script {
    bytes: RefCell<Vec<u8>>,
    /// After how many loads the next scribble comes, in the middle of whatever an end does.
    countdown: Cell<u32>,
    scribbled: Cell<bool>,
    loads: Cell<u64>,
}

impl Script {
    fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.iter().rev().copied().take(4096).collect();
        Self { bytes: RefCell::new(bytes), countdown: Cell::new(0), scribbled: Cell::new(false), loads: Cell::new(0) }
    }

    fn step(&self) -> Option<u8> {
        self.bytes.borrow_mut().pop()
    }

    fn size(&self) -> usize {
        self.step().map_or(0, usize::from)
    }

    fn arm(&self) {
        self.countdown.set(self.size() as u32 % 64 + 1);
    }

    fn is_scribbled(&self) -> bool {
        self.scribbled.get()
    }

    fn end_step(&self) {
        assert!(self.loads.take() < LOADS_MAX, "it looks again and again");
    }

    fn word(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.step().unwrap_or(0)))
    }

    /// Values as a liar would choose them: near what is right, near the limits, anything.
    fn value(&self, old: u64) -> u64 {
        let near = self.size() as u64;
        match self.size() % 10 {
            0 => old.wrapping_add(near),
            1 => old.wrapping_sub(near),
            2 => old.wrapping_add(near * 8),
            3 => near * 8,
            4 => RING_BYTES.wrapping_sub(near),
            5 => u64::MAX - near,
            6 => near << 32 | self.size() as u64,
            7 => Fixed::Jump(near).encode()[0],
            8 => RECORD_START,
            _ => self.word(),
        }
    }
}

/// The first word of a message.
const RECORD_START: u64 = u64::from_le_bytes([b'b', b'U', 1, 2, 0, 0, 0, 0]);

/// Memory of one side, which the script writes to as well.
struct Page<'a> {
    words: RefCell<Vec<u64>>,
    /// Where its honest owner stores.
    owned: &'static [usize],
    script: &'a Script,
}

impl<'a> Page<'a> {
    fn data(script: &'a Script) -> Self {
        const B: usize = data::BELIEVED;
        const OWNED: [usize; 13] = [
            data::TAIL,
            data::MESSAGES,
            data::GENERATION,
            data::SETTLED,
            data::READER,
            data::WAITING,
            data::WAITS_SINCE,
            data::WOKEN,
            B,
            B + 1,
            B + 2,
            B + 3,
            B + 4,
        ];
        Self::new(script, PAGE_BYTES + RING_BYTES as usize, &OWNED)
    }

    fn cursor(script: &'a Script) -> Self {
        const S: usize = cursor::SLOTS;
        const OWNED: [usize; 9] = [
            cursor::HEAD,
            S,
            S + 1,
            S + 2,
            S + 3,
            cursor::TAKEN,
            cursor::GIVEN_BACK,
            cursor::ACKNOWLEDGES,
            cursor::WAITING,
        ];
        Self::new(script, PAGE_BYTES, &OWNED)
    }

    fn new(script: &'a Script, bytes: usize, owned: &'static [usize]) -> Self {
        Self { words: RefCell::new(vec![0; bytes / WORD_BYTES]), owned, script }
    }

    fn clear(&self) {
        self.words.borrow_mut().fill(0);
    }

    /// Writes what begins as a record anywhere in the ring, says that all of it is published, and before that perhaps
    /// a jump to it where an honest sender would have written its next.
    fn forge(&self) {
        let script = self.script;
        let place = script.size() as u64 * 16 + script.size() as u64 % 3 * 8;
        let header = MessageHeader {
            flags: Flags(script.size() as u8),
            codec: Codec::Raw,
            sequence: place,
            stamp_ns: place,
            payload_bytes: script.size() as u32 * 8,
            header_block_bytes: script.size() as u32,
        };
        let mut words = self.words.borrow_mut();
        // In a ring that has not wrapped it lies there.
        let tail = words[data::TAIL];
        let mut put = |place: u64, fixed: Fixed| {
            let at = (PAGE_BYTES + place as usize) / WORD_BYTES;
            words[at..].iter_mut().zip(fixed.encode()).for_each(|(word, value)| *word = value);
        };
        put(place % RING_BYTES, Fixed::Message(header));
        if script.size() % 2 == 0 {
            put(tail % RING_BYTES, Fixed::Jump(place));
        }
        words[data::TAIL] = tail.wrapping_add(script.size() as u64 * 8);
        script.scribbled.set(true);
    }

    fn scribble(&self) {
        let (script, mut words) = (self.script, self.words.borrow_mut());
        let which = script.size();
        // Where it matters, mostly.
        let word = match which % 4 {
            0 | 1 => self.owned[which / 4 % self.owned.len()],
            _ => (PAGE_BYTES / WORD_BYTES + which / 4 * 8 + script.size() % 8) % words.len(),
        };
        words[word] = script.value(words[word]);
        script.scribbled.set(true);
    }
}

impl Memory for Page<'_> {
    fn words(&self) -> usize {
        self.words.borrow().len()
    }

    fn load(&self, word: usize) -> u64 {
        let script = self.script;
        script.loads.set(script.loads.get() + 1);
        if script.countdown.get() > 0 {
            script.countdown.set(script.countdown.get() - 1);
            if script.countdown.get() == 0 {
                self.scribble();
            }
        }
        self.words.borrow()[word]
    }

    fn store(&self, word: usize, value: u64) {
        let in_ring = self.words() > PAGE_BYTES / WORD_BYTES && word >= PAGE_BYTES / WORD_BYTES;
        assert!(in_ring || self.owned.contains(&word), "word {word} is nobody's");
        self.words.borrow_mut()[word] = value;
    }

    fn fence(&self, _: Fence) {}
}

/// A page of the peer's, which nobody stores to.
struct Peers<'a>(&'a Page<'a>);

impl Memory for Peers<'_> {
    fn words(&self) -> usize {
        self.0.words()
    }

    fn load(&self, word: usize) -> u64 {
        self.0.load(word)
    }

    fn store(&self, word: usize, _: u64) {
        panic!("word {word} is the peer's");
    }

    fn fence(&self, _: Fence) {}
}
