//! Named random streams. A number depends on the seed, the stream and its place, never on the order in which places
//! are visited. Knows nothing of models.

use core::convert::Infallible;

use rand_core::{Rng, SeedableRng, TryRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::simd::processor;

/// The purpose of random numbers. Streams with the same seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Initial values of the parameters.
    Initialization = 1,
    /// The windows of the text that a step trains on.
    Batches = 2,
    /// The tokens drawn in generation.
    Sampling = 3,
    /// Dropout of the embedding sum.
    EmbeddingDropout = 4,
    /// Dropout of the attention weights.
    AttentionDropout = 5,
    /// Dropout of the attention's projection.
    AttentionProjectionDropout = 6,
    /// Dropout of the MLP's projection.
    MlpProjectionDropout = 7,
    /// Dropout of the inputs of adapters.
    AdapterDropout = 8,
}

/// Mixes one more coordinate into a key: the first number of SplitMix64 from their sum (Steele, Lea & Flood 2014).
///
/// Written out here, because the crate's version is a call, and a call stores vector registers: 1.9 % of a `tiny`
/// step with dropout. With 32-bit registers it is not inlined, because its 64-bit products take much code.
#[cfg_attr(target_pointer_width = "64", inline)]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
pub fn mix(key: u64, coordinate: u64) -> u64 {
    let z = (key ^ coordinate.wrapping_mul(0xD134_2543_DE82_EF95)).wrapping_add(SPLIT_MIX);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// The increment of SplitMix64's state.
const SPLIT_MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// The key of one stream at one step and place (a layer, a tensor, a sequence).
pub fn key(seed: u64, stream: Stream, step: u64, place: u64) -> u64 {
    mix(mix(mix(seed, stream as u64), step), place)
}

/// A generator of random numbers, Xoshiro256++ (Blackman & Vigna 2019). Its step is not inlined, so that a program
/// contains it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(Xoshiro256PlusPlus);

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next_u64() >> 32) as u32)
    }

    #[inline(never)]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

/// A generator for one stream at one step and place, seeded from the key by SplitMix64.
///
/// The same as `seed_from_u64`, but with [`mix`], which the program contains anyway.
#[inline(never)]
pub fn generator(seed: u64, stream: Stream, step: u64, place: u64) -> Random {
    let (mut state, mut words) = (key(seed, stream, step, place), [0; 32]);
    for word in words.as_chunks_mut().0 {
        processor::stay_rolled();
        *word = mix(state, 0).to_le_bytes();
        state = state.wrapping_add(SPLIT_MIX);
    }
    Random(Xoshiro256PlusPlus::from_seed(words))
}

/// A uniform number in `[0, 1)`, a multiple of 2^-24.
pub fn uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// As [`below`], for bounds that may exceed 32 bits. Other bounds give the numbers of [`below`].
pub fn below_u64(rng: &mut impl Rng, bound: u64) -> u64 {
    if let Ok(bound) = u32::try_from(bound) {
        return below(rng, bound).into();
    }
    // Numbers below the threshold are drawn again, so that each remainder is equally likely.
    let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
    loop {
        let number = rng.next_u64();
        if number >= threshold {
            return number.checked_rem(bound).unwrap_or(0);
        }
    }
}

/// A uniform integer in `0..bound` without bias (Lemire 2019); 0 if `bound` is 0.
pub fn below(rng: &mut impl Rng, bound: u32) -> u32 {
    let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
    loop {
        let product = u64::from(rng.next_u32()) * u64::from(bound);
        if product as u32 >= threshold {
            return (product >> 32) as u32;
        }
    }
}
