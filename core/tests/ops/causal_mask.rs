//! Causal weights, computed in two ways: zero the later weights and renormalise, or set the later scores to minus
//! infinity before the softmax. The model's attention never computes those scores; `softmax::causal_mask` is for
//! models that callers build from single operations.

use jostle::ops::softmax;

use crate::common::instruction_sets;

#[rustfmt::skip]
const WEIGHTS: [f32; 16] = [
    0.38, 0.32, 0.14, 0.16,
    0.09, 0.37, 0.24, 0.30,
    0.49, 0.09, 0.04, 0.38,
    0.51, 0.25, 0.06, 0.18,
];

#[rustfmt::skip]
const CAUSAL: [f32; 16] = [
    1.00, 0.00, 0.00, 0.00,
    0.20, 0.80, 0.00, 0.00,
    0.79, 0.15, 0.06, 0.00,
    0.51, 0.25, 0.06, 0.18,
];

fn two_decimals(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| (x * 100.0).round() / 100.0).collect()
}

fn zeroed_and_renormalised() -> Vec<f32> {
    let mut weights = WEIGHTS;
    for (i, row) in weights.chunks_mut(4).enumerate() {
        row[i + 1..].fill(0.0);
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|weight| *weight /= sum);
    }
    weights.to_vec()
}

#[test]
fn zeroing_later_weights_and_renormalising_gives_the_known_weights() {
    assert_eq!(two_decimals(&zeroed_and_renormalised()), CAUSAL);
}

#[test]
fn minus_infinity_before_the_softmax_gives_the_same_without_renormalising() {
    for simd in instruction_sets() {
        let mut scores = WEIGHTS.map(f32::ln);
        softmax::causal_mask(&mut scores, 4, 0).unwrap();
        for (i, row) in scores.chunks(4).enumerate() {
            assert!(row[i + 1..].iter().all(|score| *score == f32::NEG_INFINITY));
            assert!(row[..=i].iter().all(|score| score.is_finite()));
        }
        softmax::forward(simd, &mut scores, 4).unwrap();
        assert_eq!(two_decimals(&scores), CAUSAL, "{}", simd.name());
        for (masked, zeroed) in scores.iter().zip(zeroed_and_renormalised()) {
            assert!((masked - zeroed).abs() <= 3e-7, "{masked} and {zeroed} with {}", simd.name());
            assert_eq!(*masked == 0.0, zeroed == 0.0);
        }
        for row in scores.chunks(4) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() <= 3e-7);
        }
    }
}

#[test]
fn an_offset_lets_rows_see_that_many_columns_more() {
    let mut scores = [1.0; 12];
    softmax::causal_mask(&mut scores, 4, 2).unwrap();
    let hidden: Vec<bool> = scores.iter().map(|score| *score == f32::NEG_INFINITY).collect();
    assert_eq!(hidden, [[false, false, false, true], [false; 4], [false; 4]].concat());
}
