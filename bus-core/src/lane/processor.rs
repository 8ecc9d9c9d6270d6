//! What is said to the processor itself: which lines are needed soon, to copy words in larger steps than one word, and to
//! order a store before a load.
//!
//! Where no such instruction is known nothing is fetched ahead, words are copied one by one, and the language's own fence
//! orders.

#![expect(unsafe_code, reason = "instructions that the language does not have")]

use std::sync::atomic::AtomicU64;

/// Words that are copied together: a line of the cache.
pub(super) const BLOCK_WORDS: usize = 8;

/// As many bytes.
pub(super) const BLOCK_BYTES: usize = BLOCK_WORDS * size_of::<AtomicU64>();

/// The line at an address will be stored to soon. Any address, also one where nothing is.
#[inline]
pub(super) fn will_store(address: *const AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which neither reads nor writes memory, and faults nowhere. Processors of 64 bits know it or
    // pass over it, but for some of the first.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The line at an address will be loaded soon. Any address, also one where nothing is.
#[inline]
pub(super) fn will_load(address: *const AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above; every processor of 64 bits knows it.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A fence between what was stored before it and what is loaded behind it, as `fence(Ordering::SeqCst)` is.
///
/// The compiler makes that one an `mfence`. An instruction with a lock orders the same of ordinary memory ("Memory Ordering" in the manuals of both makers), and took 2 ns where `mfence` took 17 (Zen 4).
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn full_fence() {
    let mut word = 0_u32;
    // SAFETY: sets no bit of a word of this function's own. To the language it may write anything that others can see, so no
    // load or store is moved across.
    unsafe {
        std::arch::asm!("lock or dword ptr [{}], 0", in(reg) &raw mut word, options(nostack));
    }
}

/// A fence between what was stored before it and what is loaded behind it.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn full_fence() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Stores a word, with a [full fence](full_fence) behind it.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn store_in_sight(word: &AtomicU64, value: u64) {
    // SAFETY: the word lives, and may be written by whoever shares it. One instruction, which has the lock by itself. To the
    // language it may write anything that others can see, so no load or store is moved across.
    unsafe {
        std::arch::asm!("xchg qword ptr [{}], {}", in(reg) word.as_ptr(), inout(reg) value => _, options(nostack, preserves_flags));
    }
}

/// Stores a word, with a full fence behind it.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn store_in_sight(word: &AtomicU64, value: u64) {
    word.store(value, std::sync::atomic::Ordering::Relaxed);
    full_fence();
}

/// Copies blocks that another process may write meanwhile: each byte is loaded once, and what is torn is the reader's to
/// find out.
///
/// By 16 bytes at a time. Word by word, as atomics allow, a message of 64 bytes took a third longer to come to the other
/// processor, and 64 KiB half as long again, where both processors share a cache (Zen 3); where they do not, either takes
/// what the lines take.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn copy_blocks(from: &[[AtomicU64; BLOCK_WORDS]], to: &mut [[u8; BLOCK_BYTES]]) {
    let blocks = from.len().min(to.len());
    if blocks == 0 {
        return;
    }
    // SAFETY: both slices have so many blocks, so all that is read and written lies within them, and they do not
    // overlap, for one of them is borrowed alone. To the language it is no load of its own, so it is no race that others
    // write there: the processor loads what it finds. Every processor of 64 bits has these registers.
    unsafe {
        std::arch::asm!(
            "2:",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "dec {blocks}",
            "jnz 2b",
            from = inout(reg) from.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            blocks = inout(reg) blocks => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Copies blocks that another process may write meanwhile: each byte is loaded once.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn copy_blocks(from: &[[AtomicU64; BLOCK_WORDS]], to: &mut [[u8; BLOCK_BYTES]]) {
    use std::sync::atomic::Ordering;

    for (words, bytes) in from.iter().zip(to) {
        let (chunks, _) = bytes.as_chunks_mut();
        for (word, chunk) in words.iter().zip(chunks) {
            *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_copied_whole_and_nothing_beside_them() {
        let from: Vec<[AtomicU64; BLOCK_WORDS]> = (0..5_u64)
            .map(|block| {
                std::array::from_fn(|word| AtomicU64::new(u64::from_ne_bytes([(block * 8) as u8 + word as u8; 8])))
            })
            .collect();
        for blocks in 0..from.len() {
            let mut to = [[0xff; BLOCK_BYTES]; 5];
            copy_blocks(&from[..blocks], &mut to);
            let expected = |at: usize| if at < blocks * BLOCK_BYTES { (at / 8) as u8 } else { 0xff };
            assert!(to.as_flattened().iter().enumerate().all(|(at, byte)| *byte == expected(at)), "{blocks} blocks");
            let mut to = [[0xff; BLOCK_BYTES]; 2];
            copy_blocks(&from, &mut to);
            assert!(to.as_flattened().iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 8));
        }
    }
}
