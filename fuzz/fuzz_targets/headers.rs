//! Header blocks from a peer that says anything.

#![no_main]

use bus_core::wire::{decode_headers, encode_headers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|block: &[u8]| {
    let Ok(headers) = decode_headers(block) else { return };
    let mut again = Vec::new();
    // A key that comes twice is kept once, so what is written may be shorter; it may be too long
    // only if what came was.
    if encode_headers(&headers, &mut again).is_ok() {
        assert!(again.len() <= block.len());
        assert_eq!(decode_headers(&again), Ok(headers));
    }
});
