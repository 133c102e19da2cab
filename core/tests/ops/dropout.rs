//! Statistics of dropout masks. Seeds are fixed, so a test that passes keeps passing; the bounds say how
//! unlikely a fair mask would be to fail.

use jostle::InstructionSet;
use jostle::ops::dropout::{self, Mask};
use jostle::rng::Stream;

use crate::common::{Random, assert_same_bits, bits, instruction_sets};

/// The standard deviations that a mean may differ by, exceeded once in two million.
const SIGMAS: f64 = 5.0;

fn mask(rate: f32, seed: u64, stream: Stream, step: u64, layer: u64) -> Mask {
    Mask::new(rate, seed, stream, step, layer).unwrap().unwrap()
}

fn drawn(mask: Mask, rows: usize, width: usize, place: u64) -> Vec<f32> {
    let (mut y, ones) = (vec![9.0; rows * width], vec![1.0; rows * width]);
    dropout::forward(InstructionSet::detect(), &mut y, &ones, width, Some(mask), place).unwrap();
    y
}

fn dropped(mask: Mask, rows: usize, width: usize, place: u64) -> Vec<bool> {
    drawn(mask, rows, width, place).iter().map(|x| *x == 0.0).collect()
}

#[test]
fn the_rate_is_the_share_of_zeros() {
    const ROWS: usize = 10_000;
    const WIDTH: usize = 1000;
    for rate in [0.01, 0.1, 0.2, 0.5, 0.75, 0.9] {
        let mask = mask(rate, 42, Stream::EmbeddingDropout, 7, 3);
        let count = dropped(mask, ROWS, WIDTH, 0).into_iter().filter(|dropped| *dropped).count();
        let (n, p) = ((ROWS * WIDTH) as f64, f64::from(rate));
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!((count as f64 - n * p).abs() <= SIGMAS * sigma, "rate {rate}: {count} of {n}");
    }
}

#[test]
fn survivors_are_scaled_by_one_over_their_probability() {
    for rate in [0.1, 0.25, 0.5, 0.9] {
        let mask = mask(rate, 1, Stream::MlpProjectionDropout, 0, 0);
        let exact = 1.0 / (1.0 - f64::from(rate));
        assert!((f64::from(mask.scale()) / exact - 1.0).abs() < 1e-7);
        let y = drawn(mask, 100, 100, 0);
        assert!(y.contains(&0.0) && y.iter().any(|y| *y != 0.0));
        assert!(y.iter().all(|y| *y == 0.0 || *y == mask.scale()));
    }
    assert_eq!(mask(0.5, 1, Stream::MlpProjectionDropout, 0, 0).scale(), 2.0);
}

#[test]
fn the_mean_over_seeds_is_the_input() {
    const SEEDS: u64 = 4000;
    let x = Random::new(41).numbers(97);
    for rate in [0.1, 0.5, 0.8] {
        let mut sums = vec![0.0; x.len()];
        for seed in 0..SEEDS {
            let mut y = vec![9.0; x.len()];
            let mask = mask(rate, seed, Stream::EmbeddingDropout, 0, 0);
            dropout::forward(InstructionSet::detect(), &mut y, &x, x.len(), Some(mask), 0).unwrap();
            sums.iter_mut().zip(&y).for_each(|(sum, y)| *sum += f64::from(*y));
        }
        for (i, (sum, x)) in sums.iter().zip(&x).enumerate() {
            // One draw is x / (1 - p) with probability 1 - p: its variance is x^2 p / (1 - p).
            let (x, p) = (f64::from(*x), f64::from(rate));
            let sigma = (x * x * p / (1.0 - p) / SEEDS as f64).sqrt();
            let mean = sum / SEEDS as f64;
            assert!((mean - x).abs() <= SIGMAS * sigma, "rate {rate}, column {i}: {mean}, not {x}");
        }
    }
}

/// Checks that two masks drop independently: the correlation of `n` fair pairs is normal with deviation 1 / sqrt(n).
#[track_caller]
fn assert_independent(pairs: impl Iterator<Item = (bool, bool)>, what: &str) {
    let mut counts = [[0.0_f64; 2]; 2];
    pairs.for_each(|(a, b)| counts[usize::from(a)][usize::from(b)] += 1.0);
    let [[neither, second], [first, both]] = counts;
    let n = neither + second + first + both;
    let (a, b) = ((first + both) / n, (second + both) / n);
    let correlation = (both / n - a * b) / (a * (1.0 - a) * b * (1.0 - b)).sqrt();
    assert!(n >= 9e5, "{what}: only {n} pairs");
    assert!(correlation.abs() <= SIGMAS / n.sqrt(), "{what}: {n} pairs correlate by {correlation:e}");
}

