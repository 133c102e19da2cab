//! Attention, in both directions and without looking ahead.

use jostle::InstructionSet;
use jostle::ops::attention::{self, Attention};

use crate::common::{Random, assert_same_bits, bits, instruction_sets};
use crate::{TIGHT, assert_near, differences, factors, mask, on_every_set, softmax_f64, wide};

/// The first columns of a head's queries, keys and values, and the length of a row.
fn columns(heads: usize, kv_heads: usize, head_width: usize, head: usize) -> ([usize; 3], usize) {
    let shared = heads + head / (heads / kv_heads);
    ([head, shared, shared + kv_heads].map(|part| part * head_width), (heads + 2 * kv_heads) * head_width)
}

fn attention_f64(qkv: &[f64], [heads, kv_heads, head_width]: [usize; 3], drop: &[Vec<f32>]) -> Vec<f64> {
    let width = heads * head_width;
    let length = qkv.len() / columns(heads, kv_heads, head_width, 0).1;
    let mut out = vec![0.0; length * width];
    for h in 0..heads {
        let (first, row) = columns(heads, kv_heads, head_width, h);
        let at = |which: usize, t: usize, j: usize| qkv[t * row + first[which] + j];
        for i in 0..length {
            let scores: Vec<f64> = (0..=i)
                .map(|t| {
                    let dot: f64 = (0..head_width).map(|j| at(0, i, j) * at(1, t, j)).sum();
                    dot / (head_width as f64).sqrt()
                })
                .collect();
            let weights = softmax_f64(&scores, i + 1);
            for (t, weight) in weights.iter().enumerate() {
                let weight = weight * drop.get(h).map_or(1.0, |drop| f64::from(drop[i * length + t]));
                for j in 0..head_width {
                    out[i * width + h * head_width + j] += weight * at(2, t, j);
                }
            }
        }
    }
    out
}

fn check_attention(length: usize, [heads, kv_heads, head_width]: [usize; 3], rate: f32) {
    let mut random = Random::new(28 + length as u64);
    let (width, kv_width) = (heads * head_width, kv_heads * head_width);
    let row = width + 2 * kv_width;
    let qkv: Vec<f32> = random.numbers(length * row).iter().map(|x| 1.5 * x).collect();
    let d_out = random.numbers(length * width);
    let sequence = 6;
    let mask = mask(rate, 1);
    let attention = Attention { heads, kv_heads, width, mask, sequence };
    let [out, _, d_qkv] = on_every_set(|simd| {
        let (mut out, mut stats) = (vec![9.0; length * width], vec![9.0; 2 * heads * length]);
        let mut space = vec![f32::NAN; attention::scratch(length, width)];
        attention::forward(simd, &mut out, &mut stats, &qkv, attention, &mut space).unwrap();
        let mut d_qkv = vec![9.0; qkv.len()];
        space.fill(f32::NAN);
        attention::backward(simd, &mut d_qkv, &d_out, &qkv, &out, &stats, attention, &mut space).unwrap();
        [out, stats, d_qkv]
    });
    let drop: Vec<Vec<f32>> = match mask {
        None => Vec::new(),
        Some(_) => {
            (0..heads).map(|h| factors(mask, length, length, sequence * heads as u64 + h as u64)).collect()
        }
    };
    let what = |name: &str| {
        format!("{name} of {length} rows, {heads}/{kv_heads} heads of {head_width}, rate {rate}")
    };
    let qkv = wide(&qkv);
    assert_near(&out, &attention_f64(&qkv, [heads, kv_heads, head_width], &drop), TIGHT, &what("out"));
    let slope = differences(&qkv, &d_out, |qkv| attention_f64(qkv, [heads, kv_heads, head_width], &drop));
    for (which, end) in [width, width + kv_width, row].into_iter().enumerate() {
        let begin = [0, width, width + kv_width][which];
        let part = |i: &usize| (begin..end).contains(&(i % row));
        let got: Vec<f32> = (0..qkv.len()).filter(part).map(|i| d_qkv[i]).collect();
        let wanted: Vec<f64> = (0..qkv.len()).filter(part).map(|i| slope[i]).collect();
        assert_near(&got, &wanted, 3e-6, &what(["d_q", "d_k", "d_v"][which]));
    }
}

#[test]
fn attention_is_its_formula_and_its_gradients_are_its_slopes() {
    for (length, heads, head_width) in [(2, 1, 1), (5, 2, 4), (32, 1, 3), (33, 1, 16), (37, 3, 5)] {
        check_attention(length, [heads, heads, head_width], 0.0);
    }
}

