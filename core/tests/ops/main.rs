//! Each operation against its formula in f64: the forward pass directly, the backward pass by central differences.

mod attention;
mod causal_mask;
#[path = "../common/mod.rs"]
mod common;
mod dropout;
mod errors;
mod golden;
mod llama;

use common::{Random, assert_same_bits, instruction_sets};
use jostle::matmul::{self, Size};
use jostle::ops::dropout::Mask;
use jostle::ops::{cross_entropy, embedding, gelu, layer_norm, linear, softmax};
use jostle::rng::Stream;
use jostle::{Activation, Compute, InstructionSet, Optimizer};

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Checks the norm of the difference relative to the norm of `wanted`, which must not be zero.
#[track_caller]
fn assert_near(got: &[f32], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let size = squares(&mut wanted.iter().copied());
    assert!(size > 1e-3, "{what}: zero throughout ({size:e}), which would prove nothing");
    let difference = squares(&mut got.iter().zip(wanted).map(|(g, w)| f64::from(*g) - w));
    // Written so that NaN fails.
    assert!(difference <= tolerance * size, "{what}: relative error {:e}", difference / size);
    // Many exact elements must not hide one wrong element.
    let greatest = wanted.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        let error = (f64::from(*g) - w).abs();
        assert!(error <= 4.0 * tolerance * greatest, "{what}: element {i} is {g:e}, not {w:e}");
    }
}

