//! [`Dice`]: random choices from a seed that can be given again.

use std::env;
use std::hash::{BuildHasher, RandomState};

/// A sequence of random numbers (SplitMix64).
///
/// The choices come again with the seed; what the kernel makes of them does not.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// The dice of one campaign: from `BUS_KILL_SEED` where it is set, else new ones.
    ///
    /// # Panics
    /// When the variable is no number.
    #[must_use]
    pub fn from_environment() -> Self {
        match env::var("BUS_KILL_SEED") {
            Ok(seed) => Self::new(seed.parse().expect("BUS_KILL_SEED is a number")),
            Err(_) => Self::new(RandomState::new().hash_one(0)),
        }
    }

    /// The dice of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// To be named in every failure.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// One of `0..sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scrambled(self.state) % sides
    }
}

/// Spreads the bits of a number over all of it.
pub(crate) fn scrambled(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
