//! Processor-specific loops against the numerical contract, bit by bit.

use jostle::gradient_norm;
use jostle::ops::attention::{self, Attention};
use jostle::ops::dropout::Mask;
use jostle::ops::{embedding, gelu, layer_norm, softmax};
use jostle::rng::Stream;
use jostle::{Activation, Compute, InstructionSet, Optimizer};
use libm::fmaf;

use super::products::Random;

const SIMD: InstructionSet = InstructionSet::PORTABLE;
/// Elements of a row: more than two blocks of sixteen, so that every remainder occurs.
const WIDEST: usize = 37;
const ROWS: usize = 2;

type Rows = [f32; ROWS * WIDEST];

fn random<const N: usize>(random: &mut Random) -> [f32; N] {
    core::array::from_fn(|_| random.number())
}

/// A sum in the contract's order: sixteen partial sums and a tree.
fn sum(terms: impl Iterator<Item = f32>) -> f32 {
    let mut partial = [0.0_f32; 16];
    for (i, term) in terms.enumerate() {
        partial[i % 16] += term;
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            partial[i] += partial[i + half];
        }
    }
    partial[0]
}

fn equal(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The number of compared lengths, or the failure.
pub fn compare() -> Result<usize, (&'static str, usize)> {
    let mut numbers = Random(1181783497);
    for width in 1..=WIDEST {
        let same = |what, same: bool| if same { Ok(()) } else { Err((what, width)) };
        same("AdamW", adamw(&mut numbers, width, 0.7))?;
        same("AdamW without clipping", adamw(&mut numbers, width, 1.0))?;
        same("SGD", sgd(&mut numbers, width))?;
        norm(&mut numbers, width).map_err(|what| (what, width))?;
        same("a sum of products", products(&mut numbers, width))?;
        same("a sum of squares", squares(&mut numbers, width))?;
        same("a sum of two", embeddings(&mut numbers, width))?;
        same("GELU", activation(&mut numbers, width))?;
        same("softmax", softmax_of_row(&mut numbers, width))?;
        same("attention", attention_of_rows(&mut numbers, width))?;
    }
    Ok(WIDEST)
}

fn adamw(numbers: &mut Random, n: usize, factor: f32) -> bool {
    let [x, gradient, first, second]: [[f32; WIDEST]; 4] = core::array::from_fn(|_| random(numbers));
    let (beta1, beta2, epsilon, decay) = (0.875_f32, 0.9375_f32, 1e-8, 0.5);
    let optimizer = Optimizer::AdamW { beta1, beta2, epsilon, weight_decay: decay };
    let rate = 0.25;
    let (mut changed, mut state) = (x, [0.0; 2 * WIDEST]);
    state[..n].copy_from_slice(&first[..n]);
    state[n..2 * n].copy_from_slice(&second.map(f32::abs)[..n]);
    let done = optimizer.update_tensor(
        Compute::serial(),
        &mut changed[..n],
        &gradient[..n],
        &mut state[..2 * n],
        true,
        0,
        rate,
        factor,
    );
    let step_size = (f64::from(rate) / (1.0 - f64::from(beta1))) as f32;
    let scale = (1.0 / libm::sqrt(1.0 - f64::from(beta2))) as f32;
    done.is_ok()
        && equal(&changed[n..], &x[n..])
        && (0..n).all(|i| {
            let g = gradient[i] * factor;
            let m = first[i] * beta1 + g * (1.0 - beta1);
            let v = second[i].abs() * beta2 + g * g * (1.0 - beta2);
            let change = m / (libm::sqrtf(v) * scale + epsilon) * step_size;
            let x = x[i] * (1.0 - rate * decay) - change;
            equal(&[changed[i], state[i], state[n + i]], &[x, m, v])
        })
}

fn sgd(numbers: &mut Random, n: usize) -> bool {
    let [x, gradient]: [[f32; WIDEST]; 2] = core::array::from_fn(|_| random(numbers));
    let (optimizer, rate, mut changed) = (Optimizer::Sgd { momentum: 0.0 }, 0.3, x);
    let (compute, gradient) = (Compute::serial(), &gradient[..n]);
    let done = optimizer.update_tensor(compute, &mut changed[..n], gradient, &mut [], true, 0, rate, 1.0);
    done.is_ok()
        && equal(&changed[n..], &x[n..])
        && (0..n).all(|i| equal(&[changed[i]], &[x[i] - gradient[i] * rate]))
}

/// Forward and backward of rows of `n`, with a bias and without.
fn norm(numbers: &mut Random, n: usize) -> Result<(), &'static str> {
    const EPSILON: f32 = 1e-5;
    let all = ROWS * n;
    let [x, d_y, before]: [Rows; 3] = core::array::from_fn(|_| random(numbers));
    let [weight, bias]: [[f32; WIDEST]; 2] = core::array::from_fn(|_| random(numbers));
    let (weight, bias) = (&weight[..n], &bias[..n]);
    let [mut y, mut unbiased, mut d_x] = [before; 3];
    let ([mut mean, mut rstd], [mut d_weight, mut d_bias]) = ([[0.0; ROWS]; 2], [[1.5; WIDEST]; 2]);
    let done =
        layer_norm::forward(SIMD, &mut y[..all], &mut mean, &mut rstd, &x[..all], weight, bias, EPSILON)
            .and(layer_norm::forward(
                SIMD,
                &mut unbiased[..all],
                &mut mean,
                &mut rstd,
                &x[..all],
                weight,
                &[],
                EPSILON,
            ))
            .and(layer_norm::backward(SIMD, &mut d_x[..all], &d_y[..all], &x[..all], &mean, &rstd, weight))
            .and(layer_norm::backward_parameters(
                SIMD,
                &mut d_weight[..n],
                &mut d_bias[..n],
                &d_y[..all],
                &x[..all],
                &mean,
                &rstd,
            ));
    let (mut wanted_weight, mut wanted_bias) = ([1.5; WIDEST], [1.5; WIDEST]);
    let share = 1.0 / n as f32;
    let [mut wanted_y, mut wanted_unbiased, mut wanted_d_x] = [before; 3];
    for row in 0..ROWS {
        let of_row = row * n..row * n + n;
        let (x, d_y) = (&x[of_row.clone()], &d_y[of_row]);
        let average = sum(x.iter().copied()) * share;
        let variance = sum(x.iter().map(|x| (x - average) * (x - average))) * share;
        let deviation = 1.0 / libm::sqrtf(variance + EPSILON);
        if !equal(&[mean[row], rstd[row]], &[average, deviation]) {
            return Err("a norm's statistics");
        }
        let normed = |i: usize| (x[i] - average) * deviation;
        let d_mean = sum((0..n).map(|i| d_y[i] * weight[i])) * share;
        let d_scale = sum((0..n).map(|i| d_y[i] * weight[i] * normed(i))) * share;
        for i in 0..n {
            let at = row * n + i;
            wanted_unbiased[at] = normed(i) * weight[i];
            wanted_y[at] = wanted_unbiased[at] + bias[i];
            wanted_d_x[at] += (d_y[i] * weight[i] - d_mean - normed(i) * d_scale) * deviation;
            wanted_weight[i] += d_y[i] * normed(i);
            wanted_bias[i] += d_y[i];
        }
    }
    let found = [
        ("a norm", done.is_ok() && equal(&y, &wanted_y)),
        ("a norm without bias", equal(&unbiased, &wanted_unbiased)),
        ("a norm's gradient", equal(&d_x, &wanted_d_x)),
        ("a norm's weight's gradient", equal(&d_weight, &wanted_weight)),
        ("a norm's bias's gradient", equal(&d_bias, &wanted_bias)),
    ];
    found.iter().find(|(_, same)| !same).map_or(Ok(()), |(what, _)| Err(what))
}