#[test]
fn grouped_attention_is_its_formula_and_its_gradients_are_its_slopes() {
    for (length, heads) in [(5, [4, 2, 4]), (32, [3, 1, 2]), (37, [6, 2, 3]), (9, [2, 1, 16])] {
        check_attention(length, heads, 0.0);
    }
    check_attention(37, [4, 2, 3], 0.2);
}

/// Longer than a tile of queries, and shorter.
#[test]
fn grouped_attention_has_the_bits_of_repeated_heads_whose_gradients_are_one_chain() {
    let mut random = Random::new(34);
    let [heads, kv_heads, head_width] = [6, 2, 5];
    let width = heads * head_width;
    for length in [7, 70, 130] {
        let (_, row) = columns(heads, kv_heads, head_width, 0);
        let (qkv, d_out) = (random.numbers(length * row), random.numbers(length * width));
        let run = |kv_heads: usize, qkv: &[f32]| {
            on_every_set(|simd| {
                let attention = Attention { heads, kv_heads, width, mask: mask(0.1, 2), sequence: 3 };
                let (mut out, mut stats) = (vec![9.0; length * width], vec![9.0; 2 * heads * length]);
                let mut space = vec![f32::NAN; attention::scratch(length, width)];
                attention::forward(simd, &mut out, &mut stats, qkv, attention, &mut space).unwrap();
                let mut d_qkv = vec![9.0; qkv.len()];
                attention::backward(simd, &mut d_qkv, &d_out, qkv, &out, &stats, attention, &mut space)
                    .unwrap();
                [out, stats, d_qkv]
            })
        };
        // Each head gets a copy of its keys and values.
        let mut repeated = Vec::new();
        for qkv in qkv.chunks(row) {
            for which in 0..3 {
                for h in 0..heads {
                    let first = columns(heads, kv_heads, head_width, h).0[which];
                    repeated.extend(&qkv[first..first + head_width]);
                }
            }
        }
        let [out, stats, d_qkv] = run(kv_heads, &qkv);
        let [wanted, wanted_stats, d_repeated] = run(heads, &repeated);
        assert_same_bits(&out, &wanted, "out");
        assert_same_bits(&stats, &wanted_stats, "stats");
        let mut sums = vec![0.0_f64; d_qkv.len()];
        for (sums, d_repeated) in sums.chunks_mut(row).zip(d_repeated.chunks(3 * width)) {
            for h in 0..heads {
                for which in 0..3 {
                    let to = columns(heads, kv_heads, head_width, h).0[which];
                    let from = which * width + h * head_width;
                    for j in 0..head_width {
                        sums[to + j] += f64::from(d_repeated[from + j]);
                    }
                }
            }
        }
        assert_near(&d_qkv, &sums, TIGHT, "d_qkv");
        let queries = |x: &[f32], row: usize| -> Vec<f32> {
            x.chunks(row).flat_map(|row| row[..width].to_vec()).collect()
        };
        assert_same_bits(&queries(&d_qkv, row), &queries(&d_repeated, 3 * width), "d_q");
    }
}

/// With one query a sequence, the weight is 1, and the gradient of the value is the sum of the heads' in ascending order.
#[test]
fn heads_of_a_group_add_in_ascending_order() {
    let (heads, d_out) = (3, [1.0, f32::EPSILON / 2.0, f32::EPSILON / 2.0]);
    let [out] = on_every_set(|simd| {
        let attention = Attention { heads, kv_heads: 1, width: heads, mask: None, sequence: 0 };
        let (mut out, mut stats, qkv) = ([9.0; 3], [9.0; 6], [0.5; 5]);
        let mut space = vec![f32::NAN; attention::scratch(1, heads)];
        attention::forward(simd, &mut out, &mut stats, &qkv, attention, &mut space).unwrap();
        let mut d_qkv = vec![9.0; 5];
        attention::backward(simd, &mut d_qkv, &d_out, &qkv, &out, &stats, attention, &mut space).unwrap();
        [d_qkv]
    });
    // In descending order, the sum would be 1 + EPSILON.
    assert_eq!(out[4], 1.0);
}

