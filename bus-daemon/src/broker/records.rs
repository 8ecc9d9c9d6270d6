//! [`Records`]: memory of large messages that have left, for the next ones.
//!
//! Fresh memory costs a large message as much again as copying it: the kernel clears every page.

/// How much is kept in all, in bytes: three messages of 1 MiB with what is said of them, as one is read, one is written
/// and one waits to be acknowledged. With a fourth a daemon that has just fallen idle would hold 8 MiB.
const KEPT_BYTES_MAX: usize = 3 * (1024 * 1024 + 1024);

#[derive(Debug, Default)]
pub(super) struct Records {
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
}

impl Records {
    /// Memory of this length, with anything in it: what was used last, if it is not far too large.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let fits = |record: &Vec<u8>| record.capacity() >= bytes && record.capacity() / 2 <= bytes;
        let Some(at) = self.kept.iter().rposition(fits) else { return vec![0; bytes] };
        let mut record = self.kept.remove(at);
        self.kept_bytes -= record.capacity();
        record.resize(bytes, 0);
        record
    }

    pub(super) fn keep(&mut self, record: Vec<u8>) {
        if self.kept_bytes + record.capacity() <= KEPT_BYTES_MAX {
            self.kept_bytes += record.capacity();
            self.kept.push(record);
        }
    }

    /// Nothing has moved for a while.
    pub(super) fn shrink(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flow_of_large_messages_has_in_flight_is_kept() {
        let mut records = Records::default();
        let bytes = 1024 * 1024 + crate::broker::PREFIX_BYTES;
        (0..3).for_each(|_| records.keep(vec![7; bytes]));
        assert!((0..3).all(|_| records.take(bytes)[0] == 7), "no memory is taken fresh");
    }

    #[test]
    fn what_was_used_last_is_used_again_and_no_more_is_kept_than_the_limit() {
        let mut records = Records::default();
        (0..100).for_each(|_| records.keep(vec![7; 100_000]));
        assert!(records.kept_bytes <= KEPT_BYTES_MAX && records.kept_bytes > KEPT_BYTES_MAX - 100_000);
        let record = records.take(90_000);
        assert_eq!((record.len(), record.capacity(), record[0]), (90_000, 100_000, 7));
        assert_eq!(records.take(10_000).capacity(), 10_000, "a small message does not sit in large memory");
        assert_eq!(records.take(100_001)[0], 0, "nor a large one in too little");
    }
}
