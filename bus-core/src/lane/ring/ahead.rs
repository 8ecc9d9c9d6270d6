//! What is fetched ahead: lines of the ring that lie in the other end's cache.
//!
//! A line that the receiver has read, its sender has to take away from it before it stores there, and what the sender has
//! stored its receiver has to fetch: on another processor either takes as long as all else that a small message costs. And
//! each publication waits for the stores before it. Asked for a few messages ahead they come meanwhile.

use crate::lane::layout::{PAGE_BYTES, WORD_BYTES};

/// How far ahead, in bytes: four records of messages of 64 bytes.
pub(super) const AHEAD_BYTES: u64 = 384;

/// How much of a long message, in bytes. Chosen, not measured: all of one of 1 KiB.
const FETCHED_BYTES_MAX: u64 = 2048;

/// How long a line of a cache is, in words.
pub(super) const LINE_WORDS: usize = 64 / WORD_BYTES;

/// The word from which on lines are fetched, and how many, where messages of `record_bytes` follow each other from `place`
/// on.
#[inline]
pub(super) fn ahead_of(place: u64, record_bytes: u64) -> (usize, usize) {
    let from = PAGE_BYTES as u64 + place + AHEAD_BYTES.saturating_sub(record_bytes);
    let line_bytes = (LINE_WORDS * WORD_BYTES) as u64;
    let last = from + record_bytes.min(FETCHED_BYTES_MAX) - 1;
    (from as usize / WORD_BYTES, (last / line_bytes - from / line_bytes) as usize + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Once a few have been written, each line of a message was asked for before it is written.
    #[test]
    fn every_line_of_a_message_is_asked_for_before() {
        for record_bytes in (40..=FETCHED_BYTES_MAX).step_by(WORD_BYTES) {
            let line_of = |word: usize| word / LINE_WORDS;
            let mut asked_for = BTreeSet::new();
            for message in 0..100 {
                let place = message * record_bytes;
                let words = |place: u64| (PAGE_BYTES + place as usize) / WORD_BYTES;
                let lines = line_of(words(place))..=line_of(words(place + record_bytes) - 1);
                let missed = lines.clone().filter(|line| !asked_for.contains(line)).count();
                assert!(missed == 0 || place < AHEAD_BYTES + 64, "{record_bytes} bytes, message {message}");
                let (ahead, count) = ahead_of(place + record_bytes, record_bytes);
                asked_for.extend((0..count).map(|line| line_of(ahead + line * LINE_WORDS)));
            }
        }
    }
}
