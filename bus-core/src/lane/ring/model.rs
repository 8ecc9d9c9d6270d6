//! The ring in every order in which two processors may see it: the real code, on loom's memory.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

use super::tests::header;
use super::*;
use crate::lane::board::{Board, REVOKED};
use crate::lane::layout::{PAGE_BYTES, WORD_BYTES, cursor, data};
use crate::lane::memory::{Fence, Memory};

const RING_WORDS: usize = 16;

/// The words that a ring uses; all others stay zero, and nobody asks for them.
struct Model {
    named: Vec<(usize, AtomicU64)>,
    ring: Vec<AtomicU64>,
}

impl Model {
    fn data() -> Self {
        let words = [data::TAIL, data::MESSAGES, data::GENERATION, data::READER, data::WAITING, data::WOKEN];
        let believed: Vec<usize> = (data::BELIEVED..data::BELIEVED + 5).collect();
        Self::new(&[&words[..], &believed[..]].concat(), RING_WORDS)
    }

    fn cursor() -> Self {
        let slots: Vec<usize> = (cursor::SLOTS..cursor::SLOTS + 4).collect();
        Self::new(
            &[&[cursor::HEAD, cursor::TAKEN, cursor::GIVEN_BACK, cursor::WAITING, cursor::ACKNOWLEDGES], &slots[..]]
                .concat(),
            0,
        )
    }

    fn new(named: &[usize], ring: usize) -> Self {
        let word = || AtomicU64::new(0);
        Self { named: named.iter().map(|at| (*at, word())).collect(), ring: (0..ring).map(|_| word()).collect() }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        match at.checked_sub(PAGE_BYTES / WORD_BYTES) {
            Some(in_ring) => &self.ring[in_ring],
            None => self.named.iter().find(|(named, _)| *named == at).map(|(_, word)| word).unwrap(),
        }
    }
}

impl Memory for Model {
    fn words(&self) -> usize {
        PAGE_BYTES / WORD_BYTES + self.ring.len()
    }

    fn load(&self, word: usize) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    fn store(&self, word: usize, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    fn fence(&self, which: Fence) {
        match which {
            Fence::Acquire => fence(Ordering::Acquire),
            Fence::Release => fence(Ordering::Release),
            Fence::Sequential => fence(Ordering::SeqCst),
        }
    }
}

#[derive(Clone)]
struct Lane {
    data: Arc<Model>,
    cursor: Arc<Model>,
}

const RING_BYTES: u64 = (RING_WORDS * WORD_BYTES) as u64;

impl Lane {
    fn new() -> Self {
        Self { data: Arc::new(Model::data()), cursor: Arc::new(Model::cursor()) }
    }

    fn writer(&self) -> Writer<&Model, &Model> {
        let bounds = Bounds { first_bytes: RING_BYTES, ring_bytes: RING_BYTES, window_messages: 1 };
        Writer::new(&self.data, &self.cursor, bounds)
    }

    fn reader(&self, generation: u64, start: Start) -> Reader<&Model, &Model> {
        let limits = Limits { ring_bytes: RING_BYTES, message_max_bytes: 64 };
        Reader::new(&self.data, &self.cursor, limits, generation, start)
    }
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    // A model whose threads never meet proves nothing.
    assert!(executions.load(Ordering::Relaxed) > 10, "{executions:?} executions");
}

fn send(writer: &mut Writer<&Model, &Model>, sequence: u64) -> Result<(), NotWritten> {
    writer.write(&header(sequence, b"", &[7; 8]), b"", &[sequence as u8; 8])?;
    writer.publish();
    Ok(())
}

/// Takes the next message, when one is seen; what is seen is whole.
fn take(reader: &mut Reader<&Model, &Model>) -> Option<u64> {
    reader.look().unwrap();
    let record = reader.record(reader.head()).unwrap()?;
    let mut payload = [0; 8];
    reader.copy_payload(&record, &mut payload);
    let sequence = record.header.sequence;
    assert_eq!(payload, [sequence as u8; 8]);
    reader.acknowledge(record.next);
    Some(sequence)
}

/// With a window of one, and a ring of three: each is written as soon as the one before it is read, the last
/// where the first one was.
#[test]
fn a_record_is_seen_whole_and_is_not_written_over_before_it_is_read() {
    explore(|| {
        let lane = Lane::new();
        let receiver = lane.clone();
        let thread = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            let mut last = 0;
            for _ in 0..3 {
                let seen = take(&mut reader);
                assert!(seen.is_none_or(|sequence| sequence == last + 1));
                last = seen.unwrap_or(last);
            }
        });
        let mut writer = lane.writer();
        send(&mut writer, 1).unwrap();
        if send(&mut writer, 2).is_ok() {
            let _ = send(&mut writer, 3);
        }
        thread.join().unwrap();
    });
}