/// The gradient of `sum(factors * f(x))` by central differences.
fn differences(x: &[f64], factors: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let weighted = |x: &[f64]| -> f64 {
        let y = f(x);
        assert_eq!(y.len(), factors.len());
        y.iter().zip(factors).map(|(y, factor)| y * f64::from(*factor)).sum()
    };
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let middle = x[i];
            x[i] = middle + STEP;
            let above = weighted(&x);
            x[i] = middle - STEP;
            let below = weighted(&x);
            x[i] = middle;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// A few roundings of 6e-8 each.
const TIGHT: f64 = 1e-6;

/// Runs on each instruction set, checks that all results have the same bits, and returns them.
#[track_caller]
fn on_every_set<const N: usize>(run: impl Fn(InstructionSet) -> [Vec<f32>; N]) -> [Vec<f32>; N] {
    let portable = run(InstructionSet::PORTABLE);
    for simd in instruction_sets() {
        for (i, (got, wanted)) in run(simd).iter().zip(&portable).enumerate() {
            assert_same_bits(got, wanted, format!("output {i} with {}", simd.name()));
        }
    }
    portable
}

fn added(before: &[f32], gradient: &[f64]) -> Vec<f64> {
    before.iter().zip(gradient).map(|(before, gradient)| f64::from(*before) + gradient).collect()
}

// layer_norm

const EPSILON: f32 = 1e-3;

fn layer_norm_f64(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let width = weight.len();
    let mut y = Vec::new();
    for row in x.chunks(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width as f64;
        let rstd = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        for (j, x) in row.iter().enumerate() {
            y.push((x - mean) * rstd * weight[j] + bias.get(j).copied().unwrap_or(0.0));
        }
    }
    y
}

#[test]
fn layer_norm_is_its_formula_and_its_gradients_are_its_slopes() {
    let mut random = Random::new(21);
    for (rows, width) in [(1, 2), (3, 5), (4, 16), (3, 33), (2, 100)] {
        for with_bias in [true, false] {
            let x: Vec<f32> = random.numbers(rows * width).iter().map(|x| 2.0 * x + 0.75).collect();
            let weight = random.numbers(width);
            let bias = if with_bias { random.numbers(width) } else { Vec::new() };
            let d_y = random.numbers(rows * width);
            let before = random.numbers(rows * width);
            let before_weight = random.numbers(width);
            let before_bias = if with_bias { random.numbers(width) } else { Vec::new() };
            let [y, mean, rstd, d_x, d_weight, d_bias] = on_every_set(|simd| {
                let (mut y, mut mean, mut rstd) = (vec![9.0; rows * width], vec![9.0; rows], vec![9.0; rows]);
                layer_norm::forward(simd, &mut y, &mut mean, &mut rstd, &x, &weight, &bias, EPSILON).unwrap();
                let (mut d_x, mut d_weight, mut d_bias) =
                    (before.clone(), before_weight.clone(), before_bias.clone());
                layer_norm::backward(simd, &mut d_x, &d_y, &x, &mean, &rstd, &weight).unwrap();
                layer_norm::backward_parameters(simd, &mut d_weight, &mut d_bias, &d_y, &x, &mean, &rstd)
                    .unwrap();
                [y, mean, rstd, d_x, d_weight, d_bias]
            });
            let what = |name: &str| format!("{name} of {rows}x{width}, bias {with_bias}");
            let (x, weight, bias) = (wide(&x), wide(&weight), wide(&bias));
            assert_near(&y, &layer_norm_f64(&x, &weight, &bias), TIGHT, &what("y"));
            let means: Vec<f64> = x.chunks(width).map(|row| row.iter().sum::<f64>() / width as f64).collect();
            let deviations = x.chunks(width).zip(&means).map(|(row, mean)| {
                let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width as f64;
                1.0 / (variance + f64::from(EPSILON)).sqrt()
            });
            assert_near(&mean, &means, TIGHT, &what("mean"));
            assert_near(&rstd, &deviations.collect::<Vec<_>>(), TIGHT, &what("rstd"));
            let slope = differences(&x, &d_y, |x| layer_norm_f64(x, &weight, &bias));
            let by_itself: Vec<f32> = d_x.iter().zip(&before).map(|(a, b)| a - b).collect();
            // The exact gradient of two columns almost cancels.
            if width > 2 {
                assert_near(&by_itself, &slope, 3e-6, &what("d_x"));
            }
            assert_near(&d_x, &added(&before, &slope), 3e-6, &what("d_x onto what was there"));
            let slope = differences(&weight, &d_y, |weight| layer_norm_f64(&x, weight, &bias));
            assert_near(&d_weight, &added(&before_weight, &slope), TIGHT, &what("d_weight"));
            if with_bias {
                let slope = differences(&bias, &d_y, |bias| layer_norm_f64(&x, &weight, bias));
                assert_near(&d_bias, &added(&before_bias, &slope), TIGHT, &what("d_bias"));
            }
        }
    }
}

#[test]
fn layer_norm_of_equal_numbers_is_the_bias() {
    for simd in instruction_sets() {
        let (mut y, mut mean, mut rstd) = ([9.0; 3], [9.0], [9.0]);
        let (x, weight, bias) = ([5.0; 3], [2.0; 3], [0.5, -1.0, 0.0]);
        layer_norm::forward(simd, &mut y, &mut mean, &mut rstd, &x, &weight, &bias, 1e-5).unwrap();
        assert_eq!(y, bias);
        assert_eq!(mean, [5.0]);
    }
}

// linear

fn linear_f64(x: &[f64], weight: &[f64], bias: &[f64], width: usize) -> Vec<f64> {
    let out = weight.len() / width;
    let mut y = Vec::new();
    for row in x.chunks(width) {
        for j in 0..out {
            let bias = bias.get(j).copied().unwrap_or(0.0);
            y.push(bias + row.iter().enumerate().map(|(i, x)| x * weight[i * out + j]).sum::<f64>());
        }
    }
    y
}

#[test]
fn linear_is_its_formula_and_its_gradients_are_its_slopes() {
    let mut random = Random::new(22);
    for (rows, width, out) in [(1, 1, 1), (3, 5, 7), (20, 8, 33), (5, 17, 16)] {
        for with_bias in [true, false] {
            let (x, weight) = (random.numbers(rows * width), random.numbers(width * out));
            let bias = if with_bias { random.numbers(out) } else { Vec::new() };
            let d_y = random.numbers(rows * out);
            let before_weight = random.numbers(width * out);
            let before_bias = if with_bias { random.numbers(out) } else { Vec::new() };
            let [y, d_x, d_weight, d_bias] = on_every_set(|simd| {
                let (mut y, mut d_x) = (vec![9.0; rows * out], vec![9.0; rows * width]);
                let (mut d_weight, mut d_bias) = (before_weight.clone(), before_bias.clone());
                let mut space = vec![0.0; matmul::scratch(Size { m: rows, n: out, k: width })];
                linear::forward(simd, &mut y, &x, &weight, &bias, width, &mut space).unwrap();
                let mut space = vec![0.0; matmul::scratch(Size { m: rows, n: width, k: out })];
                linear::backward(simd, &mut d_x, &d_y, &weight, width, &mut space).unwrap();
                let mut space = vec![0.0; matmul::scratch(Size { m: width, n: out, k: rows })];
                linear::backward_parameters(simd, &mut d_weight, &mut d_bias, &x, &d_y, width, &mut space)
                    .unwrap();
                [y, d_x, d_weight, d_bias]
            });
            let what = |name: &str| format!("{name} of {rows}x{width}x{out}, bias {with_bias}");
            let (x, weight, bias) = (wide(&x), wide(&weight), wide(&bias));
            assert_near(&y, &linear_f64(&x, &weight, &bias, width), TIGHT, &what("y"));
            let slope = differences(&x, &d_y, |x| linear_f64(x, &weight, &bias, width));
            assert_near(&d_x, &slope, TIGHT, &what("d_x"));
            let slope = differences(&weight, &d_y, |weight| linear_f64(&x, weight, &bias, width));
            assert_near(&d_weight, &added(&before_weight, &slope), TIGHT, &what("d_weight"));
            if with_bias {
                let slope = differences(&bias, &d_y, |bias| linear_f64(&x, &weight, bias, width));
                assert_near(&d_bias, &added(&before_bias, &slope), TIGHT, &what("d_bias"));
            }
        }
    }
}

// softmax

fn softmax_f64(x: &[f64], width: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(width) {
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - maximum).exp()).sum();
        y.extend(row.iter().map(|x| (x - maximum).exp() / sum));
    }
    y
}

