//! What the messages of the benchmarks hold, and how the consumer knows that each is right.
//!
//! ```text
//!  0        8        16         20      24                    n-8        n
//!  +--------+--------+----------+-------+----------------------+----------+
//!  |sequence| stamp  | producer | last  | pattern              | sequence |
//!  +--------+--------+----------+-------+----------------------+----------+
//! ```
//!
//! The pattern differs from place to place, so that a frame cut or shifted anywhere is seen; the
//! sequence stands at both ends, so that a frame made of two halves is seen. Making costs a few
//! nanoseconds, and checking a `memcmp` with a pattern that stays in the first-level cache.

use anyhow::{Result, bail, ensure};

/// Smallest payload, in bytes.
pub(crate) const PAYLOAD_MIN_BYTES: usize = FRONT_BYTES + TAIL_BYTES;

const FRONT_BYTES: usize = 24;
const TAIL_BYTES: usize = 8;

/// After so many bytes the pattern begins again: small enough to stay cached, and not a divisor of
/// any page or buffer, so that what is shifted by one of those still looks wrong.
const PATTERN_BYTES: usize = 4096 - 8;

/// Makes the payloads of one producer, one after the other, in the same buffer.
pub(crate) struct Maker {
    bytes: Vec<u8>,
    sequence: u64,
}

impl Maker {
    pub(crate) fn new(producer: u32, payload_bytes: usize) -> Self {
        let mut bytes = pattern(payload_bytes);
        bytes[16..20].copy_from_slice(&producer.to_le_bytes());
        bytes[20..24].copy_from_slice(&0_u32.to_le_bytes());
        Self { bytes, sequence: 0 }
    }

    /// The next payload, stamped with `stamp_ns`.
    pub(crate) fn next(&mut self, stamp_ns: u64) -> &[u8] {
        let sequence = self.sequence.to_le_bytes();
        self.sequence += 1;
        let tail = self.bytes.len() - TAIL_BYTES;
        self.bytes[..8].copy_from_slice(&sequence);
        self.bytes[8..16].copy_from_slice(&stamp_ns.to_le_bytes());
        self.bytes[tail..].copy_from_slice(&sequence);
        &self.bytes
    }

    /// The payload that ends the traffic of this producer.
    pub(crate) fn last(&mut self) -> &[u8] {
        self.bytes[20..24].copy_from_slice(&1_u32.to_le_bytes());
        self.next(0)
    }

    /// How many were made.
    pub(crate) fn made(&self) -> u64 {
        self.sequence
    }
}

/// What a right payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) stamp_ns: u64,
    pub(crate) last: bool,
}

/// Checks that the payloads of each producer come whole, once and in order.
pub(crate) struct Checker {
    pattern: Vec<u8>,
    payload_bytes: usize,
    next_of_producer: Vec<u64>,
}

impl Checker {
    pub(crate) fn new(producers: u32, payload_bytes: usize) -> Self {
        let next_of_producer = vec![0; producers as usize];
        Self { pattern: pattern(payload_bytes.min(PATTERN_BYTES)), payload_bytes, next_of_producer }
    }

    pub(crate) fn check(&mut self, payload: &[u8]) -> Result<Seen> {
        let bytes = self.payload_bytes;
        ensure!(payload.len() == bytes, "a payload of {} bytes came, and {bytes} were sent", payload.len());
        let tail = bytes - TAIL_BYTES;
        let producer = u32_at(payload, 16);
        let sequence = u64_at(payload, 0);
        let content_is_right = self.holds_pattern(&payload[..tail]) && u64_at(payload, tail) == sequence;
        ensure!(content_is_right, "producer {producer}: message {sequence} has wrong content");
        let Some(next) = self.next_of_producer.get_mut(producer as usize) else {
            bail!("there is no producer {producer}");
        };
        ensure!(sequence == *next, "producer {producer}: message {sequence} came where {next} was due");
        *next += 1;
        Ok(Seen { stamp_ns: u64_at(payload, 8), last: u32_at(payload, 20) != 0 })
    }

    /// Whether the pattern stands behind the front of `bytes`.
    fn holds_pattern(&self, bytes: &[u8]) -> bool {
        let (first, more) = bytes.split_at(bytes.len().min(PATTERN_BYTES));
        first[FRONT_BYTES..] == self.pattern[FRONT_BYTES..first.len()]
            && more.chunks(PATTERN_BYTES).all(|chunk| *chunk == self.pattern[..chunk.len()])
    }

    /// How many were right.
    pub(crate) fn checked(&self) -> u64 {
        self.next_of_producer.iter().sum()
    }
}

fn pattern(payload_bytes: usize) -> Vec<u8> {
    assert!(payload_bytes >= PAYLOAD_MIN_BYTES, "a payload holds at least {PAYLOAD_MIN_BYTES} bytes");
    // An odd stride over 64 bits: no two places within a period look alike.
    let words = (0..PATTERN_BYTES as u64 / 8).map(|place| place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.cycle().flatten().take(payload_bytes).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

/// Length of a line of the text traffic, in bytes, without its newline.
pub(crate) const LINE_BYTES: usize = 64;

/// Lines of text that count upwards: what the shell verbs are measured with.
pub(crate) struct Lines {
    line: [u8; LINE_BYTES],
}

impl Lines {
    pub(crate) fn new() -> Self {
        let mut line = [b'.'; LINE_BYTES];
        line[LINE_BYTES - 20..].fill(b'0');
        Self { line }
    }

    /// The line that is due.
    pub(crate) fn line(&self) -> &[u8; LINE_BYTES] {
        &self.line
    }

    /// Goes on to the next.
    pub(crate) fn step(&mut self) {
        for digit in self.line[LINE_BYTES - 20..].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checker_takes_what_makers_make() {
        let mut makers = [Maker::new(0, 64), Maker::new(1, 64)];
        let mut checker = Checker::new(2, 64);
        for stamp_ns in 0..10 {
            for maker in &mut makers {
                let seen = checker.check(maker.next(stamp_ns)).unwrap();
                assert_eq!(seen, Seen { stamp_ns, last: false });
            }
        }
        assert!(checker.check(makers[0].last()).unwrap().last);
        assert_eq!(checker.checked(), makers[0].made() + makers[1].made());
    }

    #[test]
    fn a_message_lost_doubled_or_changed_at_any_place_is_seen() {
        let mut maker = Maker::new(0, 10_000);
        let first = maker.next(0).to_vec();
        let second = maker.next(0).to_vec();
        let mut checker = Checker::new(1, 10_000);
        assert!(checker.check(&second).is_err());
        checker.check(&first).unwrap();
        assert!(checker.check(&first).is_err());
        for place in (0..8).chain(FRONT_BYTES..second.len()) {
            let mut changed = second.clone();
            changed[place] ^= 1;
            assert!(checker.check(&changed).is_err(), "byte {place}");
        }
        checker.check(&second).unwrap();
    }

    #[test]
    fn lines_count_in_decimal() {
        let mut lines = Lines::new();
        for _ in 0..1_234 {
            lines.step();
        }
        assert!(lines.line().ends_with(b".00000000000000001234"));
    }
}