/// A head and what belongs to it are told apart from another's: whoever goes on from there finds a record.
#[test]
fn a_head_is_found_with_its_own_place_and_count() {
    explore(|| {
        let (lane, second) = (Lane::new(), Arc::new(Model::cursor()));
        let bounds = Bounds { first_bytes: RING_BYTES, ring_bytes: RING_BYTES, window_messages: 2 };
        let sender = lane.clone();
        let mut reader = lane.reader(0, Start::default());
        let thread = thread::spawn(move || {
            let mut writer: Writer<&Model, &Model> = Writer::new(&sender.data, &sender.cursor, bounds);
            send(&mut writer, 1).unwrap();
            send(&mut writer, 2).unwrap();
            writer.look().unwrap();
            let start = writer.turn(&second, 1);
            assert_eq!((start.logical, start.place), (40 * start.messages, 40 * start.messages));
        });
        take(&mut reader);
        take(&mut reader);
        thread.join().unwrap();
    });
}

/// A receiver that finds nothing says that it waits, and looks once more: it sees the message, or its sender
/// rings.
#[test]
fn a_receiver_that_sleeps_is_rung_for() {
    explore(|| {
        let lane = Lane::new();
        let receiver = lane.clone();
        let thread = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            reader.begin_wait(SleepsAt::Word);
            reader.settle_looks();
            take(&mut reader).is_none()
        });
        let mut writer = lane.writer();
        send(&mut writer, 1).unwrap();
        let rings = writer.must_wake().is_some();
        let sleeps = thread.join().unwrap();
        assert!(rings || !sleeps, "asleep with work, and nobody rings");
    });
}

/// The wake for the first message comes late, when that is taken and the receiver is about to sleep: it must not be
/// missed, because there is none for the second.
#[test]
fn a_receiver_that_is_woken_before_it_sleeps_does_not_sleep() {
    explore(|| {
        let lane = Lane::new();
        let receiver = lane.clone();
        let thread = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            let mut taken = 0;
            for _ in 0..2 {
                while take(&mut reader).is_some() {
                    taken += 1;
                }
                reader.begin_wait(SleepsAt::Word);
                reader.settle_looks();
                if take(&mut reader).is_some() {
                    taken += 1;
                } else if let Some(seen) = reader.unwoken() {
                    return (taken, Some(seen));
                }
                reader.end_wait();
            }
            (taken, None)
        });
        let mut writer = lane.writer();
        let mut sent = 0;
        for sequence in 1..=2 {
            // There is room for one at a time: for the second once the first is taken.
            sent += u32::from(send(&mut writer, sequence).is_ok());
            writer.must_wake();
        }
        let (taken, sleeps_on) = thread.join().unwrap();
        // The kernel lets nobody sleep on what is another by then, and whoever sleeps there is woken after that changes.
        let sleeps = sleeps_on == Some(lane.data.load(data::WOKEN));
        assert!(taken == sent || !sleeps, "asleep with work, and nobody wakes it");
    });
}

/// And a sender that finds no room: it sees the acknowledgement, or the receiver rings.
#[test]
fn a_sender_that_sleeps_is_rung_for() {
    explore(|| {
        let lane = Lane::new();
        let receiver = lane.clone();
        let mut writer = lane.writer();
        send(&mut writer, 1).unwrap();
        let thread = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            let taken = take(&mut reader);
            reader.settle_looks();
            (taken.is_some(), reader.must_ring())
        });
        writer.begin_wait();
        let sleeps = send(&mut writer, 2).is_err();
        let (acknowledged, rings) = thread.join().unwrap();
        assert!(!acknowledged || rings || !sleeps, "asleep with room, and nobody rings");
    });
}

/// One receiver takes while the sender turns to another: what it hands out is told to the other as taken.
#[test]
fn what_a_replaced_receiver_hands_out_is_known_to_be_taken() {
    explore(|| {
        let lane = Lane::new();
        let second = Arc::new(Model::cursor());
        let receiver = lane.clone();
        let mut writer = lane.writer();
        send(&mut writer, 1).unwrap();
        let thread = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            reader.look().unwrap();
            let hands_out = reader.claim(1);
            if hands_out {
                take(&mut reader);
            }
            hands_out
        });
        let start = writer.turn(&second, 1);
        let handed_out = thread.join().unwrap();
        assert!(!handed_out || start.taken == 1, "handed out, and the next receiver is not told");
        assert!(start.messages <= start.taken);
    });
}