/// Longer than any block of the inner index.
#[test]
fn long_attention_has_the_same_bits_on_every_set() {
    let mut random = Random::new(33);
    let (length, width) = (800, 3);
    let (qkv, d_out) = (random.numbers(length * 3 * width), random.numbers(length * width));
    let attention = Attention { heads: 1, kv_heads: 1, width, mask: None, sequence: 0 };
    on_every_set(|simd| {
        let (mut out, mut stats) = (vec![9.0; length * width], vec![9.0; 2 * length]);
        let mut space = vec![f32::NAN; attention::scratch(length, width)];
        attention::forward(simd, &mut out, &mut stats, &qkv, attention, &mut space).unwrap();
        let mut d_qkv = vec![9.0; qkv.len()];
        attention::backward(simd, &mut d_qkv, &d_out, &qkv, &out, &stats, attention, &mut space).unwrap();
        [out, stats, d_qkv]
    });
}

#[test]
fn attention_with_dropout_has_the_mask_of_its_place_in_both_directions() {
    for (length, heads, head_width, rate) in [(5, 2, 4, 0.5), (37, 3, 5, 0.2)] {
        check_attention(length, [heads, heads, head_width], rate);
    }
}

#[test]
fn attention_does_not_look_ahead() {
    let mut random = Random::new(30);
    let (length, heads, width) = (70, 2, 6);
    let attention = Attention { heads, kv_heads: heads, width, mask: None, sequence: 0 };
    let run = |simd, qkv: &[f32]| {
        let rows = qkv.len() / (3 * width);
        let (mut out, mut stats) = (vec![9.0; rows * width], vec![9.0; 2 * heads * rows]);
        let mut space = vec![0.0; attention::scratch(rows, width)];
        attention::forward(simd, &mut out, &mut stats, qkv, attention, &mut space).unwrap();
        out
    };
    let qkv = random.numbers(length * 3 * width);
    for simd in instruction_sets() {
        let whole = run(simd, &qkv);
        for rows in [0, 1, 2, 31, 32, 33, 50, 64, 65] {
            let mut changed = qkv.clone();
            changed[rows * 3 * width..].fill(-1e30);
            let kept = rows * width;
            assert_same_bits(&run(simd, &changed)[..kept], &whole[..kept], format!("after row {rows}"));
        }
    }
}

#[test]
fn a_short_sequence_has_the_bits_of_a_long_ones_beginning() {
    let mut random = Random::new(31);
    let (length, heads, width) = (70, 2, 6);
    let attention = Attention { heads, kv_heads: heads, width, mask: mask(0.3, 0), sequence: 4 };
    let qkv = random.numbers(length * 3 * width);
    for simd in instruction_sets() {
        let run = |qkv: &[f32]| {
            let rows = qkv.len() / (3 * width);
            let (mut out, mut stats) = (vec![9.0; rows * width], vec![9.0; 2 * heads * rows]);
            let mut space = vec![0.0; attention::scratch(rows, width)];
            attention::forward(simd, &mut out, &mut stats, qkv, attention, &mut space).unwrap();
            out
        };
        let whole = run(&qkv);
        for rows in 1..length {
            assert_same_bits(&run(&qkv[..rows * 3 * width]), &whole[..rows * width], format!("{rows} rows"));
        }
    }
}

#[test]
fn attention_weights_to_look_at_are_those_of_forward() {
    let mut random = Random::new(32);
    let (length, heads, head_width) = (37, 3, 5);
    let width = heads * head_width;
    let attention = Attention { heads, kv_heads: heads, width, mask: None, sequence: 0 };
    let qkv = random.numbers(length * 3 * width);
    let [weights] = on_every_set(|simd| {
        let mut weights = vec![9.0; heads * length * length];
        let mut space = vec![0.0; attention::scratch(length, width)];
        attention::weights(simd, &mut weights, &qkv, attention, &mut space).unwrap();
        [weights]
    });
    let (mut out, mut stats) = (vec![9.0; length * width], vec![9.0; 2 * heads * length]);
    let mut space = vec![0.0; attention::scratch(length, width)];
    attention::forward(InstructionSet::PORTABLE, &mut out, &mut stats, &qkv, attention, &mut space).unwrap();
    let mut wanted = vec![0.0; length * width];
    for (h, weights) in weights.chunks(length * length).enumerate() {
        for (i, row) in weights.chunks(length).enumerate() {
            assert!(row[i + 1..].iter().all(|weight| bits(&[*weight]) == [0]));
            assert!((row.iter().map(|w| f64::from(*w)).sum::<f64>() - 1.0).abs() < 1e-6);
            for (t, weight) in row.iter().enumerate() {
                for j in 0..head_width {
                    let value = qkv[t * 3 * width + 2 * width + h * head_width + j];
                    wanted[i * width + h * head_width + j] += f64::from(*weight) * f64::from(value);
                }
            }
        }
    }
    assert_near(&out, &wanted, TIGHT, "out from the weights");
}