#[test]
fn softmax_is_its_formula_and_its_gradient_is_its_slope() {
    let mut random = Random::new(23);
    for (rows, width) in [(2, 2), (3, 5), (2, 16), (3, 50)] {
        let x: Vec<f32> = random.numbers(rows * width).iter().map(|x| 4.0 * x).collect();
        let d_y = random.numbers(rows * width);
        let [y, d_x] = on_every_set(|simd| {
            let (mut y, mut d_x) = (x.clone(), vec![9.0; rows * width]);
            softmax::forward(simd, &mut y, width).unwrap();
            softmax::backward(simd, &mut d_x, &d_y, &y, width).unwrap();
            [y, d_x]
        });
        let x = wide(&x);
        assert_near(&y, &softmax_f64(&x, width), TIGHT, "y");
        assert_near(&d_x, &differences(&x, &d_y, |x| softmax_f64(x, width)), 3e-6, "d_x");
    }
}

#[test]
fn softmax_of_huge_scores_neither_overflows_nor_vanishes() {
    for simd in instruction_sets() {
        let mut x = [1e30, 1e30, -1e30, f32::MIN, 88.0, f32::NEG_INFINITY];
        softmax::forward(simd, &mut x, 6).unwrap();
        assert_eq!(x, [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);
    }
}

// gelu

fn gelu_f64(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Gelu => x * 0.5 * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2)),
        Activation::SwiGlu => unreachable!(),
        Activation::GeluTanh => {
            let inner = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x * 0.5 * (1.0 + inner.tanh())
        }
    }
}

#[test]
fn gelu_is_its_formula_and_its_gradient_is_its_slope() {
    let mut random = Random::new(24);
    for activation in [Activation::Gelu, Activation::GeluTanh] {
        for (length, size) in [(1, 1.0), (15, 1.0), (16, 2.0), (1001, 6.0)] {
            let x: Vec<f32> = random.numbers(length).iter().map(|x| size * x).collect();
            let d_y = random.numbers(length);
            let [y, d_x] = on_every_set(|simd| {
                let (mut y, mut d_x) = (vec![9.0; length], vec![9.0; length]);
                gelu::forward(simd, &mut y, &x, activation).unwrap();
                gelu::backward(simd, &mut d_x, &d_y, &x, activation).unwrap();
                [y, d_x]
            });
            let f = |x: &[f64]| -> Vec<f64> { x.iter().map(|x| gelu_f64(*x, activation)).collect() };
            let x = wide(&x);
            assert_near(&y, &f(&x), TIGHT, "y");
            let slope: Vec<f64> =
                x.iter().zip(&d_y).map(|(x, d_y)| differences(&[*x], &[*d_y], f)[0]).collect();
            assert_near(&d_x, &slope, TIGHT, "d_x");
        }
    }
}