#[test]
fn neighbours_in_every_coordinate_are_independent() {
    const ROWS: usize = 1000;
    const WIDTH: usize = 1009;
    for rate in [0.1, 0.5] {
        let at = |seed, stream, step, layer, place| {
            dropped(mask(rate, seed, stream, step, layer), ROWS, WIDTH, place)
        };
        let base = at(3, Stream::EmbeddingDropout, 4, 5, 6);
        for distance in [1, 2, 3, 4, 8, 15, 16, 17, 32, 64] {
            let columns =
                base.chunks(WIDTH).flat_map(|row| row.iter().zip(&row[distance..]).map(|(a, b)| (*a, *b)));
            assert_independent(columns, &format!("rate {rate}: columns {distance} apart"));
            let rows = base.iter().zip(&base[distance * WIDTH..]).map(|(a, b)| (*a, *b));
            assert_independent(rows, &format!("rate {rate}: rows {distance} apart"));
        }
        let diagonal = base.iter().zip(&base[WIDTH + 1..]).map(|(a, b)| (*a, *b));
        assert_independent(diagonal, &format!("rate {rate}: the diagonal"));
        for (what, other) in [
            ("seeds", at(4, Stream::EmbeddingDropout, 4, 5, 6)),
            ("streams", at(3, Stream::AttentionDropout, 4, 5, 6)),
            ("steps", at(3, Stream::EmbeddingDropout, 5, 5, 6)),
            ("layers", at(3, Stream::EmbeddingDropout, 4, 6, 6)),
            ("places", at(3, Stream::EmbeddingDropout, 4, 5, 7)),
            ("layer and place exchanged", at(3, Stream::EmbeddingDropout, 4, 6, 5)),
            ("step and layer exchanged", at(3, Stream::EmbeddingDropout, 5, 4, 6)),
            ("seed and step exchanged", at(4, Stream::EmbeddingDropout, 3, 5, 6)),
        ] {
            let pairs = base.iter().copied().zip(other);
            assert_independent(pairs, &format!("rate {rate}: {what}"));
        }
    }
}

/// Chi-square of patterns of four draws at rate 1/2: 15 degrees of freedom exceed 60 once in four million.
#[track_caller]
fn assert_patterns_are_even(patterns: impl Iterator<Item = [bool; 4]>, what: &str) {
    let mut cells = [0.0_f64; 16];
    patterns.for_each(|p| cells[p.iter().fold(0, |cell, bit| 2 * cell + usize::from(*bit))] += 1.0);
    let expected = cells.iter().sum::<f64>() / 16.0;
    assert!(expected > 1e4, "{what}");
    let chi_square: f64 = cells.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
    assert!(chi_square < 60.0, "{what}: chi-square {chi_square}");
}

#[test]
fn joint_patterns_of_four_are_equally_frequent() {
    const ROWS: usize = 2000;
    const WIDTH: usize = 1024;
    let masks: Vec<Vec<bool>> =
        (0..4).map(|step| dropped(mask(0.5, 8, Stream::AttentionDropout, step, 0), ROWS, WIDTH, 0)).collect();
    let base = &masks[0];
    let columns = base.chunks(4).map(|c| [c[0], c[1], c[2], c[3]]);
    assert_patterns_are_even(columns, "four columns in turn");
    let vectors = base.chunks(64).flat_map(|c| (0..16).map(|i| [c[i], c[i + 16], c[i + 32], c[i + 48]]));
    assert_patterns_are_even(vectors, "one lane of four vectors in turn");
    let rows = base.chunks(4 * WIDTH).flat_map(|block| {
        (0..WIDTH).map(|i| [block[i], block[i + WIDTH], block[i + 2 * WIDTH], block[i + 3 * WIDTH]])
    });
    assert_patterns_are_even(rows, "four rows in turn");
    let squares = base.chunks(2 * WIDTH).flat_map(|block| {
        (0..WIDTH).step_by(2).map(|i| [block[i], block[i + 1], block[i + WIDTH], block[i + WIDTH + 1]])
    });
    assert_patterns_are_even(squares, "squares");
    let steps = (0..ROWS * WIDTH).map(|i| [masks[0][i], masks[1][i], masks[2][i], masks[3][i]]);
    assert_patterns_are_even(steps, "four steps in turn");
}

/// Comparing neighbours would not show a column or row that is dropped too often.
#[test]
fn no_column_and_no_row_is_favoured() {
    const SIDE: usize = 2048;
    let rate = 0.25;
    let drops = dropped(mask(rate, 9, Stream::AttentionDropout, 1, 1), SIDE, SIDE, 3);
    let (mut rows, mut columns) = (vec![0.0; SIDE], vec![0.0; SIDE]);
    for (i, _) in drops.iter().enumerate().filter(|(_, dropped)| **dropped) {
        rows[i / SIDE] += 1.0;
        columns[i % SIDE] += 1.0;
    }
    let (n, p) = (SIDE as f64, f64::from(rate));
    for (what, counts) in [("rows", rows), ("columns", columns)] {
        let squares: f64 = counts.iter().map(|c: &f64| (c - n * p) * (c - n * p) / (n * p * (1.0 - p))).sum();
        // Chi-square with n degrees of freedom: mean n, deviation sqrt(2 n).
        assert!((squares - n).abs() <= SIGMAS * (2.0 * n).sqrt(), "{what}: {squares} for {n}");
    }
}