/// A cursor, and what the daemon shows of whoever writes there.
struct Watched {
    cursor: Arc<Model>,
    board: Board<Arc<Model>>,
}

impl Memory for Watched {
    fn words(&self) -> usize {
        self.cursor.words()
    }

    fn load(&self, word: usize) -> u64 {
        self.cursor.load(word)
    }

    fn store(&self, _: usize, _: u64) {}

    fn fence(&self, which: Fence) {
        self.cursor.fence(which);
    }

    fn is_revoked(&self) -> bool {
        // As a sender does it.
        self.fence(Fence::Sequential);
        self.board.is_revoked()
    }
}

impl Memory for Arc<Model> {
    fn words(&self) -> usize {
        (**self).words()
    }

    fn load(&self, word: usize) -> u64 {
        (**self).load(word)
    }

    fn store(&self, word: usize, value: u64) {
        (**self).store(word, value);
    }

    fn fence(&self, which: Fence) {
        (**self).fence(which);
    }
}

/// The daemon takes the place of a receiver down that it takes for stopped, and that goes on at this moment.
#[test]
fn what_a_receiver_hands_out_that_loses_its_place_is_known_to_be_taken() {
    explore(|| {
        let (lane, shown) = (Lane::new(), Arc::new(Model::new(&[REVOKED], 0)));
        send(&mut lane.writer(), 1).unwrap();
        let (receiver, board) = (lane.clone(), Board::new(Arc::clone(&shown)));
        let thread = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            reader.look().unwrap();
            reader.claim(1) && !board.is_revoked()
        });
        Board::new(shown).revoke();
        let found = at_rest(&*lane.cursor);
        let handed_out = thread.join().unwrap();
        assert!(!handed_out || found.taken == 1, "handed out, and the next receiver is not told");
    });
}

/// And acknowledges what it held: the next one begins before that, so its sender is not to write over it.
#[test]
fn what_a_receiver_lets_go_of_that_has_lost_its_place_is_not_written_over() {
    explore(|| {
        let (lane, shown) = (Lane::new(), Arc::new(Model::new(&[REVOKED], 0)));
        let cursor = Watched { cursor: Arc::clone(&lane.cursor), board: Board::new(Arc::clone(&shown)) };
        let bounds = Bounds { first_bytes: RING_BYTES, ring_bytes: RING_BYTES, window_messages: 1 };
        let mut writer = Writer::new(Arc::clone(&lane.data), cursor, bounds);
        writer.write(&header(1, b"", &[7; 8]), b"", &[7; 8]).unwrap();
        writer.publish();
        let receiver = lane.clone();
        let receives = thread::spawn(move || {
            let mut reader = receiver.reader(0, Start::default());
            reader.look().unwrap();
            let record = reader.record(reader.head()).unwrap().unwrap();
            reader.acknowledge(record.next);
        });
        let sends = thread::spawn(move || {
            writer.look().unwrap();
            writer.acknowledged()
        });
        Board::new(shown).revoke();
        let found = at_rest(&*lane.cursor);
        let believed = sends.join().unwrap();
        receives.join().unwrap();
        let begins = found.start.map_or(0, |start| start.messages);
        assert!(believed <= begins, "there is room for {believed}, and the next receiver begins at {begins}");
    });
}

/// Two lanes, one sent to after the other was: whoever sees the second in a first look sees the first in a
/// second look.
#[test]
fn a_second_look_misses_nothing_that_was_sent_before_what_the_first_look_saw() {
    explore(|| {
        let (first, second) = (Lane::new(), Lane::new());
        let (watched_first, watched_second) = (first.clone(), second.clone());
        let thread = thread::spawn(move || {
            let mut readers = [&watched_first, &watched_second].map(|lane| lane.reader(0, Start::default()));
            let look = |reader: &mut Reader<&Model, &Model>| {
                reader.look().unwrap();
                reader.tail() > 0
            };
            let [first, second] = &mut readers;
            let _ = look(first);
            let second_was_seen = look(second);
            first.settle_looks();
            assert!(look(first) || !second_was_seen);
        });
        // One process after the other: that the second send begins when the first has returned is what a
        // message between them would tell.
        let mut writer = first.writer();
        send(&mut writer, 1).unwrap();
        let mut writer = second.writer();
        send(&mut writer, 1).unwrap();
        thread.join().unwrap();
    });
}