fn products(numbers: &mut Random, n: usize) -> bool {
    let [y, d_y, mut d_x]: [[f32; WIDEST]; 3] = core::array::from_fn(|_| random(numbers));
    let done = softmax::backward(SIMD, &mut d_x[..n], &d_y[..n], &y[..n], n);
    let dot = sum(y.iter().zip(&d_y).take(n).map(|(y, d_y)| d_y * y));
    done.is_ok() && (0..n).all(|i| equal(&[d_x[i]], &[y[i] * (d_y[i] - dot)]))
}

fn squares(numbers: &mut Random, n: usize) -> bool {
    let x: [f32; WIDEST] = random(numbers);
    let sum = sum(x.iter().take(n).map(|x| x * x));
    equal(&[gradient_norm(Compute::serial(), &x[..n])], &[libm::sqrt(f64::from(sum)) as f32])
}

fn embeddings(numbers: &mut Random, n: usize) -> bool {
    let [wte, wpe, before]: [Rows; 3] = core::array::from_fn(|_| random(numbers));
    let (all, mut x) = (ROWS * n, before);
    let done = embedding::forward(SIMD, &mut x[..all], &[1, 0], &wte[..all], &wpe[..all], n, ROWS);
    done.is_ok()
        && equal(&x[all..], &before[all..])
        && (0..n).all(|i| equal(&[x[i], x[n + i]], &[wte[n + i] + wpe[i], wte[i] + wpe[n + i]]))
}

