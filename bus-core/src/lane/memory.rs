//! [`Memory`]: words that two processes share. The ring is written against it, so that a model checker can
//! run the same code on memory of its own.

/// What the fences of a lane are for. Each pair bears its letter on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Behind a load: what the peer wrote before the word that was loaded is seen.
    Acquire,
    /// Before a store: whoever sees the word stored next sees all before it.
    Release,
    /// Between a store and a load of what the peer stores: of two that do so one sees the other.
    Sequential,
}

/// Memory in words. All loads and stores are relaxed; order comes from [`fence`](Self::fence).
///
/// Of one file one side alone stores. The other may load whatever that side stores at any time, so a load
/// gives any value, and the same word may give another the next time.
pub trait Memory {
    /// Length, in words.
    fn words(&self) -> usize;

    /// One word.
    fn load(&self, word: usize) -> u64;

    /// Four words that stand one behind the other.
    #[inline]
    fn load_four(&self, word: usize) -> [u64; 4] {
        std::array::from_fn(|index| self.load(word + index))
    }

    /// Sets one word. Never called by the side that only reads.
    fn store(&self, word: usize, value: u64);

    /// Orders loads and stores around it.
    fn fence(&self, fence: Fence);

    /// Sets one word, with a [sequential](Fence::Sequential) fence behind it.
    #[inline]
    fn store_in_sight(&self, word: usize, value: u64) {
        self.store(word, value);
        self.fence(Fence::Sequential);
    }

    /// Says that a word will be stored to soon: its line is fetched from the other side's cache meanwhile. Any word, also
    /// none of this memory.
    fn will_store(&self, _word: usize) {}

    /// Says that a word will be loaded soon, as [`will_store`](Self::will_store) does.
    fn will_load(&self, _word: usize) {}

    /// Whether the side that stores here has lost its place, so that what it stores is nothing to anybody any more. Of
    /// what was loaded before this is asked, all that was stored later is told apart by it.
    fn is_revoked(&self) -> bool {
        false
    }

    /// Copies bytes in, from `word` on; what of the last word is not covered is undefined.
    fn copy_in(&self, word: usize, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut last = [0; 8];
            last[..chunk.len()].copy_from_slice(chunk);
            self.store(word + index, u64::from_ne_bytes(last));
        }
    }

    /// Copies bytes out, from `word` on; each is loaded once.
    fn copy_out(&self, word: usize, bytes: &mut [u8]) {
        let mut chunks = bytes.chunks_exact_mut(8);
        let mut at = word;
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.load(at).to_ne_bytes());
            at += 1;
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            rest.copy_from_slice(&self.load(at).to_ne_bytes()[..rest.len()]);
        }
    }
}

/// No memory at all: for who looks into a lane without being an end of it.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Memory for Nothing {
    fn words(&self) -> usize {
        0
    }

    fn load(&self, _: usize) -> u64 {
        0
    }

    fn store(&self, _: usize, _: u64) {}

    fn fence(&self, _: Fence) {}
}

impl<M: Memory + ?Sized> Memory for &M {
    fn words(&self) -> usize {
        (**self).words()
    }

    fn is_revoked(&self) -> bool {
        (**self).is_revoked()
    }

    fn load(&self, word: usize) -> u64 {
        (**self).load(word)
    }

    fn store(&self, word: usize, value: u64) {
        (**self).store(word, value);
    }

    fn fence(&self, fence: Fence) {
        (**self).fence(fence);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering, fence};

    use super::*;

    /// Words on the heap: for Miri, and for whoever scribbles over a lane in a test.
    #[derive(Debug)]
    pub(crate) struct Heap(Vec<AtomicU64>);

    impl Heap {
        pub(crate) fn new(bytes: usize) -> Self {
            Self((0..bytes / 8).map(|_| AtomicU64::new(0)).collect())
        }
    }

    impl Memory for Heap {
        fn words(&self) -> usize {
            self.0.len()
        }

        fn load(&self, word: usize) -> u64 {
            self.0[word].load(Ordering::Relaxed)
        }

        fn store(&self, word: usize, value: u64) {
            self.0[word].store(value, Ordering::Relaxed);
        }

        fn fence(&self, which: Fence) {
            match which {
                Fence::Acquire => fence(Ordering::Acquire),
                Fence::Release => fence(Ordering::Release),
                Fence::Sequential => fence(Ordering::SeqCst),
            }
        }
    }

    #[test]
    fn bytes_of_any_length_come_out_as_they_went_in() {
        let heap = Heap::new(64);
        let bytes: Vec<u8> = (1..=30).collect();
        for length in 0..bytes.len() {
            let mut out = vec![0; length];
            heap.copy_in(2, &bytes[..length]);
            heap.copy_out(2, &mut out);
            assert_eq!(out, bytes[..length]);
        }
    }
}
