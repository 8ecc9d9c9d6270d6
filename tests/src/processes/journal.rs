//! What processes write down before they go on, so that it outlives them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An append-only file. An entry is one line, written by one `write`. All have one length, of which a
/// page holds a whole number: a killed process leaves an entry whole or not at all, because the kernel
/// looks for a fatal signal between two pages.
#[derive(Debug)]
pub struct Journal(File);

/// Length of an entry, in bytes.
const ENTRY_BYTES: usize = 64;

impl Journal {
    /// Goes on with the journal at `path`, or begins it.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        Self(OpenOptions::new().append(true).create(true).open(path).expect("a journal opens"))
    }

    /// Adds a line of numbers.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn append(&self, entry: &[u64]) {
        let mut line = Vec::with_capacity(ENTRY_BYTES);
        for number in entry {
            write!(line, "{number} ").expect("a Vec takes every byte");
        }
        assert!(line.len() < ENTRY_BYTES, "an entry is short");
        line.resize(ENTRY_BYTES - 1, b' ');
        line.push(b'\n');
        let written = (&self.0).write(&line).expect("a journal can be written");
        assert_eq!(written, line.len(), "an entry is written whole");
    }
}

/// An `Ok` of `send`.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The number of the parcel.
    pub number: u64,
    /// When `send` was called.
    pub called_at_ns: u64,
    /// Whether the sender was in a lane that its receiver had confirmed to watch.
    pub in_lane: bool,
}

impl Sent {
    /// Writes it down.
    pub fn write(&self, journal: &Journal) {
        journal.append(&[self.number, self.called_at_ns, self.in_lane.into()]);
    }

    /// All that a sender wrote down; nothing when it did not come that far.
    #[must_use]
    pub fn read_all(path: &Path) -> Vec<Self> {
        let entry = |[number, called_at_ns, in_lane]: [u64; 3]| Self { number, called_at_ns, in_lane: in_lane == 1 };
        entries(path).map(entry).collect()
    }
}

/// A parcel that was handed to a receiver.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Which of the receivers.
    pub receiver: u64,
    /// Who made the parcel.
    pub producer: u64,
    /// Its number.
    pub number: u64,
    /// Whether it was marked as one that may have come before.
    pub redelivered: bool,
    /// Whether its checksum was right.
    pub whole: bool,
}

impl Received {
    /// Writes it down.
    pub fn write(&self, journal: &Journal) {
        let Self { receiver, producer, number, redelivered, whole } = *self;
        journal.append(&[receiver, producer, number, redelivered.into(), whole.into()]);
    }

    /// All that the receivers wrote down, in order.
    #[must_use]
    pub fn read_all(path: &Path) -> Vec<Self> {
        let entry = |[receiver, producer, number, redelivered, whole]: [u64; 5]| Self {
            receiver,
            producer,
            number,
            redelivered: redelivered == 1,
            whole: whole == 1,
        };
        entries(path).map(entry).collect()
    }
}

fn entries<const N: usize>(path: &Path) -> impl Iterator<Item = [u64; N]> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // What follows the last end of a line is being written at this moment.
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let entry = |line: &str| {
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        numbers.try_into().expect("an entry has all its numbers")
    };
    text[..whole].lines().map(entry).collect::<Vec<_>>().into_iter()
}

/// Nanoseconds by a clock that all processes share.
#[must_use]
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