fn activation(numbers: &mut Random, n: usize) -> bool {
    let mut x: [f32; WIDEST] = random(numbers);
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 13.27, -13.28, 1e-30];
    for (x, special) in x.iter_mut().step_by(3).zip(special) {
        *x = special;
    }
    let mut y = x;
    let done = gelu::forward(SIMD, &mut y[..n], &x[..n], Activation::Gelu);
    let same = |y: f32, x: f32| y.to_bits() == gelu_of(x).to_bits() || y.is_nan() && x.is_nan();
    done.is_ok() && (0..n).all(|i| same(y[i], x[i])) && equal(&y[n..], &x[n..])
}

/// GELU, operation by operation.
fn gelu_of(x: f32) -> f32 {
    let below = if x.abs() > 13.27 { -13.27 } else { -x.abs() };
    let bell = exp_bounded(below * below * -0.5);
    let w = below / (3.0 - below);
    let square = w * w;
    let low = fmaf(square, fmaf(w, -0.147_988_006, 0.288_450_3), fmaf(w, 1.053_252_7, 1.196_828_7));
    let high = fmaf(square, 0.047_578_327, fmaf(w, 0.108_268_64, -0.019_222_023));
    let p = fmaf(square * square, high, low);
    let tail = bell * fmaf(w, p, 0.5);
    fmaf(below, tail, if x > 0.0 { x } else { 0.0 })
}

/// Exponentials of neighbours are normal, on the border, and zero.
fn softmax_of_row(numbers: &mut Random, n: usize) -> bool {
    let mut x: [f32; WIDEST] = random(numbers);
    for (x, special) in
        x.iter_mut().skip(2).step_by(3).zip([-85.5, -87.5, -95.0, -200.0, f32::NEG_INFINITY, -43.0])
    {
        *x = special;
    }
    let mut y = x;
    let done = softmax::forward(SIMD, &mut y[..n], n);
    let maximum = x[..n].iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let reciprocal = 1.0 / sum(x[..n].iter().map(|x| exp_of_negative(x - maximum)));
    done.is_ok()
        && equal(&y[n..], &x[n..])
        && (0..n).all(|i| equal(&[y[i]], &[exp_of_negative(x[i] - maximum) * reciprocal]))
}

/// Compares outputs, statistics and gradients of `n` positions with a second run, whose dropout drops one element of 2^31.
/// The loops of that run take one element at a time.
fn attention_of_rows(numbers: &mut Random, n: usize) -> bool {
    const WIDTH: usize = 4;
    let qkv: [f32; 3 * WIDTH * WIDEST] = random(numbers);
    let d_out: [f32; WIDTH * WIDEST] = random(numbers);
    let mut scratch = [0.0; attention::scratch(WIDEST, WIDTH)];
    let mask = Mask::new(1.0 / (1_u32 << 31) as f32, 1, Stream::AttentionDropout, 0, 0);
    let found = [Ok(None), mask].map(|mask| {
        let attention = Attention { heads: 1, kv_heads: 1, width: WIDTH, mask: mask?, sequence: 0 };
        let (mut out, mut stats) = ([0.0; WIDTH * WIDEST], [0.0; 2 * WIDEST]);
        let mut d_qkv = [0.0; 3 * WIDTH * WIDEST];
        let (out_n, stats_n) = (&mut out[..WIDTH * n], &mut stats[..2 * n]);
        let (qkv, d_out) = (&qkv[..3 * WIDTH * n], &d_out[..WIDTH * n]);
        let d_qkv_n = &mut d_qkv[..3 * WIDTH * n];
        attention::forward(SIMD, out_n, stats_n, qkv, attention, &mut scratch)?;
        attention::backward(SIMD, d_qkv_n, d_out, qkv, out_n, stats_n, attention, &mut scratch)?;
        Ok::<_, jostle::Error>((mask?.is_some(), out, stats, d_qkv))
    });
    let [Ok((false, out, stats, d_qkv)), Ok((true, wanted_out, wanted_stats, wanted_d_qkv))] = found else {
        return false;
    };
    equal(&out, &wanted_out) && equal(&stats, &wanted_stats) && equal(&d_qkv, &wanted_d_qkv)
}

fn exp_of_negative(x: f32) -> f32 {
    exp_bounded(x.max(-88.0))
}

/// The exponential, operation by operation.
fn exp_bounded(x: f32) -> f32 {
    let round = 12_582_912.0 + 127.0;
    let shifted = fmaf(x, core::f32::consts::LOG2_E, round);
    let n = shifted - round;
    let r = fmaf(n, 2.121_944_4e-4, fmaf(n, -0.693_359_4, x));
    let high = fmaf(r * r, 0.001_382_076, fmaf(r, 0.008_368_678, 0.041_668_266));
    let p = fmaf(r * r, high, fmaf(r, 0.166_665_21, 0.499_999_94));
    fmaf(r, fmaf(r, p, 1.0), 1.0) * f32::from_bits(shifted.to_bits() << 23)
}
