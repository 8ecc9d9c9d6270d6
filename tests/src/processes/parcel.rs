//! [`Parcel`]: a message that proves that it is whole.

use serde::{Deserialize, Serialize};

use super::dice::scrambled;

/// A message that names its producer and its place, with a filling that follows from both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// The process that made it.
    pub producer: u64,
    /// Counts the parcels of a producer, from 1.
    pub number: u64,
    filling: String,
    checksum: u64,
}

impl Parcel {
    /// Parcel `number` of `producer`.
    #[must_use]
    pub fn new(producer: u64, number: u64) -> Self {
        let size = filling_bytes(producer, number);
        let letter = char::from(b'a' + (number % 26) as u8);
        let filling: String = std::iter::repeat_n(letter, size).collect();
        let checksum = checksum(producer, number, &filling);
        Self { producer, number, filling, checksum }
    }

    /// Whether it is as it was made.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.filling.len() == filling_bytes(self.producer, self.number)
            && self.checksum == checksum(self.producer, self.number, &self.filling)
    }
}

/// Most parcels are small; some need several reads, and a few more than a socket holds.
fn filling_bytes(producer: u64, number: u64) -> usize {
    let bits = scrambled(producer << 32 | number);
    let most = match bits % 256 {
        0 => 400_000,
        1..16 => 20_000,
        _ => 100,
    };
    (bits >> 32) as usize % most
}

/// FNV-1a.
fn checksum(producer: u64, number: u64, filling: &str) -> u64 {
    let bytes = producer.to_le_bytes().into_iter().chain(number.to_le_bytes()).chain(filling.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