#[test]
fn rate_one_half_doubles_exactly() {
    let x = Random::new(42).numbers(1000);
    let mask = mask(0.5, 5, Stream::EmbeddingDropout, 6, 7);
    for simd in instruction_sets() {
        let mut y = vec![9.0; 1000];
        dropout::forward(simd, &mut y, &x, 100, Some(mask), 0).unwrap();
        let zeros = y.iter().zip(&x).filter(|(y, x)| **y == 0.0 && **x != 0.0).count();
        assert!((400..600).contains(&zeros));
        assert!(y.iter().zip(&x).all(|(y, x)| *y == 0.0 || *y == 2.0 * x));
    }
}

#[test]
fn a_dropped_element_is_zero_whatever_it_was() {
    let x = [f32::NAN, f32::INFINITY, -1.0, f32::MIN].repeat(50);
    let mask = mask(0.5, 5, Stream::EmbeddingDropout, 6, 8);
    let drops = dropped(mask, 1, x.len(), 0);
    for simd in instruction_sets() {
        let mut y = vec![9.0; x.len()];
        dropout::forward(simd, &mut y, &x, x.len(), Some(mask), 0).unwrap();
        for (y, dropped) in y.iter().zip(&drops) {
            assert_eq!(y.to_bits() == 0, *dropped);
        }
    }
}

#[test]
fn backward_has_the_mask_of_forward() {
    let (x, d_y) = (Random::new(43).numbers(61 * 37), Random::new(44).numbers(61 * 37));
    for rate in [0.1, 0.5, 0.9] {
        let mask = mask(rate, 10, Stream::MlpProjectionDropout, 11, 12);
        for simd in instruction_sets() {
            let (mut y, mut d_x) = (vec![9.0; x.len()], vec![9.0; x.len()]);
            dropout::forward(simd, &mut y, &x, 37, Some(mask), 13).unwrap();
            dropout::backward(simd, &mut d_x, &d_y, 37, Some(mask), 13).unwrap();
            for i in 0..x.len() {
                let scale = mask.scale();
                assert_eq!(y[i] == 0.0, d_x[i] == 0.0);
                assert!(d_x[i] == 0.0 || d_x[i] == d_y[i] * scale);
            }
        }
    }
}

#[test]
fn a_part_has_the_mask_of_the_whole() {
    let mask = mask(0.3, 14, Stream::EmbeddingDropout, 15, 16);
    let whole = drawn(mask, 50, 100, 17);
    for rows in [1, 2, 7, 49] {
        assert_same_bits(&drawn(mask, rows, 100, 17), &whole[..rows * 100], "fewer rows");
    }
    for width in [1, 15, 16, 17, 99] {
        let narrow = drawn(mask, 50, width, 17);
        for (narrow, whole) in narrow.chunks(width).zip(whole.chunks(100)) {
            assert_same_bits(narrow, &whole[..width], "fewer columns");
        }
    }
    // Other draws do not change the mask.
    drawn(self::mask(0.3, 14, Stream::EmbeddingDropout, 15, 17), 5, 5, 0);
    assert_eq!(bits(&drawn(mask, 50, 100, 17)), bits(&whole));
}

#[test]
fn every_instruction_set_draws_the_same_mask() {
    let x = Random::new(45).numbers(300 * 77);
    for rate in [1e-9, 0.1, 0.5, 0.999] {
        let mask = Some(mask(rate, u64::MAX, Stream::AttentionDropout, 1 << 40, 1 << 33));
        let mut wanted = vec![9.0; x.len()];
        dropout::forward(InstructionSet::PORTABLE, &mut wanted, &x, 77, mask, u64::MAX).unwrap();
        for simd in instruction_sets() {
            let mut y = vec![9.0; x.len()];
            dropout::forward(simd, &mut y, &x, 77, mask, u64::MAX).unwrap();
            assert_same_bits(&y, &wanted, simd.name());
        }
    }
}

/// A change of the masks changes every training run, so it must be deliberate.
#[test]
fn the_mask_is_the_one_it_always_was() {
    let drops = dropped(mask(0.5, 1, Stream::EmbeddingDropout, 2, 3), 4, 32, 4);
    let words: Vec<u32> = drops
        .chunks(32)
        .map(|row| row.iter().rev().fold(0, |word, bit| 2 * word + u32::from(*bit)))
        .collect();
    assert_eq!(words, WORDS);
}

const WORDS: [u32; 4] = [2_747_381_485, 561_331_315, 3_660_224_192, 2_886_665_090];