#[test]
fn gelu_of_large_numbers_is_the_number_or_zero() {
    for simd in instruction_sets() {
        for activation in [Activation::Gelu, Activation::GeluTanh] {
            for x in [20.0, 1e3, 1e10, f32::MAX] {
                let (mut y, mut slope) = ([9.0; 2], [9.0; 2]);
                gelu::forward(simd, &mut y, &[x, -x], activation).unwrap();
                gelu::backward(simd, &mut slope, &[1.0; 2], &[x, -x], activation).unwrap();
                assert_eq!((y, slope), ([x, 0.0], [1.0, 0.0]), "{activation:?} at {x}");
            }
            let (mut y, mut slope) = ([9.0; 3], [9.0; 3]);
            let x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
            gelu::forward(simd, &mut y, &x, activation).unwrap();
            gelu::backward(simd, &mut slope, &[1.0; 3], &x, activation).unwrap();
            assert!(y[0] == f32::INFINITY && y[1] == 0.0 && y[2].is_nan(), "{activation:?}: {y:?}");
            assert!(slope[0] == 1.0 && slope[1] == 0.0 && slope[2].is_nan(), "{activation:?}: {slope:?}");
        }
    }
}

// cross_entropy

fn losses_f64(logits: &[f64], targets: &[i32], vocab: usize) -> Vec<f64> {
    let rows = logits.chunks(vocab).zip(targets);
    rows.map(|(row, target)| {
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = row.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln() + maximum;
        usize::try_from(*target).map_or(0.0, |target| log_sum - row[target])
    })
    .collect()
}

#[test]
fn cross_entropy_is_its_formula_and_its_gradient_is_its_slope() {
    let mut random = Random::new(25);
    for vocab in [2, 5, 16, 65] {
        let targets: Vec<i32> =
            (0..9).map(|i| if i % 4 == 3 { -1 } else { random.size(0, vocab - 1) as i32 }).collect();
        let logits: Vec<f32> = random.numbers(9 * vocab).iter().map(|x| 5.0 * x).collect();
        let counted = cross_entropy::count_targets(&targets, vocab).unwrap();
        assert_eq!(counted, 7);
        let [losses, again, d_logits] = on_every_set(|simd| {
            let (mut losses, mut again, mut d_logits) = (vec![9.0; 9], vec![9.0; 9], logits.clone());
            cross_entropy::forward(simd, &mut losses, &logits, &targets, vocab).unwrap();
            cross_entropy::backward(simd, &mut again, &mut d_logits, &targets, vocab, counted).unwrap();
            [losses, again, d_logits]
        });
        let logits = wide(&logits);
        assert_near(&losses, &losses_f64(&logits, &targets, vocab), TIGHT, "losses");
        assert_same_bits(&again, &losses, "backward's losses");
        let share = [1.0 / counted as f32; 9];
        let slope = differences(&logits, &share, |logits| losses_f64(logits, &targets, vocab));
        assert_near(&d_logits, &slope, 3e-6, "d_logits");
        for (i, target) in targets.iter().enumerate().filter(|(_, target)| **target == cross_entropy::IGNORED)
        {
            assert_eq!(losses[i], 0.0, "target {target}");
            assert!(d_logits[i * vocab..(i + 1) * vocab].iter().all(|d| *d == 0.0));
        }
    }
}

#[test]
fn a_row_with_a_nan_has_no_finite_loss() {
    for simd in instruction_sets() {
        for logits in [[f32::NAN, 1.0, 2.0], [1.0, f32::NAN, 2.0], [1.0, 2.0, f32::INFINITY]] {
            let mut losses = [0.0];
            cross_entropy::forward(simd, &mut losses, &logits, &[0], 3).unwrap();
            assert!(!losses[0].is_finite(), "{logits:?} gives {}", losses[0]);
            cross_entropy::backward(simd, &mut losses, &mut logits.clone(), &[0], 3, 1).unwrap();
            assert!(!losses[0].is_finite(), "{logits:?} gives {}", losses[0]);
        }
    }
}

#[test]
fn a_batch_of_ignored_targets_has_neither_loss_nor_gradient() {
    let (mut losses, mut logits) = ([9.0; 2], [1.0, 2.0, 3.0, 4.0]);
    cross_entropy::backward(InstructionSet::detect(), &mut losses, &mut logits, &[-1, -1], 2, 0).unwrap();
    assert_eq!((losses, logits), ([0.0; 2], [0.0; 4]));
}

// embedding

