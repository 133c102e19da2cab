//! Named random streams are independent, uniform and unbiased.

use jostle::rng::{Stream, below, below_u64, generator, key, mix, uniform};
use rand_core::Rng;

const STREAMS: [Stream; 7] = [
    Stream::Initialization,
    Stream::Batches,
    Stream::Sampling,
    Stream::EmbeddingDropout,
    Stream::AttentionDropout,
    Stream::AttentionProjectionDropout,
    Stream::MlpProjectionDropout,
];

#[test]
fn every_seed_stream_step_and_place_has_a_key_of_its_own() {
    let mut keys = std::collections::HashSet::new();
    for seed in [0, 1, 2, u64::MAX, 1 << 63] {
        for stream in STREAMS {
            for step in 0..40 {
                for place in 0..40 {
                    assert!(keys.insert(key(seed, stream, step, place)), "{seed} {stream:?} {step} {place}");
                }
            }
        }
    }
}

#[test]
fn a_key_depends_on_nothing_else() {
    assert_eq!(key(1, Stream::Batches, 2, 3), key(1, Stream::Batches, 2, 3));
    assert_eq!(key(1, Stream::Batches, 2, 3), mix(mix(mix(1, 2), 2), 3));
}

#[test]
fn generators_are_seeded_as_their_crate_does() {
    use rand_core::SeedableRng;
    for (seed, place) in [(0, 0), (1, 2), (u64::MAX, 1 << 63)] {
        let key = key(seed, Stream::Batches, 3, place);
        let mut seeded = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(key);
        let mut found = generator(seed, Stream::Batches, 3, place);
        assert_eq!([(); 8].map(|()| found.next_u64()), [(); 8].map(|()| seeded.next_u64()));
    }
}

#[test]
fn generators_of_different_streams_draw_different_numbers() {
    let mut seen = std::collections::HashSet::new();
    for stream in STREAMS {
        for seed in 0..10 {
            let mut rng = generator(seed, stream, 0, 0);
            for _ in 0..1000 {
                assert!(seen.insert(rng.next_u64()));
            }
        }
    }
}

#[test]
fn one_bit_of_a_coordinate_changes_half_the_bits_of_the_key() {
    let mut flips = [0_u32; 64];
    let mut total = 0;
    for base in 0..64_u64 {
        for bit in 0..64 {
            let difference = mix(99, base) ^ mix(99, base ^ 1 << bit);
            total += difference.count_ones();
            for (i, flips) in flips.iter_mut().enumerate() {
                *flips += (difference >> i & 1) as u32;
            }
        }
    }
    // 4096 fair flips of each bit: 5 deviations of 32; 64 * 4096 in all: 5 deviations of 256.
    assert!(flips.iter().all(|n| n.abs_diff(2048) <= 160), "{flips:?}");
    assert!(total.abs_diff(64 * 2048) <= 1280, "{total}");
}

#[test]
fn uniform_numbers_lie_in_the_unit_interval_evenly() {
    const N: usize = 2_000_000;
    let mut rng = generator(1, Stream::Sampling, 0, 0);
    let mut cells = [0.0_f64; 64];
    let mut sum = 0.0;
    for _ in 0..N {
        let x = uniform(&mut rng);
        assert!((0.0..1.0).contains(&x));
        assert_eq!((x * 16_777_216.0).fract(), 0.0);
        cells[(x * 64.0) as usize] += 1.0;
        sum += f64::from(x);
    }
    // Mean 1/2, deviation sqrt(1 / 12 n); chi-square of 63 degrees exceeds 130 less than once in a million.
    assert!((sum / N as f64 - 0.5).abs() <= 5.0 * (1.0 / 12.0 / N as f64).sqrt());
    let expected = N as f64 / 64.0;
    let chi_square: f64 = cells.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
    assert!(chi_square < 130.0, "{chi_square}");
}

#[test]
fn integers_below_a_bound_are_within_it_and_even() {
    for bound in [1_u32, 2, 3, 5, 7, 10, 64, 100] {
        let mut rng = generator(2, Stream::Batches, u64::from(bound), 0);
        let n = 200_000;
        let mut cells = vec![0.0_f64; bound as usize];
        for _ in 0..n {
            cells[below(&mut rng, bound) as usize] += 1.0;
        }
        let expected = f64::from(n) / f64::from(bound);
        let chi_square: f64 = cells.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
        let degrees = f64::from(bound - 1);
        // Wilson and Hilferty's bound at 5 deviations.
        let limit = if bound == 1 {
            1e-9
        } else {
            let spread = 2.0 / (9.0 * degrees);
            degrees * (1.0 - spread + 5.0 * spread.sqrt()).powi(3)
        };
        assert!(chi_square <= limit, "bound {bound}: {chi_square} exceeds {limit}");
    }
}

/// At three quarters of 2^32, taking the remainder would give the first third twice as often.
#[test]
fn integers_below_a_huge_bound_are_even() {
    let bound = 3 << 30;
    let mut rng = generator(3, Stream::Batches, 0, 0);
    let n = 300_000;
    let mut thirds = [0.0_f64; 3];
    for _ in 0..n {
        let x = below(&mut rng, bound);
        assert!(x < bound);
        thirds[(x >> 30) as usize] += 1.0;
    }
    let expected = f64::from(n) / 3.0;
    let chi_square: f64 = thirds.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
    assert!(chi_square < 28.0, "{chi_square}: once in a million");
}

/// Lemire's method rejects exactly `2^32 mod bound` of the draws.
#[test]
fn draws_that_would_be_biased_are_rejected() {
    /// A generator that counts up.
    struct Counter(u32, u32);
    impl rand_core::TryRng for Counter {
        type Error = core::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            self.0 = self.0.wrapping_add(self.1);
            Ok(self.0)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            self.try_next_u32().map(u64::from)
        }
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
            Ok(())
        }
    }
    // With 3 << 30, the draws 0, 4, 8, ... have too small a remainder.
    let mut counter = Counter(u32::MAX, 1);
    let draws: Vec<u32> = (0..6).map(|_| below(&mut counter, 3 << 30)).collect();
    assert_eq!(draws, [0, 1, 2, 3, 4, 5]);
    assert_eq!(counter.0, 7, "0 and 4 were to be rejected");
}

#[test]
fn a_bound_of_zero_gives_zero() {
    assert_eq!(below(&mut generator(1, Stream::Batches, 0, 0), 0), 0);
}

/// Other numbers here mean other training runs, so a change must be deliberate.
#[test]
fn the_numbers_are_the_ones_they_always_were() {
    let mut rng = generator(1, Stream::Initialization, 0, 0);
    let got: [u64; 2] = [key(1, Stream::Initialization, 0, 0), rng.next_u64()];
    assert_eq!(got, [2_420_647_561_474_810_728, 15_992_421_936_949_917_137]);
}

#[test]
fn bounds_of_more_than_32_bits_are_uniform_and_smaller_ones_give_the_same_numbers() {
    let bound = 9_000_000_000;
    let mut rng = generator(3, Stream::Batches, 0, 0);
    let mut cells = [0; 9];
    for _ in 0..9000 {
        cells[(below_u64(&mut rng, bound) / 1_000_000_000) as usize] += 1;
    }
    assert!(cells.iter().all(|cell| (850..1150).contains(cell)), "{cells:?}");
    for bound in [0, 1, 7, u32::MAX] {
        let [mut one, mut other] = [4; 2].map(|seed| generator(seed, Stream::Batches, 0, 0));
        assert_eq!(below_u64(&mut one, bound.into()), u64::from(below(&mut other, bound)));
    }
}