#[test]
fn embedding_adds_rows_and_its_gradients_count_them() {
    let mut random = Random::new(26);
    let (vocab, context) = (7, 5);
    // The last sequence may be shorter than the others.
    for (width, length, count) in [(3, 5, 15), (16, 4, 8), (33, 5, 13), (1, 1, 6)] {
        let tokens: Vec<i32> = (0..count).map(|_| random.size(0, vocab - 2) as i32).collect();
        let (wte, wpe) = (random.numbers(vocab * width), random.numbers(context * width));
        let d_x = random.numbers(count * width);
        let (before_wte, before_wpe) = (random.numbers(vocab * width), random.numbers(context * width));
        let [x, d_wte, d_wpe] = on_every_set(|simd| {
            let mut x = vec![9.0; count * width];
            embedding::forward(simd, &mut x, &tokens, &wte, &wpe, width, length).unwrap();
            let (mut d_wte, mut d_wpe) = (before_wte.clone(), before_wpe.clone());
            embedding::backward(simd, &mut d_wte, &mut d_wpe, &d_x, &tokens, width, length).unwrap();
            [x, d_wte, d_wpe]
        });
        let row = |i: usize| (tokens[i] as usize, i % length);
        let f = |wte: &[f64], wpe: &[f64]| -> Vec<f64> {
            (0..count * width)
                .map(|at| {
                    let (token, position) = row(at / width);
                    wte[token * width + at % width] + wpe[position * width + at % width]
                })
                .collect()
        };
        let (wte, wpe) = (wide(&wte), wide(&wpe));
        assert_near(&x, &f(&wte, &wpe), TIGHT, "x");
        let slope = differences(&wte, &d_x, |wte| f(wte, &wpe));
        assert_near(&d_wte, &added(&before_wte, &slope), TIGHT, "d_wte");
        let unused = (vocab - 1) * width..;
        assert_same_bits(&d_wte[unused.clone()], &before_wte[unused], "an unused token's gradient");
        let slope = differences(&wpe, &d_x, |wpe| f(&wte, wpe));
        assert_near(&d_wpe, &added(&before_wpe, &slope), TIGHT, "d_wpe");
    }
}

// dropout

fn mask(rate: f32, layer: u64) -> Option<Mask> {
    Mask::new(rate, 1234, Stream::AttentionDropout, 5, layer).unwrap()
}

/// The factors by which a mask multiplies a matrix `[rows, width]`.
fn factors(mask: Option<Mask>, rows: usize, width: usize, place: u64) -> Vec<f32> {
    let mut factors = vec![9.0; rows * width];
    let ones = vec![1.0; rows * width];
    jostle::ops::dropout::forward(InstructionSet::PORTABLE, &mut factors, &ones, width, mask, place).unwrap();
    factors
}

#[test]
fn dropout_multiplies_by_its_mask_in_both_directions() {
    let mut random = Random::new(27);
    for (rows, width) in [(1, 1), (5, 7), (3, 64), (40, 33)] {
        for rate in [0.0, 0.1, 0.5, 0.9] {
            let mask = mask(rate, 3);
            let (x, d_y) = (random.numbers(rows * width), random.numbers(rows * width));
            let [y, d_x] = on_every_set(|simd| {
                let (mut y, mut d_x) = (vec![9.0; rows * width], vec![9.0; rows * width]);
                jostle::ops::dropout::forward(simd, &mut y, &x, width, mask, 2).unwrap();
                jostle::ops::dropout::backward(simd, &mut d_x, &d_y, width, mask, 2).unwrap();
                [y, d_x]
            });
            let factors = factors(mask, rows, width, 2);
            let product = |x: &[f32]| -> Vec<f32> {
                x.iter().zip(&factors).map(|(x, f)| if *f == 0.0 { 0.0 } else { x * f }).collect()
            };
            assert_same_bits(&y, &product(&x), "y");
            assert_same_bits(&d_x, &product(&d_y), "d_x");
        }
    }
}

/// Moments without gradients decay, and so do weights. They would stay denormal, which is slow.
#[test]
fn numbers_that_decay_into_denormals_become_zero() {
    let decay = Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 1.0 };
    for optimizer in [decay, Optimizer::Sgd { momentum: 0.9 }] {
        let [x, state] = on_every_set(|simd| {
            let mut x =
                vec![1e-37, -1e-37, 1e-40, 1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, -1.0, 0.5];
            let mut state: Vec<f32> =
                (0..9 * optimizer.state().per_parameter()).map(|i| 1e-37 * i as f32).collect();
            let compute = Compute { simd, ..Compute::serial() };
            for step in 0..129 {
                optimizer
                    .update_tensor(compute, &mut x, &[0.0; 9], &mut state, true, step, 0.1, 1.0)
                    .unwrap();
            }
            [x, state]
        });
        assert!(x.iter().chain(&state).all(|x| !x.is_subnormal()), "{optimizer:?}: {x:?}, {state:?}");
        assert!(x[4].is_nan() && x[5] == f32::INFINITY && x[3] != 0.0 && x[7] != 0.0, "{optimizer:?}: {x:?}");
    }
}
